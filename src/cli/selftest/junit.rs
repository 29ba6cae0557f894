//! The results in the form of `JUnit`, which continuous integration reads: a suite for each kernel.

use std::fmt::Write as _;

use grok_wgpu::lab::{
    machine::gpu::WGPU,
    selftest::{ModelReport, Row, Summary, Totals},
};
use html_escape::{encode_double_quoted_attribute as attribute, encode_text};

/// The results as XML.
pub(super) fn xml(summary: &Summary) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"grok-wgpu selftest\" \
         tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n",
        summary.checks(),
        summary.failures(),
        summary.known_failures(),
        summary.seconds
    );
    for rows in summary.kernels() {
        let known = rows.iter().filter(|row| row.known && row.report.failure.is_some()).count();
        let Totals { rows: count, failed, seconds, .. } = Totals::of(rows);
        open(&mut xml, summary, rows[0].kernel, [count, failed - known, known], seconds);
        for row in rows {
            let Row { kernel, case, tuning, seconds, known, report, .. } = row;
            let name = format!("{case} [{tuning}]");
            let failure = report.failure.as_ref().map(|failure| {
                let extent = report.wrong.as_ref().map(|wrong| wrong.extent() + "\n");
                let replay = summary.replay.of(row, &summary.caps);
                (failure.as_str(), format!("{}{replay}", extent.unwrap_or_default()))
            });
            case_of(&mut xml, kernel, &name, *seconds, *known, failure);
        }
        xml.push_str("</testsuite>\n");
    }
    if !summary.models.is_empty() {
        let failed = summary.failed_models().count();
        let all = summary.models.iter();
        let known = all.filter(|model| model.known && model.failure.is_some()).count();
        open(&mut xml, summary, "model", [summary.models.len(), failed, known], 0.0);
        for ModelReport { name, failure, known, .. } in &summary.models {
            let failure = failure.as_deref().map(|failure| (failure, String::new()));
            case_of(&mut xml, "model", name, 0.0, *known, failure);
        }
        xml.push_str("</testsuite>\n");
    }
    if let Some(why) = &summary.unfinished {
        let why = attribute_of(why);
        let _ = writeln!(
            xml,
            "<testsuite name=\"end\" tests=\"1\" errors=\"1\"><testcase classname=\"end\" \
             name=\"the test ended\"><error message=\"{why}\"/></testcase></testsuite>"
        );
    }
    xml + "</testsuites>\n"
}

fn open(xml: &mut String, summary: &Summary, name: &str, counts: [usize; 3], seconds: f64) {
    let [tests, failures, skipped] = counts;
    let _ = writeln!(
        xml,
        "<testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" \
         skipped=\"{skipped}\" time=\"{seconds:.3}\" timestamp=\"{}\">\n<properties>\
         <property name=\"adapter\" value=\"{}\"/><property name=\"program\" value=\"grok-wgpu {}, \
         wgpu {WGPU}\"/></properties>",
        summary.date.trim_end_matches('Z'),
        attribute_of(&summary.caps.describe()),
        env!("CARGO_PKG_VERSION"),
    );
}

/// One test; `failure` has a message and more text.
fn case_of(
    xml: &mut String,
    class: &str,
    name: &str,
    seconds: f64,
    known: bool,
    failure: Option<(&str, String)>,
) {
    let name = attribute_of(name);
    let _ = write!(xml, "<testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds:.3}\"");
    let _ = match failure {
        None => writeln!(xml, "/>"),
        Some((message, _)) if known => writeln!(
            xml,
            "><skipped message=\"known to fail: {}\"/></testcase>",
            attribute_of(message)
        ),
        Some((message, text)) => writeln!(
            xml,
            "><failure message=\"{}\">{}</failure></testcase>",
            attribute_of(message),
            encode_text(&legal(&text))
        ),
    };
}

/// Text inside of quotes.
fn attribute_of(text: &str) -> String {
    attribute(&legal(text)).into_owned()
}

/// Text without the characters that XML 1.0 cannot have, even escaped.
fn legal(text: &str) -> String {
    let legal = |c: char| match c {
        '\t' | '\n' | '\r' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        _ => !c.is_control(),
    };
    text.chars().map(|c| if legal(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_have_is_replaced() {
        assert_eq!(attribute_of("a<b & \"c\"\u{1b}"), "a&lt;b &amp; &quot;c&quot;\u{fffd}");
    }
}
