//! The door of the web package: JavaScript comes in, the library works, JSON goes out.

mod engine;
mod options;
mod selftest;

use js_sys::{Error as JsError, Reflect};
use serde_json::{Value, json};
use sha2::Digest;
use wasm_bindgen::prelude::*;

use crate::{
    base::error::Error,
    checkpoint::{self, open},
    machine::gpu::Caps,
    text::tokenizer::Tokenizer,
};

/// What goes wrong is thrown as an error with a `code`.
fn throw(error: &Error) -> JsValue {
    let thrown = JsError::new(&error.to_string());
    // A plain object takes any property.
    let _ = Reflect::set(&thrown, &"code".into(), &error.code().into());
    thrown.into()
}

/// Panics become errors that can be read. There should be none.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| wasm_bindgen::throw_str(&info.to_string())));
}

/// The engine's version.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Whether a file of a model's folder is of use here: weights, their index, the configuration, or
/// a tokenizer.
#[wasm_bindgen(js_name = isModelFile)]
pub fn is_model_file(name: &str) -> bool {
    open::is_model_file(name)
}

/// Whether a file has a whole model in llama.cpp's format, or a part of one.
#[wasm_bindgen(js_name = isGguf)]
pub fn is_gguf(name: &str) -> bool {
    open::is_gguf(name)
}

/// The names of all parts of the model in llama.cpp's format that the file of this name is a part
/// of; itself alone if it is whole.
#[wasm_bindgen(js_name = ggufParts)]
pub fn gguf_parts(name: &str) -> Vec<String> {
    open::gguf_parts(name).collect()
}

/// Names of files that a tokenizer may be in; the first that is there counts.
#[wasm_bindgen(js_name = tokenizerFiles)]
pub fn tokenizer_files() -> Vec<String> {
    Tokenizer::FILES.map(str::to_owned).into()
}

/// The files that the text of a `*.index.json` names.
#[wasm_bindgen(js_name = indexFiles)]
pub fn index_files(name: &str, text: &str) -> Result<Vec<String>, JsValue> {
    checkpoint::index_files(name.as_ref(), text).map_err(|error| throw(&error))
}

/// What a device was granted, for a page.
fn describe(caps: &Caps) -> Value {
    let limits =
        caps.named_limits().into_iter().map(|(name, device, _)| (name.into(), device.into()));
    let limits: serde_json::Map<String, Value> = limits.collect();
    let features: &[&str] = if caps.timestamps { &["timestamp-query"] } else { &[] };
    json!({ "limits": limits, "features": features })
}

/// SHA-256 of bytes that come piece by piece.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// Of nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash in lower-case hexadecimal digits. The object is gone after this.
    pub fn finish(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
