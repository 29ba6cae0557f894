//! Malformed GGUF files give errors and never panics, whatever their headers claim, and so do reads
//! that fail.

use std::{cell::Cell, rc::Rc};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{
        Gguf, Synthetic,
        gguf::header::{Problem, parse},
    },
    model::{
        config::{Compat, Config},
        schema,
        weights::Weights as _,
    },
};
use pollster::block_on;

use crate::{
    failing::Failing,
    writer::{Memory, Tensor, Writer, converted, text},
};

fn small() -> Writer {
    let mut file = Writer::default();
    file.text("general.architecture", "grok");
    file.int("a.number", 7);
    file.texts("a.list", ["x", "yy"]);
    file.ints("some.numbers", &[1, 2]);
    for name in ["one", "two"] {
        let tensor = Tensor { shape: vec![3, 8], ty: 0, bytes: vec![1; 96] };
        file.tensors.insert(name.into(), tensor);
    }
    file
}

fn bad(bytes: &[u8]) -> String {
    match parse(bytes, bytes.len() as u64) {
        Err(Problem::Bad(what)) => what,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_truncation_is_told() {
    let (header, bytes) = small().header_and_file();
    assert!(parse(&bytes, bytes.len() as u64).is_ok());
    for len in 0..bytes.len() {
        let told = bad(&bytes[..len]);
        assert!(told.contains("truncated"), "{len}: {told}");
    }
    // The parser asks for more bytes as long as the header is incomplete.
    for len in 0..header {
        assert_eq!(parse(&bytes[..len], bytes.len() as u64).err(), Some(Problem::Short), "{len}");
    }
    assert!(parse(&bytes[..header], bytes.len() as u64).is_ok());
}

/// Replaces the first `from` in a file.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("is there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn eight(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

#[test]
fn huge_claims_are_refused_at_once() {
    let (_, bytes) = small().header_and_file();
    let list = [&text("a.list")[..], &9u32.to_le_bytes(), &8u32.to_le_bytes()].concat();
    let of = |count| [&list[..], &eight(count)].concat();
    for (what, from, to) in [
        ("version 4", &3u32.to_le_bytes()[..], &4u32.to_le_bytes()[..]),
        ("version 1", &3u32.to_le_bytes(), &1u32.to_le_bytes()),
        ("big-endian", &3u32.to_le_bytes(), &3u32.to_be_bytes()),
        (
            "tensors are too many",
            &[eight(2), eight(4)].concat(),
            &[eight(u64::MAX), eight(4)].concat(),
        ),
        ("keys are too many", &[eight(2), eight(4)].concat(), &[eight(2), eight(1 << 40)].concat()),
        ("overflow", &of(2), &of(u64::MAX)),
        ("truncated", &of(2), &of(1 << 50)),
        ("truncated", &text("a.number"), &[&eight(9999)[..], b"a.number"].concat()),
        ("too long", &text("a.number"), &[&eight(1 << 40)[..], b"a.number"].concat()),
        ("too long", &text("one"), &[&eight(4000)[..], b"one"].concat()),
        (
            "value type 99",
            &[&text("a.number")[..], &4u32.to_le_bytes()].concat(),
            &[&text("a.number")[..], &99u32.to_le_bytes()].concat(),
        ),
        (
            "array of arrays",
            &list,
            &[&text("a.list")[..], &9u32.to_le_bytes(), &9u32.to_le_bytes()].concat(),
        ),
        ("duplicate tensor `one`", &text("two"), &text("one")),
        ("duplicate key `a.number`", &text("a.number"), &text("a.number")),
        (
            "5 axes",
            &[&text("one")[..], &2u32.to_le_bytes()].concat(),
            &[&text("one")[..], &5u32.to_le_bytes()].concat(),
        ),
        ("overflows", &[eight(8), eight(3)].concat(), &[eight(u64::MAX), eight(3)].concat()),
        ("no elements", &[eight(8), eight(3)].concat(), &[eight(8), eight(0)].concat()),
        ("truncated", &[eight(8), eight(3)].concat(), &[eight(8), eight(1 << 40)].concat()),
        (
            "overlap",
            &[&0u32.to_le_bytes()[..], &eight(96)].concat(),
            &[&0u32.to_le_bytes()[..], &eight(64)].concat(),
        ),
        (
            "no multiple of the alignment",
            &[&0u32.to_le_bytes()[..], &eight(96)].concat(),
            &[&0u32.to_le_bytes()[..], &eight(97)].concat(),
        ),
        (
            "not made of Q8_0's blocks",
            &[&0u32.to_le_bytes()[..], &eight(96)].concat(),
            &[&8u32.to_le_bytes()[..], &eight(96)].concat(),
        ),
        (
            "overflows",
            &[&0u32.to_le_bytes()[..], &eight(96)].concat(),
            &[&0u32.to_le_bytes()[..], &eight(u64::MAX - 31)].concat(),
        ),
        ("not UTF-8", &text("two"), &[&eight(3)[..], b"\xff\xff\xff"].concat()),
    ] {
        let mut file = replaced(&bytes, from, to);
        if what.starts_with("duplicate key") {
            file = replaced(&bytes, &text("some.numbers"), &text("a.number"));
        }
        let told = bad(&file);
        assert!(told.contains(what), "{what}: {told}");
    }
    for (value, what) in [(0, "power of two"), (48, "power of two"), (1 << 31, "power of two")] {
        let mut file = small();
        file.int("general.alignment", value);
        assert!(bad(&file.header_and_file().1).contains(what));
    }
}

#[test]
fn random_damage_never_panics() {
    let mut file = small();
    file.tensors.insert("t".into(), Tensor { shape: vec![2, 256], ty: 14, bytes: vec![9; 420] });
    let (header, bytes) = file.header_and_file();
    let mut state = 7u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits")
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=random() % 4 {
            damaged[random() % header] = random().to_le_bytes()[0];
        }
        match parse(&damaged, damaged.len() as u64) {
            Err(Problem::Short) => panic!("all bytes were there"),
            Err(Problem::Bad(_)) => refused += 1,
            Ok(parsed) => {
                for info in &parsed.tensors {
                    assert!(info.offset + info.len <= damaged.len() as u64);
                }
            }
        }
    }
    assert!(refused > 5_000, "{refused}");
}

#[test]
fn damaged_models_are_errors() {
    let config = Config::preset("tiny").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::Q4, 1).expect("weights");
    let mut file = converted(&config, &weights);
    file.text("tokenizer.ggml.model", "gpt2");
    let (header, bytes) = file.header_and_file();
    let mut state = 1u64;
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut damaged = bytes.clone();
        damaged[usize::try_from(state >> 33).expect("small") % header] = state.to_be_bytes()[3];
        let source = Memory { name: "m.gguf".into(), bytes: damaged };
        let opened = block_on(Gguf::open("m.gguf".as_ref(), vec![source], Compat::Reference));
        if let Ok(gguf) = opened {
            assert!(gguf.tokenizer().is_err() || gguf.tokenizer().is_ok_and(|t| t.is_none()));
        }
    }
}

