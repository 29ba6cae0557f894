//! Synthetic weights from a formula, so that two programs can build the same model without a file.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use half::{bf16, f16};

use super::check_rows;
use crate::{
    base::{
        error::{Error, Result},
        quant,
        tensor::DType,
    },
    model::{
        config::Config,
        schema::{self, Kind, Part},
        weights::Weights,
    },
};

/// The weights of a model, each a hash of tensor name, index and seed.
///
/// Every value has eight significant bits, so it is the same number in F32, F16 and BF16. Matrices
/// hold values around zero of about unit gain; the router, the head and the query and key
/// projections hold larger ones, so that soft caps have an effect and routing is not uniform. Gains
/// of norms lie in 0.5 .. 1.5.
///
/// Tensors of more than four million values repeat their first rows, so that a layer of any width
/// is made in a second or two: a hash for each of a billion values would take half a minute.
#[derive(Debug)]
pub struct Synthetic {
    tensors: HashMap<String, Recipe>,
    /// The rows that a large tensor repeats, of the tensor that was read last.
    repeated: Mutex<Option<Repeated>>,
}

/// Values after which the rows of a tensor repeat.
const WINDOW: u64 = 1 << 22;

/// The first rows of a tensor, as they are stored.
#[derive(Debug)]
struct Repeated {
    name: String,
    bytes: Vec<u8>,
}

impl Clone for Synthetic {
    fn clone(&self) -> Self {
        Self { tensors: self.tensors.clone(), repeated: Mutex::default() }
    }
}

#[derive(Clone, Debug)]
struct Recipe {
    shape: Vec<u64>,
    dtype: DType,
    hash: u64,
    /// Largest magnitude of a matrix; `None` for a norm.
    scale: Option<f64>,
}

impl Synthetic {
    /// The weights of `config` for a seed, stored as `dtype`; F32 for tensors that may not be
    /// quantized where `dtype` is. Quantized weights are the upper bits of the same random bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `dtype` is U32.
    pub fn new(config: &Config, dtype: DType, seed: u64) -> Result<Self> {
        if dtype == DType::U32 {
            return Err(Error::Usage("weights are floats or quantized, not U32".into()));
        }
        let tensors = schema::tensors(config)
            .into_iter()
            .map(|want| {
                let hash = fnv_1a(&want.name) ^ seed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
                let scale = match want.kind() {
                    Kind::Norm => None,
                    _ => Some(scale(gain(want.key.part), want.shape.last().copied().unwrap_or(1))),
                };
                let dtype = if want.may_be(dtype) { dtype } else { DType::F32 };
                (want.name, Recipe { shape: want.shape, dtype, hash, scale })
            })
            .collect();
        Ok(Self { tensors, repeated: Mutex::default() })
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        let bytes = |recipe: &Recipe| {
            let cols = recipe.shape.last().copied().unwrap_or(1).max(1);
            recipe.shape.iter().product::<u64>() / cols * recipe.dtype.row_bytes(cols)
        };
        self.tensors.values().map(bytes).sum()
    }

    fn recipe(&self, name: &str) -> Result<&Recipe> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::Usage(format!("the synthetic model has no tensor `{name}`")))
    }
}

