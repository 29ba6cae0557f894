//! Products on the CPU: the operands of every row of the products' kernels, against sums in f64
//! with the bound that follows from the depth of the CPU's own sums, and the same bits with every
//! instruction set and number of threads.

#[path = "common/products.rs"]
mod products;

use fearless_simd::Level;
use grok_wgpu::lab::{
    base::{activation::Gelu, tensor::DType},
    kernels::{self, Case},
    machine::{
        binder::Dispatch,
        cpu::{Cpu, MlpRows, Rows},
        host::Host,
    },
    variants::Tuning,
};

use products::Bounded;

/// Instruction sets that this computer has and that have a fused multiply-add.
fn levels() -> Vec<Level> {
    #[cfg(target_arch = "x86_64")]
    {
        let level = Level::new();
        let levels = [level.as_avx2().map(Level::Avx2), level.as_avx512().map(Level::Avx512)];
        levels.into_iter().flatten().collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![Level::new()]
}

/// What a row of a kernel multiplies.
struct Operands {
    x: Vec<f32>,
    cols: usize,
    dtype: DType,
    /// One matrix, or gate and up, of each expert if there are some: bytes.
    weights: Vec<Vec<Vec<u8>>>,
    gelu: Gelu,
}

impl Operands {
    fn of(case: &Case) -> Self {
        let mut host = Host::with_seed(7);
        let kernel = case.build(&mut host);
        let dispatch = kernel.record(&Tuning::default()).expect("rows are sound");
        let tensor = |name: &str| {
            let found = dispatch.operands.iter().find(|operand| operand.name == name);
            found.map(|operand| operand.tensor)
        };
        let x = host.bytes(tensor("x").expect("products have activations"));
        let names = ["weight", "gate", "up"];
        let weights: Vec<_> = names.into_iter().filter_map(tensor).collect();
        let extents = weights[0].shape.extents();
        let experts = if extents.len() == 3 { extents[0] as usize } else { 1 };
        let split = |bytes: Vec<u8>| {
            let one = bytes.len() / experts;
            bytes.chunks(one).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        Self {
            x: bytemuck::pod_collect_to_vec(&x),
            cols: *extents.last().expect("a matrix") as usize,
            dtype: weights[0].dtype,
            weights: weights.iter().map(|&weight| split(host.bytes(weight))).collect(),
            gelu: if is_tanh(&dispatch) { Gelu::Tanh } else { Gelu::Erf },
        }
    }

    fn rows<'a>(&self, bytes: &'a [u8]) -> Rows<'a> {
        Rows { dtype: self.dtype, cols: self.cols, bytes }
    }

    /// The results of each expert, `[columns, rows]`.
    fn on(&self, cpu: &Cpu, x: &[f32]) -> Vec<Vec<f32>> {
        let run = |expert: usize| {
            let mut out = vec![5.0; 3];
            match &self.weights[..] {
                [one] => cpu.product(self.rows(&one[expert]), x, &mut out),
                [gate, up] => {
                    let both = [self.rows(&gate[expert]), self.rows(&up[expert])];
                    cpu.gated(both, self.gelu, x, &mut out)
                }
                _ => panic!("a product has one matrix or two"),
            }
            .expect("multiplies");
            out
        };
        (0..self.weights[0].len()).map(run).collect()
    }

    /// The same in f64.
    fn wanted(&self) -> Vec<Vec<Bounded>> {
        let dots = |bytes: &Vec<u8>| -> Vec<Bounded> {
            let exact =
                |x: &[f32]| -> Vec<_> { x.iter().map(|&x| Bounded(x.into(), 0.0)).collect() };
            let columns = self.x.chunks(self.cols);
            columns.flat_map(|x| products::dots(self.rows(bytes), &exact(x))).collect()
        };
        let of = |expert: usize| match &self.weights[..] {
            [one] => dots(&one[expert]),
            [gate, up] => {
                let both = dots(&gate[expert]).into_iter().zip(dots(&up[expert]));
                both.map(|(gate, up)| products::gated(gate, up, self.gelu)).collect()
            }
            _ => panic!("a product has one matrix or two"),
        };
        (0..self.weights[0].len()).map(of).collect()
    }
}

fn is_tanh(dispatch: &Dispatch) -> bool {
    let field = dispatch.fields.iter().find(|(name, ..)| *name == "gelu_tanh");
    field.is_some_and(|&(_, _, at)| dispatch.params[at] == 1)
}

/// The rows of the kernels that multiply weights, and random ones.
fn products() -> Vec<Case> {
    let mut all = kernels::cases();
    all.extend(kernels::random_cases(20));
    let is_product =
        |case: &Case| ["matmul", "matvec"].iter().any(|end| case.kernel.ends_with(end));
    all.retain(is_product);
    all
}

