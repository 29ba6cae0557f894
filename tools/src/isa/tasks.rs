//! The dispatches of a pass over Grok-2 at its own sizes, with what estimates need of them.

use std::collections::HashMap;

use grok_wgpu::lab::{
    base::{
        error::Result,
        tensor::{DType, Shape, Tensor},
    },
    checkpoint::Synthetic,
    engine::SessionOptions,
    machine::{
        BufferRole, Machine as _,
        binder::{Dispatch, Operand},
        counting::{Counting, DeviceLimits},
        kernel::{Executor, Kernel},
    },
    measure::{
        kernels::Work,
        work::{flops, least_bytes},
    },
    model::{Model, Output, Pass, Phase, Scratch, alloc_cache, config::Config, forward},
    variants::{Form, Tuning},
};

use super::{programs, spirv};

/// What goes through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Type of the weights.
    pub weights: DType,
    /// Prompt, or generated tokens.
    pub phase: Phase,
    /// Tokens at once.
    pub tokens: u32,
    /// Positions, these tokens the last of them.
    pub positions: u32,
}

/// Dispatches of a pass that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The program, as the committed table calls it.
    pub program: String,
    /// The form of the product, or the phase's if it is attention.
    pub form: Option<Form>,
    /// How often it runs in the pass.
    pub runs: u32,
    /// Bytes that a run touches.
    pub bytes: f64,
    /// Floating-point operations of a run, with those of tiles that are partly empty.
    pub operations: f64,
    /// Weights, or elements of the cache, that a run reads.
    pub weights: f64,
    /// Workgroups.
    pub workgroups: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Turns of its main loop that an invocation makes, where weights and operations do not say.
    pub turns: f64,
    /// Whether all columns of a product are used: those of four tokens.
    pub columns: bool,
}

/// A pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Tasks {
    /// Its dispatches.
    pub tasks: Vec<Task>,
    /// Bytes that any implementation must read.
    pub least_bytes: f64,
    /// Operations that any implementation must do.
    pub flops: f64,
}

/// The dispatches of a pass over all layers of Grok-2, as a device with bindings of 4 GiB has them
/// under a tuning.
///
/// # Errors
///
/// Errors of the model, and naga's for a program.
pub fn of(load: Load, tuning: &Tuning) -> std::result::Result<Tasks, String> {
    let mut dispatches = Vec::new();
    let (model, config) = record(load, tuning, &mut dispatches).map_err(|e| e.to_string())?;
    let before = load.positions - load.tokens;
    let mut tasks: Vec<Task> = Vec::new();
    let mut sizes = HashMap::new();
    for dispatch in &dispatches {
        let program = programs::name(dispatch);
        if !sizes.contains_key(&program) {
            sizes.insert(program.clone(), spirv::workgroup_size(dispatch)?);
        }
        let invocations = sizes[&program];
        let task = task(dispatch, program, invocations, load);
        match tasks.iter_mut().find(|known| Task { runs: task.runs, ..(*known).clone() } == task) {
            Some(known) => known.runs += 1,
            None => tasks.push(task),
        }
    }
    Ok(Tasks {
        tasks,
        least_bytes: least_bytes(&model, DType::F32, load.tokens, before) as f64,
        flops: flops(&config, load.tokens, before) as f64,
    })
}

/// Collects dispatches.
struct Noting<'a> {
    tuning: &'a Tuning,
    dispatches: &'a mut Vec<Dispatch>,
}

impl Executor for Noting<'_> {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        self.dispatches.push(kernel.record(self.tuning)?);
        Ok(())
    }
}

fn record(load: Load, tuning: &Tuning, dispatches: &mut Vec<Dispatch>) -> Result<(Model, Config)> {
    let Load { weights, phase, tokens, positions } = load;
    let config = Config::preset("grok-2").expect("it is a preset");
    let synthetic = Synthetic::new(&config, weights, 0)?;
    let mut machine =
        Counting::new(DeviceLimits { binding: u32::MAX.into(), buffer: u32::MAX.into() });
    let model = Model::alloc(&mut machine, &config, &synthetic)?;
    let cache = alloc_cache(&mut machine, &config, positions, DType::F32)?;
    let split = SessionOptions::SPLIT;
    let s = Scratch::alloc(&mut machine, (&config, model.brought()), phase, tokens, &cache, split)?;
    let caches = vec![cache; model.layers.len()];
    let output = if phase == Phase::Decode && tokens > 1 {
        let shape = [tokens, config.vocab_size].into();
        Output::All(machine.alloc(BufferRole::Storage, DType::F32, shape)?)
    } else {
        Output::Last
    };
    let mut noting = Noting { tuning, dispatches };
    forward(&mut noting, &model, &s, &caches, Pass::of_one(output, positions))?;
    Ok((model, config))
}

fn task(dispatch: &Dispatch, program: String, invocations: u32, load: Load) -> Task {
    let kernel = dispatch.shader.own.kernel;
    let attends = (kernel == "attention").then_some(load.phase.form());
    let form = dispatch.class.as_ref().map(|class| class.form).or(attends);
    let work = Work::of(dispatch, load.positions - load.tokens);
    let named = |name: &str| dispatch.operands.iter().find(|operand| operand.name == name);
    let multiplied: &[&str] = match (kernel, form) {
        ("attention", _) => &["k", "v"],
        (_, Some(_)) => &["weight", "gate", "up"],
        _ => &[],
    };
    let elements = |operand: &Operand| {
        let Tensor { dtype, .. } = operand.tensor;
        operand.touched as f64 / dtype.row_bytes(32) as f64 * 32.0
    };
    let weights = multiplied.iter().filter_map(|name| named(name)).map(elements).sum();
    let slots = named("ids").or(named("order")).map_or(0.0, |o| o.tensor.shape.len() as f64);
    // On average the last tile of each expert is half empty.
    let experts = named("gate").or(named("weight")).map(|matrix| matrix.tensor.shape);
    let padded = match (form, experts.as_ref().map(Shape::extents)) {
        (Some(Form::Matrix), Some(&[experts, _, _])) => {
            let tiles = slots / f64::from(Form::Matrix.tile());
            (tiles + f64::from(experts) / 2.0) / tiles
        }
        _ => 1.0,
    };
    let turns = match kernel {
        // Two loops, of four slots a turn.
        "expert_groups" => 2.0 * (slots / f64::from(invocations) / 4.0).ceil(),
        _ => 1.0,
    };
    Task {
        program,
        form,
        runs: 1,
        bytes: work.bytes as f64,
        operations: work.operations as f64 * padded,
        weights,
        workgroups: dispatch.workgroups.iter().product(),
        invocations,
        turns,
        columns: load.tokens > 1,
    }
}