impl Recipe {
    /// Values of a row.
    fn cols(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// Rows after which the rows repeat, if they do.
    fn window(&self) -> Option<u64> {
        let all: u64 = self.shape.iter().product();
        (all > WINDOW).then(|| (WINDOW / self.cols()).max(1))
    }

    /// Adds these rows as they are stored, from the formula.
    fn store(&self, rows: Range<u64>, into: &mut Vec<u8>) {
        let cols = self.cols();
        if self.dtype.is_quantized() {
            for row in rows {
                self.quantized_row(row * cols..(row + 1) * cols, into);
            }
            return;
        }
        // A weight has one of 256 values.
        let table: Vec<f32> = (0..=255).map(|byte| value(byte, self.scale)).collect();
        let values =
            (rows.start * cols..rows.end * cols).map(|i| table[usize::from(byte(self.hash, i))]);
        match self.dtype {
            DType::F16 => into.extend(values.flat_map(|v| f16::from_f32(v).to_le_bytes())),
            DType::BF16 => into.extend(values.flat_map(|v| bf16::from_f32(v).to_le_bytes())),
            _ => into.extend(values.flat_map(f32::to_le_bytes)),
        }
    }

    fn quantized_row(&self, indices: Range<u64>, into: &mut Vec<u8>) {
        let size = self.scale.unwrap_or(1.0);
        let format = self.dtype.integers().expect("the recipe is of a quantized type");
        let (least, step) = (i16::from(format.least), i16::from(format.step));
        let shift = 8 - format.bits;
        let (middle, lowest) = (128 >> shift, if step > 1 { least } else { -(128 >> shift) });
        let scale = size / f64::from(i16::from(format.step) * middle);
        let integer = |i| {
            let integer = i16::from(byte(self.hash, i) >> shift) * step + lowest;
            i8::try_from(integer.max(least)).unwrap_or(format.least)
        };
        let integers: Vec<i8> = indices.map(integer).collect();
        let scales = vec![f16::from_f64(scale); integers.len() / format.share as usize];
        quant::store_row(self.dtype, &integers, &scales, into);
    }
}

/// Adds the rows `rows` of a tensor that repeats `bytes`, which are `window` rows.
fn repeat(bytes: &[u8], window: u64, rows: Range<u64>, into: &mut Vec<u8>) {
    let of_row = bytes.len() as u64 / window;
    let index = |row: u64| usize::try_from(row * of_row).expect("a row of the window");
    let mut row = rows.start;
    while row < rows.end {
        let from = row % window;
        let count = (window - from).min(rows.end - row);
        into.extend_from_slice(&bytes[index(from)..index(from + count)]);
        row += count;
    }
}

impl Weights for Synthetic {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.recipe(name).map(|recipe| recipe.dtype)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let recipe = self.recipe(name)?;
        check_rows(name, &recipe.shape, row0, rows)?;
        into.clear();
        let rows = row0..row0 + rows;
        let Some(window) = recipe.window() else {
            recipe.store(rows, into);
            return Ok(());
        };
        let mut kept = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated = match kept.take() {
            Some(repeated) if repeated.name == name => repeated,
            _ => {
                let mut bytes = Vec::new();
                recipe.store(0..window, &mut bytes);
                Repeated { name: name.to_owned(), bytes }
            }
        };
        repeat(&repeated.bytes, window, rows, into);
        *kept = Some(repeated);
        Ok(())
    }

    fn in_order(&self) -> bool {
        true
    }
}

/// The FNV-1a hash, which every program can compute.
pub(crate) fn fnv_1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn gain(part: Part) -> f64 {
    match part {
        Part::Router | Part::Head => 4.0,
        Part::Q | Part::K => 2.0,
        _ => 1.0,
    }
}

/// The power of two nearest to the bound of a uniform distribution of variance `gain^2 / cols`.
fn scale(gain: f64, cols: u64) -> f64 {
    // Without a square root, so that ties of the rounding are exact on every machine.
    (0.5 * (gain * gain * 3.0 / cols as f64).log2()).round().exp2()
}

