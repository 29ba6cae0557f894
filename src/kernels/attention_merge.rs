//! Merges the partial softmaxes of attention's splits.
//!
//! Known as: the reduction of flash decoding (split-K), which rescales by each split's maximum.

use super::{Pick, Rows, bounds::FLUSHED};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType::F32, Tensor},
    },
    kernels::bounds::U,
    machine::{
        binder::{Binder, Dispatch},
        host::{Bounded, Fill, Host},
        kernel::Kernel,
        shader::Shader,
        step::{self, RowRecord, SPLITS},
    },
    params, shader,
    variants::Tuning,
};

/// `out = sum_i exp(m_i - m) acc_i / sum_i exp(m_i - m) l_i` over the splits that hold positions up
/// to the query's own, for the rows that are real in this step.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMerge {
    /// Header of the step record.
    pub step: Tensor,
    /// Rows of the step: see [`RowRecord`].
    pub rows: Tensor,
    /// Weighted sums: `[tokens, n_heads, splits, head_dim]`.
    pub acc: Tensor,
    /// Maximum and sum: `[tokens, n_heads, splits, 2]`.
    pub stats: Tensor,
    /// Positions of the shortest split, as in [`super::Attention`].
    pub least: u32,
    /// Result: `[tokens, n_heads * head_dim]`.
    pub out: Tensor,
}

params! { n_heads: u32, dim4: u32, splits: u32, least: u32 }

