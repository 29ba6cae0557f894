//! The report of a self-test, as one HTML page that a person can attach to a message.

use std::{collections::BTreeMap, fmt::Write};

use html_escape::encode_text as text;
use serde_json::{Value, json};

use super::{ModelReport, Report};
use crate::machine::{
    gpu::{Caps, Identity},
    shader::Shader,
};

/// Most failures that a page lists.
const SHOWN: usize = 100;

/// Most suspect files that are listed when rows fail.
const SUSPECTS: usize = 5;

/// The start of the page, up to the first section.
const HEAD: &str = include_str!("report_head.html");

/// The result of one row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the kernel, which is the stem of its files.
    pub kernel: &'static str,
    /// The row's name.
    pub case: String,
    /// Name of the tuning.
    pub tuning: String,
    /// The program.
    pub shader: Shader,
    /// Whether the result had to be exact.
    pub exact: bool,
    /// The result.
    pub report: Report,
}

impl Row {
    /// As JSON.
    pub fn json(&self) -> Value {
        let Report { elements, worst, failure } = &self.report;
        let mut row = json!({
            "kernel": self.kernel,
            "case": self.case,
            "tuning": self.tuning,
            "exact": self.exact,
            "elements": elements,
            // JSON has no infinity: `null` stands for it.
            "worst": worst.is_finite().then_some(worst),
        });
        if let Some(failure) = failure {
            row["failure"] = failure.as_str().into();
        }
        row
    }
}

/// How the report says to run a row again.
#[derive(Clone, Copy, Debug)]
pub enum Replay {
    /// With the command line program.
    Command,
    /// With the npm package.
    Package,
}

impl Replay {
    /// The command or call that runs this row alone, on this adapter.
    pub fn of(self, row: &Row, adapter: &str) -> String {
        let Row { kernel, case, tuning, .. } = row;
        match self {
            Self::Command => format!(
                "grok-wgpu selftest --adapter {} --kernel {kernel} --case {} --tuning {}",
                quoted(adapter),
                quoted(case),
                quoted(tuning),
            ),
            Self::Package => {
                let options = json!({ "kernel": kernel, "case": case });
                format!("await GrokWgpu.selftest({options})")
            }
        }
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A WGSL file that failed rows link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its path in the repository.
    pub file: &'static str,
    /// Number of failed rows that link it.
    pub failed: usize,
    /// Number of rows that link it.
    pub rows: usize,
}

impl Suspect {
    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "file": self.file, "failed": self.failed, "rows": self.rows })
    }
}

/// The results of a self-test.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The adapter and its limits.
    pub caps: Caps,
    /// Operating system and processor, or browser.
    pub system: String,
    /// The command or call that ran the self-test.
    pub command: String,
    /// How a row is run again.
    pub replay: Replay,
    /// The date, for people.
    pub date: String,
    /// The duration.
    pub seconds: f64,
    /// All rows, grouped by kernel.
    pub rows: Vec<Row>,
    /// The results of whole models.
    pub models: Vec<ModelReport>,
    /// Why the test stopped early, if it did.
    pub unfinished: Option<String>,
}

impl Summary {
    /// Number of failed rows and models.
    pub fn failures(&self) -> usize {
        self.failed_rows().count() + self.models.iter().filter(|m| m.failure.is_some()).count()
    }

    /// Whether everything ran and nothing failed.
    pub fn passed(&self) -> bool {
        self.failures() == 0 && self.unfinished.is_none()
    }

