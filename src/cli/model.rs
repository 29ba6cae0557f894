//! Finds, opens and loads the model that a command is about.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueEnum};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::size,
        tensor::DType,
    },
    checkpoint::{
        Synthetic,
        folder::{open_config, open_model},
        open::Opened,
        place,
    },
    engine::{
        Engine, SessionOptions,
        resume::{Change, Rebuild},
        session::Session,
        step::Readback,
    },
    files::{Source, hub::Name, native::FileSource},
    machine::{
        Machine,
        counting::DeviceLimits,
        gpu::{
            Gpu,
            kept::{restore_pipelines, save_pipelines},
        },
    },
    measure::{
        capacity::Planner,
        fit::type_of_most,
        placement::{Budget, Placed},
    },
    model::{
        Placement,
        config::{Config, PRESETS},
        weights::{Lasting, Weights},
    },
    text::tokenizer::Tokenizer,
};

use super::{
    adapter::measured_pinning,
    builtin,
    expected::{Settled, Speeds, settle, tell_choice},
    globals::Globals,
    hub::open_cached,
    memory::{MemoryOption, Told, place, tell_rate, tell_refused},
    signals::check_interrupt,
    sizes::{Decided, Sizes},
    terminal::Terminal,
    waiting,
};

/// A model, or weights that are made up.
#[derive(Args, Debug)]
pub(crate) struct ModelOptions {
    /// Folder or file of the model, or `hf://OWNER/NAME`; the demo model if none is given
    #[arg(conflicts_with = "random")]
    pub(crate) model: Option<PathBuf>,
    /// Make up the weights of --preset or --config
    #[arg(long)]
    pub(crate) random: bool,
    /// A configuration by name
    #[arg(long)]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    #[arg(requires = "random")]
    pub(crate) preset: Option<String>,
    /// A config.json
    #[arg(long, value_name = "FILE", conflicts_with = "preset", requires = "random")]
    pub(crate) config: Option<PathBuf>,
    /// Element type of made-up weights
    #[arg(long = "type", value_enum, default_value = "bf16", requires = "random")]
    pub(crate) element: Element,
}

impl ModelOptions {
    /// The configuration and weights that were asked to be made up, if they were.
    pub(crate) async fn made_up(&self, globals: &Globals) -> Result<Option<(Config, Synthetic)>> {
        if !self.random {
            return Ok(None);
        }
        let config = preset(self.preset.as_deref(), self.config.as_deref(), globals.terminal());
        let config = config.await?;
        let config = globals.compat.apply(config);
        let weights = Synthetic::new(&config, self.element.dtype(), 0)?;
        Ok(Some((config, weights)))
    }
}

/// Where the named model is; where that is elsewhere, a note says so.
fn find(named: &Path, globals: &Globals) -> Result<PathBuf> {
    let place = place::find(named)?;
    if let Some(note) = place.note {
        globals.terminal().note(note);
    }
    Ok(place.path)
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Located {
    /// A folder or a file.
    Path(PathBuf),
    /// On the Hugging Face hub, or in its cache.
    Hub(Name),
    /// In the program.
    BuiltIn,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub(name) => name.fmt(f),
            Self::BuiltIn => f.write_str(builtin::NAME),
        }
    }
}

/// The model named; else the one that is shipped, if it is in this folder or around the program;
/// else the one in the program.
pub(crate) fn locate(named: Option<&Path>) -> Located {
    const SHIPPED: &str = "models/demo";
    if let Some(path) = named {
        // What is no name is told so where a path is looked for.
        let name = path.to_str().and_then(|text| Name::of(text).ok().flatten());
        return name.map_or_else(|| Located::Path(path.to_owned()), Located::Hub);
    }
    let beside = std::env::current_exe().ok();
    let folders = beside.iter().flat_map(|exe| exe.ancestors().skip(1));
    std::iter::once(Path::new("."))
        .chain(folders)
        .map(|folder| folder.join(SHIPPED))
        .find(|model| model.join("config.json").is_file())
        .map_or(Located::BuiltIn, Located::Path)
}

