//! The report of a self-test, as one HTML page that a person can attach to a message.

use std::fmt::Write;

use html_escape::encode_text as text;

use super::{
    Element, Wrong,
    report::{Replay, Row, Summary, Suspect, Totals},
};
use crate::machine::gpu::{Identity, WGPU};

/// Most failures that a page lists.
const SHOWN: usize = 100;

/// The start of the page, up to the first section.
const HEAD: &str = include_str!("report_head.html");

impl Summary {
    /// The HTML page: one file without external resources.
    pub fn html(&self) -> String {
        let verdict = if self.passed() { "pass" } else { "fail" };
        let (checks, known) = (self.checks(), self.known_failures());
        let headline = match (self.failures(), &self.unfinished) {
            (0, None) if known > 0 => {
                format!("Nothing new failed: {known} of {checks} checks are known to fail")
            }
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
        self.known_section(&mut page);
        self.plot_section(&mut page);
        self.kernels_section(&mut page);
        self.models_section(&mut page);
        self.adapter_section(&mut page);
        page + "</main>\n</html>\n"
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
        if matches!(self.replay, Replay::Command) {
            page.push_str(
                "<p>With <code>--dump DIR</code> the command of a row writes its shader, its \
                 inputs and its results to a folder, for programs other than this one.</p>\n",
            );
        }
        for row in self.failed_rows().take(SHOWN) {
            let failure = row.report.failure.as_deref().unwrap_or_default();
            let _ = writeln!(
                page,
                "<article><h3>{kernel} <small>{} [{}]</small></h3><p>{}</p>{}\
                 <p>The shader is <code>shaders/kernels/{stem}.wgsl</code>, with its main in \
                 <code>{}</code>; its reference is in <code>src/kernels/{stem}.rs</code>. To run \
                 this row alone:</p>\
                 <pre>{}</pre></article>",
                text(&row.case),
                row.tuning,
                text(failure),
                row.report.wrong.as_ref().map(values).unwrap_or_default(),
                row.shader.main(),
                text(&self.replay.of(row, &self.caps)),
                kernel = row.kernel,
                stem = row.shader.own.stem(),
            );
        }
        let more = self.failed_rows().count().saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(page, "<p>{more} more rows failed.</p>");
        }
        for model in self.failed_models() {
            let _ = writeln!(
                page,
                "<article><h3>{}</h3><p>{}</p></article>",
                text(&model.name),
                text(model.failure.as_deref().unwrap_or_default())
            );
        }
        page.push_str("</section>\n");
    }

    /// Rows that were expected to fail, and those of them that passed.
    fn known_section(&self, page: &mut String) {
        let (known, passed) = (self.known_failures(), self.known_passes());
        if known == 0 && passed.is_empty() {
            return;
        }
        let _ = writeln!(
            page,
            "<section><h2>Known failures</h2><p>{known} failed as expected, and {} passed that \
             were expected to fail.</p><ul>",
            passed.len()
        );
        for id in passed.iter().take(SHOWN) {
            let _ = writeln!(page, "<li>passes: {}</li>", text(id));
        }
        let failed = self.rows.iter().filter(|row| row.known && row.report.failure.is_some());
        for row in failed.take(SHOWN) {
            let _ = writeln!(page, "<li>fails: {}</li>", text(&row.id()));
        }
        page.push_str("</ul></section>\n");
    }

