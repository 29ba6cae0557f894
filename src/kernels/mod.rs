//! Every kernel: its operands, its dispatch, its oracle and its test rows.

mod attention;
mod attention_merge;
pub(crate) mod bounds;
mod combine_norm;
mod embed;
mod expert_gated_matmul;
mod expert_groups;
mod expert_matmul;
mod gated_matmul;
mod gather;
mod matmul;
mod multiply_adds;
mod norm_route;
mod pick;
mod rms_norm;
mod rms_norm_add;
mod rope_cache;
mod texts;
mod topk;
mod topk_merge;

pub use attention::Attention;
pub(crate) use attention::elements_of_chunk;
pub use attention_merge::AttentionMerge;
pub use combine_norm::CombineNorm;
pub use embed::Embed;
pub use expert_gated_matmul::ExpertGatedMatMul;
pub use expert_groups::{ExpertGroups, max_tiles};
pub use expert_matmul::ExpertMatMul;
pub use gated_matmul::GatedMatMul;
pub use gather::Gather;
pub use matmul::MatMul;
pub use multiply_adds::MultiplyAdds;
pub use norm_route::NormRoute;
pub use rms_norm::RmsNorm;
pub use rms_norm_add::RmsNormAdd;
pub use rope_cache::RopeCache;
pub(crate) use topk::CHUNK;
pub use topk::TopK;
pub use topk_merge::TopKMerge;

use self::pick::Pick;
use crate::{
    base::{
        quant,
        tensor::{DType, Shape, Tensor},
    },
    machine::{
        binder::{Access, Operand},
        host::{self, Fill, Host},
        kernel::Kernel,
    },
    variants::{Form, Tuning},
};

/// Allocates the operands of a row and builds its kernel.
type Build = Box<dyn Fn(&mut Host) -> Box<dyn Kernel> + Send + Sync>;

/// One row of the kernel test table.
pub struct Case {
    /// Stem of the kernel's files.
    pub kernel: &'static str,
    /// What is special about this row.
    pub name: String,
    /// Whether every intermediate result is exact, so that no error at all is allowed.
    pub exact: bool,
    /// Whether tokens of one kind must have the same bits: see [`LETTERS`].
    pub alike: bool,
    build: Build,
}

impl Case {
    /// Allocates the operands on `host` and builds the kernel.
    pub fn build(&self, host: &mut Host) -> Box<dyn Kernel> {
        (self.build)(host)
    }

    /// The same row with its kernel replaced by `change`, on the same values: the name is the seed
    /// of random ones.
    #[must_use]
    pub fn map(
        self,
        change: impl Fn(Box<dyn Kernel>) -> Box<dyn Kernel> + Send + Sync + 'static,
    ) -> Self {
        let build = self.build;
        Self { build: Box::new(move |host| change(build(host))), ..self }
    }

    /// Kernel and row, as commands and reports name them.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.kernel, self.name)
    }

    /// Whether its full name contains `text`, whatever the case.
    pub fn is_meant_by(&self, text: &str) -> bool {
        self.full_name().to_lowercase().contains(&text.to_lowercase())
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.full_name())
    }
}

/// What the rows of `Rows::spoiled` put into one element of an operand: name, value, and position
/// in percent of the operand's length. The element must take part in a result.
const SPOILS: [(&str, f64, usize); 2] = [("NaN", f64::NAN, 19), ("Inf", f64::INFINITY, 13)];

/// The same, and negative infinity, which a softmax would turn into a weight of zero.
const SPOILS_OF_SOFTMAX: [(&str, f64, usize); 3] =
    [SPOILS[0], SPOILS[1], ("-Inf", f64::NEG_INFINITY, 0)];

/// End of the name of the row of `Rows::spoiled` for this operand and this value.
pub fn spoiled_name(operand: &str, value: &str) -> String {
    format!(", {operand} {value}")
}

/// Whether a kernel calculates with floats that this operand holds before it runs.
pub fn holds_floats(host: &Host, operand: &Operand) -> bool {
    let Tensor { dtype, .. } = operand.tensor;
    dtype != DType::U32
        && (operand.access == Access::Read
            || !host.floats(operand.tensor).iter().copied().all(host::is_unwritten))
}

