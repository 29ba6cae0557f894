//! Writes a GGUF that llama.cpp can load: of synthetic weights, so of any size without a download,
//! or of a model in a folder. `scripts/bench_peers` gives it to several engines, and
//! `scripts/compare_quantizers` to llama.cpp's quantizer.
//!
//! `cargo run --release --example make_gguf -- --preset bench --type q4 --out /tmp/bench.gguf`
//! `cargo run --release --example make_gguf -- --model models/demo --out /tmp/demo.gguf`

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufWriter, Write},
    mem,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::Synthetic,
    model::{
        config::{Config, PRESETS},
        schema,
        weights::Weights,
    },
    text::tokenizer::synthetic_tok_json,
};
use half::bf16;
use serde_json::Value;

#[path = "../tests/gguf/writer.rs"]
#[expect(dead_code, reason = "the tests of the reader need more of it")]
mod writer;

use writer::{ALIGNMENT, Tensor, Writer};

/// Most rows of a tensor in memory at once.
const ROWS: usize = 1024;

/// llama.cpp's numbers of token types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

#[derive(Parser)]
struct Options {
    /// A configuration by name, for weights from a formula.
    #[arg(long, required_unless_present = "model")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    preset: Option<String>,
    /// A folder with a model whose tokenizer is a tokenizer.tok.json. Its types are kept, but for
    /// norms and routers, which are f32 in a GGUF.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["preset", "element", "seed"])]
    model: Option<PathBuf>,
    /// Element type of weights from a formula. Norms and routers are f32.
    #[arg(long = "type", value_enum, default_value = "q4")]
    element: Element,
    /// Another seed gives other weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Element types with which llama.cpp accepts [`Synthetic`]'s norms and routers.
#[derive(Clone, Copy, ValueEnum)]
enum Element {
    F32,
    Q8,
    Q4,
}

/// A tensor of the model, which is a whole tensor of the file or, for an expert, a part of one.
struct Part {
    source: String,
    shape: Vec<u64>,
    /// Its type in the file.
    dtype: DType,
    /// Whether the model has it as bf16, and the file as f32.
    widened: bool,
}

impl Part {
    fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes in the file.
    fn bytes(&self) -> u64 {
        let elements: u64 = self.shape.iter().product();
        match self.dtype {
            // A block has a scale of two bytes and no padding.
            DType::Q8 => elements / 32 * 34,
            DType::Q4 => elements / 32 * 18,
            DType::BF16 | DType::F16 => elements * 2,
            _ => elements * 4,
        }
    }
}

fn main() -> std::process::ExitCode {
    match pollster::block_on(run(&Options::parse())) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code().into()
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    if let Some(folder) = &options.model {
        let opened = grok_wgpu::open(folder).await?;
        let tokens = folder.join("tokenizer.tok.json");
        let tokens = fs::read_to_string(&tokens).map_err(|source| Error::io(&tokens, source))?;
        return convert(&options.out, &opened.config, &opened.weights, &tokens).await;
    }
    let name = options.preset.as_deref().unwrap_or_default();
    let config =
        Config::preset(name).ok_or_else(|| Error::Usage(format!("no preset is called {name}")))?;
    let dtype = match options.element {
        Element::F32 => DType::F32,
        Element::Q8 => DType::Q8,
        Element::Q4 => DType::Q4,
    };
    let weights = Synthetic::new(&config, dtype, options.seed)?;
    convert(&options.out, &config, &weights, &synthetic_tok_json(config.vocab_size)?).await
}

/// Writes a model. `tokens` is its `tokenizer.tok.json`.
async fn convert(out: &Path, config: &Config, weights: &impl Weights, tokens: &str) -> Result<()> {
    let mut file = writer::metadata(config);
    add_tokenizer(&mut file, tokens)?;
    let mut parts: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    for want in schema::tensors(config) {
        let (name, expert) = writer::name(&want.name);
        let mut dtype = weights.dtype(&want.name)?;
        if matches!(dtype, DType::Q3 | DType::Q2) {
            let what = format!("{} is {dtype}, a type that a GGUF does not have", want.name);
            return Err(Error::Usage(what));
        }
        let widened = dtype == DType::BF16 && (want.shape.len() == 1 || name.contains("gate_inp"));
        if widened {
            dtype = DType::F32;
        }
        let experts = expert.then_some(u64::from(config.num_local_experts()));
        let shape = experts.into_iter().chain(want.shape.iter().copied()).collect();
        let ty = writer::type_number(dtype);
        file.tensors.entry(name.clone()).or_insert(Tensor { shape, ty, bytes: Vec::new() });
        let part = Part { source: want.name, shape: want.shape, dtype, widened };
        parts.entry(name).or_default().push(part);
    }
    let header = file.header(|name| parts[name].iter().map(Part::bytes).sum());
    let bytes = write(out, &header, weights, parts.values())
        .await
        .map_err(|source| Error::io(out, source))??;
    eprintln!("wrote {bytes} bytes to {}", out.display());
    Ok(())
}

/// Writes the file window by window. Returns its length.
async fn write<'a>(
    out: &Path,
    header: &[u8],
    weights: &impl Weights,
    tensors: impl Iterator<Item = &'a Vec<Part>>,
) -> io::Result<Result<usize>> {
    let mut file = BufWriter::new(File::create(out)?);
    file.write_all(header)?;
    let mut at = header.len();
    let mut rows = Vec::new();
    for parts in tensors {
        let start = at.next_multiple_of(ALIGNMENT);
        file.write_all(&vec![0; start - at])?;
        at = start;
        for part in parts {
            let count = part.shape.first().copied().unwrap_or(1);
            for row0 in (0..count).step_by(ROWS) {
                let window = (count - row0).min(ROWS as u64);
                if let Err(error) = weights.read_rows(&part.source, row0, window, &mut rows).await {
                    return Ok(Err(error));
                }
                let cols = usize::try_from(part.cols()).unwrap_or(usize::MAX);
                if part.widened {
                    let wide = |pair: &[u8]| bf16::from_le_bytes([pair[0], pair[1]]).to_f32();
                    rows = rows.chunks_exact(2).flat_map(|b| wide(b).to_le_bytes()).collect();
                }
                let stored = writer::stored(part.dtype, cols, mem::take(&mut rows));
                file.write_all(&stored)?;
                at += stored.len();
            }
        }
    }
    file.flush()?;
    Ok(Ok(at))
}

