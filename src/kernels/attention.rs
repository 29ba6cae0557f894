//! Grouped-query attention (GQA) over a part of the cached positions, with an online softmax.
//!
//! Known as: flash attention; with several splits, flash decoding (split-K over KV positions).

use super::{
    Pick, Rows,
    bounds::{FLUSHED, U, dot},
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
        step::{self, PAGE, TileRecord},
    },
    params, shader,
    variants::{self, Form, Heads, Tuning},
};

/// For each token, head and split of the positions: the running maximum and sum of the softmax, and
/// the weighted sum of the values. [`super::AttentionMerge`] joins the splits.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Whether the tokens are generated or of prompts, which decides how the work is divided.
    pub form: Form,
    /// Header of the step record.
    pub step: Tensor,
    /// Tiles of the step: see [`TileRecord`].
    pub tiles: Tensor,
    /// Page table: for each text, the pages of its positions, in order: `[pages]`.
    pub table: Tensor,
    /// Rotated queries: `[tokens, n_heads, head_dim]`.
    pub q: Tensor,
    /// Keys in slots `slot0..`: `[len, n_kv_heads head_dim]`, of a type of [`super::CACHES`].
    pub k: Tensor,
    /// Values in the same slots.
    pub v: Tensor,
    /// Factor on each token's capped logits: `[tokens]`.
    pub temperature: Tensor,
    /// Most rows of a tile.
    pub tile: u32,
    /// Most texts of a step whose rows are side by side.
    pub texts: u32,
    /// Most positions that a query sees: as many splits are dispatched as these can have.
    pub positions: u32,
    /// First slot of this shard of the cache.
    pub slot0: u32,
    /// Positions of the shortest split, a power of two and a multiple of a page. A tile of several
    /// rows has only positions whose splits are that long: see [`step::split_len`]. All positions
    /// of a split are in one shard.
    pub least: u32,
    /// Factor on the dot products.
    pub scale: f32,
    /// Soft cap of the logits; 0 is off.
    pub cap: f32,
    /// Weighted sums: `[tokens, n_heads, splits, head_dim]`.
    pub acc: Tensor,
    /// Maximum and sum: `[tokens, n_heads, splits, 2]`.
    pub stats: Tensor,
}

params! {
    n_heads: u32, n_kv_heads: u32, dim4: u32, groups: u32, rows: u32, block: u32, slot0: u32,
    len: u32, least: u32, splits: u32, cols8: u32, stride: u32, inner: f32, cap: f32,
}

