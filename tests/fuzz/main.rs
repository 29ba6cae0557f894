//! Readers of files against many small changes of good ones: no panic, and what `fuzz/targets.rs`
//! says of each.
//!
//! The changes are the same in every run. A failure leaves its input in a file and says where;
//! beside the seeds it is run first, and belongs there when the bug is mended.

mod mutate;
#[path = "../../fuzz/targets.rs"]
mod targets;

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

use mutate::{Mutator, Stream};
use targets::{TARGETS, Target};

/// Changes for each target.
const MUTATIONS: u64 = 20_000;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).expect("each target has a folder of seeds");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("a file"));
    paths.into_iter().map(read).collect()
}

/// Runs a target over an input. If it panics, keeps the input and says how to run it again.
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

/// All seeds, and then changes of them. Both what is accepted and what is refused must occur, or
/// the changes are too large or too small to find anything.
fn fuzz(target: &str) {
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    // Those that are refused are what a reader once panicked at: there is little behind them.
    let good: Vec<Vec<u8>> = seeds(target)
        .into_iter()
        .filter(|(path, seed)| survives(target, run, seed, &path.display().to_string()))
        .map(|(_, seed)| seed)
        .collect();
    let mut mutator = Mutator::new(&good, Stream::new(target));
    let mut accepted = 0;
    for n in 0..MUTATIONS {
        let input = mutator.next();
        accepted += u64::from(survives(target, run, &input, &format!("change {n}")));
    }
    assert!(
        (MUTATIONS / 200..MUTATIONS * 19 / 20).contains(&accepted),
        "{accepted} of them are accepted"
    );
}

macro_rules! fuzz {
    ($($target:ident)*) => {
        $(#[test] fn $target() { fuzz(stringify!($target)); })*

        /// What is tested here, what libFuzzer is given, and the list are the same.
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

fuzz! { safetensors gguf config tok_json tokenizer_json index tuning journal }
