//! A variant with its sizes: one way to divide a product.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use super::{
    Attention, Capabilities, Form, Heads, Product, Program, Sizes, Sums, VARIANTS, Variant, Why,
};

/// What panics if [`VARIANTS`] lacks it.
const PLAIN: &str = "every form has a plain variant";

/// A variant and its sizes. As text: the variant's name and the sizes, as in `lanes 32 4`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    variant: &'static dyn Variant,
    sizes: Sizes,
}

impl Setting {
    /// These sizes of a variant.
    pub fn new(variant: &'static dyn Variant, sizes: Sizes) -> Self {
        Self { variant, sizes }
    }

    /// The setting for products of a form that runs on every device: of the variants that are
    /// meant for one without optional features, the first.
    pub(super) fn plain(form: Form) -> Self {
        Self::meant(form, &Capabilities::default()).next().expect(PLAIN)
    }

    /// The setting for products of a form on a device where nothing was measured: of the variants
    /// that are meant for it, the last.
    pub(super) fn preferred(form: Form, on: &Capabilities) -> Self {
        Self::meant(form, on).last().expect(PLAIN)
    }

    /// The variants that are meant for such a device, in the order of the table.
    fn meant(form: Form, on: &Capabilities) -> impl Iterator<Item = Self> {
        VARIANTS.iter().filter(move |variant| variant.forms().contains(&form)).filter_map(
            move |&variant| {
                let sizes = variant.preferred(on)?;
                Some(Self { variant, sizes })
            },
        )
    }

    /// The variant.
    pub fn variant(self) -> &'static dyn Variant {
        self.variant
    }

    /// Checks that the device can run it.
    ///
    /// # Errors
    ///
    /// What the device lacks.
    pub fn runs_on(self, on: &Capabilities) -> Result<(), Why> {
        self.variant.runs(on, self.sizes)
    }

    /// What the variant adds to the product's files.
    pub fn program(self, product: &Product) -> Program {
        self.variant.program(product, self.sizes)
    }

    /// Workgroups for `count` tokens, (token, expert) choices, or tiles of slots.
    pub fn grid(self, product: &Product, count: u32) -> [u32; 3] {
        self.variant.grid(product, count, self.sizes)
    }

    /// How a row of `cols` columns is summed.
    pub fn sums(self, product: &Product, cols: u32) -> Sums {
        self.variant.sums(product, cols, self.sizes)
    }

    /// How it divides attention over such heads, if it does.
    pub fn attention(self, heads: Heads) -> Option<Attention> {
        self.variant.attention(heads, self.sizes)
    }

    /// What equality, order and hash are based on.
    fn key(self) -> (&'static str, Sizes) {
        (self.variant.name(), self.sizes)
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Setting {}

impl Hash for Setting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for Setting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Setting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.variant.sizes().len();
        let sizes = self.sizes.iter().take(count).map(u32::to_string);
        let words: Vec<String> =
            std::iter::once(self.variant.name().to_owned()).chain(sizes).collect();
        f.pad(&words.join(" "))
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or("");
        let sizes: Result<Vec<u32>, _> = words.map(str::parse).collect();
        let sizes = sizes.map_err(|_| format!("`{text}` has a size that is no number"))?;
        let fits = |n: u64| n.is_power_of_two() && n <= 256;
        if sizes.iter().any(|&size| !fits(size.into()))
            || !fits(sizes.iter().map(|&size| u64::from(size)).product())
        {
            return Err(format!("`{text}`: sizes are powers of two, 256 at the most together"));
        }
        let unknown = || {
            let forms: Vec<String> = VARIANTS
                .iter()
                .map(|variant| [&[variant.name()], variant.sizes()].concat().join(" "))
                .collect();
            format!("`{text}` is no way to divide a product: there are {}", forms.join(", "))
        };
        let variant = VARIANTS.iter().find(|variant| variant.name() == name).ok_or_else(unknown)?;
        if sizes.len() != variant.sizes().len() {
            return Err(unknown());
        }
        let sizes = [sizes.first(), sizes.get(1)].map(|size| size.copied().unwrap_or(1));
        if !variant.takes(sizes) {
            return Err(format!("`{text}`: {name} has no such size"));
        }
        Ok(Self { variant: *variant, sizes })
    }
}
