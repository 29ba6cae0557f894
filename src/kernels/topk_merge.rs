//! The largest of the candidates that the chunks of [`super::TopK`] have kept.
//!
//! Known as: top-k, further passes.

use super::{
    Pick, Rows,
    topk::{CHUNK, flagged, largest},
};
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

/// The `count` largest candidates of each chunk of 1024 in falling order, ties to the lower id.
#[derive(Clone, Copy, Debug)]
pub struct TopKMerge {
    /// Values of the candidates: `[rows, len]`.
    pub values: Tensor,
    /// Their ids: `[rows, len]`.
    pub ids: Tensor,
    /// Candidates kept of each chunk, at most 1024.
    pub count: u32,
    /// The largest: `[rows, chunks * count]`.
    pub out_values: Tensor,
    /// Their ids: `[rows, chunks * count]`.
    pub out_ids: Tensor,
}

params! { len: u32, chunks: u32, count: u32 }

impl Kernel for TopKMerge {
    fn shader(&self, _: &Tuning) -> Shader {
        if self.count == 1 {
            shader!("one" of "topk_merge", "pairs", "largest")
        } else {
            shader!("topk_merge", "pairs", "sort")
        }
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [rows, len] = self.values.dims()?;
        let chunks = len.div_ceil(CHUNK);
        // Only the search for the largest one can have any workgroup size; the sort's is fixed.
        let one = (self.count == 1).then_some(("SORT_WG", binder.tuning().norm_workgroup));
        binder
            .read("values", self.values, F32, [rows, len])?
            .read("ids", self.ids, U32, [rows, len])?
            .write("out_values", self.out_values, F32, [rows, chunks * self.count])?
            .write("out_ids", self.out_ids, U32, [rows, chunks * self.count])?
            .constants(one.into_iter().collect())
            .dispatch(Params { len, chunks, count: self.count }, [chunks, rows, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let len = self.values.shape.extents()[1] as usize;
        let rows = host.floats(self.values).chunks_exact(len);
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        for (row, row_ids) in rows.zip(host.ints(self.ids).chunks_exact(len)) {
            let pairs: Vec<(f64, u32)> =
                row.iter().map(|&v| flagged(v)).zip(row_ids.iter().copied()).collect();
            largest(&pairs, |_| u32::MAX, self.count, &mut values, &mut ids);
        }
        host.write(self.out_values, values.into_iter().map(Bounded::exact).collect());
        host.write_ints(self.out_ids, ids);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("topk_merge");
    for (n, len, count) in
        [(1u32, 1u32, 1), (2, 128, 1), (1, 640, 64), (3, 1025, 16), (1, 3000, 64)]
    {
        for (fill_name, fill) in [
            ("normal", Fill::Normal),
            ("many ties", Fill::Integers(3)),
            ("all equal", Fill::Constant(1.5)),
        ] {
            rows.exact(format!("{count} of {n}x{len} {fill_name}"), move |host| {
                case(host, [n, len, count], fill)
            });
        }
    }
    for count in [1, 4] {
        rows.spoiled(&super::SPOILS, format!("{count} of 2x1500"), move |host| {
            case(host, [2, 1500, count], Fill::Normal)
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [n, len] = [pick.size(3), pick.size(3000)];
    let count = pick.size(1024);
    let (fill_name, fill) = pick.of(&[("normal", Fill::Normal), ("many ties", Fill::Integers(3))]);
    rows.exact(format!("{count} of {n}x{len} {fill_name}"), move |host| {
        case(host, [n, len, count], fill)
    });
}

fn case(host: &mut Host, [n, len, count]: [u32; 3], fill: Fill) -> TopKMerge {
    let chunks = len.div_ceil(CHUNK);
    // Ids in an order of their own: multiples of an odd number, modulo a power of two.
    let ids = (0..n * len).map(|i| i.wrapping_mul(40_503) % 131_072).collect();
    TopKMerge {
        values: host.f32([n, len], fill),
        ids: host.ints_from([n, len], ids),
        count,
        out_values: host.unwritten([n, chunks * count]),
        out_ids: host.unwritten_ints([n, chunks * count]),
    }
}
