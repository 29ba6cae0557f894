//! `selftest`: which rows are run, and the files for other programs.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use super::{code, good, json as json_of, path, run, text_of};

/// Names of rows, from `--list`.
fn list(args: &[&str]) -> Vec<String> {
    good(&[&["selftest", "--list"], args].concat()).lines().map(str::to_owned).collect()
}

fn rows(value: &Value) -> &Vec<Value> {
    value["rows"].as_array().expect("rows")
}

#[test]
fn one_kernel_passes_its_selftest() {
    let table = good(&["selftest", "--kernel", "gather", "--tuning", "all"]);
    assert!(table.contains("gather") && !table.contains("FAILED"), "{table}");
    let value = json_of(&["selftest", "--kernel", "gather", "--json"]);
    assert_eq!((&value["failures"], &value["format"]), (&0.into(), &"grok-wgpu selftest".into()));
    let row = &rows(&value)[0];
    assert_eq!(row["program"], "gather");
    assert!(row["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{row}");
    let digest = value["programs"]["gather"]["sha256"].as_str().expect("a digest");
    assert_eq!(digest.len(), 64);
    for key in ["name", "type", "vendor", "device", "backend", "driver", "driver_info"] {
        assert!(value["adapter"][key].is_string(), "{key}: {}", value["adapter"]);
    }
}

#[test]
fn rows_of_the_selftest_are_found_by_their_full_names() {
    for text in ["embed/BF16 index", "embed/bf16 INDEX"] {
        let value = json_of(&["selftest", "--case", text, "--json"]);
        let rows = rows(&value);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((&rows[0]["kernel"], &rows[0]["case"]), (&"embed".into(), &"BF16 index".into()));
    }
    assert_eq!(code(&["selftest", "--case", "embed/no such row"], "usage"), 2);
}

/// What is printed for a failed row runs that row and no other, though its name is a part of
/// others.
#[test]
fn a_row_is_run_alone() {
    let name = "rms_norm/1x8 normal";
    let contain = list(&["--kernel", "rms_norm", "--case", "1x8 normal"]);
    assert!(contain.len() > 1, "{contain:?}");
    let tuned = contain.iter().find(|id| id.starts_with(&format!("{name} ["))).expect("the row");
    for row in [name, tuned] {
        assert_eq!(list(&["--row", row]), std::slice::from_ref(tuned));
    }
    let value = json_of(&["selftest", "--row", tuned, "--json"]);
    assert_eq!(rows(&value).len(), 1);
    assert_eq!(rows(&value)[0]["row"], tuned.as_str());
    assert_eq!(value["models"], json!([]));
    let two = list(&["--row", &contain[0], "--row", &contain[1]]);
    assert_eq!(two, contain[..2]);
}

#[test]
fn rows_that_do_not_exist_are_refused() {
    assert_eq!(code(&["selftest", "--row", "rms_norm/1x8"], "usage"), 2);
    assert_eq!(code(&["selftest", "--row", "rms_norm/1x8 normal [no such way]"], "usage"), 2);
    assert_eq!(code(&["selftest", "--kernel", "gather", "--shard", "9999/9999"], "usage"), 2);
    assert_eq!(run(&["selftest", "--shard", "3/2"]).status.code(), Some(2));
    assert_eq!(run(&["selftest", "--kernel", "gather", "--row", "x"]).status.code(), Some(2));
}

#[test]
fn parts_have_every_row_once() {
    let all = list(&["--kernel", "matvec", "--tuning", "all"]);
    let value = json_of(&["selftest", "--list", "--kernel", "matvec", "--tuning", "all", "--json"]);
    assert_eq!(rows(&value).len(), all.len());
    assert_eq!(rows(&value)[0]["row"], all[0].as_str());
    assert!(rows(&value).iter().any(|row| row["variant"] == "lanes"));
    let parts = ["1/3", "2/3", "3/3"];
    let parts = parts.map(|part| list(&["--kernel", "matvec", "--tuning", "all", "--shard", part]));
    let sizes = parts.each_ref().map(Vec::len);
    assert!(sizes[0] - sizes[2] <= 1, "{sizes:?}");
    let joined: BTreeSet<String> = parts.into_iter().flatten().collect();
    assert_eq!(joined, all.iter().cloned().collect());
    assert_eq!(sizes.iter().sum::<usize>(), all.len());
}

#[test]
fn rows_that_are_known_to_fail_and_pass_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let known = folder.path().join("known.txt");
    let id = &list(&["--kernel", "gather"])[0];
    fs::write(&known, format!("# why\n{id}  # wrong\n")).expect("written");
    let [written, junit] = ["written.txt", "junit.xml"].map(|name| folder.path().join(name));
    let table = good(
        &[
            &["selftest", "--kernel", "gather", "--known", path(&known)][..],
            &["--write-known", path(&written), "--junit", path(&junit)],
        ]
        .concat(),
    );
    assert!(table.contains(&format!("PASSED, though it is known to fail: {id}\n")), "{table}");
    // Nothing failed, so the new list is empty.
    let written = fs::read_to_string(written).expect("written");
    assert!(written.lines().count() > 1 && written.lines().all(|line| line.starts_with('#')));
    let junit = fs::read_to_string(junit).expect("written");
    let count = list(&["--kernel", "gather"]).len();
    assert!(
        junit.contains(&format!("<testsuite name=\"gather\" tests=\"{count}\" failures=\"0\""))
    );
    assert_eq!(junit.matches("<testcase classname=\"gather\"").count(), count);
    fs::write(&known, "gather\n").expect("written");
    let args = ["selftest", "--kernel", "gather", "--known", path(&known)];
    assert_eq!(code(&args, "format"), 3);
    assert!(text_of(&run(&args)).contains("line 1"));
}