/// Reads the configuration and all headers of a model; warnings are printed.
pub(crate) async fn open(place: &Located, globals: &Globals) -> Result<Opened<FileSource>> {
    let compat = globals.compat.into();
    let opened = match place {
        Located::Path(named) => open_model(&find(named, globals)?, compat).await?,
        Located::Hub(name) => open_cached(name, globals).await?,
        Located::BuiltIn => {
            globals.terminal().faint("no model was named: this is the built-in demo model, 4-bit");
            builtin::open(compat).await?
        }
    };
    Ok(told(opened, globals))
}

/// A model whose warnings have been printed, and of which what was asked for is allowed.
pub(crate) fn told<S: Source>(mut opened: Opened<S>, globals: &Globals) -> Opened<S> {
    if globals.allow_non_finite {
        opened.weights.allow_non_finite();
    }
    for warning in &opened.warnings {
        globals.terminal().warn(warning);
    }
    opened
}

/// Reads the tokenizer of a model; warnings are printed.
pub(crate) async fn tokenizer(
    globals: &Globals,
    opened: &Opened<impl Source>,
) -> Result<Tokenizer> {
    let tokenizer = opened.tokenizer().await?;
    for warning in tokenizer.warnings() {
        globals.terminal().warn(warning);
    }
    Ok(tokenizer)
}

/// A session with the weights of a model on the device.
pub(crate) async fn load(
    globals: &Globals,
    opened: &Opened<FileSource>,
    sizes: impl Into<Sizes>,
) -> Result<Session<Gpu>> {
    load_wrapped(globals, opened, sizes, |gpu| gpu).await
}

/// The same on a machine that is made of the device.
pub(crate) async fn load_wrapped<M: Machine>(
    globals: &Globals,
    opened: &Opened<FileSource>,
    sizes: impl Into<Sizes>,
    wrap: impl Fn(Gpu) -> M,
) -> Result<Session<M>> {
    let weights = &opened.weights;
    let stored = Stored::of(opened);
    let (config, sizes) = (&opened.config, sizes.into());
    let mut session = load_onto(globals, config, weights, stored, sizes, wrap).await?;
    session.engine().while_bringing(Some(waiting::heed()));
    if session.streams() && weights.are_converted() {
        globals.terminal().note(
            "these files are converted each time they are read; a copy that `quantize` writes is \
             read as it is",
        );
    }
    Ok(session)
}

/// How weights are stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: u64,
    /// Their folder, by which it is known how fast they are read.
    folder: Option<String>,
}

impl Stored {
    /// The weights of a model.
    pub(crate) fn of(opened: &Opened<impl Source>) -> Self {
        Self { bytes: opened.weights.bytes(), folder: folder_of(opened) }
    }

    pub(crate) fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }
}

/// Weights that are made up.
impl From<u64> for Stored {
    fn from(bytes: u64) -> Self {
        Self { bytes, folder: None }
    }
}

/// The folder of a model's files, if it has one.
pub(crate) fn folder_of(opened: &Opened<impl Source>) -> Option<String> {
    let path = opened.weights.sources().first()?.path();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let folder = std::path::absolute(folder).ok()?;
    Some(folder.to_string_lossy().into_owned())
}

/// Opens a device and loads weights onto it, with a progress bar.
pub(crate) async fn load_weights(
    globals: &Globals,
    config: &Config,
    weights: &impl Lasting,
    stored: impl Into<Stored>,
    sizes: impl Into<Sizes>,
) -> Result<Session<Gpu>> {
    load_onto(globals, config, weights, stored.into(), sizes.into(), |gpu| gpu).await
}

