//! Matrix-vector products in which a subgroup computes an output row, without workgroup memory.
//! Needs subgroups of one size.
//!
//! Known as: GEMV with a subgroup (warp) reduction.

use super::{Capabilities, Feature, Form, Product, Program, Sizes, Sums, Variant, Why, lanes};
use crate::wgsl;

/// A workgroup is one subgroup of exactly `lanes` invocations, and computes an output row.
#[derive(Debug)]
pub(super) struct Subgroup;

impl Variant for Subgroup {
    fn name(&self) -> &'static str {
        "subgroup"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &["LANES"]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Vector]
    }

    fn needs(&self, on: &Capabilities) -> Result<(), Why> {
        match on.subgroups {
            Some((least, most)) if least == most => Ok(()),
            _ => Err(Why::subgroups("of one size", on)),
        }
    }

    fn runs(&self, on: &Capabilities, [lanes, _]: Sizes) -> Result<(), Why> {
        match on.subgroups {
            Some(sizes) if sizes == (lanes, lanes) => Ok(()),
            _ => Err(Why::subgroups(format_args!("of {lanes} invocations"), on)),
        }
    }

    fn settings(&self, on: &Capabilities) -> Vec<Sizes> {
        on.subgroups.map(|(_, most)| [most, 1]).into_iter().collect()
    }

    fn checked(&self, on: &Capabilities) -> Vec<Sizes> {
        self.settings(on)
    }

    fn program(&self, _product: &Product, [lanes, _]: Sizes) -> Program {
        Program {
            files: const {
                // The `main` of `lanes`: only the reduction differs.
                &[
                    wgsl!("lib/part"),
                    wgsl!("lib/columns"),
                    wgsl!("lib/starts"),
                    wgsl!("lib/lanes_subgroup"),
                    wgsl!("variants/lanes"),
                ]
            },
            features: &[Feature::Subgroups],
            constants: vec![("WG", lanes), ("LANES", lanes)],
        }
    }

    fn grid(&self, product: &Product, count: u32, _sizes: Sizes) -> [u32; 3] {
        [lanes::blocks(product, count), product.rows(), 1]
    }

    fn sums(&self, product: &Product, cols: u32, [lanes, _]: Sizes) -> Sums {
        Sums { depth: lanes::depth(product.dtype(), cols, lanes), rounds: false, halves: None }
    }
}
