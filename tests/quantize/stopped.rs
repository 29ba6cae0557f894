//! Folders that hold something: unfinished runs, models whose weights were replaced, disks without
//! room.

use std::path::Path;

use grok_wgpu::lab::{
    base::{error::Error, tensor::DType},
    checkpoint::{
        Synthetic,
        folder::write_checkpoint,
        quantize::{Outcome, Quantize},
        requantize::Choices,
        write::Layout,
    },
};
use pollster::block_on;

use super::{files, open, original, quantize, scratch, tiny, whole};

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    for (layout, label) in [(Layout::Single, "one"), (Layout::Indexed { shards: 4 }, "four")] {
        let straight = dir.path().join(label);
        let choices = || Choices::of(DType::Q4);
        let outcome = quantize(&from, &straight, choices(), layout, usize::MAX).expect("whole");
        assert_eq!(outcome.resumed, 0);
        for calls in [0, 1, 7, 30] {
            let to = dir.path().join(format!("{label}-{calls}"));
            // Interrupt the run twice, the second time a little later.
            for calls in [calls, calls + 3] {
                let error = quantize(&from, &to, choices(), layout, calls).expect_err("stopped");
                assert!(matches!(error, Error::Interrupted), "{error}");
                assert!(!to.join("config.json").exists(), "an unfinished copy has no name");
            }
            // A crash may leave a partial tensor, and half a line in the journal.
            for (name, mut bytes) in files(&to) {
                bytes.extend_from_slice(b"{\"file");
                std::fs::write(to.join(name), bytes).expect("written");
            }
            let again = quantize(&from, &to, choices(), layout, usize::MAX).expect("goes on");
            assert!(again.resumed >= calls, "{} of {calls}", again.resumed);
            assert!(files(&to) == files(&straight), "{label} {calls}");
            let losses = |outcome: &Outcome| -> Vec<_> {
                outcome
                    .kinds
                    .iter()
                    .map(|kind| (kind.kind, kind.loss, kind.worst.clone()))
                    .collect()
            };
            assert_eq!(losses(&again), losses(&outcome));
        }
    }
}

/// The room on the disk is compared with what is still to be written before anything is.
#[test]
fn a_copy_that_has_no_room_is_refused_at_first() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    std::fs::write(from.join("LICENSE"), vec![b'x'; 5000]).expect("written");
    for (layout, label) in [(Layout::Single, "one"), (Layout::Indexed { shards: 4 }, "four")] {
        let choices = || Choices::of(DType::Q4);
        let straight = dir.path().join(label);
        quantize(&from, &straight, choices(), layout, usize::MAX).expect("whole");
        let total: usize = files(&straight).values().map(Vec::len).sum();
        let (config, checkpoint) = open(&from);
        // The journal's lines; its own bytes are all that is not known before.
        let journal = 512 * checkpoint.tensors().count();
        let to = dir.path().join(format!("{label}-again"));
        let within = |room: usize, calls: usize| {
            let mut left = calls;
            let task =
                Quantize { from: &from, to: &to, choices: choices(), layout, importance: None };
            task.run_within(&|| Some(room as u64), &config, &checkpoint, &mut |_| {
                left = left.checked_sub(1).ok_or(Error::Interrupted)?;
                Ok(())
            })
        };
        let refused = |room: usize| {
            let error = within(room, usize::MAX).expect_err("no room");
            assert_eq!(error.code(), "io");
            let told = error.to_string();
            assert!(told.starts_with(&*to.to_string_lossy()), "{told}");
            assert!(told.contains(&format!("the disk has {room} B ({room} bytes)")), "{told}");
            assert!(error.hint().contains("Make room on that disk"), "{}", error.hint());
            told
        };
        let told = refused(10);
        assert!(told.contains(&format!("({} bytes), and the disk", total + journal)), "{told}");
        assert!(within(total + journal - 1, usize::MAX).is_err());
        // What an earlier run has written is not counted again.
        assert!(matches!(within(total + journal, 9), Err(Error::Interrupted)));
        let there: usize = files(&to)
            .iter()
            .filter(|(name, _)| name.as_str() != "quantize.journal")
            .map(|(_, bytes)| bytes.len())
            .sum();
        assert!(there > 0);
        assert!(within(total - there + journal, usize::MAX).is_ok());
        assert!(files(&to) == files(&straight));
    }
}

/// Overwrites bytes of a file with those of `all`, except where `keep` says so; the modification
/// time stays the same.
fn replace(path: &Path, all: &Path, keep: impl Fn(usize) -> bool) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
    let time = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    let mut bytes = std::fs::read(path).expect("a file");
    let others = std::fs::read(all).expect("a file");
    assert_eq!(bytes.len(), others.len());
    for (at, (byte, other)) in bytes.iter_mut().zip(&others).enumerate() {
        if !keep(at) {
            *byte = *other;
        }
    }
    std::fs::write(path, bytes).expect("written");
    file.set_modified(time).expect("its time");
}

/// Whether to keep the byte at an offset, in a file of some length.
type Keep = fn(usize, usize) -> bool;

