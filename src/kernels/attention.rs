//! Grouped-query attention (GQA) over a part of the cached positions, with an online softmax.
//!
//! Known as: flash attention; with several splits, flash decoding (split-K over KV positions).

use super::{
    Pick, Rows,
    bounds::{FLUSHED, U, dot},
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{
            DType::{self, F16, F32, Q8},
            Tensor,
        },
    },
    machine::{
        binder::{Binder, Dispatch},
        host::{Bounded, Fill, Host},
        kernel::Kernel,
        shader::Shader,
    },
    params, shader,
    variants::{self, Heads, Tuning},
};

/// For each token, head and split of the positions: the running maximum and sum of the softmax, and
/// the weighted sum of the values. [`super::AttentionMerge`] joins the splits.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Step record.
    pub step: Tensor,
    /// Rotated queries: `[tokens, n_heads, head_dim]`.
    pub q: Tensor,
    /// Keys of positions `pos0..`: `[len, n_kv_heads head_dim]`, of a type of [`super::CACHES`].
    pub k: Tensor,
    /// Values of the same positions.
    pub v: Tensor,
    /// Factor on each token's capped logits: `[tokens]`.
    pub temperature: Tensor,
    /// First position of this shard of the cache; a multiple of `split_len`.
    pub pos0: u32,
    /// Positions of a split, a multiple of a block.
    pub split_len: u32,
    /// Splits of this shard that are dispatched.
    pub splits: u32,
    /// Factor on the dot products.
    pub scale: f32,
    /// Soft cap of the logits; 0 is off.
    pub cap: f32,
    /// Weighted sums: `[tokens, n_heads, all splits, head_dim]`.
    pub acc: Tensor,
    /// Maximum and sum: `[tokens, n_heads, all splits, 2]`.
    pub stats: Tensor,
}

params! {
    n_heads: u32, n_kv_heads: u32, dim4: u32, rows: u32, block: u32, pos0: u32, len: u32,
    split_len: u32, split0: u32, splits: u32, cols8: u32, stride: u32, inner: f32, cap: f32,
}

impl Attention {
    /// How the work is divided.
    fn divided(&self, tuning: &Tuning) -> variants::Attention {
        tuning.attention(Heads { head_dim: self.q.shape.extents()[2], cache: self.k.dtype })
    }
}

/// Elements of a chunk, the sixteen bytes that are loaded at once.
pub(crate) fn elements_of_chunk(dtype: DType) -> u32 {
    match dtype {
        Q8 => 16,
        F16 => 8,
        _ => 4,
    }
}

/// Chunks of sixteen bytes of a position's keys or values.
fn chunks_of_row(dtype: DType, cols: u32) -> u32 {
    u32::try_from(dtype.row_bytes(cols.into()) / 16).expect("fewer than elements")
}

