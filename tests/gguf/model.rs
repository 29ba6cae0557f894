//! Whole models in GGUF: the same weights and logits as in safetensors, and all mismatches at once.

use std::{collections::BTreeMap, fs};

use grok_wgpu::lab::{
    base::{error::Error, quant, tensor::DType},
    checkpoint::{
        Gguf, ModelFiles, Synthetic,
        folder::{open_config, open_model},
        gguf::blocks::{Format, dequantize},
    },
    engine::{SessionOptions, session::Session, step::Readback},
    machine::host::Host,
    model::{
        config::{Compat, Config, Rope, RopeType},
        rope, schema,
        weights::{Lasting, Weights},
    },
};
use pollster::block_on;

use crate::writer::{Memory, Tensor, Writer, converted, metadata};

fn preset(name: &str) -> Config {
    Config::preset(name).expect("a preset")
}

fn model(name: &str, dtype: DType) -> (Config, Synthetic, Writer) {
    let config = preset(name);
    let weights = Synthetic::new(&config, dtype, 3).expect("weights");
    let file = converted(&config, &weights);
    (config, weights, file)
}

fn all_rows(weights: &impl Weights, name: &str, rows: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    block_on(weights.read_rows(name, 0, rows, &mut bytes)).expect("rows");
    bytes
}

fn logits(config: &Config, weights: &impl Lasting) -> Vec<u32> {
    let sizes = SessionOptions::new(64, 8, DType::F32);
    let mut progress = |_| Ok(());
    let session = Session::load(Host::default(), config, weights, sizes, &mut progress);
    let mut session = block_on(session).expect("loads");
    let mut all = block_on(session.prefill(&[5, 17, 200, 3, 99], Readback::Logits)).expect("runs");
    let next = block_on(session.decode(42, Readback::Logits)).expect("runs");
    all.candidates.extend(next.candidates);
    all.candidates.iter().map(|candidate| candidate.logit.to_bits()).collect()
}

#[test]
fn every_type_gives_the_weights_of_the_original() {
    for name in ["tiny", "tiny-grok-1"] {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8, DType::Q4] {
            let (config, weights, file) = model(name, dtype);
            let gguf = file.open().expect("opens");
            for want in schema::tensors(&config) {
                let here = format!("{name} {dtype} {}", want.name);
                assert_eq!(gguf.dtype(&want.name).ok(), weights.dtype(&want.name).ok(), "{here}");
                let [a, b] = [
                    all_rows(&gguf, &want.name, want.shape[0]),
                    all_rows(&weights, &want.name, want.shape[0]),
                ];
                assert!(a == b, "{here}");
            }
            assert_eq!(gguf.bytes(), weights.bytes());
            assert_eq!(gguf.tensors().count(), schema::tensors(&config).len());
            let mut into = vec![1];
            let read = block_on(gguf.read_rows("model.norm.weight", 60, 99, &mut into));
            assert!(matches!(read, Err(Error::Usage(_))));
        }
    }
}

#[test]
fn logits_are_those_of_the_original_bit_for_bit() {
    for (name, dtype) in [("tiny", DType::BF16), ("tiny", DType::Q4), ("tiny-grok-1", DType::F32)] {
        let (config, weights, file) = model(name, dtype);
        let gguf = file.open().expect("opens");
        assert!(
            logits(&config, &weights) == logits(gguf.config(), &gguf),
            "{name} {dtype}: {:?}",
            gguf.config()
        );
    }
}

fn frequencies(config: &Config) -> Vec<f32> {
    rope::inv_freq(&config.ropes[0], config.head_dim)
}

#[test]
fn configurations_come_back() {
    for name in ["grok-2", "grok-1", "tiny", "tiny-grok-1"] {
        let config = preset(name);
        let mut file = metadata(&config);
        // Only the names of tensors matter here: the configuration is checked before them.
        for tensor in ["blk.0.ffn_up.weight", "output.weight"] {
            if config.dense_width().is_some() {
                file.tensors
                    .insert(tensor.into(), Tensor { shape: vec![1], ty: 0, bytes: vec![0; 4] });
            }
        }
        let told = file.problems().join("\n");
        assert!(told.contains("`token_embd.weight` is missing"), "{told}");
    }
    for name in ["tiny", "tiny-grok-1"] {
        let (config, _, file) = model(name, DType::F16);
        let gguf = file.open().expect("opens");
        let got = gguf.config();
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-7;
        assert!(near(got.ends.embed_scale, config.ends.embed_scale));
        assert!(near(got.ends.output_scale, config.ends.output_scale));
        let mut wanted = config;
        wanted.ends.embed_scale = got.ends.embed_scale;
        wanted.ends.output_scale = got.ends.output_scale;
        wanted.ropes[0].rope_type_named = got.ropes[0].rope_type_named;
        wanted.ropes[0].beta_fast = got.ropes[0].beta_fast;
        assert_eq!(*got, wanted);
        assert_eq!(frequencies(got), frequencies(&wanted));
    }
}