/// The rows of one kernel while its table is being written.
struct Rows {
    kernel: &'static str,
    cases: Vec<Case>,
}

impl Rows {
    fn of(kernel: &'static str) -> Self {
        Self { kernel, cases: Vec::new() }
    }

    /// A row whose error is bounded by its oracle.
    fn add<K: Kernel + 'static>(
        &mut self,
        name: impl Into<String>,
        build: impl Fn(&mut Host) -> K + Send + Sync + 'static,
    ) {
        self.push(name.into(), false, build);
    }

    /// A row in which every intermediate result is exact.
    fn exact<K: Kernel + 'static>(
        &mut self,
        name: impl Into<String>,
        build: impl Fn(&mut Host) -> K + Send + Sync + 'static,
    ) {
        self.push(name.into(), true, build);
    }

    /// For each operand that floats are read from, the row with one element that is not finite,
    /// which must show in the results.
    fn spoiled<K: Kernel + 'static>(
        &mut self,
        values: &[(&'static str, f64, usize)],
        name: impl Into<String>,
        build: impl Fn(&mut Host) -> K + Clone + Send + Sync + 'static,
    ) {
        let name = name.into();
        let mut host = Host::of_shapes();
        let kernel = build(&mut host);
        for operand in operands(&kernel).into_iter().filter(|o| holds_floats(&host, o)) {
            for &(what, value, part) in values {
                let build = build.clone();
                let end = spoiled_name(operand.name, what);
                self.add(format!("{name}{end}"), move |host| {
                    let kernel = build(host);
                    let mut operands = operands(&kernel).into_iter();
                    let found = operands.find(|o| o.name == operand.name);
                    let tensor = found.expect("a kernel's operands have names").tensor;
                    let len = usize::try_from(tensor.shape.len()).expect("rows are small");
                    host.spoil(tensor, len * part / 100, value);
                    kernel
                });
            }
        }
    }

    fn push<K: Kernel + 'static>(
        &mut self,
        name: String,
        exact: bool,
        build: impl Fn(&mut Host) -> K + Send + Sync + 'static,
    ) {
        let build = Box::new(move |host: &mut Host| Box::new(build(host)) as Box<dyn Kernel>);
        self.cases.push(Case { kernel: self.kernel, name, exact, alike: false, build });
    }

    /// A row whose tokens are of the kinds in [`LETTERS`]: those of a kind must have the same bits,
    /// whatever their place and their neighbours are.
    fn alike<K: Kernel + 'static>(
        &mut self,
        name: impl Into<String>,
        build: impl Fn(&mut Host) -> K + Send + Sync + 'static,
    ) {
        self.push(format!("{}, equal tokens among others", name.into()), false, build);
        if let Some(case) = self.cases.last_mut() {
            case.alike = true;
        }
    }
}

/// The operands that a row's kernel binds.
fn operands(kernel: &dyn Kernel) -> Vec<Operand> {
    kernel.record(&Tuning::default()).expect("rows are sound").operands
}

/// Types that weights are stored in.
const WEIGHTS: [DType; 7] = DType::WEIGHTS;

/// Types that keys and values may be cached in.
pub const CACHES: [DType; 3] = [DType::F32, DType::F16, DType::Q8];

/// Random fills that every reduction meets, with a name.
const FILLS: [(&str, Fill); 4] = [
    ("normal", Fill::Normal),
    ("outliers", Fill::Outliers),
    ("tiny", Fill::Tiny),
    ("cancelling", Fill::Cancelling),
];

/// Rows and columns around the edges of vectors, tiles, workgroups and blocks.
fn edges(dtype: DType) -> [(u32, u32); 6] {
    if dtype.is_quantized() {
        [(1, 32), (3, 96), (31, 64), (33, 288), (67, 256), (5, 1024)]
    } else {
        [(1, 8), (3, 24), (31, 32), (33, 64), (67, 136), (5, 1024)]
    }
}

/// `cols`, rounded up to whole blocks of `dtype`.
fn whole(dtype: DType, cols: u32) -> u32 {
    cols.next_multiple_of(dtype.block())
}

/// Kinds of the tokens of the rows of `Rows::alike`. The last is alone in its block of four.
pub const LETTERS: [u32; 9] = [0, 1, 0, 0, 2, 0, 3, 3, 0];