    fn failed_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.report.failure.is_some())
    }

    /// The HTML page: one file without external resources.
    pub fn html(&self) -> String {
        let verdict = if self.passed() { "pass" } else { "fail" };
        let checks = self.rows.len() + self.models.len();
        let headline = match (self.failures(), &self.unfinished) {
            (0, None) => format!("All {checks} checks passed"),
            (failures, None) => format!("{failures} of {checks} checks failed"),
            (failures, Some(_)) => {
                format!("The test did not end: {failures} of {checks} checks failed until then")
            }
        };
        let unfinished = self.unfinished.iter().map(|why| format!("<p>{}</p>", text(why)));
        let mut page = String::from(HEAD);
        let _ = writeln!(
            page,
            "<header class=\"{verdict}\"><p>grok-wgpu {} self-test</p><h1>{headline}</h1>\
             {}<p>{}</p></header>",
            env!("CARGO_PKG_VERSION"),
            unfinished.collect::<String>(),
            text(&self.caps.describe()),
        );
        self.failures_section(&mut page);
        self.plot_section(&mut page);
        self.kernels_section(&mut page);
        self.models_section(&mut page);
        self.adapter_section(&mut page);
        page + "</main>\n</html>\n"
    }

    /// Files that explain the failures best, most suspect first: rows that link them failed, and
    /// other rows passed.
    ///
    /// The measure is Ochiai's: the cosine between "links the file" and "failed" over all rows.
    pub fn suspects(&self) -> Vec<Suspect> {
        let mut files: BTreeMap<&'static str, Suspect> = BTreeMap::new();
        for row in &self.rows {
            for file in row.shader.linked() {
                let none = Suspect { file: file.path, failed: 0, rows: 0 };
                let suspect = files.entry(file.path).or_insert(none);
                suspect.rows += 1;
                suspect.failed += usize::from(row.report.failure.is_some());
            }
        }
        let all = self.failed_rows().count() as f64;
        let measure = |s: &Suspect| s.failed as f64 / (all * s.rows as f64).sqrt();
        let mut suspects: Vec<Suspect> =
            files.into_values().filter(|suspect| suspect.failed > 0).collect();
        suspects.sort_by(|a, b| measure(b).total_cmp(&measure(a)));
        suspects.truncate(SUSPECTS);
        suspects
    }

    fn suspects_section(&self, page: &mut String) {
        let suspects = self.suspects();
        if suspects.is_empty() {
            return;
        }
        page.push_str(
            "<section><h2>Where to look first</h2><p>Files of WGSL by how well they explain what \
             failed: rows that link the first of them failed, and rows that do not passed. If the \
             shaders are as released, it is what the driver makes of them.</p>\
             <div class=\"wide\"><table><thead><tr><th>file</th><th>rows that link it</th>\
             <th>of them failed</th></tr></thead><tbody>\n",
        );
        for Suspect { file, failed, rows } in suspects {
            let _ = writeln!(page, "<tr><th>{file}</th><td>{rows}</td><td>{failed}</td></tr>");
        }
        page.push_str("</tbody></table></div></section>\n");
    }

    fn failures_section(&self, page: &mut String) {
        if self.failures() == 0 {
            return;
        }
        self.suspects_section(page);
        page.push_str("<section><h2>What failed</h2>\n");
        for row in self.failed_rows().take(SHOWN) {
            let failure = row.report.failure.as_deref().unwrap_or_default();
            let _ = writeln!(
                page,
                "<article><h3>{kernel} <small>{} [{}]</small></h3><p>{}</p>\
                 <p>The shader is <code>shaders/kernels/{kernel}.wgsl</code>, with its main in \
                 <code>{}</code>; its reference is in <code>src/kernels/{kernel}.rs</code>. To run \
                 this row alone:</p>\
                 <pre>{}</pre></article>",
                text(&row.case),
                row.tuning,
                text(failure),
                row.shader.main(),
                text(&self.replay.of(row, &self.caps.name)),
                kernel = row.kernel,
            );
        }
        let more = self.failed_rows().count().saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(page, "<p>{more} more rows failed.</p>");
        }
        for model in &self.models {
            if let Some(failure) = &model.failure {
                let _ = writeln!(
                    page,
                    "<article><h3>{}</h3><p>{}</p></article>",
                    text(&model.name),
                    text(failure)
                );
            }
        }
        page.push_str("</section>\n");
    }

    /// Plots each row as a mark, by kernel, at its largest error as a fraction of the bound.
    fn plot_section(&self, page: &mut String) {
        const LEFT: f64 = 190.0;
        const WIDTH: f64 = 620.0;
        const LANE: usize = 22;
        // Powers of ten at the ends of the axis; marks beyond are drawn at the edge.
        const FROM: f64 = -4.0;
        const TO: f64 = 1.0;
        let at = |worst: f64| {
            let decade = worst.max(f64::MIN_POSITIVE).log10().clamp(FROM, TO);
            LEFT + (decade - FROM) / (TO - FROM) * WIDTH
        };
        let lanes = self.kernels().count();
        let height = lanes * LANE + 44;
        let _ = writeln!(
            page,
            "<section><h2>Error against bound</h2>\
             <p>Each mark is a row of a kernel: its largest error, as a fraction of what WGSL's \
             accuracy rules allow. Right of the line is wrong. Rows that are computed without any \
             rounding have no mark unless they fail.</p>\
             <svg viewBox=\"0 0 860 {height}\" role=\"img\" aria-label=\"Largest error of each row \
             as a fraction of its bound, by kernel\">"
        );
        for (decade, label) in
            [(-4.0, "0.0001"), (-3.0, "0.001"), (-2.0, "0.01"), (-1.0, "0.1"), (0.0, "bound")]
        {
            let x = at(10f64.powf(decade));
            let class = if decade == 0.0 { "bound" } else { "grid" };
            let bottom = lanes * LANE + 8;
            let _ = writeln!(
                page,
                "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"4\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
                bottom + 18
            );
        }
        for (lane, rows) in self.kernels().enumerate() {
            let y = lane * LANE + LANE / 2 + 6;
            let _ = write!(
                page,
                "<text class=\"name\" x=\"{:.1}\" y=\"{}\">{}</text>",
                LEFT - 12.0,
                y + 4,
                rows[0].kernel
            );
            // Marks closer than half a unit are merged, which bounds the size of the page.
            let mut places: Vec<(i64, bool)> = rows
                .iter()
                .filter(|row| row.report.worst > 0.0 || row.report.failure.is_some())
                .map(|row| (place(at(row.report.worst)), row.report.failure.is_some()))
                .collect();
            places.sort_unstable();
            places.dedup();
            if places.is_empty() {
                let _ = write!(
                    page,
                    "<text class=\"none\" x=\"{LEFT}\" y=\"{}\">no rounding in any row</text>",
                    y + 4
                );
            }
            for (place, failed) in places {
                let (class, size) = if failed { ("bad", 5) } else { ("mark", 3) };
                let x = place as f64 / 2.0;
                let _ =
                    write!(page, "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{size}\"/>");
            }
            page.push('\n');
        }
        page.push_str("</svg></section>\n");
    }

    fn kernels_section(&self, page: &mut String) {
        page.push_str(
            "<section><h2>Kernels</h2><div class=\"wide\"><table><thead><tr><th>kernel</th>\
             <th>rows</th><th>without rounding</th><th>elements</th><th>largest error / bound</th>\
             <th>failed</th></tr></thead><tbody>\n",
        );
        for rows in self.kernels() {
            let totals = Totals::of(rows);
            let class = if totals.failed > 0 { " class=\"fail\"" } else { "" };
            let _ = writeln!(
                page,
                "<tr{class}><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td>\
                 <td>{}</td></tr>",
                rows[0].kernel,
                totals.rows,
                totals.exact,
                totals.elements,
                totals.worst,
                totals.failed
            );
        }
        page.push_str("</tbody></table></div></section>\n");
    }

    fn models_section(&self, page: &mut String) {
        if self.models.is_empty() {
            return;
        }
        page.push_str(
            "<section><h2>Whole models</h2><p>Logits against those of an independent program in \
             f64.</p><div class=\"wide\"><table><thead><tr><th>model</th>\
             <th>largest difference</th><th>allowed</th></tr></thead><tbody>\n",
        );
        for model in &self.models {
            let class = if model.failure.is_some() { " class=\"fail\"" } else { "" };
            let _ = writeln!(
                page,
                "<tr{class}><th>{}</th><td>{:.1e}</td><td>{:.0e}</td></tr>",
                text(&model.name),
                model.worst,
                model.most
            );
        }
        page.push_str("</tbody></table></div></section>\n");
    }

    fn adapter_section(&self, page: &mut String) {
        let seconds = format!("{:.1} s", self.seconds);
        let Identity { ids, kind, backend, driver } = self.caps.identity();
        page.push_str("<section><h2>Adapter and run</h2><div class=\"wide\"><table><tbody>\n");
        for (name, value) in [
            ("adapter", self.caps.name.as_str()),
            ("kind", &kind),
            ("backend", &backend),
            ("driver", driver.trim()),
            ("vendor and device", &ids),
            ("system", &self.system),
            ("command", &self.command),
            ("date", &self.date),
            ("time taken", &seconds),
        ] {
            let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", text(value));
        }
        page.push_str(
            "</tbody></table><table><thead><tr><th>limit</th><th>device</th><th>adapter</th></tr>\
             </thead><tbody>\n",
        );
        for (name, device, adapter) in self.caps.named_limits() {
            let _ = writeln!(page, "<tr><th>{name}</th><td>{device}</td><td>{adapter}</td></tr>");
        }
        page.push_str("</tbody></table></div></section>\n");
    }

    /// The rows, grouped by kernel.
    pub fn kernels(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|one, other| one.kernel == other.kernel)
    }
}

/// Totals over some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Number of rows.
    pub rows: usize,
    /// Number of rows that had to be exact.
    pub exact: usize,
    /// Number of elements compared.
    pub elements: usize,
    /// Largest error, as a fraction of the bound.
    pub worst: f64,
    /// Number of failed rows.
    pub failed: usize,
}

impl Totals {
    /// Adds up `rows`.
    pub fn of(rows: &[Row]) -> Self {
        Self {
            rows: rows.len(),
            exact: rows.iter().filter(|row| row.exact).count(),
            elements: rows.iter().map(|row| row.report.elements).sum(),
            worst: rows.iter().map(|row| row.report.worst).fold(0.0, f64::max),
            failed: rows.iter().filter(|row| row.report.failure.is_some()).count(),
        }
    }
}

/// Rounds a coordinate of the plot to half units.
#[expect(clippy::cast_possible_truncation, reason = "the plot is some hundred units wide")]
fn place(x: f64) -> i64 {
    (2.0 * x).round() as i64
}
