//! The programs that a GPU may be given, at the sizes of the released models.
//!
//! A forward pass of each model is recorded, of a prompt and of a generated token, with weights and
//! a cache of each type and under each tuning of a GPU: its default, and what `tune` would measure
//! on it. So a program that is added is among them without a list of its own. Kernels that no such
//! pass runs are taken from their largest test row.

use std::collections::{HashMap, HashSet};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{Engine, SessionOptions, step::Readback},
    kernels::{self, CACHES},
    machine::{
        binder::{Access, Dispatch},
        counting::{Counting, DeviceLimits, Watching},
        host::Host,
        kernel::Kernel,
    },
    model::{Model, config::Config},
    variants::{Capabilities, Feature, Form, Setting, Tuning, VARIANTS, Variant},
};
use pollster::block_on;

use super::count::Weights;

/// A program, with what a driver has to know to compile it.
#[derive(Clone, Debug)]
pub struct Program {
    /// Shader, weight type and constants: `matvec.lanes/q4 WG=128 LANES=32`.
    pub name: String,
    /// Its first dispatch.
    pub dispatch: Dispatch,
    /// The only subgroup size that it runs with, if it needs one.
    pub subgroup: Option<u32>,
    /// Whether it is what such a GPU runs where nothing was measured.
    pub default: bool,
    /// Which of its loads are loads of weights, or of the cache.
    pub weights: Weights,
}

impl Program {
    /// Access of each binding; the first is the uniform of parameters.
    pub fn bindings(&self) -> Vec<Access> {
        let operands = self.dispatch.operands.iter().map(|operand| operand.access);
        std::iter::once(Access::Uniform).chain(operands).collect()
    }

    /// Stem of the kernel's files.
    pub fn kernel(&self) -> &'static str {
        self.dispatch.shader.own.kernel
    }

    /// The form of the product, if it is one.
    pub fn form(&self) -> Option<Form> {
        self.dispatch.class.as_ref().map(|class| class.form)
    }

    /// Names of the operands that are quantized, if any are.
    fn quantized(&self) -> impl Iterator<Item = &'static str> {
        let operands = self.dispatch.operands.iter();
        operands.filter(|one| one.tensor.dtype.is_quantized()).map(|one| one.name)
    }
}

/// The kinds of GPUs whose tunings are recorded: subgroups of two sizes, as AMD's have; and of one,
/// as NVIDIA's have, for variants that need it. Neither has matrices of halves, though RDNA3 does:
/// Mesa 22.3.6 cannot compile them (`VK_KHR_cooperative_matrix` came with Mesa 24.0).
const GPUS: [Capabilities; 2] = [
    Capabilities { is_cpu: false, subgroups: Some((32, 64)), matrices: false },
    Capabilities { is_cpu: false, subgroups: Some((32, 32)), matrices: false },
];

/// Whether a variant is meant for CPUs alone.
pub fn is_for_cpus(variant: &dyn Variant, on: &Capabilities) -> bool {
    let meant = |is_cpu| variant.preferred(&Capabilities { is_cpu, ..*on }).is_some();
    meant(true) && !meant(false)
}

/// A tuning, and the subgroup size of the GPU that it is for, if it has only one.
struct Way {
    tuning: Tuning,
    subgroup: Option<u32>,
    default: bool,
}

/// The default of each kind of GPU, then what `tune` would measure on it.
fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for on in &GPUS {
        let subgroup = on.subgroups.filter(|(least, most)| least == most).map(|(size, _)| size);
        ways.push(Way { tuning: Tuning::of(on), subgroup, default: true });
        for &variant in VARIANTS {
            if variant.needs(on).is_err() || is_for_cpus(variant, on) {
                continue;
            }
            for sizes in variant.settings(on) {
                let tuning = Tuning::by(on, Setting::new(variant, sizes));
                ways.push(Way { tuning, subgroup, default: false });
            }
        }
    }
    ways
}

/// Variants that no program here has: those for CPUs, and what no GPU here can run.
pub fn left_out() -> Vec<&'static str> {
    let out = |variant: &&&'static dyn Variant| {
        GPUS.iter().all(|on| is_for_cpus(**variant, on) || variant.needs(on).is_err())
    };
    VARIANTS.iter().filter(out).map(|variant| variant.name()).collect()
}

