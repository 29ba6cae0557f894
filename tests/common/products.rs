//! Products of stored weights in f64, with the bound of the CPU's own sums.

use grok_wgpu::lab::{
    base::activation::Gelu,
    machine::{cpu::Rows, host},
};

/// Half a unit in the last place of 1: the CPU rounds to the nearest.
const U: f64 = 1.0 / 16_777_216.0;

/// Room for results too small to be normal, for each element.
const TINY: f64 = 1e-36;

/// A value, and how far from it a result may be.
#[derive(Clone, Copy)]
pub(crate) struct Bounded(pub(crate) f64, pub(crate) f64);

/// The products of a column with each of the rows: no element goes through more roundings than
/// [`Rows::depth`] says.
pub(crate) fn dots(rows: Rows<'_>, x: &[Bounded]) -> Vec<Bounded> {
    let depth = rows.depth() as f64;
    let weight = host::decode_rows(rows.dtype, rows.cols, rows.bytes);
    let dot = |row: &[f64]| {
        let (mut value, mut size, mut carried) = (0.0, 0.0, 0.0);
        for (Bounded(x, of_x), w) in x.iter().zip(row) {
            value += x * w;
            size += (x.abs() + of_x) * w.abs();
            carried += of_x * w.abs();
        }
        Bounded(value, carried + 1.001 * depth * U * size + rows.cols as f64 * TINY)
    };
    weight.chunks(rows.cols).map(dot).collect()
}

/// `gelu(gate) * up`; the slope of GELU is below 1.13.
pub(crate) fn gated(
    Bounded(gate, of_gate): Bounded,
    Bounded(up, of_up): Bounded,
    gelu: Gelu,
) -> Bounded {
    let value = match gelu {
        Gelu::Erf => 0.5 * gate * libm::erfc(-gate / std::f64::consts::SQRT_2),
        Gelu::Tanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh())
        }
    };
    let of_value = 1.13 * of_gate + 1.001 * U * value.abs() + TINY;
    let product = value * up;
    let bound = of_value * up.abs() + of_up * value.abs() + of_value * of_up;
    Bounded(product, bound + 1.001 * U * product.abs() + TINY)
}
