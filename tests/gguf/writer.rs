//! Writes small GGUF files to memory.

use std::{collections::BTreeMap, io, sync::Arc};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{Gguf, Synthetic},
    files::Source,
    model::{
        config::{Compat, Config, RopeType},
        schema,
        weights::Weights,
    },
};
use pollster::block_on;

/// A file in memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Source for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).expect("small");
        let bytes = self.bytes.get(start..start + into.len());
        into.copy_from_slice(
            bytes.ok_or_else(|| Error::io(&self.name, io::ErrorKind::UnexpectedEof.into()))?,
        );
        Ok(())
    }
}

/// A tensor: dimensions outermost first, number of its type, bytes.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<u64>,
    pub(crate) ty: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The contents of a file. A key's value comes with its type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) keys: BTreeMap<String, Vec<u8>>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// Alignment of tensors, in bytes.
pub(crate) const ALIGNMENT: usize = 32;

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    pub(crate) fn int(&mut self, key: &str, value: u32) {
        self.keys.insert(key.into(), [4u32.to_le_bytes(), value.to_le_bytes()].concat());
    }

    #[expect(clippy::cast_possible_truncation, reason = "the format has numbers in 32 bits")]
    pub(crate) fn number(&mut self, key: &str, value: f64) {
        let value = (value as f32).to_le_bytes();
        self.keys.insert(key.into(), [6u32.to_le_bytes(), value].concat());
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.keys.insert(key.into(), [8u32.to_le_bytes().to_vec(), text(value)].concat());
    }

    pub(crate) fn texts<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<Vec<u8>> = values.into_iter().map(text).collect();
        let mut bytes = [9u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.concat());
        self.keys.insert(key.into(), bytes);
    }

    pub(crate) fn ints(&mut self, key: &str, values: &[i32]) {
        let mut bytes = [9u32.to_le_bytes(), 5u32.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.keys.insert(key.into(), bytes);
    }

    pub(crate) fn floats(&mut self, key: &str, values: &[f32]) {
        let mut bytes = [9u32.to_le_bytes(), 6u32.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.keys.insert(key.into(), bytes);
    }

    pub(crate) fn octets(&mut self, key: &str, values: &[u8]) {
        let mut bytes = [9u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values);
        self.keys.insert(key.into(), bytes);
    }

    pub(crate) fn truth(&mut self, key: &str, value: bool) {
        self.keys.insert(key.into(), [&7u32.to_le_bytes()[..], &[u8::from(value)]].concat());
    }

    /// The length of the header, and the whole file.
    pub(crate) fn header_and_file(&self) -> (usize, Vec<u8>) {
        let mut bytes = self.header(|name| self.tensors[name].bytes.len() as u64);
        let header = bytes.len();
        for tensor in self.tensors.values() {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(&tensor.bytes);
        }
        (header, bytes)
    }

    /// The header; `size` gives each tensor's bytes.
    pub(crate) fn header(&self, size: impl Fn(&str) -> u64) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        let mut offset = 0u64;
        for (name, tensor) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend(u32::try_from(tensor.shape.len()).expect("few").to_le_bytes());
            bytes.extend(tensor.shape.iter().rev().flat_map(|extent| extent.to_le_bytes()));
            bytes.extend(tensor.ty.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset = (offset + size(name)).next_multiple_of(ALIGNMENT as u64);
        }
        bytes
    }

    pub(crate) fn source(&self, name: &str) -> Memory {
        Memory { name: name.into(), bytes: self.header_and_file().1 }
    }

    pub(crate) fn open(&self) -> Result<Arc<Gguf<Memory>>> {
        self.open_as(Compat::Reference)
    }

    pub(crate) fn open_as(&self, compat: Compat) -> Result<Arc<Gguf<Memory>>> {
        let path = "model.gguf";
        block_on(Gguf::open(path.as_ref(), vec![self.source(path)], compat)).map(Arc::new)
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        match self.open() {
            Err(Error::Checkpoint { problems, .. } | Error::Config { problems, .. }) => problems,
            other => panic!("not a list of problems: {other:?}"),
        }
    }
}

/// A model as llama.cpp's converter writes it: its keys, and tensors with the same values in GGUF's
/// layout.
pub(crate) fn converted(config: &Config, weights: &Synthetic) -> Writer {
    let mut file = metadata(config);
    for want in schema::tensors(config) {
        let dtype = weights.dtype(&want.name).expect("a tensor");
        let mut bytes = Vec::new();
        block_on(weights.read_rows(&want.name, 0, want.shape[0], &mut bytes)).expect("rows");
        let cols = usize::try_from(*want.shape.last().expect("an axis")).expect("small");
        let (ty, bytes) = (type_number(dtype), stored(dtype, cols, bytes));
        let (name, expert) = name(&want.name);
        let tensor = file.tensors.entry(name).or_insert_with(|| Tensor {
            shape: want.shape.clone(),
            ty,
            bytes: Vec::new(),
        });
        tensor.bytes.extend(bytes);
        if expert {
            tensor.shape = [vec![config.num_local_experts().into()], want.shape].concat();
        }
    }
    file
}

/// GGUF's type number for an element type.
pub(crate) fn type_number(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::BF16 => 30,
        DType::Q8 => 8,
        DType::Q4 => 2,
        _ => 0,
    }
}

/// Rows in GGUF's layout.
pub(crate) fn stored(dtype: DType, cols: usize, rows: Vec<u8>) -> Vec<u8> {
    if dtype.is_quantized() { blocks(dtype, cols, &rows) } else { rows }
}