/// A small model with Grok-2's rotary embeddings.
fn long() -> (Config, Writer) {
    let grok_2 = preset("grok-2");
    let mut config = preset("tiny");
    config.ropes[0] = Rope {
        rope_theta: grok_2.ropes[0].rope_theta,
        scaling_factor: 16.0,
        original_max_position_embeddings: 256,
        ..config.ropes[0]
    };
    let weights = Synthetic::new(&config, DType::BF16, 3).expect("weights");
    let file = converted(&config, &weights);
    (config, file)
}

#[test]
fn the_reference_is_followed_unless_asked() {
    let (config, file) = long();
    let gguf = file.open().expect("opens");
    let got = gguf.config();
    let rope = got.ropes[0];
    assert_eq!((rope.rope_type, rope.rope_theta), (RopeType::Original, config.ropes[0].rope_theta));
    assert_eq!((got.hidden_act, got.experts), (config.hidden_act, config.experts));
    assert_eq!(frequencies(got), frequencies(&config));
    let warnings = gguf.warnings().join("\n");
    assert!(warnings.contains("theta is Grok-2's"), "{warnings}");

    let gguf = file.open_as(Compat::LlamaCpp).expect("opens");
    let got = gguf.config();
    let mut wanted = config.as_llama_cpp();
    wanted.ropes[0].beta_fast = 8.0;
    assert_eq!(*got, wanted);
    let rope = got.ropes[0];
    assert_eq!(rope.rope_type, RopeType::Yarn);
    assert!((rope.magnitude - 1.277_258_872).abs() < 1e-8, "{}", rope.magnitude);
    let experts = got.experts.expect("it has some");
    assert!(experts.renormalize && got.attention.temperature_len == 0);
    assert_eq!(experts.softcap.to_bits(), 0);
    let text = got.to_json();
    let (back, _) = Config::from_json("config.json".as_ref(), &text).expect("reads back");
    assert_eq!(back, *got);
    // The other arithmetic also runs, and gives other logits.
    let other = file.open().expect("opens");
    assert!(logits(got, &gguf) != logits(other.config(), &other));
}

