//! The model inside the program: a copy of the demo model with 4-bit weights, so that an installed
//! program talks without any file. Attention has 8 bits: it is what looks up answers.

use std::path::Path;

use grok_wgpu::lab::{
    base::error::Result,
    checkpoint::open::{self, Opened},
    files::native::FileSource,
    model::config::Compat,
};

/// What messages call it.
pub(super) const NAME: &str = "the built-in demo model";

/// Names and bytes of its files.
const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../../models/demo-q4/config.json")),
    ("generation_config.json", include_bytes!("../../models/demo-q4/generation_config.json")),
    ("tokenizer.tok.json", include_bytes!("../../models/demo-q4/tokenizer.tok.json")),
    ("model.safetensors", include_bytes!("../../models/demo-q4/model.safetensors")),
];

/// Opens it, as a model in a folder is opened.
pub(super) async fn open(compat: Compat) -> Result<Opened<FileSource>> {
    let files = FILES.map(|(name, bytes)| FileSource::of_bytes(name, bytes));
    open::open(Path::new(NAME), files.into(), compat).await
}
