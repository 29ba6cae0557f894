//! The largest logits of each chunk of 1024.
//!
//! Known as: top-k, first pass (a bitonic sort by chunk; argmax by reduction for k = 1).

use super::{Pick, Rows};
use crate::{
    base::{
        error::Result,
        tensor::{
            DType::{F32, U32},
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
    variants::Tuning,
};

/// The `count` largest logits of each chunk in falling order, ties to the lower id. A logit that is
/// not a finite number counts as the largest finite one, so that it is seen.
#[derive(Clone, Copy, Debug)]
pub struct TopK {
    /// Logits: `[rows, len]`.
    pub logits: Tensor,
    /// Logits kept of each chunk, at most 1024.
    pub count: u32,
    /// The largest: `[rows, chunks * count]`.
    pub values: Tensor,
    /// Their ids: `[rows, chunks * count]`.
    pub ids: Tensor,
}

params! { len: u32, chunks: u32, count: u32 }

/// Logits of a chunk.
pub(crate) const CHUNK: u32 = 1024;

/// Padding of an incomplete chunk.
const LOWEST: f32 = -3.4e38;

impl Kernel for TopK {
    fn shader(&self, _: &Tuning) -> Shader {
        if self.count == 1 {
            shader!("one" of "topk", "pairs", "largest")
        } else {
            shader!("topk", "pairs", "sort")
        }
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [rows, len] = self.logits.dims()?;
        let chunks = len.div_ceil(CHUNK);
        // Only the search for the largest one can have any workgroup size; the sort's is fixed.
        let one = (self.count == 1).then_some(("SORT_WG", binder.tuning().norm_workgroup));
        binder
            .read("logits", self.logits, F32, [rows, len])?
            .write("values", self.values, F32, [rows, chunks * self.count])?
            .write("ids", self.ids, U32, [rows, chunks * self.count])?
            .constants(one.into_iter().collect())
            .dispatch(Params { len, chunks, count: self.count }, [chunks, rows, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let len = self.logits.shape.extents()[1] as usize;
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        for row in host.floats(self.logits).chunks_exact(len) {
            let pairs: Vec<(f64, u32)> = row.iter().map(|&v| flagged(v)).zip(0..).collect();
            largest(&pairs, |id| id, self.count, &mut values, &mut ids);
        }
        host.write(self.values, values.into_iter().map(Bounded::exact).collect());
        host.write_ints(self.ids, ids);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// The value to sort a logit by: the largest finite number if the logit is not finite.
pub(super) fn flagged(value: f64) -> f64 {
    if value.is_finite() { value } else { f32::MAX.into() }
}

/// Appends the `count` largest of each chunk of `pairs`. Chunks are filled up with [`LOWEST`] and
/// the id that `filler` makes of the index.
pub(super) fn largest(
    pairs: &[(f64, u32)],
    filler: impl Fn(u32) -> u32,
    count: u32,
    values: &mut Vec<f64>,
    ids: &mut Vec<u32>,
) {
    for (chunk, first) in pairs.chunks(CHUNK as usize).zip((0u32..).step_by(CHUNK as usize)) {
        let mut chunk = chunk.to_vec();
        let missing = u32::try_from(chunk.len()).expect("at most CHUNK")..CHUNK;
        chunk.extend(missing.map(|i| (f64::from(LOWEST), filler(first + i))));
        chunk.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(value, id) in &chunk[..count as usize] {
            values.push(value);
            ids.push(id);
        }
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("topk");
    for (n, len, count) in [
        (1, 1, 1),
        (1, 5, 3),
        (2, 1000, 64),
        (1, 1024, 1),
        (3, 2500, 1),
        (3, 1025, 16),
        (1, 4096, 64),
        (1, 2500, 1024),
    ] {
        for (fill_name, fill) in [
            ("normal", Fill::Normal),
            ("many ties", Fill::Integers(3)),
            ("all equal", Fill::Constant(1.5)),
            ("falling and rising", Fill::Index),
        ] {
            rows.exact(format!("{count} of {n}x{len} {fill_name}"), move |host| {
                let logits = host.f32([n, len], fill);
                case(host, logits, count)
            });
        }
    }
    for (name, odd) in [
        ("NaN", f64::NAN),
        ("NaN of all bits", f32::from_bits(0x7fff_ffff).into()),
        ("infinity", f64::INFINITY),
        ("-infinity", f64::NEG_INFINITY),
    ] {
        rows.exact(format!("{name} is seen"), move |host| {
            let mut values = vec![0.5; 100];
            values[37] = odd;
            let logits = host.floats_from(F32, [1, 100], values);
            case(host, logits, 4)
        });
    }
    for count in [1, 4] {
        rows.spoiled(&super::SPOILS, format!("{count} of 2x1500"), move |host| {
            let logits = host.f32([2, 1500], Fill::Normal);
            case(host, logits, count)
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [n, len] = [pick.size(3), pick.size(3000)];
    let count = pick.size(1024);
    let (fill_name, fill) = pick.of(&[("normal", Fill::Normal), ("many ties", Fill::Integers(3))]);
    rows.exact(format!("{count} of {n}x{len} {fill_name}"), move |host| {
        let logits = host.f32([n, len], fill);
        case(host, logits, count)
    });
}

fn case(host: &mut Host, logits: Tensor, count: u32) -> TopK {
    let [n, len] = logits.dims().expect("logits have rows");
    let chunks = len.div_ceil(CHUNK);
    TopK {
        logits,
        count,
        values: host.unwritten([n, chunks * count]),
        ids: host.unwritten_ints([n, chunks * count]),
    }
}
