//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.
//!
//! Every layer is a compute shader in WGSL; this crate reads checkpoints, schedules the dispatches
//! and samples text. It runs on Vulkan, Metal and DirectX 12, and as wasm in a browser.
//!
//! From a folder to text, here with the model that the repository ships:
//!
//! ```
//! use grok_wgpu::{Engine, Event, Gpu, Options, Sampler, Sequence, open};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> grok_wgpu::Result<()> {
//! # pollster::block_on(async {
//! let model = open("models/demo").await?;
//! let tokenizer = model.tokenizer().await?;
//! let mut engine = Engine::of(Gpu::open_best().await?, &model).await?;
//!
//! let prompt = tokenizer.encode_prompt("Once upon a time")?;
//! let mut options = Options::until_end(&tokenizer);
//! options.max_tokens = 12;
//! let (mut sequence, mut sampler) = (Sequence::new(), Sampler::greedy());
//! let print = |event: Event<'_>| {
//!     print!("{}", event.text());
//!     ControlFlow::Continue(())
//! };
//! let text = engine
//!     .generate(&mut sequence, &tokenizer, &mut sampler, &prompt, &options, print)
//!     .await?;
//! # assert!(text.text.starts_with(", there"), "{}", text.text);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! The functions are `async` because a browser's device is; natively any executor drives them, for
//! instance `pollster::block_on`. `examples/generate.rs` and `examples/logits.rs` are whole
//! programs.
//!
//! # What to start from
//!
//! | to | use |
//! | --- | --- |
//! | open a model: safetensors or GGUF | [`open`], which gives an [`Opened`] with its [`Config`] |
//! | choose a device | [`Gpu::open_best`], or [`Gpu::open`] with an [`AdapterChoice`] |
//! | load it | [`Engine::of`], or [`Engine::load`] with [`SessionOptions`] and progress |
//! | generate text | [`Engine::generate`]: takes [`Options`] and a [`Sampler`], gives [`Event`]s |
//! | get logits | [`Engine::logits`] |
//! | translate text and ids | [`Tokenizer`] |
//! | keep a text | [`Sequence`], whose KV cache lies in the engine |
//!
//! Every function that can fail returns an [`Error`], whose [`code`](Error::code) is stable.
//!
//! # Features
//!
//! `cli` (default) builds the program `grok-wgpu`. A library needs `default-features = false`, and
//! then none of the program's dependencies. `hub`, a part of `cli`, downloads models of the Hugging
//! Face hub: `lab::files::hub`.
//!
//! # What may change
//!
//! What stands at the root follows semantic versioning. Types that will gain fields or variants are
//! `#[non_exhaustive]`. The insides (kernels, their reference implementations and test rows, the
//! recorded plans) are in [`lab`], without any promise.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)
)]

// Folders are floors: a file uses its own floor and those above it in this list. Users find them in
// `lab`; hidden from rustdoc alone, as clippy would ask for no documentation of what is hidden.
#[cfg_attr(doc, doc(hidden))]
pub mod base;
#[cfg_attr(doc, doc(hidden))]
pub mod text;

#[cfg_attr(doc, doc(hidden))]
pub mod files;

#[cfg_attr(doc, doc(hidden))]
pub mod variants;

#[cfg_attr(doc, doc(hidden))]
pub mod machine;

#[cfg_attr(doc, doc(hidden))]
pub mod kernels;

#[cfg_attr(doc, doc(hidden))]
pub mod model;

#[cfg_attr(doc, doc(hidden))]
pub mod checkpoint;

#[cfg_attr(doc, doc(hidden))]
pub mod engine;

#[cfg_attr(doc, doc(hidden))]
pub mod measure;

#[cfg_attr(doc, doc(hidden))]
pub mod selftest;

#[cfg(all(feature = "serve", not(target_arch = "wasm32")))]
#[cfg_attr(doc, doc(hidden))]
pub mod serve;

#[cfg(target_arch = "wasm32")]
#[cfg_attr(doc, doc(hidden))]
pub mod web;

#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::folder::open;
pub use {
    base::error::{Error, Result},
    checkpoint::open::Opened,
    engine::{
        Engine, SessionOptions,
        options::{Event, FinishReason, Generated, Logprobs, Options, Token, Trace},
        sequence::Sequence,
    },
    machine::gpu::{AdapterChoice, Gpu, LimitProfile},
    model::config::Config,
    text::{
        chat,
        sampler::{Sampler, Sampling},
        tokenizer::Tokenizer,
    },
};

/// The insides of the engine, for those who test drivers, measure kernels or extend it. **Nothing
/// here is covered by semantic versioning.**
///
/// The modules are floors; each uses only those before it:
///
/// | module | what is in it |
/// | --- | --- |
/// | [`base`] | errors, element types, shapes, quantized blocks |
/// | [`text`] | tokenizers, samplers, stop texts, chat |
/// | [`files`] | sources of bytes: files, and what a browser has |
/// | [`variants`] | ways to divide a matrix product among invocations |
/// | [`machine`] | the device, and the f64 reference that stands in for it |
/// | [`kernels`] | one operator each: shader, operands, oracle, error bound, rows |
/// | [`model`] | configuration, weights, the forward pass |
/// | [`checkpoint`] | safetensors and GGUF, read, converted and written |
/// | [`engine`] | steps, KV cache, generation |
/// | [`measure`] | memory needed, work, autotuning |
/// | [`selftest`] | every row of every kernel on a device |
/// | `serve` | an OpenAI-compatible server, by feature `serve`, natively |
pub mod lab {
    #[cfg(all(feature = "serve", not(target_arch = "wasm32")))]
    pub use crate::serve;
    #[doc(inline)]
    pub use crate::{
        base, checkpoint, engine, files, kernels, machine, measure, model, selftest, text, variants,
    };
}
