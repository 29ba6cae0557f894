//! How work is divided among invocations: sound defaults by kind of device, and what was measured.

mod store;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

pub use store::Store;

use crate::base::tensor::{DType, Tensor};

/// Tile shapes and lane counts that change speed, never what is computed, and whether products may
/// round activations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Matrix-vector products, where nothing else was measured.
    pub vectors: Vectors,
    /// Matrix products, where nothing else was measured.
    pub matrices: Matrices,
    /// Invocations that share the row of a norm. A power of two.
    pub wide: u32,
    /// What was measured to be faster.
    pub measured: Option<Arc<Measured>>,
}

/// How invocations share a matrix-vector product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vectors {
    /// `lanes` invocations form an output row and meet in workgroup memory; a workgroup has `rows`
    /// of them. Both are powers of two.
    Lanes {
        /// Invocations of a row.
        lanes: u32,
        /// Rows of a workgroup.
        rows: u32,
    },
    /// A subgroup, which has this many invocations, forms an output row without workgroup memory.
    Subgroup {
        /// Invocations of a subgroup, exactly.
        lanes: u32,
    },
    /// Each invocation forms output rows of its own; its subgroup, of at least eight, shares the
    /// loads of the vector.
    Spread {
        /// Invocations of a workgroup, a multiple of what a subgroup can have.
        width: u32,
    },
}

/// How invocations share a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matrices {
    /// Tiles of 32 tokens in workgroup memory.
    Tiles {
        /// Output rows of a tile: 16, 32 or 64.
        rows: u32,
    },
    /// The same with activations rounded to signed bytes, in blocks of 32 with a scale, so that
    /// integers are multiplied. Only for quantized weights: others take [`Self::Tiles`].
    Packed {
        /// Output rows of a tile: 16, 32 or 64.
        rows: u32,
    },
    /// Each invocation forms output rows of its own for eight or twelve tokens; its subgroup, of at
    /// least eight, shares the loads of activations.
    Spread {
        /// Invocations of a workgroup, a multiple of what a subgroup can have.
        width: u32,
    },
}

/// Which products a measurement speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Stem of the kernel's files.
    pub kernel: String,
    /// Type of the weights.
    pub dtype: DType,
    /// Rows of the weight, to the next power of two.
    pub rows: u32,
    /// Columns of the weight, to the next power of two.
    pub cols: u32,
}

impl Class {
    /// The class of a product with `weight`: `[rows, cols]` or `[experts, rows, cols]`.
    pub fn of(kernel: &str, weight: Tensor) -> Self {
        let (rows, cols) = match *weight.shape.extents() {
            [.., rows, cols] => (rows, cols),
            _ => (0, 0),
        };
        Self {
            kernel: kernel.to_owned(),
            dtype: weight.dtype,
            rows: rows.next_power_of_two(),
            cols: cols.next_power_of_two(),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, dtype, rows, cols } = self;
        write!(f, "{kernel} {dtype} {rows}x{cols}")
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let [kernel, dtype, sizes] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let (rows, cols) = sizes.split_once('x')?;
            Some(Self {
                kernel: kernel.to_owned(),
                dtype: DType::WEIGHTS.into_iter().find(|each| each.name() == dtype)?,
                rows: rows.parse().ok()?,
                cols: cols.parse().ok()?,
            })
        };
        read().ok_or_else(|| format!("`{text}` is no kind of product"))
    }
}

/// The fastest ways that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Measured {
    /// Of matrix-vector products.
    pub vectors: BTreeMap<Class, Vectors>,
    /// Of matrix products.
    pub matrices: BTreeMap<Class, Matrices>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self::GPU
    }
}

impl Tuning {
    /// For GPUs: lanes read neighbouring weights, so that loads coalesce.
    pub const GPU: Self = Self {
        vectors: Vectors::Lanes { lanes: 32, rows: 4 },
        matrices: Matrices::Tiles { rows: 32 },
        wide: 256,
        measured: None,
    };

    /// For adapters that run on a CPU: a barrier costs more there than anything else, so each
    /// invocation owns a row.
    pub const CPU: Self = Self {
        vectors: Vectors::Lanes { lanes: 1, rows: 16 },
        matrices: Matrices::Tiles { rows: 32 },
        wide: 16,
        measured: None,
    };

    /// For adapters that run on a CPU and have subgroups of `width` invocations, eight or more:
    /// there a load is a load for each lane, so what all lanes want is loaded by one and spread.
    pub const fn spread(width: u32) -> Self {
        Self {
            vectors: Vectors::Spread { width },
            matrices: Matrices::Spread { width },
            ..Self::CPU
        }
    }

    /// The sums of a row by a subgroup of exactly `lanes` invocations.
    pub const fn subgroup(lanes: u32) -> Self {
        Self { vectors: Vectors::Subgroup { lanes }, ..Self::GPU }
    }

    /// Every kind of tuning that tests must cover, with a name. `subgroup` is the least and the
    /// largest size of the device's subgroups, if it has any.
    pub fn all(subgroup: Option<(u32, u32)>) -> Vec<(&'static str, Self)> {
        let tall = Self { matrices: Matrices::Tiles { rows: 64 }, ..Self::GPU };
        let low = Self { matrices: Matrices::Tiles { rows: 16 }, ..Self::GPU };
        let packed = Self { matrices: Matrices::Packed { rows: 32 }, ..Self::GPU };
        let mut all = vec![("gpu", Self::GPU), ("cpu", Self::CPU), ("tall", tall), ("low", low)];
        all.push(("packed", packed));
        if let Some((least, most)) = subgroup {
            if least == most {
                all.push(("subgroup", Self::subgroup(most)));
            }
            if least >= 8 {
                all.push(("spread", Self::spread(most)));
            }
        }
        all
    }