impl Kernel for AttentionMerge {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("attention_merge", "step", "records", "math")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, n_heads, splits, head_dim] = self.acc.dims()?;
        if splits > SPLITS {
            return Err(Error::Usage(format!(
                "attention_merge: {splits} splits, expected at most {SPLITS}"
            )));
        }
        let dim4 = head_dim / 4;
        let quads = dim4.next_power_of_two().clamp(4, 32);
        // A single split leaves nothing to share.
        let parts = if splits == 1 { 1 } else { 8 };
        binder
            .step(self.step)?
            .records("rows", self.rows, tokens)?
            .read("acc", self.acc, F32, [tokens, n_heads, splits, head_dim])?
            .read("stats", self.stats, F32, [tokens, n_heads, splits, 2])?
            .write("out", self.out, F32, [tokens, n_heads * head_dim])?
            .constant("QUADS", quads)
            .constant("WG", quads * parts)
            .dispatch(
                Params { n_heads, dim4, splits, least: self.least },
                [n_heads, tokens, dim4.div_ceil(quads)],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let [_, n_heads, splits, dim] = self.acc.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let (n_heads, splits, dim) = (*n_heads as usize, *splits as usize, *dim as usize);
        let real = host.ints(self.step)[1] as usize;
        let rows: Vec<RowRecord> = host.records_of(self.rows);
        let mut out = host.current(self.out);
        let (acc, stats) = (host.floats(self.acc), host.floats(self.stats));
        for row in 0..real * n_heads {
            let used = step::splits(rows[row / n_heads].position, self.least) as usize;
            let stat = |i: usize| &stats[2 * (row * splits + i)..][..2];
            if (0..used).flat_map(stat).any(|stat| !stat.is_finite()) {
                out[row * dim..][..dim].fill(Bounded::NOT_FINITE);
                continue;
            }
            let largest = (0..used).map(|i| stat(i)[0]).fold(f64::NEG_INFINITY, f64::max);
            let weight = |i: usize| {
                let gap = stat(i)[0] - largest;
                Bounded { value: gap, bound: U * gap.abs() }.exp()
            };
            let weights: Vec<Bounded> = (0..used).map(weight).collect();
            let total = sum(&weights, |i| stat(i)[1]);
            for d in 0..dim {
                let sum = sum(&weights, |i| acc[(row * splits + i) * dim + d]);
                out[row * dim + d] = sum.over(total);
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// The weighted sum of a value for each split, in any order.
fn sum(weights: &[Bounded], value: impl Fn(usize) -> f64) -> Bounded {
    let (mut sum, mut size, mut carried) = (0.0, 0.0, 0.0);
    for (i, weight) in weights.iter().enumerate() {
        let term = weight.scaled(value(i));
        sum += term.value;
        size += term.value.abs() + term.bound;
        carried += term.bound;
    }
    // As many additions as there are splits but one.
    let chain = (weights.len() as f64 - 1.0) * U;
    Bounded { value: sum, bound: carried + chain * size + FLUSHED }
}

/// The shortest split in these rows.
const LEAST: u32 = 32;

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("attention_merge");
    for (name, shape, pos, real) in [
        ("one split", [1, 4, 1, 16], 9, 1),
        ("all of eight splits", [1, 8, 8, 128], 255, 1),
        ("some of eight splits", [3, 6, 8, 32], 94, 3),
        ("all of 32 splits", [1, 2, 32, 16], 1023, 1),
        ("longer splits", [2, 2, 32, 36], 1024, 2),
        ("first position", [1, 2, 4, 8], 0, 1),
        ("padded rows", [9, 2, 4, 36], 30, 5),
        ("wide head", [2, 2, 3, 256], 80, 2),
        ("narrowest head", [2, 3, 9, 4], 260, 2),
    ] {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{name} {fill_name}"), move |host| {
                case(host, shape, &consecutive(pos, real), fill)
            });
        }
    }
    for (name, shape, pos) in [
        ("all of eight splits", [1, 8, 8, 32], 255),
        ("some of eight splits", [5, 6, 8, 32], 62),
        ("two of three splits", [4, 5, 3, 8], 40),
        ("all of 32 splits", [1, 2, 32, 8], 1023),
    ] {
        rows.add(format!("{name}, maxima far apart"), move |host| {
            let [tokens, n_heads, splits, _] = shape;
            let stats = (0..tokens * n_heads * splits).flat_map(|i| {
                let unused = i % splits > (pos + i / splits / n_heads) / LEAST;
                let largest = if unused { 3000.0 } else { f64::from(i * 7 % 11) * 100.0 - 900.0 };
                [largest, 3.0 + f64::from(i * 5 % 13)]
            });
            AttentionMerge {
                stats: host.floats_from(F32, [tokens, n_heads, splits, 2], stats.collect()),
                ..case(host, shape, &consecutive(pos, tokens), Fill::Normal)
            }
        });
    }
    // One exponential by itself: the second split's weight, over a sum of one.
    for (name, step) in [("near zero", 1.0 / 180.0), ("over its range", 0.33)] {
        rows.add(format!("exponentials {name}"), move |host| {
            let shape = [8, 32, 2, 4];
            let stats = (0..256).flat_map(|i| [0.0, 1.0, -step * f64::from(i), 0.0]).collect();
            let acc = (0..256).flat_map(|_| [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).collect();
            AttentionMerge {
                acc: host.floats_from(F32, shape, acc),
                stats: host.floats_from(F32, [8, 32, 2, 2], stats),
                ..case(host, shape, &consecutive(32, 8), Fill::Constant(0.0))
            }
        });
    }
    // Each text has the splits of its own position, and what lies in others is not read.
    let texts = [5, 1023, 0, 2047, 32, 31, 1024, 500, 4000, 63];
    for (fill_name, fill) in super::FILLS {
        rows.add(format!("ten texts {fill_name}"), move |host| {
            let kernel = case(host, [10, 2, 32, 8], &texts, fill);
            spoil_unused(host, &kernel, &texts);
            kernel
        });
    }
    // One split, all of 32, longer ones, and a few.
    let of_kinds = super::LETTERS.map(|kind| [5, 1023, 1500, 70][kind as usize]);
    rows.alike("4 heads in up to 32 splits", move |host| {
        let kernel = case(host, [9, 4, 32, 36], &of_kinds, Fill::Normal);
        let [acc, stats] = [kernel.acc, kernel.stats].map(|tensor| {
            let all = host.floats(tensor).to_vec();
            let of = |&kind: &u32| all.chunks(all.len() / 9).nth(kind as usize).unwrap_or_default();
            let values = super::LETTERS.iter().flat_map(of).copied().collect();
            host.floats_from(F32, tensor.shape, values)
        });
        AttentionMerge { acc, stats, ..kernel }
    });
    rows.exact("one split divides by its sum", |host| AttentionMerge {
        acc: host.f32([1, 2, 1, 8], Fill::Integers(8)),
        stats: host.f32([1, 2, 1, 2], Fill::Constant(1.0)),
        ..case(host, [1, 2, 1, 8], &[3], Fill::Normal)
    });
    // Equal maxima, and a sum of one in a power of two of splits.
    rows.exact("integers sum over their splits", |host| {
        let positions = [1023, 0, 31, 32, 96, 255, 511];
        let shape @ [tokens, n_heads, splits, _] = [7, 3, 32, 12];
        let stats = (0..tokens * n_heads * splits).flat_map(|_| [7.0, 1.0]).collect();
        let kernel = AttentionMerge {
            stats: host.floats_from(F32, [tokens, n_heads, splits, 2], stats),
            ..case(host, shape, &positions, Fill::Integers(4096))
        };
        spoil_unused(host, &kernel, &positions);
        kernel
    });
    // Not the last split's, whose numbers the places of missing splits have as well, times zero.
    rows.add("the first sum is infinite", |host| {
        let kernel = case(host, [1, 2, 2, 8], &[40], Fill::Normal);
        host.spoil(kernel.stats, 1, f64::INFINITY);
        kernel
    });
    rows.spoiled(&super::SPOILS_OF_SOFTMAX, "three splits", |host| {
        case(host, [3, 6, 3, 16], &consecutive(80, 3), Fill::Normal)
    });
    rows.spoiled(&super::SPOILS_OF_SOFTMAX, "one split", |host| {
        case(host, [3, 6, 1, 16], &consecutive(8, 3), Fill::Normal)
    });
    rows
}