/// Every program, sorted by name.
///
/// # Panics
///
/// If a model cannot be planned, or a row cannot be dispatched.
pub fn all() -> Vec<Program> {
    let mut found = Found { ways: ways(), programs: HashMap::new() };
    for preset in ["grok-2", "grok-1"] {
        // The layers are alike.
        let config = Config::preset(preset).expect("it is a preset").with_layers(2);
        for dtype in DType::WEIGHTS {
            found.model(&config, dtype, DType::F32);
        }
    }
    let config = Config::preset("grok-2").expect("it is a preset").with_layers(2);
    for cache in CACHES {
        found.model(&config, DType::Q4, cache);
    }
    found.rows();
    let mut all: Vec<Program> = found.programs.into_values().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    tell_weights(&mut all);
    all
}

/// Operands that are weights, or the cache, are those that some program of the kernel reads
/// quantized. Their type may be that of activations elsewhere.
fn tell_weights(all: &mut [Program]) {
    let names: HashSet<(&str, &str)> = all
        .iter()
        .flat_map(|program| program.quantized().map(|name| (program.kernel(), name)))
        .collect();
    for program in all {
        let kernel = program.kernel();
        let operands = (1..).zip(&program.dispatch.operands);
        let weights: Vec<(u32, DType)> = operands
            .filter(|(_, one)| one.access == Access::Read && names.contains(&(kernel, one.name)))
            .map(|(binding, one)| (binding, one.tensor.dtype))
            .collect();
        let Some(&(_, dtype)) = weights.first() else { continue };
        let bits = dtype.integers().map_or(8 * dtype.row_bytes(1), |one| one.bits.into());
        let bits = u32::try_from(bits).expect("an element has a few bytes");
        program.weights = Weights {
            bindings: weights.into_iter().map(|(binding, _)| binding).collect(),
            bits,
            scaled: dtype.is_quantized(),
        };
    }
}

/// The programs that were found so far, by name.
struct Found {
    ways: Vec<Way>,
    programs: HashMap<String, Program>,
}

impl Found {
    fn model(&mut self, config: &Config, weights: DType, cache: DType) {
        let weights = Synthetic::new(config, weights, 0).expect("weights have a type");
        // Under larger limits the plain variant takes the place of some settings in the head, which
        // has more rows than they may have workgroups.
        let counting = Counting::new(DeviceLimits::BASELINE);
        let mut machine = Watching { counting, see: |kernel: &dyn Kernel| self.add(kernel) };
        let model = Model::alloc(&mut machine, config, &weights).expect("it fits");
        let sizes = SessionOptions::new(4096, 256, cache);
        let mut engine = Engine::with_model(machine, model, sizes).expect("it fits");
        for read in [Readback::Top(1), Readback::Top(40)] {
            block_on(engine.prepare(0, 256, read)).expect("it can be planned");
        }
    }

    /// The kernels that no model has run: each program of their rows.
    fn rows(&mut self) {
        let known: HashSet<_> = self.programs.values().map(Program::kernel).collect();
        let mut largest: HashMap<_, (u64, Box<dyn Kernel>)> = HashMap::new();
        for case in kernels::cases().into_iter().filter(|case| !known.contains(case.kernel)) {
            let kernel = case.build(&mut Host::of_shapes());
            let dispatch = kernel.record(&Tuning::default()).expect("rows can be dispatched");
            let (bytes, name) = (dispatch.bytes_bound(), name(&dispatch));
            if largest.get(&name).is_none_or(|(most, _)| *most < bytes) {
                largest.insert(name, (bytes, kernel));
            }
        }
        for (_, kernel) in largest.into_values() {
            self.add(kernel.as_ref()).expect("rows can be dispatched");
        }
    }

    fn add(&mut self, kernel: &dyn Kernel) -> Result<()> {
        for way in &self.ways {
            let dispatch = kernel.record(&way.tuning)?;
            let name = name(&dispatch);
            let uses_subgroups = dispatch.shader.features.contains(&Feature::Subgroups);
            let program = self.programs.entry(name.clone()).or_insert_with(|| Program {
                name,
                subgroup: way.subgroup.filter(|_| uses_subgroups),
                dispatch,
                default: false,
                weights: Weights::default(),
            });
            program.default |= way.default;
        }
        Ok(())
    }
}

/// The name of a dispatch's program: shader, weight type and constants.
pub fn name(dispatch: &Dispatch) -> String {
    let label = dispatch.shader.label();
    dispatch.constants.iter().fold(label, |name, (key, value)| format!("{name} {key}={value}"))
}
