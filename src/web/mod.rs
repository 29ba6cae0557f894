//! The WebAssembly interface of the npm package: calls from JavaScript, results as JSON.

mod engine;
mod options;
mod selftest;

use js_sys::{Error as JsError, Reflect};
use serde_json::{Value, json};
use sha2::Digest;
use wasm_bindgen::prelude::*;

use crate::{
    base::{error::Error, num::hex},
    checkpoint::{self, open},
    machine::gpu::Caps,
    text::tokenizer::Tokenizer,
};

/// A JavaScript error with the error's `code`, and its `hint` if more is known than the code tells.
fn throw(error: &Error) -> JsValue {
    let thrown = JsError::new(&error.to_string());
    // Setting a property of a plain object cannot fail.
    let _ = Reflect::set(&thrown, &"code".into(), &error.code().into());
    if let Error::Hinted { hint, .. } = error {
        let _ = Reflect::set(&thrown, &"hint".into(), &hint.into());
    }
    thrown.into()
}

/// Turns panics into JavaScript errors with a message. There should be none.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| wasm_bindgen::throw_str(&info.to_string())));
}

/// The engine's version.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Whether a file in a model's folder is needed: weights, their index, the configuration, or a
/// tokenizer.
#[wasm_bindgen(js_name = isModelFile)]
pub fn is_model_file(name: &str) -> bool {
    open::is_model_file(name)
}

/// Whether this is the name of a GGUF file, whole or one part of several.
#[wasm_bindgen(js_name = isGguf)]
pub fn is_gguf(name: &str) -> bool {
    open::is_gguf(name)
}

/// The names of all parts of the GGUF model that has a file of this name; only the name itself if
/// the file is whole.
#[wasm_bindgen(js_name = ggufParts)]
pub fn gguf_parts(name: &str) -> Vec<String> {
    open::gguf_parts(name).collect()
}

/// Possible names of tokenizer files, in order of preference.
#[wasm_bindgen(js_name = tokenizerFiles)]
pub fn tokenizer_files() -> Vec<String> {
    Tokenizer::FILES.map(str::to_owned).into()
}

/// The names of files that say more about a model's texts. None is needed.
#[wasm_bindgen(js_name = usualFiles)]
pub fn usual_files() -> Vec<String> {
    open::usual_files().map(str::to_owned).into()
}

/// The files that a `*.index.json` names; `text` is its content.
///
/// # Errors
///
/// A JavaScript error with a `code` if the text is not a valid index.
#[wasm_bindgen(js_name = indexFiles)]
pub fn index_files(name: &str, text: &str) -> Result<Vec<String>, JsValue> {
    checkpoint::index_files(name.as_ref(), text).map_err(|error| throw(&error))
}

/// The limits and features that a device was granted, as JSON.
fn describe(caps: &Caps) -> Value {
    let limits =
        caps.named_limits().into_iter().map(|(name, device, _)| (name.into(), device.into()));
    let limits: serde_json::Map<String, Value> = limits.collect();
    let features: &[&str] = if caps.timestamps { &["timestamp-query"] } else { &[] };
    json!({ "limits": limits, "features": features })
}

/// An incremental SHA-256 hash.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// A hash of no bytes yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash in lower-case hexadecimal digits. Consumes the object.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}
