//! Which variant a product gets: what suits the kind of device, or what was measured.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Attention, Capabilities, Form, Heads, Product, Setting, VARIANTS};
use crate::base::tensor::DType;

/// How work is divided on a device. It changes speed, never what is computed but for the last bits;
/// only a variant that rounds activations changes more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Matrix-vector products, where nothing else was measured.
    pub vectors: Setting,
    /// Matrix products, where nothing else was measured.
    pub matrices: Setting,
    /// Invocations that share the row of a norm. A power of two.
    pub wide: u32,
    /// What was measured to be faster.
    pub measured: Option<Arc<Measured>>,
}

/// Which products a measurement speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Vectors or matrices, which the kernel decides.
    pub form: Form,
    /// Stem of the kernel's files.
    pub kernel: String,
    /// Type of the weights.
    pub dtype: DType,
    /// Rows of the weight, to the next power of two.
    pub rows: u32,
    /// Columns of the weight, to the next power of two.
    pub cols: u32,
}

/// The fastest ways that were found.
pub type Measured = BTreeMap<Class, Setting>;

impl Class {
    /// The class of a product.
    pub fn of(product: &Product) -> Self {
        Self {
            form: product.form,
            kernel: product.source.kernel.to_owned(),
            dtype: product.dtype(),
            rows: product.rows().next_power_of_two(),
            cols: product.cols().next_power_of_two(),
        }
    }

    /// Reads what it displays, for a product of this form.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(form: Form, text: &str) -> Result<Self, String> {
        let read = || {
            let [kernel, dtype, sizes] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let (rows, cols) = sizes.split_once('x')?;
            Some(Self {
                form,
                kernel: kernel.to_owned(),
                dtype: DType::WEIGHTS.into_iter().find(|each| each.name() == dtype)?,
                rows: rows.parse().ok()?,
                cols: cols.parse().ok()?,
            })
        };
        read().ok_or_else(|| format!("`{text}` is no kind of product"))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, dtype, rows, cols, .. } = self;
        write!(f, "{kernel} {dtype} {rows}x{cols}")
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self::of(&Capabilities::default())
    }
}

impl Tuning {
    /// For a device of which nothing was measured.
    pub fn of(on: &Capabilities) -> Self {
        Self {
            vectors: Setting::preferred(Form::Vector, on),
            matrices: Setting::preferred(Form::Matrix, on),
            wide: if on.is_cpu { 16 } else { 256 },
            measured: None,
        }
    }

    /// For adapters that run on a CPU and have nothing optional.
    pub fn cpu() -> Self {
        Self::of(&Capabilities { is_cpu: true, subgroups: None })
    }

    /// The same, with products of this form divided so where nothing else was measured.
    #[must_use]
    pub fn with(mut self, form: Form, setting: Setting) -> Self {
        match form {
            Form::Vector => self.vectors = setting,
            Form::Matrix => self.matrices = setting,
        }
        self
    }

    /// With all products divided so that can be, and the rest as where nothing is optional.
    pub fn by(on: &Capabilities, setting: Setting) -> Self {
        let base = Self::of(&Capabilities { subgroups: None, ..*on });
        setting.variant().forms().iter().fold(base, |all, &form| all.with(form, setting))
    }

    /// How products of a form are divided where nothing else was measured.
    pub fn default_of(&self, form: Form) -> Setting {
        match form {
            Form::Vector => self.vectors,
            Form::Matrix => self.matrices,
        }
    }

    /// Every kind of tuning that rows run on such a device, with a name: as on GPUs, as on CPUs, and
    /// then whatever the variants have checked, by their settings.
    pub fn all(on: &Capabilities) -> Vec<(String, Self)> {
        let mut all = vec![("gpu".to_owned(), Self::default()), ("cpu".to_owned(), Self::cpu())];
        for &variant in VARIANTS.iter().filter(|variant| variant.needs(on).is_ok()) {
            for sizes in variant.checked(on) {
                let setting = Setting::new(variant, sizes);
                let tuning = Self::by(on, setting);
                if !all.iter().any(|(_, other)| *other == tuning) {
                    all.push((setting.to_string(), tuning));
                }
            }
        }
        all
    }

    /// How to divide attention over such heads: as matrix products are.
    pub fn attention(&self, heads: Heads) -> Attention {
        self.matrices.attention(heads)
    }

    /// How to divide this product.
    pub fn setting(&self, product: &Product) -> Setting {
        let measured = self.measured.as_ref().and_then(|all| all.get(&Class::of(product)));
        let setting = measured.copied().unwrap_or_else(|| self.default_of(product.form));
        if setting.variant().fits(product) { setting } else { Setting::plain(product.form) }
    }
}