#[test]
fn rows_are_within_their_bounds() {
    let cpu = Cpu::new(2).expect("this computer can");
    let (mut exact, mut spoiled) = (0, 0);
    let cases = products();
    for case in &cases {
        let operands = Operands::of(case);
        let got = operands.on(&cpu, &operands.x);
        for (got, wanted) in got.iter().zip(operands.wanted()) {
            assert_eq!(got.len(), wanted.len(), "{case:?}");
            for (at, (&got, Bounded(value, bound))) in got.iter().zip(wanted).enumerate() {
                let error = (f64::from(got) - value).abs();
                let fits = if case.exact {
                    exact += 1;
                    f64::from(got).total_cmp(&(value + 0.0)).is_eq() || error == 0.0
                } else if value.is_finite() {
                    error <= bound
                } else {
                    spoiled += 1;
                    !got.is_finite()
                };
                assert!(fits, "{case:?} at {at}: {got}, expected {value} +- {bound}");
            }
        }
    }
    assert!(
        cases.len() > 500 && exact > 1000 && spoiled > 100,
        "{} {exact} {spoiled}",
        cases.len()
    );
}

#[test]
fn bits_depend_on_neither_instructions_nor_threads_nor_columns() {
    let one = Cpu::new(1).expect("this computer can");
    let mut others: Vec<Cpu> = (2..=4).map(|n| Cpu::new(n).expect("this computer can")).collect();
    others.extend(levels().into_iter().map(|level| Cpu::at(level, 2).expect("has it")));
    let bits =
        |all: &[Vec<f32>]| -> Vec<u32> { all.concat().iter().map(|x| x.to_bits()).collect() };
    // NaN may have other bits.
    for case in products().iter().filter(|case| !case.name.contains(", equal tokens")).step_by(3) {
        let operands = Operands::of(case);
        let want = operands.on(&one, &operands.x);
        if want.iter().flatten().any(|x| x.is_nan()) {
            continue;
        }
        for cpu in &others {
            let got = operands.on(cpu, &operands.x);
            assert!(bits(&got) == bits(&want), "{case:?} with {cpu:?}");
        }
        for (column, x) in operands.x.chunks(operands.cols).enumerate() {
            for (alone, want) in operands.on(&one, x).iter().zip(&want) {
                let want = &want[column * alone.len()..][..alone.len()];
                assert!(
                    bits(std::slice::from_ref(alone)) == bits(&[want.to_vec()]),
                    "{case:?}: {column}"
                );
            }
        }
    }
}

#[test]
fn an_mlp_is_its_products() {
    let cpu = Cpu::new(0).expect("this computer can");
    assert!(cpu.threads() > 0 && !cpu.instructions().is_empty());
    let floats = |len: u16| -> Vec<u8> {
        (0..len).flat_map(|i| (f32::from(i * 7 % 23) - 11.0).to_le_bytes()).collect()
    };
    let (wide, back) = (floats(5 * 8), floats(8 * 5));
    let rows = |cols, bytes| Rows { dtype: DType::F32, cols, bytes };
    let mlp = MlpRows { gate: rows(8, &wide), up: rows(8, &wide), down: rows(5, &back) };
    let x: Vec<f32> = (0_u8..16).map(|i| f32::from(i) / 16.0).collect();
    let (mut inner, mut want, mut got) = (Vec::new(), Vec::new(), Vec::new());
    cpu.gated([mlp.gate, mlp.up], Gelu::Tanh, &x, &mut inner).expect("multiplies");
    cpu.product(mlp.down, &inner, &mut want).expect("multiplies");
    cpu.mlp(mlp, Gelu::Tanh, &x, &mut got).expect("multiplies");
    assert_eq!((got.len(), &got), (16, &want));
}

#[test]
fn what_is_not_whole_is_refused() {
    let cpu = Cpu::new(1).expect("this computer can");
    let mut out = Vec::new();
    let bytes = [0; 96];
    for (dtype, cols, x, told) in [
        (DType::Q4, 64, 64, "48 bytes each"),
        (DType::Q4, 63, 63, "whole rows of 63 columns"),
        (DType::F32, 24, 23, "23 activations, expected whole columns of 24"),
        (DType::U32, 24, 24, "weights of U32"),
        (DType::BF16, 0, 0, "whole rows of 0 columns"),
    ] {
        let bytes = if dtype == DType::Q4 { &bytes[..95] } else { &bytes[..] };
        let refused = cpu.product(Rows { dtype, cols, bytes }, &vec![0.0; x], &mut out);
        let error = refused.expect_err("is not whole").to_string();
        assert!(error.contains(told), "{error}");
    }
    let rows = |bytes| Rows { dtype: DType::F32, cols: 8, bytes };
    let both = [rows(&bytes[..64]), rows(&bytes[..32])];
    let error = cpu.gated(both, Gelu::Erf, &[0.0; 8], &mut out).expect_err("2 rows and 1");
    assert!(error.to_string().contains("2 and 1 rows"), "{error}");
}

/// Those of the oldest x86-64 have none.
#[cfg(target_arch = "x86_64")]
#[test]
fn cpus_without_fused_multiply_add_are_refused() {
    let error = Cpu::at(Level::baseline(), 1).expect_err("it has none");
    assert!(error.to_string().contains("no fused multiply-add"), "{error}");
}
