//! Rotary embedding of queries and keys, and the write of keys and values to the cache.
//!
//! Known as: `RoPE` (`rotate_half` layout) fused with the KV cache write.

use super::{
    Pick, Rows,
    bounds::stored,
    texts::{Staged, Texts},
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{
            DType::{self, F16, F32, Q8, U32},
            Tensor,
        },
    },
    machine::{
        binder::{Binder, Dispatch},
        host::{Bounded, Fill, Host},
        kernel::Kernel,
        shader::Shader,
        step::{self, PAGE, RowRecord},
    },
    params, shader,
    variants::Tuning,
};

/// Rotates the pairs `(d, d + head_dim/2)` of queries and keys by the angles in `cos_sin`, and
/// stores keys and values in the slots of their positions, rounded to the type of the cache.
/// Padding rows, and positions that another shard of the cache holds, are left alone.
#[derive(Clone, Copy, Debug)]
pub struct RopeCache {
    /// Header of the step record.
    pub step: Tensor,
    /// Rows of the step: see [`RowRecord`].
    pub rows: Tensor,
    /// Page table: for each text, the pages of its positions, in order: `[pages]`.
    pub table: Tensor,
    /// Queries, keys and values of each token, in that order:
    /// `[tokens, (n_heads + 2 n_kv_heads) head_dim]`.
    pub qkv: Tensor,
    /// Cosine and sine of each pair's angle, side by side: `[tokens, head_dim]`.
    pub cos_sin: Tensor,
    /// Rotated queries: `[tokens, n_heads, head_dim]`.
    pub q: Tensor,
    /// Keys in slots `slot0..`: `[len, n_kv_heads head_dim]`, of a type of [`super::CACHES`].
    pub k: Tensor,
    /// Values in the same slots.
    pub v: Tensor,
    /// First slot of this shard of the cache.
    pub slot0: u32,
}

params! { n_heads: u32, n_kv_heads: u32, half: u32, slot0: u32, len: u32, write_q: u32 }

/// The program with these libraries beside those of every type of cache.
macro_rules! rope_cache {
    ($($lib:literal),+) => {
        shader!("rope_cache", "step", "records", "pages", $($lib),+)
    };
}

