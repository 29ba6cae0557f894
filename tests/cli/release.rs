//! Grok-1's first release in the commands.

use crate::{code, good, json, path};

#[test]
fn the_first_release_of_grok_1_is_a_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("q8");
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/release");
    let (release, expected) = (format!("{data}/model/ckpt-0"), format!("{data}/expected"));

    let known = json(&["inspect", &release, "--no-device", "--json"]);
    let other = json(&["inspect", &expected, "--no-device", "--json"]);
    assert_eq!(known["tensors"], other["tensors"]);
    assert_eq!(known["config"], other["config"]);
    let shown = good(&["inspect", &release, "--no-device", "--all"]);
    assert!(shown.contains("26 files"), "{shown}");

    let ids = ["--ids", "5,17,3"];
    let logits = |model: &str| good(&[&["logits", model][..], &ids].concat());
    assert_eq!(logits(&release), logits(&expected));

    json(&["quantize", &release, path(&copy), "--type", "q8", "--json"]);
    let known = json(&["inspect", path(&copy), "--no-device", "--json"]);
    assert_eq!(known["tensors"]["kinds"]["expert"]["types"], serde_json::json!(["Q8"]));
    assert!(!logits(path(&copy)).is_empty());

    // Without its configuration, and cut short.
    let broken = dir.path().join("ckpt-0");
    std::fs::create_dir(&broken).expect("a folder");
    std::fs::write(broken.join("tensor00000_000"), b"\x80\x04cos\nsystem\n.").expect("written");
    assert_eq!(code(&["inspect", path(&broken), "--no-device"], "checkpoint"), 3);
}