impl Kernel for Attention {
    fn shader(&self, tuning: &Tuning) -> Shader {
        let variants::Attention { variant, program, .. } = self.divided(tuning);
        let own = match self.k.dtype {
            dtype @ (F16 | Q8) => shader!("attention", "step", "math").with_weight(dtype),
            _ => shader!("attention", "step", "math", "cache_f32"),
        };
        own.divided(variant, &program)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, n_heads, head_dim] = self.q.dims()?;
        let [len, kv_cols] = self.k.dims()?;
        let n_kv_heads = kv_cols / head_dim;
        let dtype = self.k.dtype;
        // A chunk must not span two heads.
        let chunk = elements_of_chunk(dtype);
        if !head_dim.is_multiple_of(chunk) {
            return Err(Error::Usage(format!(
                "attention: heads have {head_dim} channels, but {chunk} elements of {dtype} are \
                 loaded at once"
            )));
        }
        let [_, _, all_splits, _] = self.acc.dims()?;
        let variants::Attention { program, rows, block, .. } = self.divided(binder.tuning());
        // A multiply-add for the score and one for the sum, for each channel of each position.
        let positions = u64::from(self.splits) * u64::from(self.split_len);
        let operations = 4 * u64::from(tokens * n_heads) * u64::from(head_dim) * positions;
        let dispatch = binder
            .step(self.step)?
            .read("q", self.q, F32, [tokens, n_heads, head_dim])?
            .weight("k", self.k, [len, n_kv_heads * head_dim])?
            .touching(self.splits.saturating_mul(self.split_len), len)
            .weight("v", self.v, [len, n_kv_heads * head_dim])?
            .touching(self.splits.saturating_mul(self.split_len), len)
            .read("temperature", self.temperature, F32, [tokens])?
            .write("acc", self.acc, F32, [tokens, n_heads, all_splits, head_dim])?
            .touching(self.splits, all_splits)
            .write("stats", self.stats, F32, [tokens, n_heads, all_splits, 2])?
            .touching(self.splits, all_splits)
            .constants(program.constants)
            .dispatch(
                Params {
                    n_heads,
                    n_kv_heads,
                    dim4: head_dim / 4,
                    rows,
                    block,
                    pos0: self.pos0,
                    len,
                    split_len: self.split_len,
                    split0: self.pos0 / self.split_len,
                    splits: all_splits,
                    cols8: kv_cols / 8,
                    stride: chunks_of_row(dtype, kv_cols),
                    inner: if self.cap > 0.0 { self.scale / self.cap } else { self.scale },
                    cap: self.cap,
                },
                [(tokens * n_heads / n_kv_heads).div_ceil(rows), n_kv_heads, self.splits],
            )?;
        Ok(Dispatch { operations, ..dispatch })
    }

    fn oracle(&self, host: &mut Host) {
        let [_, n_heads, head_dim] = self.q.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let [len, kv_cols] = self.k.shape.extents() else { unreachable!("dispatch checked it") };
        let (n_heads, dim) = (*n_heads as usize, *head_dim as usize);
        let n_kv = *kv_cols as usize / dim;
        let (len, pos0) = (*len as usize, self.pos0 as usize);
        let all_splits = self.acc.shape.extents()[2] as usize;
        let split_len = self.split_len as usize;
        let block = self.divided(&host.tuning).block as usize;
        let (pos, real) = (host.ints(self.step)[0] as usize, host.ints(self.step)[1] as usize);
        let (mut acc, mut stats) = (host.current(self.acc), host.current(self.stats));
        let (q, k, v) = (host.floats(self.q), host.floats(self.k), host.floats(self.v));
        let temperature = host.floats(self.temperature);
        for t in 0..real {
            for head in 0..n_heads {
                let kv_head = head / (n_heads / n_kv);
                let query = &q[(t * n_heads + head) * dim..][..dim];
                for split in 0..self.splits as usize {
                    let begin = pos0 + split * split_len;
                    let end = (begin + split_len).min(pos0 + len).min(pos + t + 1);
                    if begin >= end {
                        continue;
                    }
                    let row = |j: usize| ((j - pos0) * n_kv + kv_head) * dim;
                    let scores: Vec<Bounded> = (begin..end)
                        .map(|j| {
                            dot(query, &k[row(j)..][..dim], dim as f64 / 4.0 + 3.0)
                                .scaled(self.scale.into())
                                .softcap(self.cap.into())
                                .scaled(temperature[t])
                        })
                        .collect();
                    let softmax = Softmax::of(&scores, block);
                    let at = (t * n_heads + head) * all_splits + pos0 / split_len + split;
                    stats[2 * at] = softmax.largest;
                    stats[2 * at + 1] = softmax.total;
                    for d in 0..dim {
                        let values = (begin..end).map(|j| v[row(j) + d]);
                        acc[at * dim + d] = softmax.weighted(values);
                    }
                }
            }
        }
        host.write(self.acc, acc);
        host.write(self.stats, stats);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// Weights `exp(s - max s)` with the error that an online softmax over blocks may add. If a score
/// is not finite, no result is.
struct Softmax {
    largest: Bounded,
    total: Bounded,
    weights: Vec<Bounded>,
}

impl Softmax {
    fn of(scores: &[Bounded], block: usize) -> Self {
        if scores.iter().any(|s| !s.value.is_finite()) {
            return Self {
                largest: Bounded::NOT_FINITE,
                total: Bounded::NOT_FINITE,
                weights: vec![Bounded::NOT_FINITE; scores.len()],
            };
        }
        let top = scores.iter().map(|s| s.value).fold(f64::NEG_INFINITY, f64::max);
        let low = scores.iter().map(|s| s.value).fold(f64::INFINITY, f64::min);
        let widest = scores.iter().map(|s| s.bound).fold(0.0, f64::max);
        // Each later block may scale what came before by another exponential of a difference of
        // maxima; the differences sum to at most the range of the scores.
        let blocks = scores.len().div_ceil(block) as f64;
        let rescaled = (5.0 * blocks + 3.0 * (top - low)) * U;
        let weights: Vec<Bounded> = scores
            .iter()
            .map(|s| {
                let gap = s.value - top;
                let weight = Bounded { value: gap, bound: s.bound + widest + U * gap.abs() }.exp();
                Bounded { bound: weight.bound + weight.value * rescaled, ..weight }
            })
            .collect();
        let value = weights.iter().map(|w| w.value).sum::<f64>();
        let chain = (scores.len() as f64 + blocks) * U;
        let bound = weights.iter().map(|w| w.bound).sum::<f64>() + chain * value;
        Self {
            largest: Bounded { value: top, bound: widest },
            total: Bounded { value, bound },
            weights,
        }
    }

    fn weighted(&self, values: impl Iterator<Item = f64>) -> Bounded {
        let (mut value, mut size, mut carried) = (0.0, 0.0, 0.0);
        for (w, v) in self.weights.iter().zip(values) {
            value += w.value * v;
            size += (w.value * v).abs();
            carried += w.bound * v.abs();
        }
        // Incomplete blocks are padded, which adds zeros.
        let chain = (self.weights.len() as f64 + 40.0) * 2.0 * U;
        Bounded { value, bound: carried + chain * size + FLUSHED }
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("attention");
    for dtype in super::CACHES {
        of_type(&mut rows, dtype);
    }
    rows
}

/// Rows with a cache of `dtype`.
fn of_type(rows: &mut Rows, dtype: DType) {
    // Tokens, query heads, key heads, head size; first position; cache length; split length.
    for (name, shape, pos, len, split_len) in [
        ("first token", [1, 4, 2, 16], 0, 64, 64),
        ("decode", [1, 8, 2, 16], 45, 64, 64),
        ("decode in splits", [1, 8, 2, 16], 100, 128, 32),
        ("decode, Grok-2 group", [1, 16, 2, 128], 40, 64, 16),
        ("decode at a cache's end", [1, 8, 2, 32], 36, 37, 32),
        ("prefill", [7, 6, 2, 32], 0, 64, 64),
        ("prefill after a prefix", [9, 6, 2, 32], 30, 64, 64),
        ("prefill in splits", [33, 4, 1, 64], 5, 64, 32),
        ("three parts of a head", [5, 6, 2, 96], 20, 64, 32),
        ("end within a block", [2, 4, 2, 32], 35, 37, 64),
        ("a split begins within a workgroup", [6, 6, 2, 32], 29, 64, 32),
        ("group larger than a tile", [2, 20, 2, 16], 9, 32, 32),
        ("wide head", [2, 2, 1, 256], 19, 32, 32),
        ("ragged head", [2, 6, 2, 36], 11, 32, 32),
        ("narrowest head", [3, 4, 2, 4], 40, 64, 32),
    ] {
        let shape = fitting(dtype, shape);
        let cached = move |host: &mut Host, fill| cache(host, dtype, shape, len, fill);
        let case = move |host: &mut Host, cap, fill| {
            case(host, dtype, shape, [pos, shape[0]], [0, len, split_len], cap, fill)
        };
        for cap in [0.0, 30.0, 2.0, 0.5] {
            rows.add(format!("{dtype} {name}, cap {cap}"), move |host| {
                case(host, cap, Fill::Normal)
            });
        }
        rows.add(format!("{dtype} {name}, outliers"), move |host| case(host, 30.0, Fill::Outliers));
        // Logits so far apart that one position has all the weight.
        rows.add(format!("{dtype} {name}, one key takes all"), move |host| {
            let [tokens, n_heads, n_kv, dim] = shape;
            let kernel = case(host, 0.0, Fill::Index);
            let keys =
                (0..len * n_kv * dim).map(|i| if i / (n_kv * dim) == pos { 100.0 } else { -100.0 });
            let keys = keys.collect();
            Attention {
                q: host.f32([tokens, n_heads, dim], Fill::Constant(100.0)),
                k: host.floats_from(dtype, [len, n_kv * dim], keys),
                ..kernel
            }
        });
        // As large as the type allows.
        for size in [89.0, -89.0, 1e20, -1e20] {
            rows.add(format!("{dtype} {name}, cap 30 at {size:e}"), move |host| {
                let [tokens, n_heads, _, dim] = shape;
                let kernel = case(host, 30.0, Fill::Normal);
                let most = if dtype == F32 { f64::INFINITY } else { 65504.0 };
                let key = (size * f64::from(dim).sqrt()).clamp(-most, most);
                Attention {
                    q: host.f32([tokens, n_heads, dim], Fill::OneHot(0)),
                    k: cached(host, Fill::Constant(key)),
                    ..kernel
                }
            });
        }
        // Equal keys weigh all positions alike: the sum of integers is exact.
        rows.exact(format!("{dtype} {name}, equal keys sum integers"), move |host| {
            let kernel = case(host, 0.0, Fill::Normal);
            Attention {
                k: cached(host, Fill::Constant(0.0)),
                v: cached(host, Fill::Integers(100)),
                ..kernel
            }
        });
        // One channel of one value: each loaded element must go to its own place.
        rows.exact(format!("{dtype} {name}, one value"), move |host| {
            let [.., n_kv, dim] = shape;
            let kernel = case(host, 0.0, Fill::Normal);
            let at = (pos + 1) * n_kv * dim - 3;
            Attention {
                k: cached(host, Fill::Constant(0.0)),
                v: cached(host, Fill::OneHot(at.into())),
                ..kernel
            }
        });
    }
    // Tokens, query heads, key heads, head size; first position. The last token sees all positions.
    for (name, shape, pos) in
        [("decode in splits", [1, 4, 2, 32], 40), ("prefill in splits", [9, 4, 2, 32], 30)]
    {
        for cap in [0.0, 30.0] {
            rows.spoiled(
                &super::SPOILS_OF_SOFTMAX,
                format!("{dtype} {name}, cap {cap}"),
                move |host| {
                    let len = pos + shape[0];
                    case(host, dtype, shape, [pos, shape[0]], [0, len, 32], cap, Fill::Normal)
                },
            );
        }
    }
    let shape = fitting(dtype, [16, 6, 2, 32]);
    rows.add(format!("{dtype} padded rows are left alone"), move |host| {
        case(host, dtype, shape, [3, 5], [0, 64, 64], 30.0, Fill::Normal)
    });
    rows.add(format!("{dtype} second shard of the cache"), move |host| {
        case(host, dtype, [4, 6, 2, 32], [70, 4], [64, 64, 32], 30.0, Fill::Normal)
    });
    rows.add(format!("{dtype} second shard that the queries do not reach"), move |host| {
        case(host, dtype, [4, 6, 2, 32], [7, 4], [64, 64, 32], 30.0, Fill::Normal)
    });
    rows.add(format!("{dtype} a position beyond 100,000"), move |host| {
        case(host, dtype, [2, 4, 2, 32], [130_989, 2], [130_944, 64, 64], 30.0, Fill::Normal)
    });
}

/// The shape with heads and positions that a cache of `dtype` can have.
fn fitting(dtype: DType, [tokens, n_heads, n_kv, dim]: [u32; 4]) -> [u32; 4] {
    [tokens, n_heads, n_kv, dim.next_multiple_of(elements_of_chunk(dtype))]
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.of(&super::CACHES);
    let n_kv = pick.size(3);
    let dim = pick.of(&[8u32, 16, 36, 64, 128, 256]).next_multiple_of(elements_of_chunk(dtype));
    // An odd number of narrow heads makes no whole blocks.
    let n_kv = if (n_kv * dim).is_multiple_of(dtype.block()) { n_kv } else { 2 };
    let n_heads = n_kv * pick.size(8);
    let split_len = Tuning::default().attention(Heads { head_dim: dim, cache: dtype }).block
        * pick.of(&[1, 2, 4]);
    let len = pick.size(2 * split_len + 1);
    let tokens = pick.size(33.min(len)).min((1 << 17) / (n_heads * dim * len)).max(1);
    let pos0 = split_len * pick.of(&[0, 0, 0, 1, 3]);
    let pos = (pos0 + pick.below(len)).saturating_sub(pick.below(tokens));
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let cap = pick.of(&[0.0, 2.0, 30.0, 50.0]);
    let (fill_name, fill) = pick.fill();
    let shape = [tokens, n_heads, n_kv, dim];
    let name = format!(
        "{dtype} {real} of {tokens} tokens, {n_heads} on {n_kv} heads of {dim}, {pos0}+{len} by \
         {split_len} at {pos}, cap {cap}, {fill_name}"
    );
    rows.add(name, move |host| {
        case(host, dtype, shape, [pos, real], [pos0, len, split_len], cap, fill)
    });
}

/// Keys or values of `len` positions.
fn cache(host: &mut Host, dtype: DType, [.., n_kv, dim]: [u32; 4], len: u32, fill: Fill) -> Tensor {
    host.filled(dtype, [len, n_kv * dim], fill)
}

fn case(
    host: &mut Host,
    dtype: DType,
    shape @ [tokens, n_heads, _, dim]: [u32; 4],
    [pos, real]: [u32; 2],
    [pos0, len, split_len]: [u32; 3],
    cap: f32,
    fill: Fill,
) -> Attention {
    let all_splits = (pos0 + len).div_ceil(split_len);
    let temperature = (0..tokens).map(|t| 1.0 + f64::from(t) / 8.0).collect();
    Attention {
        step: host.step(pos, real),
        q: host.f32([tokens, n_heads, dim], fill),
        k: cache(host, dtype, shape, len, fill),
        v: cache(host, dtype, shape, len, fill),
        temperature: host.floats_from(F32, [tokens], temperature),
        pos0,
        split_len,
        splits: len.div_ceil(split_len),
        scale: crate::base::num::round(1.0 / f64::from(dim).sqrt()),
        cap,
        acc: host.unwritten([tokens, n_heads, all_splits, dim]),
        stats: host.unwritten([tokens, n_heads, all_splits, 2]),
    }
}
