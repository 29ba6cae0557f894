//! How the work of a product is divided among invocations: one variant a file.
//!
//! A product is described once, by its kernel, as a [`Product`]. A [`Variant`] says which features
//! of a device it needs, which sizes are worth measuring, and how it implements a product: the WGSL
//! files that it links, the workgroups, and the order of additions, from which error bounds follow.
//! [`Tuning`] picks a variant for each product. Nothing outside this folder names one.

mod product;
mod program;
mod setting;
mod store;
mod tuning;

use std::{fmt, ops::RangeInclusive};

pub use product::{COLUMNS, Form, Parts, Product, TILE, Weights};
pub use program::{Feature, Program, ShaderFile, Source};
pub use setting::Setting;
pub use store::{Kept, Store};
pub use tuning::{Class, Measured, Refused, Tuning};

use crate::base::tensor::DType;

/// Declares the variants: the module of each, and the table of all.
macro_rules! variants {
    ($($module:ident::$variant:ident,)*) => {
        $(mod $module;)*

        /// Every variant. The first of each form is the plain one, which takes the place of those
        /// that a device refuses. Where several are meant for a device, the last is used.
        pub static VARIANTS: &[&dyn Variant] = &[$(&$module::$variant),*];
    };
}

variants! {
    lanes::Lanes,
    subgroup::Subgroup,
    rows::Rows,
    tiles::Tiles,
    packed::Packed,
    blocks::Blocks,
    spread::Spread,
    coop::Coop,
}

/// Features of a device that variants may use. The default is a GPU without optional features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it runs on a CPU: there a barrier costs more than anything else.
    pub is_cpu: bool,
    /// The smallest and the largest subgroup size, if shaders may use subgroup operations.
    pub subgroups: Option<(u32, u32)>,
    /// Whether a subgroup multiplies matrices of 16 x 16 halves (f16) and adds them up in f32, and
    /// shaders may have halves.
    pub matrices: bool,
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
    /// It needs subgroups that are as `what` says; the device has others or none.
    fn subgroups(what: impl fmt::Display, on: &Capabilities) -> Self {
        let has = match on.subgroups {
            None => "there are none".to_owned(),
            Some((least, most)) if least == most => format!("they have {least} invocations"),
            Some((least, most)) => format!("they have {least} to {most} invocations"),
        };
        Self(format!("needs subgroups {what}; {has}"))
    }
}

/// Positions that the shortest split of decode attention may have.
pub const SPLITS: RangeInclusive<u32> = 32..=1024;

/// Whether the shortest split of decode attention may have so many positions: a power of two in
/// [`SPLITS`], and so whole pages of the cache.
pub fn is_split(positions: u32) -> bool {
    SPLITS.contains(&positions) && positions.is_power_of_two()
}

/// WebGPU's default limit on workgroups along each axis. Larger limits are not used.
pub const MAX_WORKGROUPS: u32 = 65_535;

/// Sizes of a variant, in the order of [`Variant::sizes`]; those that it lacks are 1. Powers of
/// two, whose product is at most 256.
pub type Sizes = [u32; 2];

/// How a dot product is summed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sums {
    /// Roundings on the longest chain.
    pub depth: f64,
    /// Whether activations are rounded to bytes first, in blocks of 32.
    pub rounds: bool,
    /// Whether both sides are split into halves (f16) first. It is the largest integer that a
    /// weight's scale is multiplied by; 1 if weights are not integers.
    pub halves: Option<f64>,
}

/// What decides how attention can be divided.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Channels of a head, at most 256.
    pub head_dim: u32,
    /// Type of the cache.
    pub cache: DType,
    /// Whether queries are of generated tokens or of prompts.
    pub form: Form,
}

/// How attention over some heads is divided.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Name of the program.
    pub variant: &'static str,
    /// What the variant adds to the kernel's own files.
    pub program: Program,
    /// Query rows of a workgroup.
    pub rows: u32,
    /// Positions of a block.
    pub block: u32,
}

/// A way to divide the work of products among invocations.
pub trait Variant: fmt::Debug + Sync {
    /// Its name in files, options and reports.
    fn name(&self) -> &'static str;

    /// Names of its sizes, in order, for messages.
    fn sizes(&self) -> &'static [&'static str];

    /// The forms of products that it implements.
    fn forms(&self) -> &'static [Form];

    /// Whether it rounds activations to bytes (int8). Such a variant is used only on request.
    fn rounds(&self) -> bool {
        false
    }

    /// Whether it is measured only on devices that pass its rows: where WebGPU promises less about
    /// its arithmetic than its error bound assumes.
    fn is_on_trial(&self) -> bool {
        false
    }

    /// Whether these sizes are valid on any device.
    fn takes(&self, _sizes: Sizes) -> bool {
        true
    }

    /// Whether it implements this product. If not, the plain variant is used instead.
    fn fits(&self, _product: &Product) -> bool {
        true
    }

    /// Checks that the device has the features that it needs.
    ///
    /// # Errors
    ///
    /// What the device lacks.
    fn needs(&self, on: &Capabilities) -> Result<(), Why>;

    /// Checks that the device can run it with these sizes.
    ///
    /// # Errors
    ///
    /// What the device lacks.
    fn runs(&self, on: &Capabilities, _sizes: Sizes) -> Result<(), Why> {
        self.needs(on)
    }

    /// The sizes to use on such a device without measuring, if this variant is meant for it.
    fn preferred(&self, _on: &Capabilities) -> Option<Sizes> {
        None
    }

    /// The sizes that are worth measuring on a device that has what it needs.
    fn settings(&self, on: &Capabilities) -> Vec<Sizes>;

    /// The sizes that the kernels' test rows run with on such a device.
    fn checked(&self, on: &Capabilities) -> Vec<Sizes>;

    /// The WGSL files to link with the product's own, and their constants.
    fn program(&self, product: &Product, sizes: Sizes) -> Program;

    /// Workgroups for `count` tokens or tiles of slots.
    fn grid(&self, product: &Product, count: u32, sizes: Sizes) -> [u32; 3];

    /// How a row of `cols` columns is summed.
    fn sums(&self, product: &Product, cols: u32, sizes: Sizes) -> Sums;

    /// How it divides attention over such heads, if it implements that.
    fn attention(&self, _heads: Heads, _sizes: Sizes) -> Option<Attention> {
        None
    }
}
