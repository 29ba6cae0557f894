//! Lists of rows that are known to fail, as a file with one row a line.

use std::{cell::RefCell, collections::HashSet, fmt::Write as _, path::Path};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::native::read_text,
    machine::gpu::WGPU,
    selftest::Summary,
};
use pollster::block_on;

/// Bytes of the longest file that is read.
const MAX: u64 = 16 << 20;

/// The rows of a file.
pub(super) struct Known {
    lines: Vec<Line>,
    /// Places of the lines that meant something.
    used: RefCell<HashSet<usize>>,
    /// What lines without `*` say.
    plain: HashSet<String>,
}

struct Line {
    number: usize,
    text: String,
}

impl Known {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if a line is no row.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = block_on(read_text(path, MAX))?;
        Self::parse(&text).map_err(|what| {
            Error::format(path, what).with_hint(
                "A line is KERNEL/NAME [TUNING], without [TUNING] for all of them; * stands for \
                 any text, and # begins a comment. `--write-known FILE` writes such a file.",
            )
        })
    }

    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            // A comment begins a line or follows a space.
            let comment = line.match_indices('#').map(|(at, _)| at);
            let comment = comment
                .into_iter()
                .find(|&at| at == 0 || line[..at].ends_with(char::is_whitespace));
            let text = line[..comment.unwrap_or(line.len())].trim();
            if text.is_empty() {
                continue;
            }
            if !text.contains('/') && !text.contains('*') {
                return Err(format!("line {number}: `{text}` is not the name of a row"));
            }
            lines.push(Line { number, text: text.to_owned() });
        }
        let plain = lines.iter().filter(|line| !line.text.contains('*'));
        let plain = plain.map(|line| line.text.clone()).collect();
        Ok(Self { lines, used: RefCell::default(), plain })
    }

    /// Whether a row of this name, `KERNEL/NAME [TUNING]`, is known to fail.
    pub(super) fn has(&self, id: &str) -> bool {
        // A row's own name may end with brackets as well, but the last are the tuning's.
        let untuned = id.rfind(" [").map_or(id, |at| &id[..at]);
        let exact = self.plain.contains(id) || self.plain.contains(untuned);
        let mut any = false;
        for (at, line) in self.lines.iter().enumerate() {
            let glob = line.text.contains('*');
            if (glob || exact) && (matches(&line.text, id) || matches(&line.text, untuned)) {
                self.used.borrow_mut().insert(at);
                any = true;
            }
        }
        any
    }

    /// Lines that no call of [`Known::has`] found.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let unused = self.lines.iter().enumerate().filter(|(at, _)| !used.contains(at));
        unused.map(|(_, line)| format!("line {}, `{}`,", line.number, line.text)).collect()
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A file of all that failed, each row with its failure as a comment.
pub(super) fn of(summary: &Summary) -> String {
    let mut text = format!(
        "# Rows that fail on {}\n\
         # as of {}, with grok-wgpu {} and wgpu {WGPU}.\n\
         # A line is KERNEL/NAME [TUNING], without [TUNING] for all of them; * is any text.\n",
        summary.caps.describe(),
        summary.date,
        env!("CARGO_PKG_VERSION"),
    );
    let rows = summary.rows.iter().map(|row| (row.id(), &row.report.failure));
    let models = summary.models.iter().map(|model| (model.id(), &model.failure));
    for (id, failure) in rows.chain(models) {
        if let Some(failure) = failure {
            let first = failure.lines().next().unwrap_or_default();
            let _ = writeln!(text, "{id}   # {first}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_rows() {
        let known = Known::parse(
            "# all\n\na/x [gpu]  # why\n  b/y\nc/*big* [spread 8]\n*/z [cpu]\nr/of [1, 2] [gpu]\n\
             n/o",
        )
        .expect("lines");
        for id in [
            "a/x [gpu]",
            "b/y [gpu]",
            "b/y [spread 8]",
            "c/a big one [spread 8]",
            "k/z [cpu]",
            "r/of [1, 2] [gpu]",
        ] {
            assert!(known.has(id), "{id}");
        }
        for id in
            ["a/x [cpu]", "a/xx [gpu]", "b/yy [gpu]", "c/a big one [gpu]", "r/of [1, 2] [cpu]"]
        {
            assert!(!known.has(id), "{id}");
        }
        assert_eq!(known.unused(), ["line 8, `n/o`,"]);
        assert!(Known::parse("rms_norm\n").is_err_and(|what| what.contains("line 1")));
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, wanted) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("a**b", "ab", true),
            ("ab*bc", "abc", false),
            ("a*b*c", "a-b-b-c", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
