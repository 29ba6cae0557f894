//! Matrix products in large blocks, with 32 results for each invocation. Runs on every device.
//!
//! Known as: tiled GEMM (shared-memory tiles, register tiles of 8 x 4 results, software prefetch).

use super::{
    Attention, Capabilities, Form, Heads, Parts, Product, Program, ShaderFile, Sizes, Sums, TILE,
    Variant, Why,
};
use crate::{base::tensor::DType, wgsl};

/// The WGSL files of attention: the libraries beside `fours`, and the kernel.
macro_rules! attention_files {
    ($($lib:literal),+; $main:literal) => {
        const {
            &[
                wgsl!("lib/fours"),
                $(wgsl!(concat!("lib/", $lib)),)+
                wgsl!(concat!("variants/", $main)),
            ]
        }
    };
}

/// Blocks of 64 tokens by 64 rows of weights, or of a tile of slots by 128 rows.
#[derive(Debug)]
pub(super) struct Blocks;

/// What a workgroup computes.
struct Shape {
    /// Rows of activations.
    tokens: u32,
    /// Rows of weights, of all matrices together.
    rows: u32,
}

impl Shape {
    /// Of 128 invocations with 32 results.
    fn of(product: &Product) -> Self {
        match product.parts {
            Parts::Tokens => Self { tokens: 64, rows: 64 },
            Parts::Tile => Self { tokens: TILE, rows: 4096 / TILE },
        }
    }
}

impl Variant for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &[]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Matrix]
    }

    fn needs(&self, _on: &Capabilities) -> Result<(), Why> {
        Ok(())
    }

    /// A CPU has too few registers for it.
    fn preferred(&self, on: &Capabilities) -> Option<Sizes> {
        (!on.is_cpu).then_some([1, 1])
    }

    fn settings(&self, on: &Capabilities) -> Vec<Sizes> {
        self.preferred(on).into_iter().collect()
    }

    fn checked(&self, _on: &Capabilities) -> Vec<Sizes> {
        vec![[1, 1]]
    }

    fn program(&self, product: &Product, _sizes: Sizes) -> Program {
        let files: &[_] = match product.parts {
            Parts::Tokens => {
                const {
                    &[
                        wgsl!("lib/part"),
                        wgsl!("lib/tile_height"),
                        wgsl!("lib/block"),
                        wgsl!("lib/block_square"),
                        wgsl!("variants/blocks"),
                    ]
                }
            }
            Parts::Tile => {
                const {
                    &[
                        wgsl!("lib/part"),
                        wgsl!("lib/tile_height"),
                        wgsl!("lib/block"),
                        wgsl!("lib/block_wide"),
                        wgsl!("variants/blocks"),
                    ]
                }
            }
        };
        Program { files, features: &[], constants: Vec::new() }
    }

    /// Neighbouring workgroups share weights, so that these come from memory once; activations, of
    /// which there are fewer bytes, stay in a cache.
    fn grid(&self, product: &Product, count: u32, _sizes: Sizes) -> [u32; 3] {
        let Shape { tokens, rows } = Shape::of(product);
        let parts = match product.parts {
            Parts::Tokens => count.div_ceil(tokens),
            Parts::Tile => count,
        };
        let matrices = if product.is_pair() { 2 } else { 1 };
        [parts, product.rows().div_ceil(rows / matrices), 1]
    }

    /// The 32 columns of a step are a chain of multiply-adds, each of which may round its product
    /// as well; their sums are another chain.
    fn sums(&self, _product: &Product, cols: u32, _sizes: Sizes) -> Sums {
        Sums { depth: 1.0 + 32.0 + (f64::from(cols) / 32.0).ceil(), rounds: false, halves: None }
    }

    fn attention(&self, heads: Heads, _sizes: Sizes) -> Option<Attention> {
        let Heads { head_dim, cache, form } = heads;
        // A generated token has few queries, so loads must be many at once; a prompt's tokens share
        // what is loaded.
        let files: &[ShaderFile] = match (form, cache) {
            (Form::Vector, DType::F32) => {
                attention_files!("score", "cache_quad_f32"; "blocks_attention_decode")
            }
            (Form::Vector, _) => {
                attention_files!("score", "cache_quad_packed"; "blocks_attention_decode")
            }
            (Form::Matrix, DType::F32) => {
                attention_files!("cache_tile_f32"; "blocks_attention_prompt")
            }
            (Form::Matrix, _) => attention_files!("cache_tile_packed"; "blocks_attention_prompt"),
        };
        [32, 64, 128].contains(&head_dim).then(|| Attention {
            variant: if form == Form::Vector { "blocks_decode" } else { "blocks_prompt" },
            program: Program { files, features: &[], constants: vec![("OWN", head_dim / 32)] },
            rows: if form == Form::Vector { 8 } else { 32 },
            block: if form == Form::Vector { 32 } else { 16 },
        })
    }
}
