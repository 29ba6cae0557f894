//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.
//!
//! Folders are floors: a file uses its own floor and those above it in this list.

pub mod base;
pub mod text;

pub mod files;

pub mod variants;

pub mod machine;

pub mod kernels;

pub mod model;

pub mod checkpoint;

pub mod engine;

pub mod measure;

pub mod selftest;

#[cfg(target_arch = "wasm32")]
pub mod web;
