//! `selftest --dump`: one row as a folder that can be run without this program.

use std::{fmt::Write as _, path::Path};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    files::{folder::Folder, replace::replace_file},
    kernels::Case,
    machine::{
        binder::Access,
        gpu::Gpu,
        host::{POISON, is_unwritten},
    },
    selftest::{self, CaseData, Expected, OperandData, Report, build, describe},
};
use serde_json::{Map, Value, json};

use super::{
    super::{globals::Globals, terminal::out},
    choose::Chosen,
    translate::{ENTRY, Parsed, Translation},
};

/// The value of `format` in `dump.json`.
const FORMAT: &str = "grok-wgpu dump";
/// The version of that file; it rises when a key changes its meaning.
const VERSION: u64 = 1;

/// The page that runs a dump in a browser.
const PAGE: &str = include_str!("dump/run.html");
/// What the files are.
const README: &str = include_str!("dump/README.md");

/// Bytes that a binding is rounded up to: the size of the largest elements, eight `f32`.
const UNIT: usize = 32;

/// The error where several rows are chosen.
pub(super) fn several(cases: &[Case], chosen: &[Chosen]) -> Error {
    let names = chosen.iter().take(10).map(|one| format!("\n  --row '{}'", one.id(cases)));
    Error::Usage(format!("--dump writes one row, and {} are meant", chosen.len()))
        .with_hint(format!("One of these, for example: {}", names.collect::<String>()))
}

/// Files of a folder, by name.
type Files = Vec<(String, Vec<u8>)>;

/// Runs a row and writes all about it to a new folder.
///
/// # Errors
///
/// [`Error::Usage`] if there is something in the folder, [`Error::Io`] if it cannot be written;
/// [`Error::Verification`] if the row failed, after it was written.
pub(super) async fn run(
    globals: &Globals,
    folder: &Path,
    gpu: &mut Gpu,
    case: &Case,
    chosen: &Chosen,
) -> Result<()> {
    Folder::make_empty(folder)?;
    let report = match selftest::check(gpu, case, &chosen.value).await {
        Err(error) if error.is_of_device() => Err(error.to_string()),
        report => Ok(report?),
    };
    // Without guards around the operands, as another program will run it.
    let got = match selftest::outputs(gpu, case, &chosen.value).await {
        Err(error) if error.is_of_device() || matches!(error, Error::Verification(_)) => {
            Err(error.to_string())
        }
        got => Ok(got?),
    };
    let id = format!("{} [{}]", case.full_name(), chosen.tuning);
    let failure = failure(report.as_ref());
    let files = files(gpu, &id, &CaseData::of(case, &chosen.value)?, &report, &got);
    for (name, bytes) in &files {
        replace_file(&folder.join(name), bytes)?;
    }
    out(&if globals.json {
        let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
        let value = json!({
            "folder": folder.display().to_string(), "row": id, "failure": failure, "files": names,
        });
        format!("{value}\n")
    } else {
        let verdict =
            failure.as_ref().map_or_else(|| "passes".to_owned(), |f| format!("fails: {f}"));
        format!(
            "{id} {verdict}\n{} files are in {}; README.md there says what each is\n",
            files.len(),
            folder.display()
        )
    })?;
    match failure {
        None => Ok(()),
        Some(_) => Err(Error::Verification("the row failed, and was written".into())
            .with_hint(format!("Read README.md in {}.", folder.display()))),
    }
}

/// Why the row failed.
fn failure(report: Result<&Report, &String>) -> Option<String> {
    match report {
        Err(error) => Some(error.clone()),
        Ok(report) => report.failure.clone(),
    }
}