/// The kind of token `t` in [`LETTERS`].
fn letter(t: u32) -> u32 {
    LETTERS[t as usize]
}

/// Random activations of tokens of these kinds, each of this shape.
fn repeated(host: &mut Host, shape: &[u32]) -> Tensor {
    let shape_of = |tokens: u32| -> Shape {
        match *shape {
            [cols] => [tokens, cols].into(),
            [chosen, cols] => [tokens, chosen, cols].into(),
            _ => unreachable!("tokens have one or two axes"),
        }
    };
    let kinds = host.f32(shape_of(4), Fill::Normal);
    let len = shape.iter().product::<u32>() as usize;
    let of = |&kind: &u32| &host.floats(kinds)[kind as usize * len..][..len];
    let values = LETTERS.iter().flat_map(of).copied().collect();
    host.floats_from(DType::F32, shape_of(9), values)
}

/// Numbers of tokens at the edges of a form's blocks.
fn tokens(form: Form) -> [u32; 6] {
    match form {
        Form::Vector => [1, 2, 3, 4, 5, 9],
        Form::Matrix => [1, 2, 31, 32, 33, 65],
    }
}

/// Rows of a plan, and how many of them are real.
fn padded(form: Form) -> [u32; 2] {
    match form {
        Form::Vector => [11, 6],
        Form::Matrix => [70, 37],
    }
}

/// The most tokens of a random row.
fn most_tokens(form: Form) -> u32 {
    match form {
        Form::Vector => 10,
        Form::Matrix => 66,
    }
}

/// Integer activations that rounding to int8 leaves as they are: the first of each block is 127.
fn bytes(host: &mut Host, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let block = quant::BLOCK as u64;
    let byte = |i: u64| if i.is_multiple_of(block) { 127 } else { (i * 37 % 255) as i32 - 127 };
    host.floats_from(DType::F32, shape, (0..shape.len()).map(|i| byte(i).into()).collect())
}

/// Where the rows of a kernel come from.
struct Table {
    kernel: &'static str,
    /// The hand-written rows.
    cases: fn() -> Rows,
    /// Adds one row of random sizes.
    random: fn(&mut Rows, &mut Pick),
}

macro_rules! tables {
    (
        plain: $($kernel:ident),+ $(,)?;
        products: $($product:ident = $vector:ident),+ $(,)?;
    ) => {
        [
            $(Table {
                kernel: stringify!($kernel),
                cases: $kernel::cases,
                random: $kernel::random,
            },)+
            $(Table {
                kernel: stringify!($product),
                cases: || $product::cases(Form::Matrix),
                random: |rows, pick| $product::random(rows, pick, Form::Matrix),
            },
            Table {
                kernel: stringify!($vector),
                cases: || $product::cases(Form::Vector),
                random: |rows, pick| $product::random(rows, pick, Form::Vector),
            },)+
        ]
    };
}

// Of a product, the kernel's own name, and that of its form for generated tokens.
const TABLES: [Table; 21] = tables![
    plain:
        attention,
        attention_merge,
        combine_norm,
        embed,
        expert_groups,
        gather,
        multiply_adds,
        norm_route,
        rms_norm,
        rms_norm_add,
        rope_cache,
        topk,
        topk_merge;
    products:
        matmul = matvec,
        gated_matmul = gated_matvec,
        expert_gated_matmul = expert_gated_matvec,
        expert_matmul = expert_matvec;
];

/// Every hand-written row of every kernel.
pub fn cases() -> Vec<Case> {
    TABLES.iter().flat_map(|table| (table.cases)().cases).collect()
}

/// Rows of random sizes, `per_kernel` for each kernel. Kernel and number of a row are its seed.
pub fn random_cases(per_kernel: u32) -> Vec<Case> {
    let of = |table: &Table| {
        let mut rows = Rows::of(table.kernel);
        for number in 0..per_kernel {
            let first = rows.cases.len();
            (table.random)(&mut rows, &mut Pick::new(table.kernel, number));
            for row in &mut rows.cases[first..] {
                row.name = format!("random {number}: {}", row.name);
            }
        }
        rows.cases
    };
    TABLES.iter().flat_map(of).collect()
}