#[test]
fn other_files_are_told_by_name() {
    for (bytes, what) in [
        (&b"PK\x03\x04 and so on"[..], "ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\0\0\0\0\0\0\0\0", "does not begin with `GGUF`"),
        (b"", "truncated"),
    ] {
        let source = Memory { name: "m.gguf".into(), bytes: bytes.to_vec() };
        let opened = block_on(Gguf::open("m.gguf".as_ref(), vec![source], Compat::Reference));
        let error = opened.expect_err("not a GGUF");
        assert!(matches!(error, Error::Format { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn each_read_may_fail() -> Result<()> {
    let config = Config::preset("tiny").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::Q4, 1).expect("weights");
    let source = converted(&config, &weights).source("m.gguf");
    // Opens the file, reads all weights, and returns how many reads are left.
    let load = |reads: usize| -> Result<usize> {
        let left = Rc::new(Cell::new(reads));
        let failing = Failing { file: source.clone(), left: left.clone() };
        let gguf = block_on(Gguf::open("m.gguf".as_ref(), vec![failing], Compat::Reference))?;
        for tensor in schema::tensors(&config) {
            let mut bytes = vec![7; 3];
            let read = block_on(gguf.read_rows(&tensor.name, 0, tensor.shape[0], &mut bytes));
            assert!(read.is_ok() != bytes.is_empty(), "{}", tensor.name);
            read?;
        }
        Ok(left.get())
    };
    let most = 1 << 20;
    let needed = most - load(most)?;
    assert!(needed > 10, "{needed}");
    for reads in 0..needed {
        let error = load(reads).expect_err("a read failed");
        assert_eq!(error.code(), "io", "{reads}: {error}");
        assert!(error.to_string().contains("m.gguf"), "{reads}: {error}");
    }
    assert_eq!(load(needed)?, 0);
    Ok(())
}
