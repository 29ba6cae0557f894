//! `quantize --calibrate`: what it is worth, equal bytes, memory, and what is refused.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{PROMPT, code, good, json, model, path, run};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");

fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let of = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("a plain name");
        (name, fs::read(entry.path()).expect("a file"))
    };
    entries.map(of).collect()
}

/// With a text, 3.5 bits lose less of another part of it, in as many bytes. The same text gives the
/// same files.
#[test]
fn few_bits_lose_less_with_a_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let held_out = fs::read_to_string(Path::new(DEMO).join("heldout.txt")).expect("a text");
    let stories: Vec<&str> = held_out.split_inclusive("The end.").collect();
    let (first, last) = stories.split_at(4);
    let [scored, read] = ["scored.txt", "read.txt"].map(|name| dir.path().join(name));
    fs::write(&scored, first.concat()).expect("written");
    fs::write(&read, last.concat()).expect("written");

    let [plain, weighted, again] = ["plain", "weighted", "again"].map(|to| dir.path().join(to));
    good(&["quantize", DEMO, path(&plain), "--type", "q3"]);
    let calibrated = |to, more: &[&str]| -> Value {
        let args = ["quantize", DEMO, path(to), "--type", "q3", "--calibrate", path(&read)];
        json(&[&args[..], &["--calibrate-tokens", "1500", "--json"], more].concat())
    };
    let report = calibrated(&weighted, &[]);
    // The demo's files put nothing before a text.
    assert_eq!(report["calibration"]["tokens"], 1500, "{report}");
    assert_eq!(report["calibration"]["experts_not_reached"], 0);
    // Where the weights lie meanwhile makes no difference.
    calibrated(&again, &["--device-memory", "16MB"]);
    assert!(bytes(&weighted) == bytes(&again), "the same text gave other files");
    let size = |folder: &Path| bytes(folder)["model.safetensors"].len();
    assert_eq!(size(&plain), size(&weighted));

    let divergence = |folder: &Path| {
        let args = ["perplexity", path(folder), path(&scored), "--against", DEMO, "--json"];
        json(&args)["kl_divergence"]["mean"].as_f64().expect("nats")
    };
    let [plain, weighted] = [divergence(&plain), divergence(&weighted)];
    eprintln!("divergence {plain:.4} without a text, {weighted:.4} with one");
    assert!(weighted < plain, "{weighted}, {plain} without a text");
}

#[test]
fn what_cannot_be_calibrated_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let (long, short) = (file("long.txt", &PROMPT.repeat(40)), file("short.txt", "Hi."));
    let (empty, to) = (file("empty.txt", ""), dir.path().join("copy"));
    let args = |dtype: &'static str, text| {
        vec!["quantize", path(model()), path(&to), "--type", dtype, "--calibrate", text]
    };
    let told = |args: &[&str], what: &str| {
        let stderr = String::from_utf8(run(args).stderr).expect("text");
        assert!(stderr.contains(what) && stderr.contains("hint:"), "{what} in {stderr}");
        assert!(!to.exists(), "{what}: a folder was made");
    };
    told(&args("q2", path(&short)), "too few to calibrate with");
    told(&args("q2", path(&empty)), "0 tokens of");
    told(&[&args("q2", path(&long))[..], &["--calibrate-tokens", "9"]].concat(), "9 tokens of");
    told(&args("q8", path(&long)), "needs a type of 4 bits or fewer");
    told(&args("q2", "nowhere.txt"), "nowhere.txt");
    told(&[&args("q2", path(&long))[..], &["--device-memory", "1B"]].concat(), "device memory");
    assert_eq!(code(&args("q2", path(&short)), "usage"), 2);
    let alone = ["quantize", path(model()), path(&to), "--type", "q2", "--calibrate-tokens", "99"];
    assert_eq!(run(&alone).status.code(), Some(2));

    // Without a tokenizer there are no tokens.
    let bare = dir.path().join("bare");
    fs::create_dir(&bare).expect("made");
    for (name, bytes) in bytes(model()).iter().filter(|(name, _)| !name.contains("tokenizer")) {
        fs::write(bare.join(name), bytes).expect("written");
    }
    let mut without = args("q2", path(&long));
    without[1] = path(&bare);
    told(&without, "tokenizer");
    // A folder that is taken is told before the model reads anything.
    let mut taken = args("q2", path(&long));
    taken[2] = path(model());
    let stderr = String::from_utf8(run(&taken).stderr).expect("text");
    assert!(stderr.contains("not empty") && !stderr.contains("calibrated with"), "{stderr}");

    // A type of four bits for one kind is enough, and of this text a few tokens.
    let some = [&args("q8", path(&long))[..], &["--tensor", "dense=q4"]].concat();
    let some = [&some[..], &["--calibrate-tokens", "40", "--json"]].concat();
    assert_eq!(json(&some)["calibration"]["tokens"], 40);
}

/// A text that is twenty times as long takes no more memory.
#[cfg(target_os = "linux")]
#[test]
fn a_longer_text_takes_no_more_memory() {
    use std::{process::Stdio, time::Duration};

    let dir = tempfile::tempdir().expect("a folder");
    let text = dir.path().join("text.txt");
    fs::write(&text, PROMPT.repeat(4000)).expect("written");
    let peak = |tokens: &str| -> u64 {
        let to = dir.path().join(tokens);
        let mut command = super::program();
        command.args(["quantize", path(model()), path(&to), "--type", "q3", "--calibrate"]);
        command.args([path(&text), "--calibrate-tokens", tokens]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().expect("it is a child").is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(kib.unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.wait().expect("it has ended").success() && peak > 0);
        peak << 10
    };
    let [short, long] = [peak("600"), peak("12000")];
    eprintln!("{short} bytes at the most for 600 tokens, {long} for 12,000");
    // The ids and the text are held, some bytes for each token.
    assert!(long < short + (16 << 20), "{long} bytes, {short} for a twentieth of the text");
}