impl Attention {
    /// How the work is divided.
    fn divided(&self, tuning: &Tuning) -> variants::Attention {
        let head_dim = self.q.shape.extents()[2];
        tuning.attention(Heads { head_dim, cache: self.k.dtype, form: self.form })
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
            dtype @ (F16 | Q8) => {
                shader!("attention", "step", "records", "pages", "math").with_weight(dtype)
            }
            _ => shader!("attention", "step", "records", "pages", "math", "cache_f32"),
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
        if !self.least.is_power_of_two() || !self.least.is_multiple_of(PAGE) {
            return Err(Error::Usage(format!(
                "attention: splits have {} positions, expected a power of two that is a multiple \
                 of {PAGE}",
                self.least
            )));
        }
        let [_, _, all_splits, _] = self.acc.dims()?;
        let splits = step::most_splits(self.positions, self.least).min(all_splits);
        let variants::Attention { program, rows, block, .. } = self.divided(binder.tuning());
        let tiles = step::most_tiles(tokens, self.tile, self.texts);
        let groups = (self.tile * (n_heads / n_kv_heads)).div_ceil(rows);
        // A multiply-add for the score and one for the sum, for each channel of each position.
        let seen = u64::from(tokens * n_heads) * u64::from(self.positions);
        let operations = 4 * seen * u64::from(head_dim);
        let slots = self.positions.saturating_mul(self.texts);
        let dispatch = binder
            .step(self.step)?
            .records("tiles", self.tiles, tiles)?
            .read("table", self.table, U32, self.table.shape)?
            .read("q", self.q, F32, [tokens, n_heads, head_dim])?
            .weight("k", self.k, [len, n_kv_heads * head_dim])?
            .touching(slots, len)
            .weight("v", self.v, [len, n_kv_heads * head_dim])?
            .touching(slots, len)
            .read("temperature", self.temperature, F32, [tokens])?
            .write("acc", self.acc, F32, [tokens, n_heads, all_splits, head_dim])?
            .touching(splits, all_splits)
            .write("stats", self.stats, F32, [tokens, n_heads, all_splits, 2])?
            .touching(splits, all_splits)
            .constants(program.constants)
            .dispatch(
                Params {
                    n_heads,
                    n_kv_heads,
                    dim4: head_dim / 4,
                    groups,
                    rows,
                    block,
                    slot0: self.slot0,
                    len,
                    least: self.least,
                    splits: all_splits,
                    cols8: kv_cols / 8,
                    stride: chunks_of_row(dtype, kv_cols),
                    inner: if self.cap > 0.0 { self.scale / self.cap } else { self.scale },
                    cap: self.cap,
                },
                [tiles * groups, n_kv_heads, splits],
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
        let all_splits = self.acc.shape.extents()[2];
        let block = self.divided(&host.tuning).block as usize;
        let real = host.ints(self.step)[0] as usize;
        let tiles: Vec<TileRecord> = host.records_of(self.tiles);
        let (mut acc, mut stats) = (host.current(self.acc), host.current(self.stats));
        let (q, k, v) = (host.floats(self.q), host.floats(self.k), host.floats(self.v));
        let (temperature, table) = (host.floats(self.temperature), host.ints(self.table));
        // The token, its position, and where its pages begin in the table.
        let tokens = tiles[..real].iter().flat_map(|tile| {
            (0..tile.rows).map(|i| ((tile.first + i) as usize, tile.position + i, tile.table))
        });
        for (t, pos, pages) in tokens {
            let split_len = step::split_len(pos, self.least);
            for split in 0..step::splits(pos, self.least) {
                let begin = split * split_len;
                let end = (begin + split_len).min(pos + 1);
                let slot = |j: u32| step::slot_of(table, pages, j).wrapping_sub(self.slot0);
                if slot(begin) >= *len {
                    continue;
                }
                for head in 0..n_heads {
                    let kv_head = head / (n_heads / n_kv);
                    let query = &q[(t * n_heads + head) * dim..][..dim];
                    let row = |j: u32| (slot(j) as usize * n_kv + kv_head) * dim;
                    let scores: Vec<Bounded> = (begin..end)
                        .map(|j| {
                            dot(query, &k[row(j)..][..dim], dim as f64 / 4.0 + 3.0)
                                .scaled(self.scale.into())
                                .softcap(self.cap.into())
                                .scaled(temperature[t])
                        })
                        .collect();
                    let softmax = Softmax::of(&scores, block);
                    let at = (t * n_heads + head) * all_splits as usize + split as usize;
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
        of_texts(&mut rows, dtype);
    }
    rows
}

/// Positions of the kinds of tokens of `Rows::alike`: on one page, and on several, of which the
/// last begins with it.
const POSITIONS: [u32; 4] = [70, 5, 64, 33];

/// What a row of the table is about.
#[derive(Clone, Debug)]
struct Setup {
    dtype: DType,
    form: Form,
    /// Tokens, query heads, key heads, head size.
    shape: [u32; 4],
    texts: Texts,
    /// Most rows of a tile.
    tile: u32,
    /// Positions of the shortest split.
    least: u32,
    /// First slot of the shard, and how many there are.
    shard: [u32; 2],
    cap: f32,
}

impl Setup {
    /// A cache of one shard.
    fn new(dtype: DType, shape: [u32; 4], texts: Texts, least: u32) -> Self {
        let [tokens, n_heads, n_kv, dim] = shape;
        let shape = [tokens, n_heads, n_kv, dim.next_multiple_of(elements_of_chunk(dtype))];
        let shard = [0, texts.slots()];
        let of = Self { dtype, form: Form::Vector, shape, texts, tile: 1, least, shard, cap: 30.0 };
        if tokens == 1 { of } else { of.in_tiles(32) }
    }

    /// The same in tiles of at most so many rows: one for generated tokens, more for prompts.
    fn in_tiles(self, tile: u32) -> Self {
        Self { form: if tile == 1 { Form::Vector } else { Form::Matrix }, tile, ..self }
    }

    /// Elements of a row of the cache.
    fn width(&self) -> u32 {
        self.shape[2] * self.shape[3]
    }

    /// The index of the first element that the cache has for a position of a row's text.
    fn at(&self, row: usize, position: u32) -> usize {
        (self.texts.slot(row, position) * self.width()) as usize
    }

    /// Keys or values in the slots of the shard.
    fn cache(&self, host: &mut Host, fill: Fill) -> Tensor {
        host.filled(self.dtype, [self.shard[1], self.width()], fill)
    }

    fn build(&self, host: &mut Host, fill: Fill) -> Attention {
        let [tokens, n_heads, _, dim] = self.shape;
        let [slot0, _] = self.shard;
        let last = self.texts.rows.iter().map(|row| row.position).max().unwrap_or_default();
        let splits = step::most_splits(last + 1, self.least);
        let temperature = (0..tokens).map(|t| 1.0 + f64::from(t) / 8.0).collect();
        let Staged { step, tiles, table, .. } = self.texts.stage(host, self.tile);
        Attention {
            form: self.form,
            step,
            tiles,
            table,
            q: host.f32([tokens, n_heads, dim], fill),
            k: self.cache(host, fill),
            v: self.cache(host, fill),
            temperature: host.floats_from(F32, [tokens], temperature),
            tile: self.tile,
            texts: self.texts.runs(),
            positions: last + 1,
            slot0,
            least: self.least,
            scale: crate::base::num::round(1.0 / f64::from(dim).sqrt()),
            cap: self.cap,
            acc: host.unwritten([tokens, n_heads, splits, dim]),
            stats: host.unwritten([tokens, n_heads, splits, 2]),
        }
    }

    /// Nine texts of the kinds of `Rows::alike`, with a row each: those of a kind have the same
    /// keys and values on pages of their own, and the same queries.
    fn alike(&self, host: &mut Host) -> Attention {
        let [tokens, n_heads, _, dim] = self.shape;
        let kernel = self.build(host, Fill::Normal);
        let width = self.width() as usize;
        let of_kinds = |host: &mut Host, cache: Tensor| {
            let mut values = host.floats(cache).to_vec();
            for (row, kind) in super::LETTERS.iter().enumerate() {
                let first = super::LETTERS.iter().position(|other| other == kind);
                let first = first.expect("it is one of them");
                for position in 0..=self.texts.rows[row].position {
                    let from = self.at(first, position);
                    values.copy_within(from..from + width, self.at(row, position));
                }
            }
            host.floats_from(self.dtype, [self.shard[1], self.width()], values)
        };
        let temperature = (0..tokens).map(|t| 1.0 + f64::from(super::letter(t)) / 8.0).collect();
        Attention {
            q: super::repeated(host, &[n_heads, dim]),
            k: of_kinds(host, kernel.k),
            v: of_kinds(host, kernel.v),
            temperature: host.floats_from(F32, [tokens], temperature),
            ..kernel
        }
    }

    /// The row in which equal keys weigh all positions alike, so that sums of integers are exact.
    fn equal(&self, host: &mut Host) -> Attention {
        Attention {
            k: self.cache(host, Fill::Constant(0.0)),
            v: self.cache(host, Fill::Integers(100)),
            ..Self { cap: 0.0, ..self.clone() }.build(host, Fill::Normal)
        }
    }
}

/// Rows of one text with a cache of `dtype`.
fn of_type(rows: &mut Rows, dtype: DType) {
    // Tokens, query heads, key heads, head size; first position; shortest split.
    for (name, shape, pos, least) in [
        ("first token", [1, 4, 2, 16], 0, 64),
        ("decode", [1, 8, 2, 16], 45, 64),
        ("decode in splits", [1, 8, 2, 16], 100, 32),
        ("decode, Grok-2 group", [1, 16, 2, 128], 40, 32),
        ("decode, heads of 64", [1, 6, 2, 64], 75, 128),
        ("decode at a page's end", [1, 8, 2, 32], 63, 32),
        ("decode at a page's beginning", [1, 8, 2, 32], 64, 32),
        ("prefill", [7, 6, 2, 32], 0, 64),
        ("prefill, Grok-2 group", [5, 16, 2, 128], 20, 64),
        ("prefill, heads of 64", [2, 2, 1, 64], 25, 64),
        ("prefill after a prefix", [9, 6, 2, 32], 30, 64),
        ("prefill in splits", [33, 4, 1, 64], 5, 32),
        ("three parts of a head", [5, 6, 2, 96], 20, 64),
        ("end within a block", [2, 4, 2, 32], 35, 64),
        ("a split begins within a workgroup", [6, 6, 2, 32], 29, 32),
        ("group larger than a tile", [2, 20, 2, 16], 9, 32),
        ("wide head", [2, 2, 1, 256], 19, 32),
        ("ragged head", [2, 6, 2, 36], 11, 32),
        ("narrowest head", [3, 4, 2, 4], 40, 32),
    ] {
        let setup = Setup::new(dtype, shape, Texts::one(pos, shape[0]), least);
        let mut add = |what: String, build: fn(&Setup, &mut Host) -> Attention, cap: f32| {
            let setup = Setup { cap, ..setup.clone() };
            rows.add(format!("{dtype} {name}, {what}"), move |host| build(&setup, host));
        };
        for cap in [0.0, 30.0, 2.0, 0.5] {
            add(format!("cap {cap}"), |setup, host| setup.build(host, Fill::Normal), cap);
        }
        add("outliers".into(), |setup, host| setup.build(host, Fill::Outliers), 30.0);
        // Logits so far apart that one position has all the weight.
        add(
            "one key takes all".into(),
            |setup, host| {
                let [tokens, n_heads, _, dim] = setup.shape;
                let first = setup.at(0, setup.texts.rows[0].position);
                let width = setup.width();
                let keys = (0..setup.shard[1] * width).map(|i| {
                    let taken = (first..first + width as usize).contains(&(i as usize));
                    if taken { 100.0 } else { -100.0 }
                });
                let keys = keys.collect();
                Attention {
                    q: host.f32([tokens, n_heads, dim], Fill::Constant(100.0)),
                    k: host.floats_from(setup.dtype, [setup.shard[1], width], keys),
                    ..setup.build(host, Fill::Index)
                }
            },
            0.0,
        );
        // As large as the type allows.
        for size in [89.0, -89.0, 1e20, -1e20] {
            let setup = setup.clone();
            rows.add(format!("{dtype} {name}, cap 30 at {size:e}"), move |host| {
                let [tokens, n_heads, _, dim] = setup.shape;
                let most = if dtype == F32 { f64::INFINITY } else { 65504.0 };
                let key = (size * f64::from(dim).sqrt()).clamp(-most, most);
                Attention {
                    q: host.f32([tokens, n_heads, dim], Fill::OneHot(0)),
                    k: setup.cache(host, Fill::Constant(key)),
                    ..setup.build(host, Fill::Normal)
                }
            });
        }
        let of_row = setup.clone();
        rows.exact(format!("{dtype} {name}, equal keys sum integers"), move |host| {
            of_row.equal(host)
        });
        // One channel of one value: each loaded element must go to its own place.
        rows.exact(format!("{dtype} {name}, one value"), move |host| {
            let at = setup.at(0, setup.texts.rows[0].position) as u64 + u64::from(setup.width());
            Attention {
                k: setup.cache(host, Fill::Constant(0.0)),
                v: setup.cache(host, Fill::OneHot(at - 3)),
                ..Setup { cap: 0.0, ..setup.clone() }.build(host, Fill::Normal)
            }
        });
    }
    // Tokens, query heads, key heads, head size; first position. The last token sees all positions
    // of two pages.
    for (name, shape, pos) in
        [("decode in splits", [1, 4, 2, 32], 63), ("prefill in splits", [9, 4, 2, 32], 55)]
    {
        for cap in [0.0, 30.0] {
            let texts = Texts::one(pos, shape[0]);
            let setup = Setup { cap, ..Setup::new(dtype, shape, texts, 32) };
            rows.spoiled(
                &super::SPOILS_OF_SOFTMAX,
                format!("{dtype} {name}, cap {cap}"),
                move |host| setup.build(host, Fill::Normal),
            );
        }
    }
    let padded = Setup::new(dtype, [16, 6, 2, 32], Texts::one(3, 5), 64);
    rows.add(format!("{dtype} padded rows are left alone"), move |host| {
        padded.build(host, Fill::Normal)
    });
}

/// Rows of several texts, pages and shards with a cache of `dtype`.
fn of_texts(rows: &mut Rows, dtype: DType) {
    // At later positions splits are longer. A page may be used again, so the cache is small.
    let far = |pos: u32, count| {
        let texts = Texts::one(pos, count);
        let pages = u32::try_from(texts.table.len()).expect("few pages");
        texts.on((0..pages).map(|page| page * page % 5))
    };
    let many = [(70, 1), (5, 1), (1100, 1), (33, 1), (31, 1), (2047, 1)];
    let three = [(30, 5), (0, 33), (64, 1)];
    let shared = Texts::new(&[(33, 1), (50, 3)]).on([1, 0, 1, 2]);
    // Most rows of a tile; shortest split.
    for (name, texts, tile, least) in [
        ("six texts", Texts::new(&many), 1, 32),
        ("a text beyond 32 splits", far(1023, 2), 1, 32),
        ("a text beyond 64 splits", far(2100, 1), 1, 32),
        ("prompts side by side", Texts::new(&three), 32, 64),
        ("prompts in tiles of two", Texts::new(&three), 2, 64),
        ("prompts by turns", Texts::new(&three).by_turns(), 32, 64),
        ("two texts share their first page", shared, 32, 64),
        ("texts in long splits", Texts::new(&[(1023, 1), (300, 1), (512, 1)]), 1, 256),
    ] {
        for heads in [[4, 2, 32], [6, 2, 16]] {
            let shape = [texts.len(), heads[0], heads[1], heads[2]];
            let setup = Setup::new(dtype, shape, texts.clone(), least).in_tiles(tile);
            let name = format!("{dtype} {name}, {} heads", heads[0]);
            let normal = setup.clone();
            rows.add(name.clone(), move |host| normal.build(host, Fill::Normal));
            rows.exact(format!("{name}, equal keys sum integers"), move |host| setup.equal(host));
        }
    }

    let of_kinds = super::LETTERS.map(|kind| (POSITIONS[kind as usize], 1));
    for (name, tile) in [("generated tokens", 1), ("prompts", 32)] {
        for heads in [[4, 2, 32], [6, 2, 64]] {
            let shape = [9, heads[0], heads[1], heads[2]];
            let setup = Setup::new(dtype, shape, Texts::new(&of_kinds), 32).in_tiles(tile);
            rows.alike(format!("{dtype} {name}, heads of {}", heads[2]), move |host| {
                setup.alike(host)
            });
        }
    }

    // The same program has several tokens of one text, each of which sees itself last.
    for dim in [32, 64] {
        let setup = Setup::new(dtype, [3, 6, 2, dim], Texts::one(40, 3), 64);
        let setup = Setup { form: Form::Vector, tile: 3, ..setup };
        rows.add(format!("{dtype} generated tokens in a tile, heads of {dim}"), move |host| {
            setup.build(host, Fill::Normal)
        });
    }

    // What other texts have, and what is in a page after a text's end, is not looked at.
    for (name, tile) in [("decode", 1), ("prefill", 32)] {
        let count = if tile == 1 { 1 } else { 4 };
        let texts = Texts::new(&[(40, count), (9, count)]);
        let shape = [2 * count, 4, 2, 32];
        let setup = Setup::new(dtype, shape, texts, 32).in_tiles(tile);
        for (what, own) in [("pages that no row has", false), ("what follows in its page", true)] {
            let setup = setup.clone();
            rows.add(format!("{dtype} {name} beside NaN in {what}"), move |host| {
                let mut setup = setup.clone();
                let last = setup.texts.rows.len() - 1;
                let slots = if own {
                    let end = setup.texts.rows[last].position + 1;
                    (end..PAGE).map(|j| setup.texts.slot(last, j)).collect::<Vec<_>>()
                } else {
                    // Only the first text's rows are in the step; the other's page is there.
                    setup.texts.rows.truncate(last.div_ceil(2));
                    (0..PAGE).map(|j| step::slot_of(&setup.texts.table, 2, j)).collect()
                };
                let kernel = setup.build(host, Fill::Normal);
                let width = setup.width() as usize;
                for at in slots.iter().flat_map(|&slot| (0..width).map(move |i| (slot, i))) {
                    let at = at.0 as usize * width + at.1;
                    host.spoil(kernel.k, at, f64::NAN);
                    host.spoil(kernel.v, at, f64::INFINITY);
                }
                kernel
            });
        }
    }

    // Segments of 64 positions, each on two pages of one shard. The first text is in the first and
    // the third shard, the second in the fourth and the second.
    let pages = [1, 0, 4, 7, 6, 3, 2];
    for (name, tile) in [("decode", 1), ("prefill", 32)] {
        for slot0 in [0, 64, 128, 192] {
            let count = if tile == 1 { 1 } else { 5 };
            let texts = Texts::new(&[(70, count), (100, count)]).on(pages);
            let shape = [2 * count, 6, 2, 32];
            let shard = [slot0, 64];
            let setup = Setup { shard, ..Setup::new(dtype, shape, texts, 64).in_tiles(tile) };
            rows.add(format!("{dtype} {name} in the shard from {slot0}"), move |host| {
                setup.build(host, Fill::Normal)
            });
        }
    }
    // Splits have 4096 positions here, and all but the last are in another shard.
    let far = Texts::new(&[(126_992, 1), (126_986, 1)]);
    let pages = far.table.len() / 2;
    let far = far.on((0..2 * pages).map(|page| {
        let (text, page) = (page / pages, page % pages);
        if page < 126_976 / PAGE as usize { 9 } else { u32::try_from(text).expect("0 or 1") }
    }));
    let far = Setup::new(dtype, [2, 4, 2, 32], far, 32).in_tiles(1);
    let setup = Setup { shard: [0, 64], ..far };
    rows.add(format!("{dtype} positions beyond 100,000"), move |host| {
        setup.build(host, Fill::Normal)
    });
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.of(&super::CACHES);
    let n_kv = pick.size(3);
    let dim = pick.of(&[8u32, 16, 36, 64, 128, 256]).next_multiple_of(elements_of_chunk(dtype));
    // An odd number of narrow heads makes no whole blocks.
    let n_kv = if (n_kv * dim).is_multiple_of(dtype.block()) { n_kv } else { 2 };
    let n_heads = n_kv * pick.size(8);
    let (tile, least) = (pick.of(&[1, 1, 3, 32]), PAGE * pick.of(&[1, 2, 4]));
    let positions = pick.of(&[PAGE, 3 * PAGE, 6 * PAGE]);
    let tokens = pick.size(33).min((1 << 17) / (n_heads * dim * positions)).max(1);
    let texts = pick.texts(tokens, positions);
    let shape = [tokens, n_heads, n_kv, dim];
    let cap = pick.of(&[0.0, 2.0, 30.0, 50.0]);
    let (fill_name, fill) = pick.fill();
    let name = format!(
        "{dtype} {texts} of {tokens} tokens, {n_heads} on {n_kv} heads of {dim}, tiles of {tile}, \
         splits of {least}, cap {cap}, {fill_name}"
    );
    let setup = Setup { cap, ..Setup::new(dtype, shape, texts, least).in_tiles(tile) };
    rows.add(name, move |host| setup.build(host, fill));
}
