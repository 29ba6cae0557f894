//! Links WGSL and compiles pipelines, each once and on all cores, with the bind group layout that
//! the Rust side declares.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{failure::convert, make::Maker};
#[cfg(not(target_arch = "wasm32"))]
use crate::base::error::Error;
use crate::{
    base::error::Result,
    files::threads::{Background, map_on_all_cores},
    machine::{
        binder::{Access, Dispatch},
        shader::Shader,
    },
};

/// Everything that has been compiled on a device.
#[derive(Debug, Default)]
pub(super) struct Cache {
    modules: HashMap<Program, wgpu::ShaderModule>,
    layouts: HashMap<Vec<Access>, Layout>,
    built: HashMap<Program, HashMap<Vec<Constant>, Built>>,
    /// The driver's pipeline cache, if it is on.
    pub(super) kept: Option<wgpu::PipelineCache>,
    ahead: Option<Ahead>,
    /// Who hears of each pipeline that [`Cache::prepare`] has compiled.
    pub(super) listener: Option<Listener>,
}

/// Hears how many of the pipelines that are compiled together are there, and how many they are. It
/// is called on the threads that compile.
pub type Compiled = dyn Fn(usize, usize) + Send + Sync;

/// A [`Compiled`] that does not show itself.
pub(super) struct Listener(pub(super) Box<Compiled>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// Pipelines that other threads compile in advance.
#[derive(Debug)]
struct Ahead {
    /// Each with what was built; `None` if the device refused it.
    work: Background<(Key, Option<Built>)>,
    /// Keys whose result was not taken yet.
    promised: HashSet<Key>,
}

/// A pipeline's program and constants.
type Key = (Program, Vec<Constant>);

type Constant = (&'static str, u32);

/// A linked source. The hash leaves the text out, since a plan looks up thousands, and few programs
/// share a name and a weight type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program(Shader);

impl Hash for Program {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.own.kernel, self.0.variant, self.0.weight).hash(state);
    }
}

/// The layout of a bind group, and of a pipeline with that group alone.
#[derive(Clone, Debug)]
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A pipeline and the layout of its bind group.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Cache {
    /// What [`Cache::prepare`] has built for a dispatch.
    pub(super) fn get(&self, dispatch: &Dispatch) -> Option<&Built> {
        self.built.get(&Program(dispatch.shader))?.get(&dispatch.constants)
    }

    /// Number of pipelines.
    pub(super) fn len(&self) -> usize {
        self.built.values().map(HashMap::len).sum()
    }

    /// Starts to compile the pipelines of `dispatches`, in their order, on other threads.
    pub(super) fn prepare_ahead(
        &mut self,
        make: &Maker,
        dispatches: impl IntoIterator<Item = Dispatch>,
    ) {
        let missing = self.missing(dispatches);
        let promised = missing.iter().map(key).collect();
        let (make, kept) = (make.clone(), self.kept.clone());
        let work = Background::map(missing, move |dispatch| {
            (key(&dispatch), quietly(&make, || build(&make, &dispatch, kept.as_ref())).ok())
        });
        self.ahead = Some(Ahead { work, promised });
    }

    /// Takes the pipelines that other threads have compiled, and waits for those of `dispatches`.
    fn take_ahead(&mut self, dispatches: &[Dispatch]) {
        let Some(Ahead { work, promised }) = &mut self.ahead else { return };
        loop {
            let wait = dispatches.iter().any(|dispatch| promised.contains(&key(dispatch)));
            let Some((key, built)) = work.next(wait) else { break };
            promised.remove(&key);
            if let Some(built) = built {
                let (program, constants) = key;
                self.built.entry(program).or_default().insert(constants, built);
            }
        }
        if promised.is_empty() {
            self.ahead = None;
        }
    }

    /// Compiles the pipelines of `dispatches` that do not exist yet.
    pub(super) fn prepare(&mut self, make: &Maker, dispatches: &[Dispatch]) {
        self.take_ahead(dispatches);
        let missing = self.missing(dispatches);
        if missing.is_empty() {
            return;
        }
        self.prepare_modules(make, &missing);
        for dispatch in &missing {
            let kinds = accesses(dispatch);
            self.layouts.entry(kinds).or_insert_with_key(|kinds| layout(make.device(), kinds));
        }
        let kept = self.kept.as_ref();
        let jobs: Vec<_> = missing
            .iter()
            .map(|&dispatch| {
                let module = &self.modules[&Program(dispatch.shader)];
                (dispatch, module, &self.layouts[&accesses(dispatch)])
            })
            .collect();
        let done = AtomicUsize::new(0);
        let built = map_on_all_cores(&jobs, |&(dispatch, module, layout)| {
            let pipeline = pipeline(make, dispatch, module, layout, kept);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(Listener(listener)) = &self.listener {
                listener(done, jobs.len());
            }
            Built { pipeline, layout: layout.group.clone() }
        });
        for (dispatch, built) in missing.into_iter().zip(built) {
            self.insert(dispatch, built);
        }
    }

    /// Compiles the missing pipelines of `dispatches` one by one. Returns those that the device
    /// refuses, with what it says of each.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn refused(
        &mut self,
        make: &Maker,
        dispatches: &[Dispatch],
    ) -> Vec<(Dispatch, Error)> {
        let missing = self.missing(dispatches);
        let kept = self.kept.as_ref();
        let built =
            map_on_all_cores(&missing, |dispatch| quietly(make, || build(make, dispatch, kept)));
        let mut refused = Vec::new();
        for (dispatch, built) in missing.into_iter().zip(built) {
            match built {
                Ok(built) => self.insert(dispatch, built),
                Err(error) => refused.push((dispatch.clone(), error)),
            }
        }
        refused
    }

    /// Compiles the pipeline of a dispatch, and waits for what the device says of it. An error if
    /// it refuses; then nothing of it is kept.
    pub(super) async fn prepare_one(&mut self, make: &Maker, dispatch: &Dispatch) -> Result<()> {
        let one = std::slice::from_ref(dispatch);
        let ((), told) = watched(make, || self.prepare(make, one));
        told.first().await.inspect_err(|_| self.forget(one))
    }

    fn insert(&mut self, dispatch: &Dispatch, built: Built) {
        let program = self.built.entry(Program(dispatch.shader)).or_default();
        program.insert(dispatch.constants.clone(), built);
    }

    /// Drops what was built for `dispatches`.
    pub(super) fn forget(&mut self, dispatches: &[Dispatch]) {
        for dispatch in dispatches {
            let program = Program(dispatch.shader);
            self.modules.remove(&program);
            if let Some(built) = self.built.get_mut(&program) {
                built.remove(&dispatch.constants);
            }
        }
    }

    /// One dispatch for each pipeline that is still to be built.
    fn missing<D: Borrow<Dispatch>>(&self, dispatches: impl IntoIterator<Item = D>) -> Vec<D> {
        let mut seen = HashSet::new();
        dispatches
            .into_iter()
            .filter(|dispatch| {
                let dispatch = dispatch.borrow();
                self.get(dispatch).is_none() && seen.insert(key(dispatch))
            })
            .collect()
    }

    /// Creates one shader module for each source, whatever the constants of its pipelines.
    fn prepare_modules(&mut self, make: &Maker, missing: &[&Dispatch]) {
        let mut seen = HashSet::new();
        let new: Vec<Shader> = missing
            .iter()
            .map(|dispatch| dispatch.shader)
            .filter(|&shader| {
                !self.modules.contains_key(&Program(shader)) && seen.insert(Program(shader))
            })
            .collect();
        let made = map_on_all_cores(&new, |&shader| make.module(shader));
        self.modules.extend(new.into_iter().map(Program).zip(made));
    }
}

