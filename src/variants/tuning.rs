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
    /// For matrix products of classes that were not measured, and for attention over heads that
    /// were not.
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

/// A class of products that share a measurement, or attention over some heads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Vectors or matrices, which follows from the kernel.
    pub form: Form,
    /// Stem of the kernel's files.
    pub kernel: String,
    /// Type of the weights, or of the cache.
    pub dtype: DType,
    /// Rows of the weight, rounded up to a power of two; or channels of a head.
    pub rows: u32,
    /// Columns of the weight, rounded up to a power of two; 0 for attention.
    pub cols: u32,
}

/// The kernel of attention, and what its classes are called in files.
const ATTENTION: &str = "attention";

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

    /// The class of attention over such heads.
    pub fn of_attention(heads: Heads) -> Self {
        let Heads { head_dim, cache, form } = heads;
        Self { form, kernel: ATTENTION.to_owned(), dtype: cache, rows: head_dim, cols: 0 }
    }

    /// The heads, if it is a class of attention.
    pub fn heads(&self) -> Option<Heads> {
        let Self { form, dtype, rows, .. } = *self;
        (self.kernel == ATTENTION).then_some(Heads { head_dim: rows, cache: dtype, form })
    }

    /// Reads what it displays, for attention.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse_attention(text: &str) -> Result<Self, String> {
        let read = || {
            let [kernel, phase, dtype, channels] =
                text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            Some(Self::of_attention(Heads {
                form: Form::ALL.into_iter().find(|&form| phase_of(form) == phase)?,
                cache: DType::WEIGHTS.into_iter().find(|each| each.name() == dtype)?,
                head_dim: channels.parse().ok().filter(|_| kernel == ATTENTION)?,
            }))
        };
        read().ok_or_else(|| format!("`{text}` is no attention"))
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
        let Self { form, kernel, dtype, rows, cols } = self;
        match self.heads() {
            None => write!(f, "{kernel} {dtype} {rows}x{cols}"),
            Some(_) => write!(f, "{kernel} {} {dtype} {rows}", phase_of(*form)),
        }
    }
}

/// The phase whose products have this form.
fn phase_of(form: Form) -> &'static str {
    match form {
        Form::Vector => "decode",
        Form::Matrix => "prefill",
    }
}

/// Why a setting for attention is one.
const DIVIDES: &str = "the plain variant of matrix products divides attention over any heads";

impl Default for Tuning {
    fn default() -> Self {
        Self::of(&Capabilities::default())
    }
}

impl Tuning {
    /// For a device on which nothing was measured.
    ///
    /// All GPUs have one default, whatever their vendor: no size was found that machine code or
    /// arithmetic prefers on one vendor's and not on another's. Groups of 32 lanes need no subgroup
    /// of that size. On RDNA3 four rows a group leave 10 of 16 waves, which still have more bytes
    /// in flight than 16 waves with two rows, and take fewer instructions a weight. `tune` measures
    /// what differs.
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
        Self::of(&Capabilities { is_cpu: true, ..Capabilities::default() })
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

    /// How to divide attention over such heads: by the setting that was measured, else by that of
    /// matrix products, else by the plain one: by the first of these that can.
    ///
    /// # Panics
    ///
    /// Never: the plain variant divides attention over any heads.
    pub fn attention(&self, heads: Heads) -> Attention {
        let attention = self.attention_setting(heads).attention(heads).expect(DIVIDES);
        let Attention { variant, program, .. } = &attention;
        if self.refuses(ATTENTION, variant, heads.cache, || program.constants.clone()) {
            return Setting::plain(Form::Matrix).attention(heads).expect(DIVIDES);
        }
        attention
    }

    /// The setting that divides attention over such heads, if the device does not refuse it.
    pub fn attention_setting(&self, heads: Heads) -> Setting {
        let all = self.measured.as_ref();
        let measured = all.and_then(|all| all.get(&Class::of_attention(heads)).copied());
        let given = [measured, Some(self.matrices)].into_iter().flatten();
        let mut able = given.filter(|setting| setting.attention(heads).is_some());
        able.next().unwrap_or_else(|| Setting::plain(Form::Matrix))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_divided_as_measured_then_as_products() {
        let on = Capabilities { is_cpu: true, subgroups: Some((8, 8)), matrices: false };
        let plain = Tuning::of(&on);
        let [decode, prefill] =
            Form::ALL.map(|form| Heads { head_dim: 64, cache: DType::F32, form });
        assert_eq!(plain.attention(decode).variant, "spread");
        let with = |way: &str| {
            let setting = way.parse().expect("a setting");
            let measured = Some(Arc::new([(Class::of_attention(decode), setting)].into()));
            Tuning { measured, ..plain.clone() }
        };
        let tiles = with("tiles 32");
        assert_eq!(tiles.attention(decode).variant, "tiles");
        for other in [prefill, Heads { head_dim: 32, ..decode }] {
            assert_eq!(tiles.attention(other).variant, "spread");
        }
        // What divides no attention, as a file may say that somebody has edited.
        assert_eq!(with("packed 32").attention(decode).variant, "spread");
        let odd = Heads { head_dim: 40, ..decode };
        assert_eq!(plain.attention_setting(odd), Setting::plain(Form::Matrix));
    }

    #[test]
    fn classes_of_attention_are_read() {
        for form in Form::ALL {
            let class = Class::of_attention(Heads { head_dim: 128, cache: DType::Q8, form });
            assert_eq!(Class::parse_attention(&class.to_string()), Ok(class));
        }
        for text in ["", "attention F32 128", "attention chat F32 128", "matmul decode F32 128"] {
            assert!(
                Class::parse_attention(text).is_err_and(|e| e.contains("no attention")),
                "{text}"
            );
        }
    }
}
