//! How the work of a product is divided among invocations: one variant a file.
//!
//! A product is described once, by its kernel, as a [`Product`]. A [`Variant`] says what it needs of
//! a device, with which sizes it is worth a try, and what it makes of a product: the files that it
//! links, the workgroups, and how additions are bracketed, from which error bounds follow. [`Tuning`]
//! picks a variant for each product. Nothing outside this folder names one.

mod lanes;
mod packed;
mod product;
mod program;
mod setting;
mod spread;
mod store;
mod subgroup;
mod tiles;
mod tuning;

use std::fmt;

pub use product::{Form, Parts, Product, TILE, Weights};
pub use program::{Feature, Program, ShaderFile, Source};
pub use setting::Setting;
pub use store::Store;
pub use tuning::{Class, Measured, Tuning};

use crate::base::tensor::DType;

/// Every variant. Where several are meant for a device, the last is taken.
pub static VARIANTS: &[&dyn Variant] =
    &[&lanes::Lanes, &subgroup::Subgroup, &tiles::Tiles, &packed::Packed, &spread::Spread];

/// What a device has that variants may use. The default is a GPU that has nothing optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it runs on a CPU: there a barrier costs more than anything else.
    pub is_cpu: bool,
    /// The least and the largest number of invocations of a subgroup, where shaders may use subgroup
    /// operations.
    pub subgroups: Option<(u32, u32)>,
}

/// Why a device cannot run a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why(String);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Why {
    /// It wants `what` of the subgroups that a device may have.
    fn subgroups(what: impl fmt::Display, on: &Capabilities) -> Self {
        let has = match on.subgroups {
            None => "there are none".to_owned(),
            Some((least, most)) if least == most => format!("they have {least} invocations"),
            Some((least, most)) => format!("they have {least} to {most} invocations"),
        };
        Self(format!("needs subgroups {what}; {has}"))
    }
}

/// Sizes of a variant, in its own order; 1 where it has fewer. Powers of two, and their product is at
/// most 256.
pub type Sizes = [u32; 2];

/// How a dot product is summed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sums {
    /// Roundings on the longest chain.
    pub depth: f64,
    /// Whether activations are rounded to bytes first, in blocks of 32.
    pub rounds: bool,
}

/// What the variants of attention go by.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Channels of a head, at most 256.
    pub head_dim: u32,
    /// Type of the cache.
    pub cache: DType,
}

/// How attention over some heads is divided.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The variant that it is of.
    pub variant: &'static str,
    /// What is added to the kernel's own files.
    pub program: Program,
    /// Query rows of a workgroup.
    pub rows: u32,
    /// Positions of a block.
    pub block: u32,
}

/// A way to divide products.
pub trait Variant: fmt::Debug + Sync {
    /// Its name in files, options and reports.
    fn name(&self) -> &'static str;

    /// What its sizes are, in order, for whoever writes one.
    fn sizes(&self) -> &'static [&'static str];

    /// The products it can divide.
    fn forms(&self) -> &'static [Form];

    /// Whether it rounds activations to bytes: then it is never taken unless somebody allows that.
    fn rounds(&self) -> bool {
        false
    }

    /// Whether it has these sizes, on some device.
    fn takes(&self, _sizes: Sizes) -> bool {
        true
    }

    /// Whether it can divide this product; where not, the plain variant does.
    fn fits(&self, _product: &Product) -> bool {
        true
    }

    /// What it needs, and why the device does not do.
    fn needs(&self, on: &Capabilities) -> Result<(), Why>;

    /// The same with these sizes.
    fn runs(&self, on: &Capabilities, _sizes: Sizes) -> Result<(), Why> {
        self.needs(on)
    }

    /// The sizes that such a device takes without measuring, if this variant is meant for it.
    fn preferred(&self, _on: &Capabilities) -> Option<Sizes> {
        None
    }

    /// The sizes that are worth measuring on a device that meets its needs.
    fn settings(&self, on: &Capabilities) -> Vec<Sizes>;

    /// The sizes that the rows of the kernels run on such a device.
    fn checked(&self, on: &Capabilities) -> Vec<Sizes>;

    /// The files that make a program of the product's own, with their constants.
    fn program(&self, product: &Product, sizes: Sizes) -> Program;

    /// Workgroups for `count` tokens, choices of an expert, or tiles of slots.
    fn grid(&self, product: &Product, count: u32, sizes: Sizes) -> [u32; 3];

    /// How a row of `cols` columns is summed.
    fn sums(&self, product: &Product, cols: u32, sizes: Sizes) -> Sums;

    /// How it divides attention over such heads, if it can.
    fn attention(&self, _heads: Heads, _sizes: Sizes) -> Option<Attention> {
        None
    }
}