impl Kernel for RopeCache {
    fn shader(&self, _: &Tuning) -> Shader {
        match self.k.dtype {
            F16 => rope_cache!("math", "half", "cache_store_f16").with_weight(F16),
            Q8 => rope_cache!("math", "half", "cache_store_q8").with_weight(Q8),
            _ => rope_cache!("cache_store_f32"),
        }
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, n_heads, head_dim] = self.q.dims()?;
        let [len, kv_cols] = self.k.dims()?;
        let n_kv_heads = kv_cols / head_dim;
        let (q_cols, kv_cols) = (n_heads * head_dim, n_kv_heads * head_dim);
        let dtype = match self.k.dtype {
            dtype @ (F16 | Q8) => dtype,
            _ => F32,
        };
        if !kv_cols.is_multiple_of(dtype.block()) {
            return Err(Error::Usage(format!(
                "rope_cache: a position has {kv_cols} keys, which {dtype} cannot divide into \
                 blocks of {}",
                dtype.block()
            )));
        }
        binder
            .step(self.step)?
            .records("rows", self.rows, tokens)?
            .read("table", self.table, U32, self.table.shape)?
            .read("qkv", self.qkv, F32, [tokens, q_cols + 2 * kv_cols])?
            .read("cos_sin", self.cos_sin, F32, [tokens, head_dim])?
            .write("q", self.q, F32, [tokens, n_heads, head_dim])?
            .write("k", self.k, dtype, [len, kv_cols])?
            .touching(tokens, len)
            .write("v", self.v, dtype, [len, kv_cols])?
            .touching(tokens, len)
            .dispatch(
                Params {
                    n_heads,
                    n_kv_heads,
                    half: head_dim / 2,
                    slot0: self.slot0,
                    len,
                    write_q: u32::from(self.slot0 == 0),
                },
                [(q_cols + 2 * kv_cols.div_ceil(unit(dtype))).div_ceil(64), tokens, 1],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let [_, n_heads, head_dim] = self.q.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let [len, kv_cols] = self.k.shape.extents() else { unreachable!("dispatch checked it") };
        let (q_cols, head_dim) = ((n_heads * head_dim) as usize, *head_dim as usize);
        let (kv_cols, len) = (*kv_cols as usize, *len);
        let real = host.ints(self.step)[1] as usize;
        let rows: Vec<RowRecord> = host.records_of(self.rows);
        let table = host.ints(self.table);
        let (mut q, mut k, mut v) =
            (host.current(self.q), host.current(self.k), host.current(self.v));
        let (qkv, cos_sin) = (host.floats(self.qkv), host.floats(self.cos_sin));
        for t in 0..real {
            let angles = &cos_sin[t * head_dim..][..head_dim];
            let x = &qkv[t * (q_cols + 2 * kv_cols)..][..q_cols + 2 * kv_cols];
            let (queries, x) = x.split_at(q_cols);
            let (keys, values) = x.split_at(kv_cols);
            if self.slot0 == 0 {
                q[t * q_cols..][..q_cols].copy_from_slice(&rotate(queries, angles));
            }
            let slot =
                step::slot_of(table, rows[t].table, rows[t].position).wrapping_sub(self.slot0);
            if slot < len {
                let slot = slot as usize;
                let keys = stored(self.k.dtype, &rotate(keys, angles));
                k[slot * kv_cols..][..kv_cols].copy_from_slice(&keys);
                let values: Vec<_> = values.iter().map(|&x| Bounded::exact(x)).collect();
                let values = stored(self.k.dtype, &values);
                v[slot * kv_cols..][..kv_cols].copy_from_slice(&values);
            }
        }
        host.write(self.q, q);
        host.write(self.k, k);
        host.write(self.v, v);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// Elements of a row of the cache that one invocation stores.
fn unit(dtype: DType) -> u32 {
    match dtype {
        Q8 => 64,
        F16 => 2,
        _ => 1,
    }
}

/// Heads side by side, each rotated by the same angles.
fn rotate(heads: &[f64], angles: &[f64]) -> Vec<Bounded> {
    let half = angles.len() / 2;
    let mut out = vec![Bounded::exact(0.0); heads.len()];
    for (x, out) in heads.chunks_exact(2 * half).zip(out.chunks_exact_mut(2 * half)) {
        for (d, angle) in angles.chunks_exact(2).enumerate() {
            let (a, b) = (Bounded::exact(x[d]), Bounded::exact(x[d + half]));
            out[d] = a.scaled(angle[0]).plus(b.scaled(-angle[1]));
            out[d + half] = b.scaled(angle[0]).plus(a.scaled(angle[1]));
        }
    }
    out
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("rope_cache");
    for dtype in super::CACHES {
        of_type(&mut rows, dtype);
        // The values that are not finite fall on a query, a key and a value in turn.
        for tokens in [1, 3] {
            rows.spoiled(
                &super::SPOILS,
                format!("{dtype} {tokens} tokens of 1 and 4 heads"),
                move |host| {
                    case(host, dtype, [tokens, 1, 4, 32], &Texts::one(2, tokens), Fill::Normal)
                },
            );
        }
    }
    rows
}

/// Rows with a cache of `dtype`.
fn of_type(rows: &mut Rows, dtype: DType) {
    for (name, shape) in [
        ("one token", [1, 4, 2, 16]),
        ("Grok-2 heads", [2, 64, 8, 128]),
        ("ragged", [5, 6, 2, 36]),
        ("one head", [3, 1, 1, 8]),
        ("wide head", [2, 2, 1, 256]),
    ] {
        let shape = fitting(dtype, shape);
        let [tokens, .., head_dim] = shape;
        let texts = move |pos| Texts::one(pos, tokens);
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{dtype} {name} {fill_name}"), move |host| {
                case(host, dtype, shape, &texts(3), fill)
            });
        }
        // A quarter turn: cosine 0, sine 1. Each block has the largest integer, so that its scale
        // is a power of two and all integers are kept.
        rows.exact(format!("{dtype} {name} quarter turn"), move |host| {
            let kernel = case(host, dtype, shape, &texts(0), Fill::Normal);
            let angles = (0..tokens * head_dim).map(|i| f64::from(i % 2)).collect();
            let qkv = kernel.qkv.shape;
            let integers = (0..u32::try_from(qkv.len()).expect("rows are small"))
                .map(|i| match dtype {
                    Q8 if i % 8 == 0 => 254.0,
                    Q8 => 2.0 * (f64::from(i * 37 % 255) - 127.0),
                    F16 => f64::from(i * 37 % 4096) - 2048.0,
                    _ => f64::from(i % 4096 + 1),
                })
                .collect();
            RopeCache {
                cos_sin: host.floats_from(F32, [tokens, head_dim], angles),
                qkv: host.floats_from(F32, [qkv.extents()[0], qkv.extents()[1]], integers),
                ..kernel
            }
        });
        // Zero, the smallest f16, what rounds to the largest f16, and what is beyond it.
        for size in [0.0, 1e-30, 3e-8, 8.7e-6, 1e-5, 65519.0, 65520.0, 8e6, 9e6, 1e20, -1e20] {
            rows.add(format!("{dtype} {name} at {size:e}"), move |host| {
                case(host, dtype, shape, &texts(3), Fill::Constant(size))
            });
        }
        // Ones among zeros: each must come to its own place.
        rows.add(format!("{dtype} {name} one in 16"), move |host| RopeCache {
            qkv: host.f32([tokens, (shape[1] + 2 * shape[2]) * head_dim], Fill::Sparse(16)),
            ..case(host, dtype, shape, &texts(3), Fill::Normal)
        });
    }
    let shape = [8, 4, 2, 16];
    rows.add(format!("{dtype} padded rows are left alone"), move |host| {
        case(host, dtype, shape, &Texts::one(2, 5), Fill::Normal)
    });
    for (name, texts) in [
        ("a text goes on in another page", Texts::one(28, 8)),
        ("three texts", Texts::new(&[(70, 3), (0, 4), (33, 1)])),
        ("three texts by turns", Texts::new(&[(70, 3), (30, 4), (33, 1)]).by_turns()),
        ("two texts share their first page", Texts::new(&[(32, 4), (34, 4)]).on([1, 0, 1, 2])),
        ("a position beyond 100,000", {
            let far = Texts::one(131_000, 8);
            let pages = far.table.len();
            far.on((0..pages).map(|page| u32::from(page + 1 == pages)))
        }),
    ] {
        rows.add(format!("{dtype} {name}"), move |host| {
            case(host, dtype, shape, &texts, Fill::Normal)
        });
    }
    // Nine texts with a token each, whose pages are in the order of the texts.
    let positions = [3, 0, 31, 17];
    let of_kinds = super::LETTERS.map(|kind| (positions[kind as usize], 1));
    let texts = Texts::new(&of_kinds).on(0..9);
    rows.alike(format!("{dtype} 4 on 2 heads"), move |host| {
        let kernel = case(host, dtype, [9, 4, 2, 32], &texts, Fill::Normal);
        let angles = super::LETTERS.iter().flat_map(|&kind| {
            (0..16).flat_map(move |i| {
                let (sin, cos) = f64::from(100 * kind + i).sin_cos();
                [cos, sin]
            })
        });
        RopeCache {
            qkv: super::repeated(host, &[8 * 32]),
            cos_sin: host.floats_from(F32, [9, 32], angles.collect()),
            ..kernel
        }
    });
    // Positions 28 to 35 are on two pages, in two shards.
    for (name, slot0) in [("the first shard takes its page", 0), ("the second takes the other", 32)]
    {
        for pages in [[0, 1], [1, 0], [2, 1]] {
            rows.add(format!("{dtype} {name} of {pages:?}"), move |host| {
                let texts = Texts::one(28, 8).on(pages);
                in_shard(host, dtype, shape, &texts, [slot0, 32], Fill::Normal)
            });
        }
    }
}