/// Adds a BPE vocabulary, as llama.cpp's converter writes it.
fn add_tokenizer(file: &mut Writer, tokens: &str) -> Result<()> {
    // Byte-level BPE writes bytes that are not printable in Latin-1 as characters from U+0100 on.
    let mut others = '\u{100}'..;
    let letters: Vec<char> = (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => others.next().unwrap_or_default(),
        })
        .collect();
    let vocabulary: Value = serde_json::from_str(tokens)
        .map_err(|error| Error::Usage(format!("the tokenizer: {error}")))?;
    let bytes = |token: &Value| -> Vec<u8> {
        let bytes = token["bytes"].as_array().map(Vec::as_slice).unwrap_or_default();
        bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
    };
    let list = |key: &str| vocabulary[key].as_array().cloned().unwrap_or_default();
    let (mut tokens, mut types, mut merges) = (Vec::new(), Vec::new(), Vec::new());
    // The special tokens come first.
    for token in list("special_tokens") {
        tokens.push(String::from_utf8_lossy(&bytes(&token)).into_owned());
        types.push(CONTROL);
    }
    let regular: Vec<Vec<u8>> = list("regular_tokens").iter().map(bytes).collect();
    let ranks = regular.iter().zip(0..).map(|(token, rank)| (token.as_slice(), rank)).collect();
    let written =
        |part: &[u8]| -> String { part.iter().map(|&byte| letters[usize::from(byte)]).collect() };
    for token in &regular {
        if let Some((start, end)) = halves(token, &ranks) {
            merges.push(format!("{} {}", written(start), written(end)));
        }
        tokens.push(written(token));
        types.push(NORMAL);
    }
    file.text("tokenizer.ggml.model", "gpt2");
    file.text("tokenizer.ggml.pre", "grok-2");
    file.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    file.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    file.ints("tokenizer.ggml.token_type", &types);
    file.int("tokenizer.ggml.eos_token_id", 2);
    file.int("tokenizer.ggml.eot_token_id", 1);
    Ok(())
}

/// The two parts whose merge makes a token: what the merges of lower ranks leave of its bytes.
/// `None` for a byte, and for a token that no merge makes.
fn halves<'a>(token: &'a [u8], ranks: &HashMap<&[u8], u32>) -> Option<(&'a [u8], &'a [u8])> {
    let own = *ranks.get(token)?;
    let mut ends: Vec<usize> = (0..=token.len()).collect();
    while ends.len() > 3 {
        let rank = |at: usize| ranks.get(&token[ends[at]..ends[at + 2]]).copied();
        let pairs = (0..ends.len() - 2).filter_map(|at| Some((rank(at)?, at)));
        let (_, at) = pairs.filter(|(rank, _)| *rank < own).min()?;
        ends.remove(at + 1);
    }
    (ends.len() == 3).then(|| token.split_at(ends[1]))
}