/// Makes NaN of what lies in splits after the positions of the rows.
fn spoil_unused(host: &mut Host, kernel: &AttentionMerge, positions: &[u32]) {
    let [_, n_heads, splits, dim] = *kernel.acc.shape.extents() else {
        unreachable!("four extents")
    };
    for (token, &position) in (0..).zip(positions) {
        for split in step::splits(position, kernel.least)..splits {
            for head in 0..n_heads {
                let at = ((token * n_heads + head) * splits + split) as usize;
                (0..2).for_each(|i| host.spoil(kernel.stats, 2 * at + i, f64::NAN));
                let dim = dim as usize;
                (0..dim).for_each(|d| host.spoil(kernel.acc, dim * at + d, f64::NAN));
            }
        }
    }
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let splits = pick.size(SPLITS);
    let tokens = pick.size(9);
    let shape = [tokens, pick.size(16), splits, pick.multiple(4, 256)];
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    // With all splits, any position has room.
    let most = if splits == SPLITS { 8 * SPLITS * LEAST } else { splits * LEAST };
    let positions: Vec<u32> = (0..real).map(|_| pick.below(most)).collect();
    let (fill_name, fill) = pick.fill();
    let [_, n_heads, _, dim] = shape;
    let name = format!(
        "{positions:?} of {tokens} tokens, {n_heads} heads of {dim}, {splits} splits, {fill_name}"
    );
    rows.add(name, move |host| case(host, shape, &positions, fill));
}

/// Positions of one text.
fn consecutive(pos: u32, rows: u32) -> Vec<u32> {
    (pos..pos + rows).collect()
}

/// Rows of texts at these positions.
fn case(host: &mut Host, shape: [u32; 4], positions: &[u32], fill: Fill) -> AttentionMerge {
    let [tokens, n_heads, splits, dim] = shape;
    let stats = (0..tokens * n_heads * splits)
        .flat_map(|i| [f64::from(i * 7 % 11) - 5.0, 0.5 + f64::from(i * 5 % 13)]);
    let records: Vec<RowRecord> = (0..)
        .zip(positions)
        .map(|(sequence, &position)| RowRecord { position, sequence, ..RowRecord::default() })
        .collect();
    AttentionMerge {
        step: host.step(0, u32::try_from(positions.len()).expect("few rows")),
        rows: host.records(&records),
        acc: host.f32(shape, fill),
        stats: host.floats_from(F32, [tokens, n_heads, splits, 2], stats.collect()),
        least: LEAST,
        out: host.unwritten([tokens, n_heads * dim]),
    }
}
