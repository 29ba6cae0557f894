//! Writes every row of the kernel table to a folder, for programs in other languages: inputs,
//! expected values, error bounds. Each kernel gets a JSON index and a binary blob.
//!
//! `cargo run -p grok-wgpu-tools --bin export_cases -- DIR [KERNEL] [--subgroups=LEAST,MOST]`
//!
//! `--subgroups` adds the variants for devices with subgroups of `LEAST` to `MOST` invocations; an
//! empty value adds none. Their rows have the sizes in `subgroups`, and their programs enable
//! subgroups.
//!
//! The index has the linked WGSL of each program once, with its `override` declarations; each row
//! has the values of its pipeline constants. Data is `[offset, bytes]` in the blob. Expected values
//! and bounds are f64, integers u32. `kept` lists elements that must keep the poison value; `also`
//! lists other integers that are allowed for an element, where rounding may decide a choice.

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::OsString,
    fs::File,
    io::{BufWriter, Error, Result, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use grok_wgpu::lab::{
    kernels::{self, Case},
    machine::{
        binder::Access,
        host::{POISON, is_unwritten},
    },
    selftest::{CaseData, Expected, OperandData, ways},
    variants::{Capabilities, Feature, Tuning},
};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let (options, words): (Vec<OsString>, Vec<OsString>) =
        std::env::args_os().skip(1).partition(|word| word.to_string_lossy().starts_with("--"));
    let subgroups = options.iter().try_fold(None, |_, option| sizes(&option.to_string_lossy()));
    let (folder, kernel, subgroups) = match (words.as_slice(), subgroups) {
        ([folder], Ok(subgroups)) => (PathBuf::from(folder), None, subgroups),
        ([folder, kernel], Ok(subgroups)) => {
            (PathBuf::from(folder), Some(kernel.to_string_lossy().into_owned()), subgroups)
        }
        (_, Err(error)) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
        _ => {
            eprintln!("usage: export_cases DIR [KERNEL] [--subgroups=LEAST,MOST]");
            return ExitCode::from(2);
        }
    };
    match export(&folder, kernel.as_deref(), subgroups) {
        Ok(0) => {
            eprintln!("error: no kernel is called {}", kernel.unwrap_or_default());
            ExitCode::from(2)
        }
        Ok(count) => {
            eprintln!("wrote {count} rows to {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            ExitCode::from(3)
        }
    }
}

/// Parses `--subgroups=LEAST,MOST`.
fn sizes(option: &str) -> Result<Option<(u32, u32)>> {
    let wrong = || Error::other(format!("`{option}` is not --subgroups=LEAST,MOST"));
    let sizes = option.strip_prefix("--subgroups=").ok_or_else(wrong)?;
    if sizes.is_empty() {
        return Ok(None);
    }
    let (least, most) = sizes.split_once(',').ok_or_else(wrong)?;
    let number = |text: &str| text.parse().map_err(|_| wrong());
    Ok(Some((number(least)?, number(most)?)))
}

fn export(folder: &Path, kernel: Option<&str>, subgroups: Option<(u32, u32)>) -> Result<usize> {
    std::fs::create_dir_all(folder)?;
    let cases = kernels::cases();
    let tunings = Tuning::all(&Capabilities { is_cpu: true, subgroups, ..Capabilities::default() });
    let mut count = 0;
    for cases in cases.chunk_by(|one, other| one.kernel == other.kernel) {
        let name = cases[0].kernel;
        if kernel.is_some_and(|kernel| kernel != name) {
            continue;
        }
        let mut blob = Blob::create(&folder.join(format!("{name}.bin")))?;
        let mut programs: Vec<String> = Vec::new();
        let mut rows = Vec::new();
        for case in cases {
            for (tuning, value) in ways(case, &tunings).map_err(Error::other)? {
                let row = row(case, (&tuning, &value), subgroups, &mut programs, &mut blob)?;
                rows.push(row);
            }
        }
        blob.file.flush()?;
        count += rows.len();
        let index = json!({ "kernel": name, "poison": POISON, "programs": programs, "rows": rows });
        let file = BufWriter::new(File::create(folder.join(format!("{name}.json")))?);
        serde_json::to_writer(file, &index)?;
    }
    Ok(count)
}

fn row(
    case: &Case,
    (tuning, value): (&str, &Tuning),
    subgroups: Option<(u32, u32)>,
    programs: &mut Vec<String>,
    blob: &mut Blob,
) -> Result<Value> {
    let CaseData { dispatch, data } = CaseData::of(case, value).map_err(Error::other)?;
    let source = dispatch.shader.enables() + &dispatch.shader.source();
    let program = programs.iter().position(|other| *other == source).unwrap_or_else(|| {
        programs.push(source);
        programs.len() - 1
    });
    let operands: Result<Vec<Value>> = data.iter().map(|data| operand(data, blob)).collect();
    Ok(json!({
        "name": case.name,
        "tuning": tuning,
        "subgroups": subgroups.filter(|_| dispatch.shader.features.contains(&Feature::Subgroups)),
        "program": program,
        "constants": dispatch.constants.iter().copied().collect::<HashMap<_, _>>(),
        "params": blob.put(&dispatch.params)?,
        "workgroups": dispatch.workgroups,
        "operands": operands?,
    }))
}

fn operand(data: &OperandData, blob: &mut Blob) -> Result<Value> {
    let operand = data.operand;
    let mut value = json!({
        "name": operand.name,
        "access": match operand.access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Uniform => "uniform",
        },
        "dtype": operand.tensor.dtype.name(),
        "shape": operand.tensor.shape.extents(),
        "initial": blob.put(&data.initial)?,
    });
    match &data.expected {
        None => {}
        Some(Expected::Ints(ints)) => {
            let kept: Vec<usize> = (0..ints.len()).filter(|&i| ints[i].is_empty()).collect();
            let first: Vec<u32> =
                ints.iter().map(|allowed| allowed.first().copied().unwrap_or(POISON)).collect();
            let several = ints.iter().enumerate().filter(|(_, allowed)| allowed.len() > 1);
            value["expected"] = blob.put(bytemuck::cast_slice(&first))?;
            value["kept"] = kept.into();
            value["also"] = several.map(|(i, allowed)| json!([i, allowed[1..]])).collect();
        }
        Some(Expected::Floats { values, bounds }) => {
            let kept: Vec<usize> = (0..values.len()).filter(|&i| is_unwritten(values[i])).collect();
            value["expected"] = blob.put(bytemuck::cast_slice(values))?;
            value["bounds"] = blob.put(bytemuck::cast_slice(bounds))?;
            value["kept"] = kept.into();
        }
    }
    Ok(value)
}

/// A file of byte strings, aligned to eight bytes and deduplicated.
struct Blob {
    file: BufWriter<File>,
    len: usize,
    known: HashMap<Vec<u8>, usize>,
}

impl Blob {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), len: 0, known: HashMap::new() })
    }

    /// Writes the bytes unless they are there; returns offset and length.
    fn put(&mut self, bytes: &[u8]) -> Result<Value> {
        let len = bytes.len();
        let at = match self.known.entry(bytes.to_vec()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let at = *new.insert(self.len);
                self.file.write_all(bytes)?;
                let padding = len.next_multiple_of(8) - len;
                self.file.write_all(&[0; 8][..padding])?;
                self.len += len + padding;
                at
            }
        };
        Ok(json!([at, len]))
    }
}
