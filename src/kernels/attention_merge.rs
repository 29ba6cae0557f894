//! Merges the partial softmaxes of attention's splits.
//!
//! Known as: the reduction of flash decoding (split-K), which rescales by each split's maximum.

use super::{Pick, Rows};
use crate::{
    base::{
        error::Result,
        tensor::{DType::F32, Tensor},
    },
    kernels::bounds::U,
    machine::{
        binder::{Binder, Dispatch},
        host::{Bounded, Fill, Host},
        kernel::Kernel,
        shader::Shader,
    },
    params, shader,
    variants::Tuning,
};

/// `out = sum_i exp(m_i - m) acc_i / sum_i exp(m_i - m) l_i` over the splits that hold positions up
/// to the query's own, for the rows that are real in this step.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMerge {
    /// Step record.
    pub step: Tensor,
    /// Weighted sums: `[tokens, n_heads, splits, head_dim]`.
    pub acc: Tensor,
    /// Maximum and sum: `[tokens, n_heads, splits, 2]`.
    pub stats: Tensor,
    /// Positions of a split.
    pub split_len: u32,
    /// Result: `[tokens, n_heads * head_dim]`.
    pub out: Tensor,
}

params! { n_heads: u32, dim4: u32, splits: u32, split_len: u32 }

impl Kernel for AttentionMerge {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("attention_merge", "step", "math")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, n_heads, splits, head_dim] = self.acc.dims()?;
        binder
            .step(self.step)?
            .read("acc", self.acc, F32, [tokens, n_heads, splits, head_dim])?
            .read("stats", self.stats, F32, [tokens, n_heads, splits, 2])?
            .write("out", self.out, F32, [tokens, n_heads * head_dim])?
            .dispatch(
                Params { n_heads, dim4: head_dim / 4, splits, split_len: self.split_len },
                [n_heads, tokens, 1],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let [_, n_heads, splits, dim] = self.acc.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let (n_heads, splits, dim) = (*n_heads as usize, *splits as usize, *dim as usize);
        let (pos, real) = (host.ints(self.step)[0] as usize, host.ints(self.step)[1] as usize);
        let mut out = host.current(self.out);
        let (acc, stats) = (host.floats(self.acc), host.floats(self.stats));
        for row in 0..real * n_heads {
            let used = (pos + row / n_heads) / self.split_len as usize + 1;
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
            let total = (0..used)
                .map(|i| weight(i).scaled(stat(i)[1]))
                .fold(Bounded::exact(0.0), Bounded::plus);
            for d in 0..dim {
                let sum = (0..used)
                    .map(|i| weight(i).scaled(acc[(row * splits + i) * dim + d]))
                    .fold(Bounded::exact(0.0), Bounded::plus);
                out[row * dim + d] = sum.over(total);
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("attention_merge");
    for (name, shape, [pos, real, split_len]) in [
        ("one split", [1, 4, 1, 16], [9, 1, 64]),
        ("all of eight splits", [1, 8, 8, 128], [127, 1, 16]),
        ("some of eight splits", [3, 6, 8, 32], [46, 3, 16]),
        ("first position", [1, 2, 4, 8], [0, 1, 16]),
        ("padded rows", [9, 2, 4, 36], [14, 5, 16]),
        ("wide head", [2, 2, 3, 256], [40, 2, 16]),
    ] {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{name} {fill_name}"), move |host| {
                case(host, shape, [pos, real, split_len], fill)
            });
        }
    }
    // Maxima so far apart that exponentials overflow or underflow unless the largest is subtracted.
    // Unused splits have still larger ones.
    for (name, shape, [pos, real, split_len]) in [
        ("all of eight splits", [1, 8, 8, 32], [127, 1, 16]),
        ("some of eight splits", [5, 6, 8, 32], [30, 5, 16]),
        ("two of three splits", [4, 5, 3, 8], [12, 4, 8]),
    ] {
        rows.add(format!("{name}, maxima far apart"), move |host| {
            let [tokens, n_heads, splits, _] = shape;
            let stats = (0..tokens * n_heads * splits).flat_map(|i| {
                let unused = i % splits > (pos + i / splits / n_heads) / split_len;
                let largest = if unused { 3000.0 } else { f64::from(i * 7 % 11) * 100.0 - 900.0 };
                [largest, 3.0 + f64::from(i * 5 % 13)]
            });
            AttentionMerge {
                stats: host.floats_from(F32, [tokens, n_heads, splits, 2], stats.collect()),
                ..case(host, shape, [pos, real, split_len], Fill::Normal)
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
                ..case(host, shape, [16, 8, 16], Fill::Constant(0.0))
            }
        });
    }
    rows.exact("one split divides by its sum", |host| AttentionMerge {
        step: host.step(3, 1),
        acc: host.f32([1, 2, 1, 8], Fill::Integers(8)),
        stats: host.f32([1, 2, 1, 2], Fill::Constant(1.0)),
        split_len: 16,
        out: host.unwritten([1, 16]),
    });
    rows.add("the second sum is infinite", |host| {
        let kernel = case(host, [1, 2, 2, 8], [20, 1, 16], Fill::Normal);
        host.spoil(kernel.stats, 3, f64::INFINITY);
        kernel
    });
    rows.spoiled(&super::SPOILS_OF_SOFTMAX, "three splits", |host| {
        case(host, [3, 6, 3, 16], [40, 3, 16], Fill::Normal)
    });
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let split_len = pick.of(&[8, 16, 32]);
    let splits = pick.size(9);
    let tokens = pick.size(9.min(splits * split_len));
    let shape = [tokens, pick.size(16), splits, pick.multiple(4, 256)];
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    // The last row may see as many positions as the splits hold.
    let pos = pick.below(splits * split_len - tokens + 1);
    let (fill_name, fill) = pick.fill();
    let [_, n_heads, _, dim] = shape;
    let name = format!(
        "{real} of {tokens} tokens, {n_heads} heads of {dim}, {splits} splits of {split_len} at \
         {pos}, {fill_name}"
    );
    rows.add(name, move |host| case(host, shape, [pos, real, split_len], fill));
}

fn case(
    host: &mut Host,
    shape: [u32; 4],
    [pos, real, split_len]: [u32; 3],
    fill: Fill,
) -> AttentionMerge {
    let [tokens, n_heads, splits, dim] = shape;
    let stats = (0..tokens * n_heads * splits)
        .flat_map(|i| [f64::from(i * 7 % 11) - 5.0, 0.5 + f64::from(i * 5 % 13)]);
    AttentionMerge {
        step: host.step(pos, real),
        acc: host.f32(shape, fill),
        stats: host.floats_from(F32, [tokens, n_heads, splits, 2], stats.collect()),
        split_len,
        out: host.unwritten([tokens, n_heads * dim]),
    }
}