/// Writes a report as another run would have given it.
fn write(file: &Path, value: &Value) {
    fs::write(file, value.to_string()).expect("written");
}

#[test]
fn runs_are_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let [before, other] = ["before.json", "other.json"].map(|name| folder.path().join(name));
    let mut report = json_of(&["selftest", "--kernel", "gather", "--json"]);
    write(&before, &report);
    let args = ["selftest", "--kernel", "gather", "--compare", path(&before)];
    let table = good(&args);
    for line in ["0 rows fail and passed before", "0 rows are new", "0 rows are gone"] {
        assert!(table.contains(line), "{table}");
    }
    assert!(!table.contains("note:"), "{table}");

    // A run on another adapter, on which a row fails.
    report["rows"][1]["failure"] = "wrong".into();
    report["adapter"]["name"] = "Another".into();
    let id = report["rows"][1]["row"].as_str().expect("a name").to_owned();
    write(&other, &report);
    let both = ["selftest", "--compare", path(&before), path(&other)];
    let output = run(&both);
    assert_eq!(output.status.code(), Some(7));
    let table = String::from_utf8(output.stdout).expect("text");
    let count = rows(&report).len();
    for part in
        ["note: another adapter", &format!("    {id}\n"), &format!("1 of {count}"), "Another"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    // The other way around a row is mended.
    let turned = ["selftest", "--compare", path(&other), path(&before), "--json"];
    let value = json_of(&turned);
    assert_eq!(value["compared"][0]["passes"], json!([id]));
    assert_eq!(value["kernels"]["gather"][0]["failed"], 1);
    let value = json_of(&["selftest", "--kernel", "gather", "--compare", path(&other), "--json"]);
    assert_eq!(value["compared"]["passes"], json!([id]));

    let both = [&both[..], &["--kernel", "gather"]].concat();
    assert_eq!(code(&both, "usage"), 2);
    fs::write(&other, "{}").expect("written");
    assert_eq!(code(&["selftest", "--compare", path(&other)], "format"), 3);
}

/// The little-endian words of a file.
fn words<const N: usize>(file: &Path) -> Vec<[u8; N]> {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(bytes.len() % N, 0, "{}", file.display());
    bytes.chunks_exact(N).map(|word| word.try_into().expect("whole words")).collect()
}

#[test]
fn a_dump_needs_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("repro");
    let row = "matvec/Q4 9x5x1024 outliers";
    let said = good(&["selftest", "--row", row, "--dump", path(&dir)]);
    assert!(said.contains(" passes\n"), "{said}");
    let text = fs::read_to_string(dir.join("dump.json")).expect("it is there");
    let dump: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&dump["format"], &dump["failure"]), (&"grok-wgpu dump".into(), &Value::Null));
    assert!(dump["row"].as_str().is_some_and(|id| id.starts_with(&format!("{row} ["))));
    assert!(dump["workgroup_size"][0].as_u64().is_some_and(|size| size > 0));
    let wgsl = fs::read_to_string(dir.join("shader.wgsl")).expect("it is there");
    let constants = dump["constants"].as_object().expect("constants");
    assert!(!constants.is_empty() && constants.keys().all(|name| wgsl.contains(name)));

    let bindings = dump["bindings"].as_array().expect("bindings");
    let mut outputs = 0;
    for (at, binding) in bindings.iter().enumerate() {
        let file = |key: &str| dir.join(binding[key].as_str().expect(key));
        assert_eq!(binding["binding"], at);
        assert!(wgsl.contains(&format!("@binding({at})")));
        let bytes = fs::metadata(file("initial")).expect("it is there").len();
        assert_eq!(binding["bytes"], bytes, "{binding}");
        if binding["expected"].is_null() {
            continue;
        }
        outputs += 1;
        let got = words::<4>(&file("got")).into_iter().map(f32::from_le_bytes);
        let wanted = words::<8>(&file("expected")).into_iter().map(f64::from_le_bytes);
        let bounds = words::<8>(&file("bounds")).into_iter().map(f64::from_le_bytes);
        assert_eq!(got.len(), 45);
        for ((got, wanted), bound) in got.zip(wanted).zip(bounds) {
            assert!((f64::from(got) - wanted).abs() <= bound, "{got}, {wanted} within {bound}");
        }
    }
    assert_eq!(outputs, 1);
    for file in ["shader.spv", "shader.checked.spv"] {
        assert_eq!(words::<4>(&dir.join(file))[0], 0x0723_0203_u32.to_le_bytes(), "{file}");
    }
    for (file, has) in [("shader.metal", "[[buffer(0)]]"), ("shader.hlsl", "register(u0)")] {
        let text = fs::read_to_string(dir.join(file)).expect("it is there");
        assert!(text.contains(has), "{file}");
    }
    let readme = fs::read_to_string(dir.join("README.md")).expect("it is there");
    assert!(readme.contains("It passes on this adapter.") && !readme.contains('{'), "{readme}");
    assert!(dir.join("run.html").is_file());

    // Nothing is overwritten, and one row is one row.
    assert_eq!(code(&["selftest", "--row", row, "--dump", path(&dir)], "usage"), 2);
    let new = folder.path().join("new");
    let several = ["selftest", "--row", row, "--tuning", "all", "--dump", path(&new)];
    assert_eq!(code(&several, "usage"), 2);
    assert_eq!(run(&["selftest", "--dump", path(&new)]).status.code(), Some(2));
    assert!(!new.exists());
}
