//! Multiply-adds, many for each element.
//!
//! Known as: a peak FLOP/s micro-benchmark. No model runs it: [`ceilings`] measures with it what a
//! device computes at the most.
//!
//! [`ceilings`]: crate::measure::device::ceilings

use super::{Pick, Rows};
use crate::{
    base::{
        error::Result,
        tensor::{DType::F32, Tensor},
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

/// `out[i] = f(f(… f(x[i])))`, `4 rounds` times, where `f(a) = a * factor + addend`
#[derive(Clone, Copy, Debug)]
pub struct MultiplyAdds {
    /// Where the chains begin: `[len]`, a multiple of four.
    pub x: Tensor,
    /// A fourth of the multiply-adds of an element.
    pub rounds: u32,
    /// The factor; results grow without bound where it is larger than 1.
    pub factor: f32,
    /// What is added.
    pub addend: f32,
    /// Result, shaped like `x`.
    pub out: Tensor,
}

/// Multiply-adds of an element in a round.
const STEPS: u32 = 4;
/// Elements of a workgroup: four vectors of four for each of 256 invocations.
const OF_GROUP: u32 = 4096;

params! { vectors: u32, rounds: u32, factor: f32, addend: f32 }

impl MultiplyAdds {
    /// Floating-point operations: two for each multiply-add.
    pub fn operations(&self) -> u64 {
        2 * u64::from(STEPS) * u64::from(self.rounds) * self.x.shape.len()
    }
}

impl Kernel for MultiplyAdds {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("multiply_adds")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [len] = self.x.dims()?;
        let (rounds, factor, addend) = (self.rounds, self.factor, self.addend);
        let dispatch =
            binder.read("x", self.x, F32, [len])?.write("out", self.out, F32, [len])?.dispatch(
                Params { vectors: len / 4, rounds, factor, addend },
                [len.div_ceil(OF_GROUP), 1, 1],
            )?;
        Ok(Dispatch { operations: self.operations(), ..dispatch })
    }

    fn oracle(&self, host: &mut Host) {
        let (factor, addend) = (self.factor.into(), Bounded::exact(self.addend.into()));
        let chain = |x: &Bounded| {
            if !x.value.is_finite() {
                return Bounded::NOT_FINITE;
            }
            let next = |a: Bounded, _| a.scaled(factor).plus(addend);
            (0..STEPS * self.rounds).fold(*x, next)
        };
        let out = host.current(self.x).iter().map(chain).collect();
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("multiply_adds");
    for (len, rounds) in [(4, 1), (1020, 3), (1024, 2), (4096, 0), (4100, 5), (9000, 1)] {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{len}, {rounds} rounds {fill_name}"), move |host| {
                case(host, len, rounds, fill, [0.75, 0.5])
            });
        }
        // Whole numbers of a few thousand at the most.
        for (name, way) in [("up", [1.0, 1.0]), ("down", [1.0, -1.0]), ("turns", [-1.0, 3.0])] {
            rows.exact(format!("{len}, {rounds} rounds {name}"), move |host| {
                case(host, len, rounds, Fill::Index, way)
            });
        }
    }
    // 2^20 (x + 1) - 1 is at most 2^22 - 1.
    rows.exact("64, 5 rounds doubled", |host| case(host, 64, 5, Fill::Integers(3), [2.0, 1.0]));
    rows.spoiled(&super::SPOILS, "1020, 2 rounds", |host| {
        case(host, 1020, 2, Fill::Normal, [0.5, 1.0])
    });
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [len, rounds] = [pick.multiple(4, 8200), pick.below(9)];
    let (fill_name, fill) = pick.fill();
    let way = [pick.of(&[0.5, -0.5, 0.875, 1.0]), pick.of(&[0.0, 1.0, -0.75])];
    rows.add(format!("{len}, {rounds} rounds of {way:?} {fill_name}"), move |host| {
        case(host, len, rounds, fill, way)
    });
}

fn case(
    host: &mut Host,
    len: u32,
    rounds: u32,
    fill: Fill,
    [factor, addend]: [f32; 2],
) -> MultiplyAdds {
    MultiplyAdds { x: host.f32([len], fill), rounds, factor, addend, out: host.unwritten([len]) }
}
