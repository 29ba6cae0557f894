//! Picks rows of a matrix.
//!
//! Known as: row gather (`index_select`).

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
        host::{Fill, Host},
        kernel::Kernel,
        shader::Shader,
    },
    params, shader,
    variants::Tuning,
};

/// `out[i, :] = x[rows[i], :]`
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Rows to pick from: `[tokens, cols]`.
    pub x: Tensor,
    /// Which: `[picked]`.
    pub rows: Tensor,
    /// Result: `[picked, cols]`.
    pub out: Tensor,
}

params! { cols4: u32 }

impl Kernel for Gather {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("gather")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [picked] = self.rows.dims()?;
        binder
            .read("x", self.x, F32, [tokens, cols])?
            .touching(picked, tokens)
            .read("rows", self.rows, U32, [picked])?
            .write("out", self.out, F32, [picked, cols])?
            .dispatch(Params { cols4: cols / 4 }, [picked, 1, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let x = host.current(self.x);
        let cols = x.len() / self.x.shape.extents()[0] as usize;
        let rows = host.ints(self.rows);
        let out = rows.iter().flat_map(|&r| x[r as usize * cols..][..cols].to_vec()).collect();
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("gather");
    for (name, [tokens, cols], picks) in [
        ("one", [1, 4], vec![0]),
        ("last of many", [37, 260], vec![36]),
        ("several, repeated", [9, 1024], vec![8, 0, 8, 3]),
        ("model width", [2, 8192], vec![1]),
    ] {
        rows.exact(name, move |host| case(host, [tokens, cols], &picks));
    }
    rows.spoiled(&super::SPOILS, "all of four", |host| case(host, [4, 8], &[3, 2, 1, 0]));
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [tokens, cols] = [pick.size(65), pick.multiple(4, 1028)];
    let picks: Vec<u32> = (0..pick.size(9)).map(|_| pick.below(tokens)).collect();
    rows.exact(format!("{picks:?} of {tokens}x{cols}"), move |host| {
        case(host, [tokens, cols], &picks)
    });
}

fn case(host: &mut Host, [tokens, cols]: [u32; 2], picks: &[u32]) -> Gather {
    let picked = u32::try_from(picks.len()).expect("a row has few picks");
    Gather {
        x: host.f32([tokens, cols], Fill::Index),
        rows: host.ints_from([picked], picks.to_vec()),
        out: host.unwritten([picked, cols]),
    }
}