/// One dispatch for each pipeline, in the order of their first use.
pub(super) fn distinct(dispatches: &[Dispatch]) -> Vec<&Dispatch> {
    let mut seen = HashSet::new();
    dispatches.iter().filter(|dispatch| seen.insert(key(dispatch))).collect()
}

fn key(dispatch: &Dispatch) -> Key {
    (Program(dispatch.shader), dispatch.constants.clone())
}

/// A pipeline with a module and a layout of its own.
fn build(make: &Maker, dispatch: &Dispatch, kept: Option<&wgpu::PipelineCache>) -> Built {
    let module = make.module(dispatch.shader);
    let layout = layout(make.device(), &accesses(dispatch));
    let pipeline = pipeline(make, dispatch, &module, &layout, kept);
    Built { pipeline, layout: layout.group }
}

/// Runs `work` under error scopes. What the device reports goes no further.
fn quietly<R>(make: &Maker, work: impl FnOnce() -> R) -> Result<R> {
    let (made, told) = watched(make, work);
    pollster::block_on(told.first())?;
    Ok(made)
}

/// Runs `work` under error scopes.
fn watched<R>(make: &Maker, work: impl FnOnce() -> R) -> (R, Told) {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let mut scopes =
        [OutOfMemory, Internal, Validation].map(|kind| Some(make.device().push_error_scope(kind)));
    let made = work();
    // Scopes are a stack: the last is popped first, and all are before anything is awaited.
    let mut told = Told(Vec::new());
    for scope in scopes.iter_mut().rev().filter_map(Option::take) {
        told.0.push(Box::pin(scope.pop()));
    }
    (made, told)
}

/// What the device will have told of some work.
struct Told(Vec<Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>>);

impl Told {
    /// The first error.
    async fn first(self) -> Result<()> {
        let mut first = Ok(());
        for error in self.0 {
            if let Some(error) = error.await {
                first = first.and(Err(convert(&error)));
            }
        }
        first
    }
}

/// Access of each binding; the first is the uniform of parameters.
fn accesses(dispatch: &Dispatch) -> Vec<Access> {
    let operands = dispatch.operands.iter().map(|operand| operand.access);
    std::iter::once(Access::Uniform).chain(operands).collect()
}

/// The layout comes from the Rust side, so that a driver rejects a WGSL file that disagrees.
fn layout(device: &wgpu::Device, kinds: &[Access]) -> Layout {
    let entries: Vec<_> = (0..)
        .zip(kinds)
        .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match kind {
                    Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
                    Access::Uniform => wgpu::BufferBindingType::Uniform,
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    Layout { group, pipeline }
}

fn pipeline(
    make: &Maker,
    dispatch: &Dispatch,
    module: &wgpu::ShaderModule,
    layout: &Layout,
    kept: Option<&wgpu::PipelineCache>,
) -> wgpu::ComputePipeline {
    let constants: Vec<(&str, f64)> =
        dispatch.constants.iter().map(|&(name, value)| (name, f64::from(value))).collect();
    make.pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&dispatch.shader.label()),
        layout: Some(&layout.pipeline),
        module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &constants,
            // No kernel reads workgroup memory that it has not written: an interpreter finds such
            // reads (`tools/tests/races`).
            zero_initialize_workgroup_memory: false,
        },
        cache: kept,
    })
}