/// The same, onto what `wrap` makes of the device.
async fn load_onto<M: Machine>(
    globals: &Globals,
    config: &Config,
    weights: &impl Lasting,
    stored: Stored,
    asked: Sizes,
    wrap: impl Fn(Gpu) -> M,
) -> Result<Session<M>> {
    // Before a device is opened, which may take long.
    asked.usual().check(config)?;
    let mut smaller = None;
    let mut before = None;
    loop {
        let (mut gpu, kept) = measured_pinning(globals, asked.memory.pins()).await?;
        let Decided { sizes, .. } = asked.on(Some((&gpu, &kept)), config, weights)?;
        if let Some(folder) = globals.pipeline_folder() {
            globals.note_pipelines(restore_pipelines(&folder, &mut gpu));
        }
        let terminal = globals.terminal();
        if gpu.caps().is_cpu && before.is_none() {
            terminal.faint(format!("running on {}", gpu.caps().describe()));
        }
        let limits = DeviceLimits::of(gpu.caps());
        let told = Told::of(&gpu);
        let of = (type_of_most(config, weights)?, stored.folder());
        let speeds = Speeds::of(&gpu, &kept, of, asked.kept)?;
        let within = |memory: MemoryOption| {
            let budget = memory.budget(told);
            Budget { device: smaller.unwrap_or(budget.device), ..budget }
        };
        let place = |budget| place(config, weights, limits, sizes, budget);
        let settled = settle(&asked, &speeds, within, place)?;
        tell_choice(terminal, &settled);
        let Settled { budget, host, .. } = settled;
        let sizes = sizes.with_host_compute(host);
        let placed = |device| place(Budget { device, ..budget });
        let now = (budget.device < u64::MAX).then(|| placed(budget.device)).transpose()?;
        if let Some(now) = &now {
            tell_rate(terminal, now, &speeds.outlook(now), host.is_some());
        }
        let what = (weights, stored.bytes, now.as_ref());
        let load = Box::pin(load_on(wrap(gpu), &terminal, config, what, sizes));
        let error = match load.await {
            Ok(session) => {
                tell_refused(terminal, session.model());
                return Ok(session);
            }
            Err(error) => error,
        };
        // A device does not say beforehand how much it has. When that is known, less is tried once.
        let less = less_than(&error).filter(|&less| before.is_none() && placed(less).is_ok());
        let told = with_remedy(error, config, weights, limits, sizes);
        let Some(less) = less else { return Err(before.unwrap_or(told)) };
        terminal.warn(format!("{told}; {} of it are tried", size(less)));
        (smaller, before) = (Some(less), Some(told));
    }
}

/// The memory to try if a device ran out of it: what it gave, without an eighth, since it needs
/// some for what is no tensor.
fn less_than(error: &Error) -> Option<u64> {
    match error {
        Error::OutOfMemory { held, .. } => Some(held - held / 8),
        _ => None,
    }
}

/// What of the options would have fit, if memory was too small.
fn with_remedy(
    error: Error,
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
) -> Error {
    let Error::OutOfMemory { held, bytes, .. } = error else { return error };
    let Ok(planner) = Planner::new(config, weights, limits) else { return error };
    let fits = planner.remedies(held, sizes);
    if let Some(bytes) = fits.weights {
        return error.with_remedy(|| {
            format!(
                "The weights alone take {}; `quantize --type q4` writes a smaller copy of a model.",
                size(bytes)
            )
        });
    }
    // Without a size, it is not known that what is held is all that there is.
    let fitting = bytes.map(|_| {
        [
            fits.context.map(|context| format!("--context {context}")),
            fits.q8.then(|| "--cache q8".to_owned()),
            fits.prefill.map(|prefill| format!("--prefill {prefill}")),
        ]
    });
    let fitting: Vec<String> = fitting.into_iter().flatten().flatten().collect();
    if !fitting.is_empty() {
        let fitting = fitting.join(" or ");
        return error.with_remedy(|| format!("The memory would hold the model with {fitting}."));
    }
    let Ok(plan) = planner.plan(sizes) else { return error };
    error.with_remedy(|| {
        format!(
            "In all, weights take {}, a context of {} tokens {}, and activations {}. A smaller \
             --context or --prefill, --cache q8, or a copy of the model from `quantize --type q4` \
             takes less.",
            size(plan.weights),
            sizes.context,
            size(plan.cache),
            size(plan.scratch)
        )
    })
}