/// Rows of quantized blocks in GGUF's layout.
fn blocks(dtype: DType, cols: usize, bytes: &[u8]) -> Vec<u8> {
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).expect("small");
    let mut out = Vec::new();
    for row in bytes.chunks_exact(row_bytes) {
        let integers = if dtype == DType::Q8 { cols } else { cols / 2 };
        for block in 0..cols / 32 {
            out.extend(&row[integers + 2 * block..integers + 2 * block + 2]);
            if dtype == DType::Q8 {
                out.extend(&row[32 * block..32 * block + 32]);
            } else {
                let nibble = |i: usize| row[16 * block + i / 2] >> (i % 2 * 4) & 15;
                out.extend((0..16).map(|i| nibble(i) | nibble(i + 16) << 4));
            }
        }
    }
    out
}

/// llama.cpp's name for a canonical name, and whether its experts are stacked.
pub(crate) fn name(canonical: &str) -> (String, bool) {
    match canonical {
        "model.embed_tokens.weight" => return ("token_embd.weight".into(), false),
        "model.norm.weight" => return ("output_norm.weight".into(), false),
        "lm_head.weight" => return ("output.weight".into(), false),
        _ => {}
    }
    let parts: Vec<&str> = canonical.split('.').collect();
    let name = match parts[3..] {
        ["pre_attn_norm", _] => "attn_norm",
        ["post_attn_norm", _] => "attn_output_norm",
        ["pre_moe_norm", _] => "ffn_norm",
        ["post_moe_norm", _] => "post_ffw_norm",
        ["self_attn", "q_proj", _] => "attn_q",
        ["self_attn", "k_proj", _] => "attn_k",
        ["self_attn", "v_proj", _] => "attn_v",
        ["self_attn", "o_proj", _] => "attn_output",
        ["block_sparse_moe", "gate", _] => "ffn_gate_inp",
        ["mlp", "gate_proj", _] => "ffn_gate",
        ["mlp", "up_proj", _] => "ffn_up",
        ["mlp", "down_proj", _] => "ffn_down",
        ["block_sparse_moe", "experts", _, "w1", _] => "ffn_gate_exps",
        ["block_sparse_moe", "experts", _, "w2", _] => "ffn_down_exps",
        ["block_sparse_moe", "experts", _, "w3", _] => "ffn_up_exps",
        _ => panic!("no name for {canonical}"),
    };
    (format!("blk.{}.{name}.weight", parts[2]), name.ends_with("_exps"))
}

/// The keys that llama.cpp's converter writes.
pub(crate) fn metadata(c: &Config) -> Writer {
    let rope = &c.ropes[0];
    let mut file = Writer::default();
    file.text("general.architecture", "grok");
    for (key, value) in [
        ("block_count", c.num_hidden_layers()),
        ("context_length", c.max_position_embeddings),
        ("embedding_length", c.hidden_size),
        ("feed_forward_length", c.dense_width().unwrap_or(c.moe_intermediate_size())),
        ("vocab_size", c.vocab_size),
        ("expert_count", c.num_local_experts()),
        ("expert_used_count", c.num_experts_per_tok()),
        ("attention.head_count", c.num_attention_heads),
        ("attention.head_count_kv", c.num_key_value_heads),
        ("attention.key_length", c.head_dim),
        ("attention.value_length", c.head_dim),
        ("rope.dimension_count", c.head_dim),
    ] {
        file.int(&format!("grok.{key}"), value);
    }
    for (key, value) in [
        ("attention.layer_norm_rms_epsilon", c.rms_norm_eps),
        ("attention.output_scale", 1.0 / f64::from(c.head_dim).sqrt()),
        ("attn_logit_softcapping", c.attention.softcap),
        // The converter writes it for Grok-1 as well, which has no such cap.
        ("router_logit_softcapping", 30.0),
        ("embedding_scale", c.ends.embed_scale),
        ("logit_scale", c.ends.output_scale),
        ("rope.freq_base", rope.rope_theta),
    ] {
        file.number(&format!("grok.{key}"), value);
    }
    if c.ends.softcap > 0.0 {
        file.number("grok.final_logit_softcapping", c.ends.softcap);
    }
    if c.attention.temperature_len > 0 {
        file.int("grok.attention.temperature_length", c.attention.temperature_len);
    }
    if c.dense_width().is_some() {
        file.int("grok.expert_feed_forward_length", c.moe_intermediate_size());
    }
    if rope.rope_type_named && matches!(rope.rope_type, RopeType::Original | RopeType::Yarn) {
        file.text("grok.rope.scaling.type", "yarn");
        file.number("grok.rope.scaling.factor", rope.scaling_factor);
        let original = rope.original_max_position_embeddings;
        file.int("grok.rope.scaling.original_context_length", original);
        file.number("grok.rope.scaling.yarn_ext_factor", rope.extrapolation_factor);
        file.number("grok.rope.scaling.yarn_attn_factor", rope.attn_factor);
        file.number("grok.rope.scaling.yarn_beta_fast", rope.beta_fast);
        file.number("grok.rope.scaling.yarn_beta_slow", rope.beta_slow);
    }
    if rope.rope_type_named && rope.rope_type == RopeType::Linear {
        file.text("grok.rope.scaling.type", "linear");
        file.number("grok.rope.scaling.factor", rope.scaling_factor);
    }
    file
}