/// All files.
fn files(
    gpu: &Gpu,
    id: &str,
    data: &CaseData,
    report: &Result<Report, String>,
    got: &Result<Vec<Vec<u8>>, String>,
) -> Files {
    let dispatch = &data.dispatch;
    let shader = dispatch.shader;
    let mut files = Files::new();
    let wgsl = shader.enables() + &shader.source();
    files.push(("shader.wgsl".into(), wgsl.into_bytes()));
    let parsed = Parsed::of(&shader.source(), &dispatch.constants);
    let mut translated = Map::new();
    let mut size = Value::Null;
    match &parsed {
        Err(error) => drop(translated.insert("error".into(), error.as_str().into())),
        Ok(parsed) => {
            size = parsed.workgroup_size().into_iter().collect();
            for Translation { file, about, code, places } in parsed.translate() {
                let mut entry = json!({ "about": about, "places": places });
                match code {
                    Ok(bytes) => files.push((file.into(), bytes)),
                    Err(error) => entry["error"] = error.into(),
                }
                translated.insert(file.into(), entry);
            }
        }
    }

    let mut bindings = vec![params(data, &mut files)];
    let outputs = data.data.iter().filter(|operand| operand.expected.is_some());
    let outputs: Vec<&OperandData> = outputs.collect();
    for (binding, operand) in (1..).zip(&data.data) {
        let output = outputs.iter().position(|output| std::ptr::eq(*output, operand));
        let got = output.and_then(|at| got.as_ref().ok()?.get(at));
        bindings.push(binding_of(binding, operand, got, &mut files));
    }
    let report_json = report.as_ref().map_or(Value::Null, |report| {
        let wrong = report.wrong.as_ref().map(selftest::Wrong::json);
        json!({ "elements": report.elements, "wrong": wrong })
    });
    let features: Vec<&str> = shader.features.iter().map(|feature| feature.name()).collect();
    let constants: Map<String, Value> =
        dispatch.constants.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
    let mut dump = Map::new();
    dump.insert("format".into(), FORMAT.into());
    dump.insert("version".into(), VERSION.into());
    dump.insert("row".into(), id.into());
    dump.insert("build".into(), build());
    dump.insert("device".into(), describe(gpu.caps()).into());
    let rest = json!({
        "shader": "shader.wgsl",
        "linked": shader.linked().map(|file| file.path).collect::<Vec<_>>(),
        "entry_point": ENTRY,
        "constants": constants,
        "workgroup_size": size,
        "workgroups": dispatch.workgroups,
        "required_features": features,
        "translated": translated,
        "poison": POISON,
        "bindings": bindings,
        "failure": failure(report.as_ref()),
        "error": got.as_ref().err(),
        "result": report_json,
    });
    if let Value::Object(rest) = rest {
        dump.extend(rest);
    }
    let dump = Value::Object(dump);
    files.push(("dump.json".into(), format!("{dump:#}\n").into_bytes()));
    files.push(("README.md".into(), readme(id, &dump, &files).into_bytes()));
    files.push(("run.html".into(), PAGE.as_bytes().to_vec()));
    files
}

/// The uniform at binding 0.
fn params(data: &CaseData, files: &mut Files) -> Value {
    let dispatch = &data.dispatch;
    let mut bytes = dispatch.params.clone();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let fields = dispatch.fields.iter().map(|&(name, kind, offset)| {
        let word = dispatch.params.get(offset..offset + 4).and_then(|b| b.try_into().ok());
        let word = u32::from_le_bytes(word.unwrap_or_default());
        let value: Value = match kind {
            "f32" => f32::from_bits(word).into(),
            "i32" => word.cast_signed().into(),
            _ => word.into(),
        };
        json!({ "name": name, "type": kind, "offset": offset, "value": value })
    });
    let value = json!({
        "group": 0,
        "binding": 0,
        "name": "params",
        "type": "uniform",
        "bytes": bytes.len(),
        "fields": fields.collect::<Vec<_>>(),
        "initial": "0-params.bin",
    });
    files.push(("0-params.bin".into(), bytes));
    value
}

/// One operand: its buffer before the dispatch, and what is expected and was found after it.
fn binding_of(
    binding: usize,
    operand: &OperandData,
    got: Option<&Vec<u8>>,
    files: &mut Files,
) -> Value {
    let OperandData { operand, initial, expected } = operand;
    let tensor = operand.tensor;
    let name = format!("{binding}-{}", operand.name);
    let mut bytes = initial.clone();
    let size = bytes.len().max(1).next_multiple_of(UNIT);
    let poison = POISON.to_le_bytes();
    bytes.extend((bytes.len()..size).map(|at| poison[at % 4]));
    let mut value = json!({
        "group": 0,
        "binding": binding,
        "name": operand.name,
        "type": match operand.access {
            Access::Read => "read-only-storage",
            Access::Write => "storage",
            Access::Uniform => "uniform",
        },
        "elements": tensor.dtype.name(),
        "shape": tensor.shape.extents(),
        "bytes": size,
        "initial": format!("{name}.bin"),
    });
    files.push((format!("{name}.bin"), bytes));
    let Some(expected) = expected else { return value };
    let kept: Vec<usize> = match expected {
        Expected::Ints(ints) => {
            let words = ints.iter().map(|allowed| allowed.first().copied().unwrap_or(POISON));
            let several = ints.iter().enumerate().filter(|(_, allowed)| allowed.len() > 1);
            let also = several.map(|(at, allowed)| json!([at, allowed[1..]]));
            value["also"] = also.collect();
            value["expected"] = format!("{name}.expected.bin").into();
            let bytes = words.flat_map(u32::to_le_bytes).collect();
            files.push((format!("{name}.expected.bin"), bytes));
            ints.iter().enumerate().filter(|(_, a)| a.is_empty()).map(|(at, _)| at).collect()
        }
        Expected::Floats { values, bounds } => {
            let wide = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
            value["expected"] = format!("{name}.expected.f64.bin").into();
            value["bounds"] = format!("{name}.bound.f64.bin").into();
            files.push((format!("{name}.expected.f64.bin"), wide(values)));
            files.push((format!("{name}.bound.f64.bin"), wide(bounds)));
            if tensor.dtype == DType::F32 {
                let bytes = values.iter().flat_map(|&value| rounded(value).to_le_bytes());
                value["expected_f32"] = format!("{name}.expected.f32.bin").into();
                files.push((format!("{name}.expected.f32.bin"), bytes.collect()));
            }
            (0..values.len()).filter(|&at| is_unwritten(values[at])).collect()
        }
    };
    value["kept"] = kept.into();
    if let Some(got) = got {
        value["got"] = format!("{name}.got.bin").into();
        files.push((format!("{name}.got.bin"), got.clone()));
    }
    value
}

