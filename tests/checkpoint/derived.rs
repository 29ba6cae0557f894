//! Tensors that follow from the configuration.

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::{Synthetic, write::Layout},
    model::config::Config,
};
use serde_json::json;

use crate::memory::{open, problems, write};

#[test]
fn derived_tensors_are_left_out_with_a_word() {
    let config = Config::preset("tiny").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("a float type");
    let with = |names: &[&str]| {
        let mut files = write(&config, &weights, Layout::Single);
        files.edit_header("model.safetensors", |header| {
            let fields = header.as_object_mut().expect("an object");
            let ends = fields.values().filter_map(|entry| entry["data_offsets"][1].as_u64());
            let end = ends.max().expect("tensors");
            for (at, name) in (end..).step_by(16).zip(names) {
                let entry = json!({"dtype": "F32", "shape": [4], "data_offsets": [at, at + 16]});
                fields.insert((*name).to_owned(), entry);
            }
        });
        files.bytes("model.safetensors").extend(vec![0; 16 * names.len()]);
        files
    };
    let derived = ["model.layers.0.self_attn.rotary_emb.inv_freq", "masked_bias"];
    let checkpoint = open(&with(&derived), &config).expect("no more is needed");
    assert_eq!(
        checkpoint.warnings(),
        ["tensors that follow from the configuration are not read: 2, such as `masked_bias`"]
    );
    let told = problems(open(&with(&["model.layers.0.inv_freq", "unmasked_bias"]), &config));
    assert_eq!(told.len(), 2, "{told:?}");
}