#[test]
fn what_the_file_leaves_out_is_told() {
    let (_, _, mut file) = model("tiny", DType::F16);
    for key in ["grok.embedding_scale", "grok.logit_scale", "grok.rope.freq_base"] {
        file.keys.remove(key);
    }
    let gguf = file.open().expect("opens");
    let warnings = gguf.warnings().join("\n");
    for told in
        ["grok.embedding_scale is missing: 90.50966799187809, as Grok-2", "grok.logit_scale"]
    {
        assert!(warnings.contains(told), "{warnings}");
    }
    for key in ["grok.block_count", "grok.expert_count"] {
        file.keys.remove(key);
    }
    file.text("grok.embedding_length", "wide");
    file.int("grok.attention.value_length", 7);
    let problems = file.problems().join("\n");
    for told in [
        "grok.block_count is missing",
        "grok.expert_count is missing",
        "grok.embedding_length is \"wide\", wanted an integer",
        "grok.attention.value_length is 7, wanted 16",
    ] {
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn every_mismatch_is_told_at_once() {
    let (_, _, mut file) = model("tiny", DType::F16);
    file.tensors.remove("blk.1.attn_q.weight");
    file.tensors.remove("blk.2.ffn_down_exps.weight");
    let odd = Tensor { shape: vec![3], ty: 0, bytes: vec![0; 12] };
    file.tensors.insert("blk.0.attn_sinks.weight".into(), odd);
    file.tensors.get_mut("blk.0.attn_k.weight").expect("is there").shape.reverse();
    let norm = file.tensors.get_mut("output.weight").expect("is there");
    // Q5_0 has blocks of 32 in 22 bytes.
    (norm.ty, norm.bytes) = (6, vec![0; 256 * 2 * 22]);
    let problems = file.problems().join("\n");
    for told in [
        "`blk.1.attn_q.weight` is missing (wanted [128, 64])",
        "`blk.2.ffn_down_exps.weight` is missing (wanted [8, 64, 64])",
        "`blk.0.attn_sinks.weight` is not expected (F32 [3])",
        "`blk.0.attn_k.weight` has shape [64, 32], wanted [32, 64]",
        "`output.weight` is Q5_0, wanted F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K",
    ] {
        assert!(problems.contains(told), "{told} is not in\n{problems}");
    }
    assert_eq!(problems.lines().count(), 5, "{problems}");

    file.text("general.architecture", "llama");
    let told = file.open().expect_err("another model").to_string();
    assert!(told.contains("general.architecture is \"llama\", wanted \"grok\""), "{told}");
}

#[test]
fn older_and_fused_names() {
    let (config, weights, mut file) = model("tiny", DType::F16);
    let norm = file.tensors.remove("blk.0.post_ffw_norm.weight").expect("is there");
    file.tensors.insert("blk.0.layer_output_norm.weight".into(), norm);
    let parts = ["q", "k", "v"].map(|part| {
        file.tensors.remove(&format!("blk.1.attn_{part}.weight")).expect("is there").bytes
    });
    let fused = Tensor { shape: vec![192, 64], ty: 1, bytes: parts.concat() };
    file.tensors.insert("blk.1.attn_qkv.weight".into(), fused);
    let gguf = file.open().expect("opens");
    for want in schema::tensors(&config) {
        let rows = want.shape[0];
        assert!(
            all_rows(&gguf, &want.name, rows) == all_rows(&weights, &want.name, rows),
            "{}",
            want.name
        );
    }
    for projection in ["gate", "up", "down"] {
        let whole = file.tensors.remove(&format!("blk.0.ffn_{projection}_exps.weight"));
        file.tensors.insert(format!("blk.0.ffn_{projection}.0.weight"), whole.expect("is there"));
    }
    let problems = file.problems().join("\n");
    assert!(problems.contains("an old layout: convert the model anew"), "{problems}");
}

#[test]
fn parts_of_different_types_get_one_that_holds_both() {
    let (config, _, mut file) = model("tiny", DType::Q4);
    let q8 = converted(&config, &Synthetic::new(&config, DType::Q8, 3).expect("weights"));
    let f16 = converted(&config, &Synthetic::new(&config, DType::F16, 3).expect("weights"));
    for (name, from) in [
        ("blk.0.attn_v.weight", &q8),
        ("blk.1.attn_v.weight", &f16),
        ("blk.0.ffn_up_exps.weight", &q8),
        ("blk.2.ffn_down.weight", &f16),
    ] {
        file.tensors.insert(name.into(), from.tensors[name].clone());
    }
    let gguf = file.open().expect("opens");
    let at = |name: &str| gguf.dtype(&format!("model.layers.{name}.weight")).expect("is there");
    assert_eq!(["q", "k", "v"].map(|p| at(&format!("0.self_attn.{p}_proj"))), [DType::Q8; 3]);
    assert_eq!(["q", "k", "v"].map(|p| at(&format!("1.self_attn.{p}_proj"))), [DType::F32; 3]);
    assert_eq!(
        ["w1", "w3"].map(|p| at(&format!("0.block_sparse_moe.experts.5.{p}"))),
        [DType::Q8; 2]
    );
    assert_eq!(at("0.block_sparse_moe.experts.5.w2"), DType::Q4);
    assert_eq!((at("2.mlp.down_proj"), at("2.mlp.gate_proj")), (DType::F16, DType::Q4));
    let name = "model.layers.0.self_attn.q_proj.weight";
    let four = Synthetic::new(&config, DType::Q4, 3).expect("weights");
    assert_eq!(
        quant::decode_rows(DType::Q8, 64, &all_rows(&gguf, name, 128)),
        quant::decode_rows(DType::Q4, 64, &all_rows(&four, name, 128))
    );
    assert!(logits(gguf.config(), &gguf).iter().all(|bits| f32::from_bits(*bits).is_finite()));
}

/// K-quants have blocks of 256, so rows have at least 256 elements.
#[test]
fn k_quants_run() {
    let mut config = preset("tiny").with_layers(1).with_widths(256, 256);
    config.hidden_size = 256;
    config.num_attention_heads = 16;
    let weights = Synthetic::new(&config, DType::F16, 3).expect("weights");
    let mut file = converted(&config, &weights);
    for (i, (name, tensor)) in file.tensors.iter_mut().enumerate() {
        if tensor.shape.len() == 1 || name.contains("ffn_gate_inp") {
            continue;
        }
        let (ty, bytes) =
            if name.contains("down") || name.contains("attn_v") { (14, 210) } else { (12, 144) };
        let blocks = tensor.shape.iter().product::<u64>() / 256;
        tensor.ty = ty;
        tensor.bytes = (0..blocks)
            .flat_map(|block| {
                let mut raw: Vec<u8> = (0..bytes)
                    .map(|at| (block * 31 + at * 17 + at * at + i as u64 * 7).to_le_bytes()[0])
                    .collect();
                // Scales of about 0.0005 keep the values in a model's range.
                let scales: &[usize] = if ty == 14 { &[208] } else { &[0, 2] };
                for &at in scales {
                    raw[at..at + 2].copy_from_slice(&0x1018u16.to_le_bytes());
                }
                raw
            })
            .collect();
    }
    let gguf = file.open().expect("opens");
    for (name, ours, format) in [
        ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", Format::Q4K),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", Format::Q6K),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight", Format::Q6K),
    ] {
        assert_eq!(gguf.dtype(ours).ok(), Some(DType::Q8));
        let Tensor { shape, bytes, .. } = &file.tensors[name];
        let mut wanted = Vec::new();
        let row = usize::try_from(format.row_bytes(shape[1])).expect("small");
        for row in bytes.chunks_exact(row) {
            quant::encode_row(DType::Q8, &dequantize(format, row), &mut wanted);
        }
        assert!(all_rows(&gguf, ours, shape[0]) == wanted, "{name}");
        // Reading some of the rows gives a part of the whole.
        let mut some = Vec::new();
        block_on(gguf.read_rows(ours, 5, 3, &mut some)).expect("rows");
        let ours = usize::try_from(DType::Q8.row_bytes(shape[1])).expect("small");
        assert_eq!(some, wanted[5 * ours..8 * ours]);
    }
    let logits = logits(gguf.config(), &gguf);
    assert!(logits.iter().all(|bits| f32::from_bits(*bits).is_finite()));
}

/// The parts of a model, as split by llama.cpp's `gguf-split`.
fn split(file: &Writer, count: usize) -> Vec<Memory> {
    let names: Vec<&String> = file.tensors.keys().collect();
    let part = |i: usize| {
        let mut part = Writer::default();
        if i == 0 {
            part.keys = file.keys.clone();
        }
        part.int("split.no", u32::try_from(i).expect("few"));
        part.int("split.count", u32::try_from(count).expect("few"));
        let of = names.iter().enumerate().filter(|(at, _)| at * count / names.len() == i);
        part.tensors =
            of.map(|(_, n)| ((*n).clone(), file.tensors[*n].clone())).collect::<BTreeMap<_, _>>();
        part.source(&format!("m-{:05}-of-{count:05}.gguf", i + 1))
    };
    (0..count).map(part).collect()
}

#[test]
fn split_files_are_one_model() {
    let (config, weights, file) = model("tiny", DType::Q8);
    let parts = split(&file, 3);
    let folder = tempfile::tempdir().expect("a folder");
    for part in &parts {
        fs::write(folder.path().join(&part.name), &part.bytes).expect("written");
    }
    let any = folder.path().join(&parts[1].name);
    for path in [folder.path(), &any] {
        let opened = block_on(open_model(path, Compat::Reference)).expect("opens");
        assert_eq!(opened.config.hidden_size, config.hidden_size);
        let files = opened.weights;
        assert!(matches!(*files, ModelFiles::Gguf(_)));
        assert_eq!((files.sources().len(), files.bytes()), (3, weights.bytes()));
        for want in schema::tensors(&config) {
            let rows = want.shape[0];
            assert!(all_rows(&files, &want.name, rows) == all_rows(&weights, &want.name, rows));
        }
    }
    let (got, _) = block_on(open_config(&any)).expect("a configuration");
    assert_eq!(got.num_hidden_layers(), config.num_hidden_layers());

    let swapped = vec![parts[1].clone(), parts[0].clone(), parts[2].clone()];
    let open = |parts| block_on(Gguf::open("m.gguf".as_ref(), parts, Compat::Reference));
    let told = open(swapped).expect_err("out of order").to_string();
    assert!(told.contains("split.no is 1, wanted 0"), "{told}");
    let told = open(parts[..1].to_vec()).expect_err("a part").to_string();
    assert!(told.contains("split.count is 3, wanted 1"), "{told}");
    fs::remove_file(&any).expect("removed");
    let told =
        block_on(open_model(&any, Compat::Reference)).expect_err("a part is missing").to_string();
    assert!(told.contains("m-00002-of-00003.gguf is missing"), "{told}");

    fs::write(folder.path().join("other.gguf"), b"").expect("written");
    let told = block_on(open_model(folder.path(), Compat::Reference)).expect_err("two").to_string();
    assert!(told.contains("2 GGUF models"), "{told}");
}

/// The golden logits for this configuration come from an independent program; see
/// `tests/golden.rs`.
#[test]
fn llama_cpp_is_the_golden_model_of_that_name() {
    let read = |name: &str| {
        let path = format!("{}/{name}.json", env!("CARGO_MANIFEST_DIR"));
        block_on(open_config(path.as_ref())).expect("a configuration").0
    };
    assert_eq!(
        read("src/selftest/data/grok2_40").as_llama_cpp(),
        read("tests/data/golden/grok2_llama_cpp_40")
    );
    // Without a rope_type, llama.cpp's converter writes no scaling.
    let plain = preset("tiny-grok-1").as_llama_cpp().ropes[0];
    assert_eq!((plain.rope_type, plain.magnitude), (RopeType::Original, 1.0));
}
