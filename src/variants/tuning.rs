//! Which variant a product gets: the one for the kind of device, or the fastest that was measured.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Attention, Capabilities, Form, Heads, MAX_WORKGROUPS, Product, Setting, VARIANTS};
use crate::base::tensor::DType;

/// How work is divided on a device. It changes the speed, and of results only the last bits, unless
/// a variant rounds activations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// For matrix-vector products of classes that were not measured.
    pub vectors: Setting,
    /// For matrix products of classes that were not measured, and for attention.
    pub matrices: Setting,
    /// Invocations that share a row in norms, and a chunk in the search for the largest logit. A
    /// power of two.
    pub norm_workgroup: u32,
    /// The fastest setting of each class that was measured.
    pub measured: Option<Arc<Measured>>,
    /// Whether a variant that the device refuses is an error. Otherwise the plain one takes its
    /// place.
    pub strict: bool,
    /// Programs that the device refused.
    pub refused: Vec<Refused>,
}

/// A program that a device refused, with the values of its `override` declarations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    /// Stem of the kernel's files.
    pub kernel: &'static str,
    /// Name of the variant.
    pub variant: &'static str,
    /// Type of the weights, or of the cache.
    pub dtype: DType,
    /// The constants, those of the kernel among them.
    pub constants: Vec<(&'static str, u32)>,
}

/// A class of products that share a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Vectors or matrices, which follows from the kernel.
    pub form: Form,
    /// Stem of the kernel's files.
    pub kernel: String,
    /// Type of the weights.
    pub dtype: DType,
    /// Rows of the weight, rounded up to a power of two.
    pub rows: u32,
    /// Columns of the weight, rounded up to a power of two.
    pub cols: u32,
}

/// The fastest setting that was found for each class.
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
    /// For a device on which nothing was measured.
    pub fn of(on: &Capabilities) -> Self {
        Self {
            vectors: Setting::preferred(Form::Vector, on),
            matrices: Setting::preferred(Form::Matrix, on),
            norm_workgroup: if on.is_cpu { 16 } else { 256 },
            measured: None,
            strict: false,
            refused: Vec::new(),
        }
    }

    /// For adapters that run on a CPU and have no optional features.
    pub fn cpu() -> Self {
        Self::of(&Capabilities { is_cpu: true, subgroups: None })
    }

    /// The same, with `setting` for products of this form whose class was not measured.
    #[must_use]
    pub fn with(mut self, form: Form, setting: Setting) -> Self {
        match form {
            Form::Vector => self.vectors = setting,
            Form::Matrix => self.matrices = setting,
        }
        self
    }

    /// With `setting` for the forms of products that it implements, and the others as on a device
    /// without subgroups.
    pub fn by(on: &Capabilities, setting: Setting) -> Self {
        let base = Self::of(&Capabilities { subgroups: None, ..*on });
        setting.variant().forms().iter().fold(base, |all, &form| all.with(form, setting))
    }

    /// The setting for products of a form whose class was not measured.
    pub fn default_of(&self, form: Form) -> Setting {
        match form {
            Form::Vector => self.vectors,
            Form::Matrix => self.matrices,
        }
    }

    /// Every tuning that test rows run with on such a device, with a name: that of GPUs, that of
    /// CPUs, then one for each setting of [`Variant::checked`](super::Variant::checked).
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

    /// How to divide attention over such heads: by the variant of matrix products.
    pub fn attention(&self, heads: Heads) -> Attention {
        let attention = self.matrices.attention(heads);
        let Attention { variant, program, .. } = &attention;
        if self.refuses("attention", variant, heads.cache, || program.constants.clone()) {
            return Setting::plain(Form::Matrix).attention(heads);
        }
        attention
    }

    /// How to divide this product.
    pub fn setting(&self, product: &Product) -> Setting {
        let measured = self.measured.as_ref().and_then(|all| all.get(&Class::of(product)));
        let setting = measured.copied().unwrap_or_else(|| self.default_of(product.form));
        let (kernel, variant) = (product.source.kernel, setting.variant());
        let refused = self.refuses(kernel, variant.name(), product.dtype(), || {
            setting.program(product).constants
        });
        // Rows decide over the longest axis. The others follow from a step's rows, which are few.
        let divides =
            variant.fits(product) && setting.grid(product, 1).iter().all(|&n| n <= MAX_WORKGROUPS);
        if divides && !refused { setting } else { Setting::plain(product.form) }
    }

    /// Whether the device refused this program.
    fn refuses(
        &self,
        kernel: &str,
        variant: &str,
        dtype: DType,
        constants: impl Fn() -> Vec<(&'static str, u32)>,
    ) -> bool {
        self.refused.iter().any(|refused| {
            (refused.kernel, refused.variant, refused.dtype) == (kernel, variant, dtype)
                && constants().iter().all(|constant| refused.constants.contains(constant))
        })
    }
}