    /// How to share the matrix-vector product `kernel` of `weight`.
    pub fn vectors(&self, kernel: &str, weight: Tensor) -> Vectors {
        let measured = self.measured.as_ref();
        let found = measured.and_then(|all| all.vectors.get(&Class::of(kernel, weight)));
        found.copied().unwrap_or(self.vectors)
    }

    /// How to share the matrix product `kernel` of `weight`.
    pub fn matrices(&self, kernel: &str, weight: Tensor) -> Matrices {
        let measured = self.measured.as_ref();
        let found = measured.and_then(|all| all.matrices.get(&Class::of(kernel, weight)));
        match found.copied().unwrap_or(self.matrices) {
            Matrices::Packed { rows } if !weight.dtype.is_quantized() => Matrices::Tiles { rows },
            matrices => matrices,
        }
    }
}

impl Vectors {
    /// Invocations that share an output row.
    pub const fn lanes(self) -> u32 {
        match self {
            Self::Lanes { lanes, .. } | Self::Subgroup { lanes } => lanes,
            Self::Spread { .. } => 1,
        }
    }

    /// Output rows of a workgroup, where an invocation that owns rows owns `own` of them.
    pub const fn rows(self, own: u32) -> u32 {
        match self {
            Self::Lanes { rows, .. } => rows,
            Self::Subgroup { .. } => 1,
            Self::Spread { width } => width * own,
        }
    }

    /// The pipeline constants of the kernels.
    pub fn constants(self) -> Vec<(&'static str, u32)> {
        match self {
            Self::Lanes { lanes, rows } => vec![("WG", lanes * rows), ("LANES", lanes)],
            Self::Subgroup { lanes } => vec![("WG", lanes), ("LANES", lanes)],
            Self::Spread { width } => vec![("WG", width)],
        }
    }
}

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lanes { lanes, rows } => write!(f, "lanes {lanes} {rows}"),
            Self::Subgroup { lanes } => write!(f, "subgroup {lanes}"),
            Self::Spread { width } => write!(f, "spread {width}"),
        }
    }
}

impl FromStr for Vectors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, sizes) = words(text)?;
        match (name, sizes.as_slice()) {
            ("lanes", &[lanes, rows]) => Ok(Self::Lanes { lanes, rows }),
            ("subgroup", &[lanes]) => Ok(Self::Subgroup { lanes }),
            ("spread", &[width]) => Ok(Self::Spread { width }),
            _ => Err(format!("`{text}` is no way to share a matrix-vector product")),
        }
    }
}

/// Tokens of a tile in workgroup memory, and slots of an expert's tile.
pub const TILE: u32 = 32;

impl Matrices {
    /// Output rows of a workgroup, where an invocation that owns rows owns `own` of them.
    pub const fn rows(self, own: u32) -> u32 {
        match self {
            Self::Tiles { rows } | Self::Packed { rows } => rows,
            Self::Spread { width } => width * own,
        }
    }

    /// Workgroups for so many groups of rows and of tokens. Those side by side share what costs more to
    /// load: activations in tiles, weights where invocations own rows.
    pub const fn grid(self, rows: u32, tokens: u32) -> [u32; 3] {
        match self {
            Self::Tiles { .. } | Self::Packed { .. } => [rows, tokens, 1],
            Self::Spread { .. } => [tokens, rows, 1],
        }
    }

    /// Tokens of a workgroup, where one that owns rows takes `own` of them.
    pub const fn tokens(self, own: u32) -> u32 {
        match self {
            Self::Tiles { .. } | Self::Packed { .. } => TILE,
            Self::Spread { .. } => own,
        }
    }

    /// The pipeline constants of the kernels.
    pub fn constants(self) -> Vec<(&'static str, u32)> {
        match self {
            Self::Tiles { rows } | Self::Packed { rows } => {
                vec![("ROWS", rows), ("TILE_WG", 2 * rows), ("W_TILE", 8 * rows)]
            }
            Self::Spread { width } => vec![("WG", width)],
        }
    }
}

impl fmt::Display for Matrices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tiles { rows } => write!(f, "tiles {rows}"),
            Self::Packed { rows } => write!(f, "packed {rows}"),
            Self::Spread { width } => write!(f, "spread {width}"),
        }
    }
}

impl FromStr for Matrices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, sizes) = words(text)?;
        match (name, sizes.as_slice()) {
            ("tiles", &[rows @ (16 | 32 | 64)]) => Ok(Self::Tiles { rows }),
            ("packed", &[rows @ (16 | 32 | 64)]) => Ok(Self::Packed { rows }),
            ("spread", &[width]) => Ok(Self::Spread { width }),
            _ => Err(format!("`{text}` is no way to share a matrix product")),
        }
    }
}

/// A name and sizes, each a power of two that a workgroup can have.
fn words(text: &str) -> Result<(&str, Vec<u32>), String> {
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
    Ok((name, sizes))
}
