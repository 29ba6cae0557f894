//! Matrix products in tiles of workgroup memory. Runs on every device.
//!
//! Known as: tiled GEMM (shared-memory tiles, and register tiles of 4 x 4 results).

use super::{
    Attention, Capabilities, Form, Heads, Product, Program, ShaderFile, Sizes, Sums, TILE, Variant,
    Why,
};
use crate::{base::tensor::DType, wgsl};

/// Tiles of [`TILE`] rows of activations by `rows` output rows.
#[derive(Debug)]
pub(super) struct Tiles;

impl Variant for Tiles {
    fn name(&self) -> &'static str {
        "tiles"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &["ROWS"]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Matrix]
    }

    fn takes(&self, sizes: Sizes) -> bool {
        HEIGHTS.contains(&sizes)
    }

    fn needs(&self, _on: &Capabilities) -> Result<(), Why> {
        Ok(())
    }

    fn preferred(&self, _on: &Capabilities) -> Option<Sizes> {
        Some(HEIGHTS[0])
    }

    fn settings(&self, _on: &Capabilities) -> Vec<Sizes> {
        HEIGHTS.to_vec()
    }

    fn checked(&self, _on: &Capabilities) -> Vec<Sizes> {
        HEIGHTS.to_vec()
    }

    fn program(&self, product: &Product, sizes: Sizes) -> Program {
        let files = if product.is_pair() {
            tiled!("lib/tile_float", "lib/tile_pair")
        } else {
            tiled!("lib/tile_float", "lib/tile_one")
        };
        Program { files, features: &[], constants: constants(sizes) }
    }

    fn grid(&self, product: &Product, count: u32, sizes: Sizes) -> [u32; 3] {
        grid(product, count, sizes)
    }

    fn sums(&self, _product: &Product, cols: u32, _sizes: Sizes) -> Sums {
        Sums { depth: depth(cols, 8.0), rounds: false, halves: None }
    }

    fn attention(&self, Heads { head_dim, cache, .. }: Heads, _sizes: Sizes) -> Option<Attention> {
        let dim4 = head_dim / 4;
        // The largest powers of two that fit `q_tile` (256 vectors) and `kv_tile` (512).
        let fit = |room: u32| 1 << (room / dim4).ilog2();
        let files: &[ShaderFile] = if cache == DType::F32 {
            const {
                &[
                    wgsl!("lib/score"),
                    wgsl!("lib/cache_tile_f32"),
                    wgsl!("variants/tiles_attention"),
                ]
            }
        } else {
            const {
                &[
                    wgsl!("lib/score"),
                    wgsl!("lib/cache_tile_packed"),
                    wgsl!("variants/tiles_attention"),
                ]
            }
        };
        Some(Attention {
            variant: self.name(),
            program: Program { files, features: &[], constants: Vec::new() },
            rows: fit(256).min(8),
            block: fit(512).min(32),
        })
    }
}

/// The WGSL files of tiles with this arithmetic, for one weight or for a pair.
macro_rules! tiled {
    ($arithmetic:literal, $weights:literal) => {
        const {
            &[
                $crate::wgsl!("lib/part"),
                $crate::wgsl!("lib/tile_height"),
                $crate::wgsl!("lib/tile"),
                $crate::wgsl!($arithmetic),
                $crate::wgsl!($weights),
                $crate::wgsl!("variants/tiles"),
            ]
        }
    };
}
pub(super) use tiled;

/// Output rows of a tile. The first is used where nothing was measured.
pub(super) const HEIGHTS: [Sizes; 3] = [[32, 1], [64, 1], [16, 1]];

/// The constants of every program that links `shaders/lib/tile.wgsl`.
pub(super) fn constants([rows, _]: Sizes) -> Vec<(&'static str, u32)> {
    vec![("ROWS", rows), ("TILE_WG", 2 * rows), ("W_TILE", 8 * rows)]
}

/// Neighbouring workgroups share activations, which cost more to load here than weights.
pub(super) fn grid(product: &Product, count: u32, [rows, _]: Sizes) -> [u32; 3] {
    let parts = match product.parts {
        super::Parts::Tokens => count.div_ceil(TILE),
        super::Parts::Tile => count,
    };
    [product.rows().div_ceil(rows), parts, 1]
}

/// Roundings on the longest chain of a dot product in a matrix product: an addition per 32 columns,
/// the additions `inside` these 32, the sum of a vector of four, and the product.
pub(super) fn depth(cols: u32, inside: f64) -> f64 {
    (f64::from(cols) / 32.0).ceil() + inside + 3.0 + 1.0
}