#[test]
fn weights_that_were_replaced_are_not_mixed_with_the_earlier_ones() {
    let config = tiny("tiny");
    let single = |dir: &Path, seed| {
        let weights = Synthetic::new(&config, DType::BF16, seed).expect("weights");
        block_on(write_checkpoint(dir, &config, &weights, Layout::Single)).expect("written");
    };
    let dir = scratch();
    let other = dir.path().join("other");
    single(&other, 4);
    let choices = || Choices::of(DType::Q4);
    let name = "model.safetensors";
    let len = usize::try_from(std::fs::metadata(other.join(name)).expect("a file").len());
    let len = len.expect("small");
    // Different amounts of data are replaced, also where neither end of a file shows it.
    let ways: [(&str, Keep); 3] = [
        ("all", |_, _| false),
        ("the second half", |at, len| at < len / 2),
        ("one byte in the middle", |at, len| at != len / 2),
    ];
    for (number, (what, keep)) in ways.into_iter().enumerate() {
        for (layout, calls) in [(Layout::Single, 30), (Layout::Indexed { shards: 4 }, 31)] {
            let at = |name: &str| dir.path().join(format!("{name} {number} {calls}"));
            let from = at("from");
            single(&from, 3);
            let to = at("to");
            let stop = |calls| {
                let error = quantize(&from, &to, choices(), layout, calls).expect_err("stopped");
                assert!(matches!(error, Error::Interrupted), "{error}");
            };
            stop(calls);
            replace(&from.join(name), &other.join(name), |at| keep(at, len));
            // Interrupt it during the check of earlier output, and later.
            stop(2);
            stop(calls + 4);
            let again = quantize(&from, &to, choices(), layout, usize::MAX).expect("goes on");
            let fresh = at("fresh");
            let straight = quantize(&from, &fresh, choices(), layout, usize::MAX).expect("whole");
            assert_eq!((straight.resumed, straight.replaced), (0, 0));
            assert!(files(&to) == files(&fresh), "{what}, {layout:?}: a mixture");
            // The reported losses are those of the files.
            let losses = |outcome: &Outcome| -> Vec<_> {
                outcome.kinds.iter().map(|kind| (kind.kind, kind.loss)).collect()
            };
            assert_eq!(losses(&again), losses(&straight), "{what}");
        }
    }
}

#[test]
fn what_was_replaced_is_told_and_what_was_not_is_kept() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    let to = dir.path().join("to");
    let run = |calls| quantize(&from, &to, Choices::of(DType::Q8), Layout::Single, calls);
    run(20).expect_err("stopped");
    let same = run(usize::MAX).expect("goes on");
    assert_eq!((same.resumed, same.replaced), (20, 0));
    std::fs::remove_dir_all(&to).expect("removed");

    run(20).expect_err("stopped");
    let other = original(&dir.path().join("other"), &tiny("tiny"), DType::BF16);
    let weights = Synthetic::new(&tiny("tiny"), DType::BF16, 4).expect("weights");
    std::fs::remove_dir_all(&other).expect("removed");
    let layout = Layout::TensorParallel { slices: 2 };
    block_on(write_checkpoint(&other, &tiny("tiny"), &weights, layout)).expect("written");
    for (name, bytes) in files(&other) {
        std::fs::write(from.join(name), bytes).expect("written");
    }
    let again = run(usize::MAX).expect("begins anew");
    assert_eq!((again.resumed, again.replaced), (0, 20));

    // A journal without hashes, of an earlier version, cannot show that the input is unchanged.
    std::fs::remove_dir_all(&to).expect("removed");
    run(20).expect_err("stopped");
    let journal = to.join("quantize.journal");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    let old: Vec<String> = text
        .lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            for field in ["first", "rows", "sha256"] {
                value.as_object_mut().expect("an object").remove(field);
            }
            format!("{value}\n")
        })
        .collect();
    std::fs::write(&journal, old.concat()).expect("written");
    let again = run(usize::MAX).expect("begins anew");
    assert_eq!((again.resumed, again.replaced), (0, 20));
}

#[test]
fn nothing_is_overwritten() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    let to = dir.path().join("to");
    let refused = |to: &Path, choices: Choices| {
        let error = quantize(&from, to, choices, Layout::Single, usize::MAX).expect_err("refused");
        assert_eq!(error.code(), "usage", "{error}");
        error.to_string()
    };
    std::fs::create_dir(&to).expect("made");
    std::fs::write(to.join("letter.txt"), "dear").expect("written");
    assert!(refused(&to, Choices::of(DType::Q8)).contains("not empty"));
    assert!(refused(&from, Choices::of(DType::Q8)).contains("not empty"));
    assert_eq!(files(&to).len(), 1);

    let half = dir.path().join("half");
    quantize(&from, &half, Choices::of(DType::Q8), Layout::Single, 9).expect_err("stopped");
    let before = files(&half);
    assert!(refused(&half, Choices::of(DType::Q4)).contains("other options"));
    assert!(files(&half) == before);
    whole(&from, &half, Choices::of(DType::Q8));
    assert!(refused(&half, Choices::of(DType::Q8)).contains("not empty"));
}