/// A value of the oracle as a device stores it; the poison where nothing is to be written.
fn rounded(value: f64) -> f32 {
    if is_unwritten(value) {
        return f32::from_bits(POISON);
    }
    grok_wgpu::lab::base::num::round(value)
}

/// The text of `README.md`: the template with what is known of this row.
fn readme(id: &str, dump: &Value, files: &Files) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut bindings = String::new();
    for binding in dump["bindings"].as_array().into_iter().flatten() {
        let shape = match (&binding["elements"], &binding["shape"]) {
            (Value::String(elements), shape) => format!("{elements} {shape}"),
            _ => "see `fields` in dump.json".into(),
        };
        let names = ["initial", "expected", "expected_f32", "bounds", "got"];
        let names = names.iter().filter_map(|name| binding[name].as_str());
        let _ = writeln!(
            bindings,
            "| {} | `{}` | {} | {shape} | {} | {} |",
            binding["binding"],
            text(&binding["name"]),
            text(&binding["type"]),
            binding["bytes"],
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" "),
        );
    }
    let translated = dump["translated"].as_object().into_iter().flatten().map(|(file, entry)| {
        let error = entry["error"].as_str().map(|error| format!(" **None: {error}**"));
        format!("- `{file}`: {}.{}\n", text(&entry["about"]), error.unwrap_or_default())
    });
    let verdict = match &dump["failure"] {
        Value::Null => "It passes on this adapter.".to_owned(),
        failure => format!("It fails: {}", text(failure)),
    };
    let place = dump["result"]["wrong"]["place"]["text"].as_str();
    let place = place.map_or(String::new(), |place| {
        let wrong = &dump["result"]["wrong"];
        format!("{} wrong, of {} to be written: {place}.", wrong["count"], wrong["of"])
    });
    let list = |value: &Value| match value.as_array() {
        Some(list) if !list.is_empty() => list.iter().map(text).collect::<Vec<_>>().join(", "),
        _ => "none".to_owned(),
    };
    let mut features = list(&dump["required_features"]);
    let subgroups = &dump["device"]["subgroups"];
    if features != "none" && !subgroups.is_null() {
        let (least, most) = (&subgroups["least"], &subgroups["most"]);
        let _ = write!(
            features,
            " (this device's have {least} to {most} invocations, and the constants are for that)"
        );
    }
    let constants = dump["constants"].as_object().into_iter().flatten();
    let constants: Vec<String> =
        constants.map(|(name, value)| format!("`{name}` = {value}")).collect();
    let subs = [
        ("{row}", id.to_owned()),
        ("{verdict}", verdict),
        ("{place}", place),
        ("{adapter}", text(&dump["device"]["adapter"]["summary"])),
        ("{features}", features),
        ("{engine}", text(&dump["build"]["engine"])),
        ("{wgpu}", text(&dump["build"]["wgpu"])),
        ("{constants}", if constants.is_empty() { "none".into() } else { constants.join(", ") }),
        ("{workgroup_size}", dump["workgroup_size"].to_string()),
        ("{workgroups}", dump["workgroups"].to_string()),
        ("{bindings}", bindings.trim_end().to_owned()),
        ("{translated}", translated.collect::<String>().trim_end().to_owned()),
        (
            "{sizes_buffer}",
            dump["translated"]["shader.metal"]["places"]["sizes_buffer"].to_string(),
        ),
        ("{sizes_of}", list(&dump["translated"]["shader.metal"]["places"]["sizes_of_bindings"])),
        ("{files}", files.len().to_string()),
    ];
    let fill = |page: String, (key, value): &(&str, String)| page.replace(key, value);
    subs.iter().fold(README.to_owned(), fill)
}
