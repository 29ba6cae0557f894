//! Bisection of a model with one broken kernel must name the kernel, its layer and the element.

mod common;

use std::sync::Arc;

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{SessionOptions, session::Session, step::Readback},
    kernels::CACHES,
    machine::{
        gpu::{Gpu, LimitProfile},
        kernel::Kernel,
    },
    model::config::Config,
    selftest::Bisect,
    variants::Tuning,
};
use grok_wgpu_tools::edited::{Edit, Edited};
use pollster::block_on;

/// Runs a small model on `machine`: a prompt, then one more token.
fn run<'a>(machine: Bisect<'a>, cache: DType, prompt: &[u32]) -> Result<Bisect<'a>> {
    let config = Config::preset("tiny").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 3)?;
    let sizes = SessionOptions::new(32, 16, cache);
    block_on(async {
        let mut session = Session::load(machine, &config, &weights, sizes, &mut |_| Ok(())).await?;
        let model = session.model().clone();
        session.machine_mut().name_weights(&model);
        session.prefill(prompt, Readback::Top(1)).await?;
        session.decode(7, Readback::Top(1)).await?;
        Ok(session.into_machine())
    })
}

fn gpu() -> Gpu {
    common::open(LimitProfile::Baseline)
}

const PROMPT: [u32; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

#[test]
fn a_good_model_agrees_throughout() -> Result<()> {
    for cache in CACHES {
        let mut gpu = gpu();
        let machine = run(Bisect::new(&mut gpu), cache, &PROMPT)?;
        assert_eq!(machine.parted(), None, "a cache of {cache}");
        assert!(machine.compared() > 40, "{} kernels", machine.compared());
        let (worst, at) = machine.worst().expect("something was compared");
        assert!(*worst > 0.0 && *worst <= 1.0, "{worst} at {at}");
    }
    Ok(())
}

#[test]
fn the_broken_kernel_is_named_with_its_layer_and_element() -> Result<()> {
    for (name, find, replace, operand) in [
        ("rope_cache", "a * angle.x - b", "a * angle.x + b", "`q` "),
        ("norm_route", "c > best", "c < best", "`ids` "),
    ] {
        let mut gpu = gpu();
        let edit = Arc::new(Edit::new("broken".into(), find.into(), replace.into()));
        let swap = move |kernel: &dyn Kernel| -> Box<dyn Kernel> {
            let kernel = kernel.boxed();
            if kernel.shader(&Tuning::cpu()).name() == name {
                let text = kernel.shader(&Tuning::cpu()).source();
                assert_eq!(text.matches(find).count(), 1, "`{find}` is not there once");
                Box::new(Edited::new(kernel, edit.clone()))
            } else {
                kernel
            }
        };
        let machine = run(Bisect::with_swap(&mut gpu, Box::new(swap)), DType::F32, &PROMPT)?;
        let parted = machine.parted().unwrap_or_else(|| panic!("{name} was not seen"));
        assert_eq!(parted.kernel, name);
        assert!(parted.near.starts_with("model.layers.0."), "{parted:?}");
        assert!(parted.failure.starts_with(operand), "{parted:?}");
        assert!(parted.failure.contains("element ["), "{parted:?}");
        assert_eq!(machine.compared(), parted.after + 1, "nothing runs after it");
    }
    Ok(())
}
