//! Embedding lookup with the embedding multiplier.
//!
//! Known as: token embedding (gather of rows), fused with dequantization.

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

/// `out[t, :] = table[ids[t] - row0, :] * scale`, for the tokens whose row `table` holds.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// Token ids: `[tokens]`.
    pub ids: Tensor,
    /// Rows `row0..` of the embedding table: `[rows, cols]`.
    pub table: Tensor,
    /// Id of the table's first row.
    pub row0: u32,
    /// Factor on every element.
    pub scale: f32,
    /// Result: `[tokens, cols]`.
    pub out: Tensor,
}

params! { rows: u32, row0: u32, cols8: u32, scale: f32 }

impl Kernel for Embed {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("embed").with_weight(self.table.dtype)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens] = self.ids.dims()?;
        let [rows, cols] = self.table.dims()?;
        binder
            .read("ids", self.ids, U32, [tokens])?
            .weight("table", self.table, [rows, cols])?
            .touching(tokens, rows)
            .write("out", self.out, F32, [tokens, cols])?
            .dispatch(
                Params { rows, row0: self.row0, cols8: cols / 8, scale: self.scale },
                [tokens, 1, 1],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let cols = out.len() / host.ints(self.ids).len();
        let table = host.floats(self.table);
        for (out, &id) in out.chunks_exact_mut(cols).zip(host.ints(self.ids)) {
            let row = id.wrapping_sub(self.row0) as usize;
            if let Some(row) = table.chunks_exact(cols).nth(row) {
                for (out, &value) in out.iter_mut().zip(row) {
                    *out = Bounded::exact(value).scaled(self.scale.into());
                }
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("embed");
    for dtype in super::WEIGHTS {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{dtype} {fill_name}"), move |host| {
                case(host, dtype, fill, [300, 136], 0, 90.509_67, &[0, 299, 7, 7, 150])
            });
        }
        rows.exact(format!("{dtype} index"), move |host| {
            case(host, dtype, Fill::Index, [64, 1024], 0, 4.0, &[63, 0, 31])
        });
        rows.exact(format!("{dtype} second shard leaves others alone"), move |host| {
            case(host, dtype, Fill::Integers(8), [50, 8], 100, 8.0, &[99, 100, 149, 150, 0])
        });
        rows.exact(format!("{dtype} model width"), move |host| {
            case(host, dtype, Fill::Integers(8), [4, 8192], 0, 2.0, &[3])
        });
    }
    for dtype in super::WEIGHTS {
        rows.spoiled(&super::SPOILS, format!("{dtype} all of five rows"), move |host| {
            case(host, dtype, Fill::Normal, [5, 40], 0, 2.0, &[4, 3, 2, 1, 0])
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.weight();
    let shape = [pick.size(300), pick.multiple(dtype.block().max(8), 264)];
    let row0 = pick.of(&[0, 0, 77]);
    let ids: Vec<u32> = (0..pick.size(9)).map(|_| pick.below(row0 + shape[0] + 3)).collect();
    let (fill_name, fill) = pick.fill();
    let [n, cols] = shape;
    rows.add(format!("{dtype} {n}x{cols} from {row0}, ids {ids:?}, {fill_name}"), move |host| {
        case(host, dtype, fill, shape, row0, 90.509_67, &ids)
    });
}

fn case(
    host: &mut Host,
    dtype: crate::base::tensor::DType,
    fill: Fill,
    [rows, cols]: [u32; 2],
    row0: u32,
    scale: f32,
    ids: &[u32],
) -> Embed {
    let cols = super::whole(dtype, cols);
    let tokens = u32::try_from(ids.len()).expect("a row has few tokens");
    Embed {
        ids: host.ints_from([tokens], ids.to_vec()),
        table: host.filled(dtype, [rows, cols], fill),
        row0,
        scale,
        out: host.unwritten([tokens, cols]),
    }
}