/// The shape with heads that make whole words, or blocks, of `dtype`; an odd number of blocks where
/// there is one head.
fn fitting(dtype: DType, [tokens, n_heads, n_kv, dim]: [u32; 4]) -> [u32; 4] {
    let block = if dtype == Q8 { 16 * (3 - n_kv.min(2)) } else { 4 };
    [tokens, n_heads, n_kv, dim.next_multiple_of(block)]
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.of(&super::CACHES);
    let tokens = pick.size(17);
    let n_kv_heads = pick.size(4);
    let head_dim = pick.multiple(if dtype == Q8 { 32 } else { 4 }, 256);
    let shape = [tokens, n_kv_heads * pick.size(8), n_kv_heads, head_dim];
    let texts = pick.texts(tokens, 4 * PAGE);
    let pages = texts.slots() / PAGE;
    let first = if pick.once_in(2) { 0 } else { pick.below(pages) };
    let shard = [first * PAGE, PAGE * (1 + pick.below(pages - first))];
    let (fill_name, fill) = pick.fill();
    let name = format!("{dtype} {texts} of {shape:?}, shard {shard:?}, {fill_name}");
    rows.add(name, move |host| in_shard(host, dtype, shape, &texts, shard, fill));
}

/// The row with a cache in one shard.
fn case(host: &mut Host, dtype: DType, shape: [u32; 4], texts: &Texts, fill: Fill) -> RopeCache {
    in_shard(host, dtype, shape, texts, [0, texts.slots()], fill)
}

fn in_shard(
    host: &mut Host,
    dtype: DType,
    [tokens, n_heads, n_kv_heads, head_dim]: [u32; 4],
    texts: &Texts,
    [slot0, len]: [u32; 2],
    fill: Fill,
) -> RopeCache {
    let angles = (0..tokens * head_dim / 2).flat_map(|i| {
        let (sin, cos) = f64::from(i).sin_cos();
        [cos, sin]
    });
    let Staged { step, rows, table, .. } = texts.stage(host, 1);
    RopeCache {
        step,
        rows,
        table,
        qkv: host.f32([tokens, (n_heads + 2 * n_kv_heads) * head_dim], fill),
        cos_sin: host.floats_from(F32, [tokens, head_dim], angles.collect()),
        q: host.unwritten([tokens, n_heads, head_dim]),
        k: host.unwritten_as(dtype, [len, n_kv_heads * head_dim]),
        v: host.unwritten_as(dtype, [len, n_kv_heads * head_dim]),
        slot0,
    }
}
