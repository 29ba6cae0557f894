//! The journal of an unfinished quantized copy: a line that identifies the run, then one for each
//! tensor that is safely on disk.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    index,
    requantize::{Loss, Origin},
};
use crate::base::json::clipped;

/// A tensor that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Its name.
    pub name: String,
    /// Offset of the end of its data in the file.
    pub end: u64,
    /// Its quantization error.
    pub loss: Loss,
    /// The rows that it was converted from, with their hash.
    pub origin: Origin,
}

/// The contents of a journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    /// Tensors by file, in the order in which they were written.
    pub done: BTreeMap<String, Vec<Done>>,
    /// Bytes of the complete lines; 0 if there is none, not even the first.
    pub len: u64,
}

/// Why a journal cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It belongs to a run with another input or other options.
    Other,
    /// This line is invalid.
    Line(String),
}

impl Journal {
    /// Parses the journal of `run`. A last line without a line feed was cut off by a crash, and is
    /// ignored.
    ///
    /// # Errors
    ///
    /// The first problem. A file must be one beside the journal: no path can lead out of the
    /// folder.
    pub fn parse(text: &str, run: &str) -> Result<Self, Problem> {
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut journal = Self { done: BTreeMap::new(), len: whole.len() as u64 };
        let mut lines = whole.lines();
        let Some(first) = lines.next() else { return Ok(journal) };
        let first: Value = serde_json::from_str(first).unwrap_or_default();
        if first["run"] != run {
            return Err(Problem::Other);
        }
        for line in lines {
            let (file, done) = tensor(line).ok_or_else(|| Problem::Line(clipped(line)))?;
            journal.done.entry(file).or_default().push(done);
        }
        Ok(journal)
    }
}

/// The first line, which identifies the run.
pub(crate) fn first_line(run: &str) -> String {
    format!("{}\n", json!({ "run": run }))
}

/// The line of a tensor of `file`.
pub(crate) fn line(file: &str, done: &Done) -> String {
    let Done { name, end, loss: Loss { squares, error }, origin } = done;
    let fields = json!({
        "file": file,
        "tensor": name,
        "end": end,
        "squares": squares,
        "error": error,
        "first": origin.first,
        "rows": origin.rows,
        "sha256": origin.hash,
    });
    format!("{fields}\n")
}

/// Parses the line of a tensor: its file, and the tensor.
fn tensor(line: &str) -> Option<(String, Done)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |field: &str| value[field].as_str().map(str::to_owned);
    let loss = Loss { squares: value["squares"].as_f64()?, error: value["error"].as_f64()? };
    let end = value["end"].as_u64()?;
    let file = text("file").filter(|file| index::is_plain(file))?;
    // Journals of earlier versions have no origin; their tensors are written again.
    let number = |field: &str| value[field].as_u64().unwrap_or_default();
    let hash = text("sha256").unwrap_or_default();
    let origin = Origin { first: number("first"), rows: number("rows"), hash };
    Some((file, Done { name: text("tensor")?, end, loss, origin }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &str, end: u64) -> Done {
        let origin = Origin { first: 1, rows: 2, hash: "ab".into() };
        Done { name: name.into(), end, loss: Loss { squares: 0.1, error: 1e-9 }, origin }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = [
            first_line("ab"),
            line("a.safetensors", &done("x", 40)),
            line("b.safetensors", &done("y", 8)),
            line("a.safetensors", &done("z", 80)),
        ]
        .concat();
        let journal = Journal::parse(&text, "ab").expect("it was written");
        assert_eq!(journal.done["a.safetensors"], [done("x", 40), done("z", 80)]);
        assert_eq!(journal.done["b.safetensors"], [done("y", 8)]);
        assert_eq!(journal.len, text.len() as u64);
        // A crash cuts off the last line; what is left of it is ignored.
        let cut = Journal::parse(&text[..text.len() - 1], "ab").expect("whole lines");
        assert_eq!(cut.done["a.safetensors"], [done("x", 40)]);
        assert!(cut.len < journal.len);
        assert_eq!(Journal::parse("{\"run\"", "ab"), Ok(Journal::default()));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert_eq!(Journal::parse(&first_line("ab"), "cd"), Err(Problem::Other));
        assert_eq!(Journal::parse("nonsense\n", "ab"), Err(Problem::Other));
        for bad in ["{}", "[]", "x", r#"{"file":"a.safetensors","tensor":"x","end":-1}"#] {
            let told = Journal::parse(&format!("{}{bad}\n", first_line("ab")), "ab");
            assert_eq!(told, Err(Problem::Line(bad.into())));
        }
        for file in ["../a.safetensors", "/a.safetensors", "a\\b.safetensors", "config.json", ""] {
            let text = first_line("ab") + &line(file, &done("x", 1));
            assert!(matches!(Journal::parse(&text, "ab"), Err(Problem::Line(_))), "{file}");
        }
    }
}
