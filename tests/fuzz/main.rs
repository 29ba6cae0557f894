//! Fuzzing of file readers with small mutations of valid files: no panics, and the guarantees that
//! `fuzz/targets.rs` checks.
//!
//! Mutations are the same in every run. A failing input is saved, and the message says where.
//! Copied to the seeds, it runs first; it should stay there once the bug is fixed.

#[path = "../common/full.rs"]
mod full;
mod mutate;
#[path = "../../fuzz/targets.rs"]
mod targets;

use std::{
    fs, panic,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mutate::{Mutator, Stream};
use targets::{TARGETS, Target};

/// Mutations for each target: more with `scripts/test --full`.
fn mutations() -> u64 {
    let full = full::is_full();
    if full { 100_000 } else { 20_000 }
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).expect("each target has a folder of seeds");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("a file"));
    paths.into_iter().map(read).collect()
}

/// Runs a target on an input. On a panic, saves the input and says how to run it again.
fn survives(target: &str, run: Target, input: &[u8], what: &str) -> bool {
    panic::catch_unwind(|| run(input)).unwrap_or_else(|_| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
        fs::write(&path, input).expect("a scratch folder");
        let start = &input[..input.len().min(400)];
        panic!(
            "{target} panics at {what}, which is in {}; it begins \"{}\"\n\
             to run it again: cp {} fuzz/seeds/{target}/ && cargo test --test fuzz {target}",
            path.display(),
            start.escape_ascii(),
            path.display()
        )
    })
}

/// Runs all seeds, then mutations of them. Some must be accepted and some refused: otherwise the
/// mutations are too small or too large to find anything.
#[expect(clippy::print_stdout, reason = "for whoever runs it with --nocapture")]
fn fuzz(target: &str) {
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    // Refused seeds are inputs of earlier panics; their mutations would hardly get further.
    let good: Vec<Vec<u8>> = seeds(target)
        .into_iter()
        .filter(|(path, seed)| survives(target, run, seed, &path.display().to_string()))
        .map(|(_, seed)| seed)
        .collect();
    let mut mutator = Mutator::new(&good, Stream::new(target));
    let (mut accepted, mut slowest) = (0, Duration::ZERO);
    let mutations = mutations();
    for n in 0..mutations {
        let input = mutator.next();
        let started = Instant::now();
        accepted += u64::from(survives(target, run, &input, &format!("change {n}")));
        slowest = slowest.max(started.elapsed());
    }
    println!("{mutations} inputs, {accepted} accepted, the slowest took {slowest:.1?}");
    assert!(
        (mutations / 200..mutations * 19 / 20).contains(&accepted),
        "{accepted} of them are accepted"
    );
}

macro_rules! fuzz {
    ($($target:ident)*) => {
        $(#[test] fn $target() { fuzz(stringify!($target)); })*

        /// The tests here, the programs for libFuzzer and the list of targets have the same names.
        #[test]
        fn every_target_is_run() {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("its manifest");
            let names = [$(stringify!($target)),*];
            assert_eq!(TARGETS.map(|(name, _)| name), names);
            let files = fs::read_dir(root.join("fuzz_targets")).expect("libFuzzer's programs");
            assert_eq!(files.count(), names.len());
            for name in names {
                let path = format!("fuzz_targets/{name}.rs");
                assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{path}\"\n")));
                let program = fs::read_to_string(root.join(path)).expect("libFuzzer's program");
                assert!(program.contains(&format!("targets::{name}(")), "{program}");
            }
        }
    };
}

fuzz! {
    safetensors gguf config tok_json tokenizer_json sentence_piece index tuning journal pickle
    listing
}
