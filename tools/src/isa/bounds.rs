//! What must hold of the programs whatever the version of the compiler: WebGPU's default limit of
//! workgroup memory; of those that a GPU runs by default hardly any spills; and of products among
//! these bounds by form and type of the weights.
//!
//! The tables of known versions see small changes. These bounds are wider, so that another version
//! keeps to them, and see a kernel that has lost its shape.

use grok_wgpu::lab::{
    base::tensor::DType::{self, BF16, F16, F32, Q2, Q3, Q4, Q8},
    variants::Form::{self, Matrix, Vector},
};

use super::{figures::MainLoop, programs::Program, report::Row};

/// WebGPU's default limit on the workgroup memory of a program, in bytes.
pub const SHARED: u32 = 16 << 10;

/// Waves of 32 invocations that fit a SIMD at least, so that some run while others wait. On RDNA3,
/// whose SIMDs have half as many registers again, it is 8.
pub const WAVES: u32 = 6;

/// Registers that a default program may spill, and bytes of scratch memory for them. The 32 results
/// of an invocation of `blocks` leave no room for up to this many others.
pub const SPILLS: u32 = 6;
/// See [`SPILLS`].
pub const SCRATCH: u32 = 2048;

/// Bounds on the main loop of products.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    form: Form,
    dtype: DType,
    /// The most vector instructions for each weight, on the shortest path through an iteration and
    /// on the longest. Only of matrix-vector products, in which a weight is used once or a few
    /// times.
    vector: [f64; 2],
    /// The least percentage of multiply-adds.
    share: f64,
    /// The fewest loads that are in flight at once.
    in_flight: u32,
    /// The most waits for all loads in an iteration.
    waits: u32,
}

const ANY: [f64; 2] = [f64::INFINITY; 2];

/// The bounds of each form and type.
pub const BOUNDS: [Bound; 14] = [
    Bound { form: Vector, dtype: Q2, vector: [5.0, 8.5], share: 50.0, in_flight: 12, waits: 3 },
    Bound { form: Vector, dtype: Q3, vector: [5.0, 8.5], share: 50.0, in_flight: 12, waits: 3 },
    Bound { form: Vector, dtype: Q4, vector: [4.0, 7.75], share: 50.0, in_flight: 12, waits: 3 },
    Bound { form: Vector, dtype: Q8, vector: [5.25, 8.5], share: 45.0, in_flight: 12, waits: 3 },
    Bound { form: Vector, dtype: BF16, vector: [3.5, 6.0], share: 60.0, in_flight: 3, waits: 4 },
    Bound { form: Vector, dtype: F16, vector: [3.0, 5.5], share: 70.0, in_flight: 3, waits: 4 },
    Bound { form: Vector, dtype: F32, vector: [2.5, 5.0], share: 70.0, in_flight: 4, waits: 4 },
    Bound { form: Matrix, dtype: Q2, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
    Bound { form: Matrix, dtype: Q3, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
    Bound { form: Matrix, dtype: Q4, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
    Bound { form: Matrix, dtype: Q8, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
    Bound { form: Matrix, dtype: BF16, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
    Bound { form: Matrix, dtype: F16, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
    Bound { form: Matrix, dtype: F32, vector: ANY, share: 75.0, in_flight: 4, waits: 2 },
];

/// The bounds of a program, if it is a product that a GPU runs by default.
pub fn of(program: &Program) -> Option<&'static Bound> {
    let class = program.dispatch.class.as_ref().filter(|_| program.default)?;
    BOUNDS.iter().find(|bound| (bound.form, bound.dtype) == (class.form, class.dtype))
}

/// What a program does not keep to, in words.
pub fn broken(program: &Program, row: &Row) -> Vec<String> {
    let mut broken = row_broken(row, program.default);
    if let Some(bound) = of(program) {
        match &row.main {
            None => broken.push("a product has no loop".into()),
            Some(main) => broken.extend(loop_broken(bound, main)),
        }
    }
    broken
}

/// What `tune` may choose instead of a default may spill, if it is still the fastest; the table
/// sees that it does.
fn row_broken(row: &Row, default: bool) -> Vec<String> {
    let most = |what: &str, found: u32, most: u32| {
        (found > most).then(|| format!("{found} {what}, at most {most} are allowed"))
    };
    let waves = (default && row.waves < WAVES)
        .then(|| format!("{} waves fit a SIMD, at least {WAVES} are wanted", row.waves));
    [
        most("registers are spilled", row.spills, SPILLS).filter(|_| default),
        most("bytes of scratch memory", row.scratch, SCRATCH).filter(|_| default),
        most("bytes of workgroup memory", row.shared, SHARED),
        waves,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn loop_broken(bound: &Bound, main: &MainLoop) -> Vec<String> {
    let mut broken = Vec::new();
    let MainLoop { least, most, .. } = main;
    if bound.form == Vector {
        for (path, figures, bound) in
            [("shortest", least, bound.vector[0]), ("longest", most, bound.vector[1])]
        {
            match figures.vector_per_weight() {
                None => broken.push(format!("no weights are loaded on the {path} path")),
                Some(found) if found > bound => broken.push(format!(
                    "{found:.2} vector instructions a weight on the {path} path, at most {bound} \
                     are allowed"
                )),
                Some(_) => {}
            }
        }
    }
    let Bound { share, in_flight, waits, .. } = *bound;
    if most.share() < share {
        broken.push(format!(
            "{:.0} % of vector operations are multiply-adds, at least {share} are wanted",
            most.share()
        ));
    }
    if most.in_flight < in_flight {
        broken.push(format!("{} loads in flight, at least {in_flight} are wanted", most.in_flight));
    }
    if most.waits > waits {
        broken.push(format!("{} waits for all loads, at most {waits} are allowed", most.waits));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::figures::Figures;

    #[test]
    fn each_bound_is_kept_or_broken() {
        let bound = Bound {
            form: Vector,
            dtype: Q4,
            vector: [1.0, 2.0],
            share: 50.0,
            in_flight: 4,
            waits: 1,
        };
        let most = Figures {
            vector: 64,
            operations: 64,
            multiply_adds: 32,
            in_flight: 4,
            waits: 1,
            weights: 32,
            ..Figures::default()
        };
        let least = Figures { vector: 32, ..most };
        let broken =
            |least, most| loop_broken(&bound, &MainLoop { least, most, inner: Vec::new() }).len();
        assert_eq!(broken(least, most), 0);
        assert_eq!(broken(Figures { vector: 33, ..least }, most), 1);
        for worse in [
            Figures { vector: 65, ..most },
            Figures { multiply_adds: 31, ..most },
            Figures { in_flight: 3, ..most },
            Figures { waits: 2, ..most },
            Figures { weights: 0, ..most },
        ] {
            assert_eq!(broken(least, worse), 1, "{worse:?}");
        }
    }

    #[test]
    fn spills_and_limits_are_seen() {
        let good = Row { waves: WAVES, shared: SHARED, ..Row::default() };
        assert_eq!(row_broken(&good, true), [""; 0]);
        for bad in [
            Row { spills: SPILLS + 1, ..good.clone() },
            Row { scratch: SCRATCH + 4, ..good.clone() },
            Row { shared: SHARED + 1, ..good.clone() },
            Row { waves: WAVES - 1, ..good.clone() },
        ] {
            assert_eq!(row_broken(&bad, true).len(), 1, "{bad:?}");
        }
    }
}
