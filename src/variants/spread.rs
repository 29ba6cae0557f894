//! Products in which each invocation computes output rows of its own, and its subgroup, of at least
//! eight, shares loaded activations by shuffles. For devices that do not coalesce loads, like CPUs.
//!
//! Known as: GEMV and GEMM with register tiling (register blocking) and subgroup broadcast.

use super::{
    Attention, Capabilities, Feature, Form, Heads, Parts, Product, Program, Sizes, Sums, TILE,
    Variant, Why, lanes, tiles,
};
use crate::{base::tensor::DType, wgsl};

/// Workgroups of `width` invocations, a multiple of the subgroup size.
#[derive(Debug)]
pub(super) struct Spread;

/// The register tile of an invocation: output rows, and groups of four tokens; 0 in vector
/// products, which have up to four tokens.
struct Share {
    rows: u32,
    fours: u32,
}

impl Share {
    /// As many accumulators as lavapipe keeps in registers without spilling.
    fn of(product: &Product) -> Self {
        let (rows, fours) = match (product.form, product.is_pair(), product.parts) {
            (Form::Vector, false, _) => (2, 0),
            (Form::Vector, true, _) => (1, 0),
            (Form::Matrix, false, _) => (3, 2),
            (Form::Matrix, true, Parts::Tokens) => (1, 3),
            // These tokens must divide a tile.
            (Form::Matrix, true, Parts::Tile) => (1, 2),
        };
        Self { rows, fours }
    }
}

impl Variant for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &["WIDTH"]
    }

    fn forms(&self) -> &'static [Form] {
        &Form::ALL
    }

    fn needs(&self, on: &Capabilities) -> Result<(), Why> {
        match on.subgroups {
            Some((8.., _)) => Ok(()),
            _ => Err(Why::subgroups("of eight invocations or more", on)),
        }
    }

    fn runs(&self, on: &Capabilities, [width, _]: Sizes) -> Result<(), Why> {
        self.needs(on)?;
        match on.subgroups {
            Some((_, most)) if width.is_multiple_of(most) => Ok(()),
            _ => Err(Why::subgroups(format_args!("that divide {width} invocations"), on)),
        }
    }

    fn preferred(&self, on: &Capabilities) -> Option<Sizes> {
        let (_, most) = on.subgroups.filter(|_| on.is_cpu && self.needs(on).is_ok())?;
        Some([most, 1])
    }

    fn settings(&self, on: &Capabilities) -> Vec<Sizes> {
        let Some((_, most)) = on.subgroups else { return Vec::new() };
        vec![[most, 1], [(4 * most).min(128).max(most), 1]]
    }

    fn checked(&self, on: &Capabilities) -> Vec<Sizes> {
        on.subgroups.map(|(_, most)| [most, 1]).into_iter().collect()
    }

    fn program(&self, product: &Product, [width, _]: Sizes) -> Program {
        let Share { rows, fours } = Share::of(product);
        let features = &[Feature::Subgroups];
        match product.form {
            Form::Vector => Program {
                files: const {
                    &[
                        wgsl!("lib/part"),
                        wgsl!("lib/columns"),
                        wgsl!("lib/starts"),
                        wgsl!("lib/shuffle"),
                        wgsl!("lib/spread"),
                        wgsl!("lib/spread_loads"),
                        wgsl!("variants/spread_vector"),
                    ]
                },
                features,
                constants: vec![("WG", width), ("OWN", rows)],
            },
            Form::Matrix => Program {
                files: const {
                    &[
                        wgsl!("lib/part"),
                        wgsl!("lib/tile_height"),
                        wgsl!("lib/starts"),
                        wgsl!("lib/shuffle"),
                        wgsl!("lib/spread"),
                        wgsl!("lib/spread_loads"),
                        wgsl!("variants/spread_matrix"),
                    ]
                },
                features,
                constants: vec![("WG", width), ("OWN", rows), ("FOURS", fours)],
            },
        }
    }

    /// Neighbouring workgroups share weights, which cost more to load here than activations.
    fn grid(&self, product: &Product, count: u32, [width, _]: Sizes) -> [u32; 3] {
        let Share { rows, fours } = Share::of(product);
        let rows = product.rows().div_ceil(width * rows);
        match (product.form, product.parts) {
            (Form::Vector, _) => [lanes::blocks(product, count), rows, 1],
            (Form::Matrix, Parts::Tokens) => [count.div_ceil(4 * fours), rows, 1],
            (Form::Matrix, Parts::Tile) => [count * TILE.div_ceil(4 * fours), rows, 1],
        }
    }

    fn sums(&self, product: &Product, cols: u32, _sizes: Sizes) -> Sums {
        // At most 2 roundings for eight columns, 3 to add the eights of a chunk, 1 for its scale,
        // and 3 to add the chunks of a block.
        let inside = 2.0 + 3.0 + 1.0 + 3.0;
        // In vector products, 2 more to add the components of the vectors.
        let last = if product.form == Form::Vector { 2.0 } else { 0.0 };
        Sums { depth: tiles::depth(cols, inside + last), rounds: false, halves: None }
    }

    /// Only where a subgroup of eight invocations is a workgroup.
    fn attention(&self, Heads { head_dim, cache, .. }: Heads, sizes: Sizes) -> Option<Attention> {
        let fits = matches!(head_dim, 32 | 64 | 96 | 128) && cache == DType::F32 && sizes == [8, 1];
        fits.then(|| Attention {
            variant: self.name(),
            program: Program {
                files: const {
                    &[wgsl!("lib/shuffle"), wgsl!("lib/fours"), wgsl!("variants/spread_attention")]
                },
                features: &[Feature::Subgroups],
                constants: vec![("OWN", head_dim / 32)],
            },
            rows: 4,
            block: 8,
        })
    }
}
