//! `inspect --scan`: signs of damage in the weights.

use std::time::Instant;

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::size,
    },
    checkpoint::{
        ModelFiles,
        scan::{Finding, scan},
    },
    files::Source,
};
use serde_json::{Value, json};

use super::{signals, terminal::Terminal};

/// What a scan found.
pub(super) struct Scan {
    findings: Vec<Finding>,
    bytes: u64,
    seconds: f64,
}

impl Scan {
    /// Reads all weights, with a progress bar.
    pub(super) async fn run(files: &ModelFiles<impl Source>, terminal: Terminal) -> Result<Self> {
        let bytes = files.bytes();
        let bar = terminal.bar("reading", bytes, true);
        let started = Instant::now();
        let mut progress = |done| {
            bar.set_position(done);
            signals::check_interrupt()
        };
        let findings = scan(files, &mut progress).await;
        bar.finish_and_clear();
        Ok(Self { findings: findings?, bytes, seconds: started.elapsed().as_secs_f64() })
    }

    /// Lines for people.
    pub(super) fn describe(&self) -> String {
        let mut lines = vec![
            "\nScan".to_owned(),
            format!("  all weights were read: {} in {:.2} s", size(self.bytes), self.seconds),
        ];
        if self.non_finite() == 0 {
            lines.push("  all numbers are finite".into());
        }
        for finding in &self.findings {
            let files = finding.files.join(", ");
            for sentence in finding.sentences() {
                lines.push(format!("  `{}` in {files}: {sentence}", finding.name));
            }
        }
        lines.join("\n")
    }

    pub(super) fn to_json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "name": finding.name,
                "files": finding.files,
                "shape": finding.shape,
                "non_finite": finding.non_finite,
                "first": finding.first.map(|(at, value)| json!([at, value.to_string()])),
                "zero_rows": finding.zero_rows,
            })
        });
        json!({
            "bytes": self.bytes,
            "seconds": self.seconds,
            "findings": findings.collect::<Value>(),
        })
    }

    /// An error if there are numbers that are not finite.
    pub(super) fn verdict(&self, files: &ModelFiles<impl Source>) -> Result<()> {
        match self.non_finite() {
            0 => Ok(()),
            count => {
                let problem = format!("{count} tensors have numbers that are not finite");
                Err(Error::Checkpoint { path: files.path().into(), problems: vec![problem] })
            }
        }
    }

    fn non_finite(&self) -> usize {
        self.findings.iter().filter(|finding| finding.non_finite > 0).count()
    }
}
