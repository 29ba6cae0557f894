//! Devices that refuse: memory that is out wherever something is allocated, programs that do not
//! compile, and work that takes too long at once.

mod common;

use std::collections::BTreeSet;

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::Synthetic,
    engine::{SessionOptions, session::Session, step::Readback},
    machine::{
        Machine as _,
        gpu::{Gpu, LimitProfile, Refusal},
    },
    model::config::Config,
};
use pollster::block_on;

const PROMPT: [u32; 5] = [11, 48, 85, 122, 159];
const TOKENS: [u32; 2] = [3, 77];
const SIZES: SessionOptions = SessionOptions::new(64, 40, DType::F32);

fn open() -> Gpu {
    common::open(LimitProfile::Baseline)
}

/// Loads a small model onto a device that other models may have used, and runs a prompt and two
/// tokens. Returns the bits of the logits, and then of the best candidate.
fn load_and_run(gpu: &mut Gpu) -> Result<Vec<u32>> {
    let config = Config::preset("tiny").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::Q8, 7).expect("weights");
    let mut progress = |_| Ok(());
    let load = Session::load(&mut *gpu, &config, &weights, SIZES, &mut progress);
    let mut session = block_on(load)?;
    let mut all = block_on(session.prefill(&PROMPT, Readback::Logits))?.candidates;
    for id in TOKENS {
        all.extend(block_on(session.decode(id, Readback::Top(1)))?.candidates);
    }
    Ok(all.iter().map(|candidate| candidate.logit.to_bits()).collect())
}

#[test]
fn wherever_memory_is_out_the_error_has_names_and_sizes_and_nothing_is_left() -> Result<()> {
    let mut gpu = open();
    gpu.refuse(None);
    let want = load_and_run(&mut gpu)?;
    let [buffers, ..] = gpu.made();
    gpu.truncate(0);
    assert!(buffers > 80, "{buffers}");
    let mut named = BTreeSet::new();
    for n in 0..buffers {
        gpu.refuse(Some(Refusal::Buffer(n)));
        let error = load_and_run(&mut gpu).expect_err("a buffer is refused");
        assert_eq!((error.code(), error.exit_code()), ("out_of_memory", 4), "{n}: {error}");
        let Error::OutOfMemory { what, bytes, held, .. } = &error else { panic!("{error}") };
        let bytes = bytes.unwrap_or_default();
        assert!(bytes > 0 && (*held > 0 || n == 0), "{n}: {error}");
        let text = error.to_string();
        assert!(text.contains(" needs ") && text.contains("allocated already"), "{n}: {error}");
        named.insert(what.replace(char::is_numeric, "#"));
        // What the session did not give back is only what a step had grown: none of it in a load.
        if n < buffers / 2 {
            assert_eq!((gpu.tensor_count(), gpu.allocated_bytes()), (0, 0), "{n}: {error}");
        }
        gpu.truncate(0);
        gpu.refuse(None);
        assert_eq!(load_and_run(&mut gpu)?, want, "after {error}");
        gpu.truncate(0);
    }
    for part in [
        "weights of `",
        "key-value cache",
        "activations of",
        "largest logits",
        "a buffer for results",
        "parameters of a pass",
    ] {
        assert!(named.iter().any(|what| what.contains(part)), "{part}: {named:#?}");
    }
    Ok(())
}

#[test]
fn a_device_that_is_lost_for_want_of_memory_is_out_of_memory() {
    let mut gpu = open();
    gpu.refuse(None);
    load_and_run(&mut gpu).expect("runs");
    let [buffers, ..] = gpu.made();
    for n in [0, buffers / 2, buffers - 1] {
        let mut gpu = open();
        gpu.refuse(Some(Refusal::BufferAndDevice(n)));
        let error = load_and_run(&mut gpu).expect_err("the device is lost");
        assert_eq!(error.code(), "out_of_memory", "{n}: {error}");
        assert!(gpu.is_lost() && error.to_string().contains("device was lost"), "{n}: {error}");
        // It stays lost, for the same reason.
        let again = load_and_run(&mut gpu).expect_err("it is still lost");
        assert_eq!(again.code(), "out_of_memory", "{n}: {again}");
    }
}