/// Loads `bytes` of weights onto a machine, or what of them is placed there, with a progress bar.
pub(crate) async fn load_on<M: Machine>(
    machine: M,
    terminal: &Terminal,
    config: &Config,
    (weights, bytes, placed): (&impl Lasting, u64, Option<&Placed>),
    sizes: SessionOptions,
) -> Result<Session<M>> {
    let (placement, bytes) = match placed {
        None => (Placement::WHOLE, bytes),
        Some(placed) => (placed.placement, bytes.saturating_sub(placed.bytes.files)),
    };
    let bar = terminal.bar("loading", bytes, true);
    let mut progress = |done| {
        bar.set_position(done);
        check_interrupt()
    };
    let load = Session::load_placed(machine, config, weights, sizes, placement, &mut progress);
    let session = load.await;
    bar.finish_and_clear();
    session
}

/// Longest time of compiling that is not worth a word, in seconds.
const SOON: f64 = 1.0;

/// Compiles the pipelines for a prompt of `tokens` and for the tokens after it, stores them for
/// later runs, and has each run once, unless that is not wanted: some drivers compile then. So what
/// is measured of a text is not what its first tokens would wait for.
pub(crate) async fn prepare(
    globals: &Globals,
    session: &mut Session<Gpu>,
    tokens: usize,
    read: Readback,
) -> Result<()> {
    const WHAT: &str = "compiling shaders";
    let start = Instant::now();
    let terminal = globals.terminal();
    let bar = terminal.bar(WHAT, 0, false);
    let shown = bar.clone();
    session.machine_mut().on_compiled(Some(Box::new(move |done, all| {
        shown.set_length(all as u64);
        shown.set_position(done as u64);
    })));
    let prepared = session.prepare(tokens, read).await;
    session.machine_mut().on_compiled(None);
    bar.finish_and_clear();
    prepared?;
    if let Some(folder) = globals.pipeline_folder() {
        globals.note_pipelines(save_pipelines(&folder, session.machine()));
    }
    if !globals.no_warmup {
        let bar = terminal.bar(WHAT, 0, false);
        let mut progress = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            check_interrupt()
        };
        let warm = session.warm_up(tokens, read, &mut progress).await;
        bar.finish_and_clear();
        warm?;
    }
    let seconds = start.elapsed().as_secs_f64();
    if seconds > SOON {
        terminal.faint(format!("shaders were compiled in {seconds:.1} s"));
    }
    check_interrupt()
}

/// Loads a model onto a device with its pipelines compiled, and onto another one if that is lost.
pub(crate) struct Reload<'a> {
    pub(crate) globals: &'a Globals,
    pub(crate) opened: &'a Opened<FileSource>,
    pub(crate) sizes: Sizes,
    /// Tokens of the prompt, for which pipelines are compiled.
    pub(crate) prompt: usize,
    /// What its steps read back.
    pub(crate) read: Readback,
}

impl Rebuild for Reload<'_> {
    type Machine = Gpu;

    async fn build(&mut self) -> Result<Engine<Gpu>> {
        let mut session = load(self.globals, self.opened, self.sizes).await?;
        prepare(self.globals, &mut session, self.prompt, self.read).await?;
        Ok(session.into_engine())
    }

    fn on_change(&mut self, change: Change<'_>) {
        let terminal = self.globals.terminal();
        waiting::over();
        match change {
            Change::Lost(error) => terminal.warn(format!("{error}; the model is loaded again")),
            Change::Restored { replayed: 0 } => terminal.note("a new device goes on with the text"),
            Change::Restored { replayed } => terminal.note(format!(
                "a new device goes on with the text, of which {replayed} tokens were computed again"
            )),
            // The error ends the answer, and is told there.
            Change::Failed(_) => {}
        }
    }
}

