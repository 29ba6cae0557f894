//! GGUF files: the weights, the configuration and the tokenizer in them, and files that are broken.

#[path = "gguf/blocks.rs"]
mod blocks;
#[path = "gguf/broken.rs"]
mod broken;
#[path = "common/failing.rs"]
mod failing;
#[path = "gguf/model.rs"]
mod model;
#[path = "gguf/places.rs"]
mod places;
#[path = "gguf/tokenizer.rs"]
mod tokenizer;
#[path = "gguf/writer.rs"]
mod writer;