    /// Plots each row as a mark, by kernel, at its largest error as a fraction of the bound.
    fn plot_section(&self, page: &mut String) {
        const LEFT: f64 = 190.0;
        const WIDTH: f64 = 620.0;
        const LANE: usize = 22;
        // Powers of ten at the ends of the axis; marks beyond are drawn at the edge.
        const FROM: f64 = -6.0;
        const TO: f64 = 1.0;
        let at = |worst: f64| {
            let decade = worst.max(f64::MIN_POSITIVE).log10().clamp(FROM, TO);
            LEFT + (decade - FROM) / (TO - FROM) * WIDTH
        };
        // Failed kernels first, then by the largest error.
        let mut kernels: Vec<&[Row]> = self.kernels().collect();
        let key = |rows: &[Row]| (Totals::of(rows).failed, Totals::of(rows).worst);
        kernels.sort_by(|a, b| {
            let ((failed, worst), (other, less)) = (key(a), key(b));
            other.cmp(&failed).then(less.total_cmp(&worst))
        });
        let lanes = kernels.len();
        let height = lanes * LANE + 44;
        let _ = writeln!(
            page,
            "<section><h2>Error against bound</h2>\
             <p>Each mark is a row of a kernel: its largest error, as a fraction of what WGSL's \
             accuracy rules allow. Right of the line is wrong. Rows without any error have no \
             mark.{}</p>\
             <svg viewBox=\"0 0 860 {height}\" role=\"img\" aria-label=\"Largest error of each row \
             as a fraction of its bound, by kernel\">",
            self.rounded_note()
        );
        for (decade, label) in [
            (-6.0, "1e-6"),
            (-4.0, "1e-4"),
            (-3.0, "0.001"),
            (-2.0, "0.01"),
            (-1.0, "0.1"),
            (0.0, "bound"),
        ] {
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
        for (lane, rows) in kernels.into_iter().enumerate() {
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
                    "<text class=\"none\" x=\"{LEFT}\" y=\"{}\">no error in any row</text>",
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

    /// What stored values have to do with errors, if there are any.
    fn rounded_note(&self) -> String {
        match self.rounded() {
            0 => String::new(),
            rounded => format!(
                " Values that are stored in a coarser type than f32 have no part in this, as they \
                 can only be one neighbour of the exact value or the other: {rounded} are the one \
                 that is not the nearest, which is allowed where the f32 before lay near the \
                 middle."
            ),
        }
    }

    fn kernels_section(&self, page: &mut String) {
        page.push_str(
            "<section><h2>Kernels</h2><div class=\"wide\"><table><thead><tr><th>kernel</th>\
             <th>rows</th><th>that must be exact</th><th>elements</th>\
             <th>largest error / bound</th><th>failed</th><th>time</th></tr></thead><tbody>\n",
        );
        for rows in self.kernels() {
            let totals = Totals::of(rows);
            let class = if totals.failed > 0 { " class=\"fail\"" } else { "" };
            let _ = writeln!(
                page,
                "<tr{class}><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td>\
                 <td>{}</td><td>{:.2} s</td></tr>",
                rows[0].kernel,
                totals.rows,
                totals.exact,
                totals.elements,
                totals.worst,
                totals.failed,
                totals.seconds
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
        let Identity { vendor, device, kind, backend, driver, driver_info } = self.caps.identity();
        let subgroups = match self.caps.subgroups {
            None => "none".to_owned(),
            Some((least, most)) if least == most => format!("of {least} invocations"),
            Some((least, most)) => format!("of {least} to {most} invocations"),
        };
        let commit = option_env!("GROK_WGPU_COMMIT").map_or(String::new(), |c| format!(", {c}"));
        page.push_str("<section><h2>Adapter and run</h2><div class=\"wide\"><table><tbody>\n");
        for (name, value) in [
            ("adapter", &self.caps.name),
            ("kind", &kind),
            ("backend", &backend),
            ("driver", &format!("{driver} {driver_info}").trim().to_owned()),
            ("vendor and device", &format!("{vendor:04x}:{device:04x}")),
            ("features of the device", &self.caps.features().join(", ")),
            ("subgroups", &subgroups),
            ("system", &self.system),
            ("program", &format!("grok-wgpu {}{commit}, wgpu {WGPU}", env!("CARGO_PKG_VERSION"))),
            ("command", &self.command),
            ("date", &self.date),
            ("time taken", &format!("{:.1} s", self.seconds)),
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
        page.push_str(
            "<section><details><summary>Programs, with the SHA-256 of their WGSL</summary>\
             <div class=\"wide\"><table><tbody>\n",
        );
        for (shader, digest) in self.programs() {
            let _ = writeln!(
                page,
                "<tr><th>{}</th><td><code>{digest}</code></td></tr>",
                text(&shader.label())
            );
        }
        page.push_str("</tbody></table></div></details></section>\n");
    }
}

/// The first wrong element and the farthest as a table, and where all of them lie.
fn values(wrong: &Wrong) -> String {
    let row = |name: &str, element: &Element| {
        let Element { at, got, expected, bound, ulps } = element;
        let bits = |bits: &Option<String>| bits.clone().unwrap_or_else(|| "–".into());
        format!(
            "<tr><th>{name}, {at:?}</th><td>{}<br><code>{}</code></td><td>{}<br><code>{}</code>\
             </td><td>{}</td><td>{}</td></tr>",
            text(&got.text),
            bits(&got.bits),
            text(&expected.text),
            bits(&expected.bits),
            bound.map_or("–".into(), |bound| format!("{bound:.3e}")),
            ulps.map_or("–".into(), |ulps| ulps.to_string()),
        )
    };
    let Wrong { count, of, place, first, farthest, .. } = wrong;
    let mut rows = row("first", first);
    if farthest != first {
        rows += &row("farthest", farthest);
    }
    format!(
        "<p>{count} wrong, of {of} to be written: {}</p><div class=\"wide\"><table><thead><tr>\
         <th>element</th><th>got</th><th>expected</th><th>allowed</th><th>ULP apart</th></tr>\
         </thead><tbody>{rows}</tbody></table></div>",
        text(&place.to_string())
    )
}

/// Rounds a coordinate of the plot to half units.
#[expect(clippy::cast_possible_truncation, reason = "the plot is some hundred units wide")]
fn place(x: f64) -> i64 {
    (2.0 * x).round() as i64
}