/// Element types of weights that are made up.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
    Q8,
    Q4,
    Q3,
    Q2,
}

impl Element {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Q8 => DType::Q8,
            Self::Q4 => DType::Q4,
            Self::Q3 => DType::Q3,
            Self::Q2 => DType::Q2,
        }
    }
}

/// A configuration without weights: by name, or a file.
pub(crate) async fn preset(
    name: Option<&str>,
    file: Option<&Path>,
    terminal: Terminal,
) -> Result<Config> {
    let Some(file) = file else {
        let name = name.ok_or_else(|| Error::Usage("--preset or --config is needed".into()))?;
        return Config::preset(name)
            .ok_or_else(|| Error::Usage(format!("no preset is called {name}")));
    };
    if file.is_dir() {
        let inner = file.join("config.json");
        let what = format!("--config wants a file, and {} is a folder", file.display());
        return Err(Error::Usage(what).with_hint(if inner.is_file() {
            format!("Name the file in it: --config {}.", inner.display())
        } else {
            "Name a config.json; a model with its weights is named without `--config`.".to_owned()
        }));
    }
    let (config, warnings) = open_config(file).await?;
    for warning in warnings {
        terminal.warn(warning);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_gave_is_tried_with_less_of_the_model() {
        let config = Config::preset("tiny").expect("a preset");
        let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
        let sizes = SessionOptions::new(128, 32, DType::F32);
        let within = |memory| {
            let budget = Budget::of_device(memory);
            place(&config, &weights, DeviceLimits::BASELINE, sizes, budget)
        };
        let whole = within(u64::MAX).expect("fits").plan.total();
        let out = |held| Error::OutOfMemory {
            what: "a buffer".to_owned(),
            bytes: Some(4096),
            held,
            why: "it is full".to_owned(),
        };
        let less = less_than(&out(whole - 1)).expect("memory is out");
        let placed = within(less).expect("less of it fits");
        assert!(placed.bytes.moves() && placed.plan.total() <= less && less < whole);
        // If hardly anything was given, nothing is tried.
        assert!(within(less_than(&out(4096)).expect("memory is out")).is_err());
        assert_eq!(less_than(&Error::Interrupted), None);
    }

    #[test]
    fn an_error_of_memory_says_what_would_fit() {
        let config = Config::preset("tiny").expect("a preset");
        let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
        let limits = DeviceLimits::BASELINE;
        let sizes = SessionOptions::new(4096, 256, DType::F32);
        let planner = Planner::new(&config, &weights, limits).expect("fits");
        let plan = planner.plan(sizes).expect("fits");
        let told = |held, bytes| {
            let (what, why) = ("a buffer".to_owned(), "it is full".to_owned());
            let error = Error::OutOfMemory { what, bytes, held, why };
            let error = with_remedy(error, &config, &weights, limits, sizes);
            format!("{error}\n{}", error.hint())
        };
        let nearly = told(plan.total() - 1, Some(4096));
        assert!(nearly.starts_with("out of device memory: a buffer needs 4.00 KiB, and "));
        for option in ["--context 40", "--cache q8", "--prefill 32"] {
            assert!(nearly.contains(option), "{nearly}");
        }
        let weights_only = told(plan.weights, Some(4096));
        for part in [size(plan.cache), size(plan.scratch), "--cache q8".to_owned()] {
            assert!(weights_only.contains(&part), "{part}: {weights_only}");
        }
        assert!(told(plan.total(), None).contains("In all, weights take"));
        assert!(told(0, Some(1)).contains("The weights alone take"));
    }
}
