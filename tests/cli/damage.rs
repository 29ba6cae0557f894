//! Weights that are not what was published: NaN and infinity, files that end in zeros.

use std::{fs, ops::Range, path::Path};

use grok_wgpu::lab::checkpoint::write::Layout;
use safetensors::SafeTensors;
use serde_json::json;

use super::{PROMPT, code, good, json, path, run, text_of, write_model};

const WEIGHTS: &str = "model.safetensors";

/// Overwrites bytes of a tensor of the folder's model; `range` says which, given their number.
pub(super) fn spoil(
    folder: &Path,
    tensor: &str,
    range: impl Fn(usize) -> Range<usize>,
    value: &[u8],
) {
    let file = folder.join(WEIGHTS);
    let mut bytes = fs::read(&file).expect("weights");
    let (header, metadata) = SafeTensors::read_metadata(&bytes).expect("a header");
    let (from, to) = metadata.info(tensor).expect("the tensor").data_offsets;
    let data = 8 + header + from;
    let range = range(to - from);
    for (at, value) in range.zip(value.iter().cycle()) {
        bytes[data + at] = *value;
    }
    fs::write(&file, bytes).expect("written");
}

/// The model's `hidden_size`.
fn width(folder: &Path) -> usize {
    let known = json(&["inspect", path(folder), "--no-device", "--json"]);
    let width = known["config"]["hidden_size"].as_u64().expect("a size");
    usize::try_from(width).expect("small")
}

const K: &str = "model.layers.1.self_attn.k_proj.weight";

#[test]
fn weights_that_are_not_finite_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    let cols = width(dir.path());
    let infinity = [0x80, 0xff];
    // Elements 5 of row 2 and 0 of row 3, of two bytes each.
    spoil(dir.path(), K, |_| 2 * (2 * cols + 5)..2 * (2 * cols + 5) + 2, &infinity);
    spoil(dir.path(), K, |_| 2 * 3 * cols..2 * 3 * cols + 2, &infinity);

    let generate = ["generate", path(dir.path()), PROMPT, "-n", "2"];
    assert_eq!(code(&generate, "checkpoint"), 3);
    let stderr = text_of(&run(&generate));
    let place = format!("`{K}` in {WEIGHTS}: element {} (row 2, column 5) is -inf", 2 * cols + 5);
    assert!(stderr.contains(&place), "{stderr}");
    assert!(stderr.contains("--allow-non-finite"), "{stderr}");
    // The model computes with it if it must, and the result is refused.
    assert_eq!(code(&[&generate[..], &["--allow-non-finite"]].concat(), "non_finite"), 1);

    good(&["inspect", path(dir.path()), "--no-device"]);
    let scan = run(&["inspect", path(dir.path()), "--no-device", "--scan"]);
    let stdout = String::from_utf8_lossy(&scan.stdout);
    let line = format!(
        "`{K}` in {WEIGHTS}: 2 elements are not finite, the first is element {} (row 2, column 5)",
        2 * cols + 5
    );
    assert!(stdout.contains(&line), "{stdout}");
    assert_eq!(scan.status.code(), Some(3), "{}", text_of(&scan));
    assert!(text_of(&scan).contains("1 tensors have numbers that are not finite"));
}

#[test]
fn scales_that_are_not_finite_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("q8");
    write_model(dir.path(), Layout::Single);
    let whole = good(&["quantize", path(dir.path()), path(&copy), "--type", "q8", "--json"]);
    assert!(!whole.is_empty());
    let scan = ["inspect", path(&copy), "--no-device", "--scan", "--json"];
    assert_eq!(json(&scan)["scan"]["findings"], json!([]));
    let cols = width(&copy);
    // The scale of the second block of the first row, after the row's integers.
    spoil(&copy, K, |_| cols + 2..cols + 4, &[0, 0x7e]);
    let generate = ["generate", path(&copy), PROMPT, "-n", "2"];
    assert_eq!(code(&generate, "checkpoint"), 3);
    let stderr = text_of(&run(&generate));
    assert!(stderr.contains(&format!("`{K}` in {WEIGHTS}: element 32 (row 0, column 32) is NaN")));
}

#[test]
fn a_file_that_ends_in_zeros_is_told_of() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    let inspect = ["inspect", path(dir.path()), "--no-device", "--scan", "--json"];
    let whole = run(&inspect);
    assert!(!text_of(&whole).contains("zeros"), "{}", text_of(&whole));

    let file = dir.path().join(WEIGHTS);
    let mut bytes = fs::read(&file).expect("weights");
    let len = bytes.len();
    bytes[len / 2..].fill(0);
    fs::write(&file, bytes).expect("written");
    let stderr = text_of(&run(&["generate", path(dir.path()), PROMPT, "-n", "1"]));
    assert!(stderr.contains(&format!("{WEIGHTS}: the last 64 KiB are zeros")), "{stderr}");
    let found = json(&inspect);
    let findings = found["scan"]["findings"].as_array().expect("a list");
    let zeros = |name: &str| {
        let finding = findings.iter().find(|finding| finding["name"] == name);
        finding.map(|finding| (finding["zero_rows"].clone(), finding["shape"][0].clone()))
    };
    let (rows, all) = zeros("lm_head.weight").expect("it is at the end");
    assert_eq!(rows, all);
    assert_eq!(zeros("model.embed_tokens.weight"), None, "it is at the beginning");
}

/// Files may claim what no memory holds. What is refused costs none.
#[cfg(target_os = "linux")]
#[test]
fn little_memory_is_enough_to_refuse_what_files_claim() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    let inspect = || {
        let mut command = std::process::Command::new("sh");
        let limited = r#"ulimit -v 600000; exec "$0" "$@""#;
        command.args(["-c", limited, env!("CARGO_BIN_EXE_grok-wgpu"), "inspect"]);
        command.args([path(dir.path()), "--no-device"]).output().expect("the shell starts")
    };
    assert!(inspect().status.success(), "{}", text_of(&inspect()));

    let whole: u64 = 1 << 40;
    let headers = [(100_000_000_u64, whole), (1 << 39, whole), (u64::MAX, 4096)];
    let claims = headers.map(|(header, len)| (WEIGHTS, header.to_le_bytes().to_vec(), len));
    let tokenizer = "tokenizer.tok.json";
    let texts = ["model.safetensors.index.json", tokenizer, "config.json"];
    for (name, start, len) in claims.into_iter().chain(texts.map(|name| (name, vec![], whole))) {
        let file = dir.path().join(name);
        let kept = fs::read(&file).ok();
        fs::write(&file, start).expect("written");
        // A hole takes no room on the disk.
        let sparse = fs::OpenOptions::new().write(true).open(&file).and_then(|f| f.set_len(len));
        sparse.expect("a file with a hole");
        let output = inspect();
        let told = text_of(&output) + &String::from_utf8_lossy(&output.stdout);
        // A model can be inspected without its tokenizer.
        let (code, word) = if name == tokenizer { (0, "cannot be used") } else { (3, "error[") };
        assert_eq!(output.status.code(), Some(code), "{name} of {len} bytes: {told}");
        assert!(told.contains(word) && told.contains(name), "{name}: {told}");
        match kept {
            Some(bytes) => fs::write(&file, bytes).expect("written"),
            None => fs::remove_file(&file).expect("removed"),
        }
    }
}