/// The top byte of splitmix64 at index `i`.
fn byte(hash: u64, i: u64) -> u8 {
    let z = hash.wrapping_add((i.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 56) as u8
}

#[expect(clippy::cast_possible_truncation, reason = "eight significant bits fit in an f32")]
fn value(byte: u8, scale: Option<f64>) -> f32 {
    (match scale {
        Some(scale) => (2.0 * f64::from(byte) - 255.0) / 256.0 * scale,
        None => 0.5 + f64::from(byte >> 1) / 128.0,
    }) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(weights: &Synthetic, name: &str, row0: u64, rows: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        pollster::block_on(weights.read_rows(name, row0, rows, &mut bytes)).expect("rows exist");
        bytes
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn tiny(dtype: DType, seed: u64) -> Synthetic {
        let config = Config::preset("tiny").expect("a preset");
        Synthetic::new(&config, dtype, seed).expect("a float type")
    }

    #[test]
    fn the_formula_is_the_agreed_one() {
        // FNV-1a of the empty string and of "a", and splitmix64 from state 0, as published.
        assert_eq!(fnv_1a(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv_1a("a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!([byte(0, 0), byte(0, 1), byte(0, 2)], [0xE2, 0x6E, 0x06]);
        assert_eq!(scale(1.0, 64).to_bits(), 0.25_f64.to_bits());
        assert_eq!(scale(4.0, 64).to_bits(), 1_f64.to_bits());
        assert_eq!(value(255, Some(0.25)).to_bits(), (255.0 / 1024_f32).to_bits());
        assert_eq!(value(255, None).to_bits(), (0.5 + 127.0 / 128_f32).to_bits());
    }

    #[test]
    fn every_type_holds_the_same_numbers() {
        for name in ["model.layers.1.pre_moe_norm.weight", "lm_head.weight"] {
            let wide = floats(&read(&tiny(DType::F32, 7), name, 0, 64));
            let halves = read(&tiny(DType::F16, 7), name, 0, 64);
            let brains = read(&tiny(DType::BF16, 7), name, 0, 64);
            for ((wide, half), brain) in
                wide.iter().zip(halves.as_chunks::<2>().0).zip(brains.as_chunks::<2>().0)
            {
                assert_eq!(wide.to_bits(), f16::from_le_bytes(*half).to_f32().to_bits());
                assert_eq!(wide.to_bits(), bf16::from_le_bytes(*brain).to_f32().to_bits());
            }
        }
    }

    #[test]
    fn rows_are_windows_of_the_whole() {
        let weights = tiny(DType::F32, 0);
        let name = "model.layers.0.block_sparse_moe.experts.3.w2.weight";
        let all = read(&weights, name, 0, 64);
        assert_eq!(all.len(), 64 * 64 * 4);
        assert_eq!(read(&weights, name, 5, 3), all[5 * 64 * 4..8 * 64 * 4]);
        assert_ne!(all, read(&tiny(DType::F32, 1), name, 0, 64));
        let mut bytes = Vec::new();
        for (name, row0, rows) in [(name, 64, 1), (name, u64::MAX, 2), ("no", 0, 1)] {
            let read = pollster::block_on(weights.read_rows(name, row0, rows, &mut bytes));
            assert!(matches!(read, Err(Error::Usage(_))));
        }
    }

    #[test]
    fn large_tensors_repeat_their_first_rows() {
        let mut config = Config::preset("tiny").expect("a preset");
        // 64 columns: the rows of the head repeat after 65,536.
        config.vocab_size = 200_000;
        for dtype in [DType::F32, DType::BF16, DType::Q8, DType::Q4] {
            let weights = Synthetic::new(&config, dtype, 0).expect("weights");
            let (window, name) = (65_536, "lm_head.weight");
            let first = read(&weights, name, 0, 3);
            let row = first.len() / 3;
            assert_eq!(read(&weights, name, window, 3), first);
            assert_eq!(read(&weights, name, 3 * window, 2), first[..2 * row]);
            // Rows on both sides of the place where they begin again.
            let across = read(&weights, name, 2 * window - 1, 3);
            assert_eq!(across[..row], read(&weights, name, window - 1, 1));
            assert_eq!(across[row..], first[..2 * row]);
            assert_ne!(across[..row], first[..row]);
            // Another tensor, and this one again.
            assert_ne!(read(&weights, "model.embed_tokens.weight", window, 3), first);
            assert_eq!(read(&weights.clone(), name, window + 1, 1), first[row..2 * row]);
            assert_eq!(read(&weights, name, 199_999, 1), read(&weights, name, 3_391, 1));
        }
    }

    #[test]
    fn tensors_of_the_size_of_the_window_do_not() {
        let of = |rows| Recipe { shape: vec![rows, 8192], dtype: DType::F32, hash: 0, scale: None };
        assert_eq!([512, 513].map(|rows| of(rows).window()), [None, Some(512)]);
        let wide = Recipe { shape: vec![2, WINDOW + 8], ..of(1) };
        assert_eq!(wide.window(), Some(1));
    }
}
