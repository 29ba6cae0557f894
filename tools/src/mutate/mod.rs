//! Mutation testing of the shaders: small wrong changes, for each of which a row must fail.
//!
//! `scripts/mutate` runs it; `tools/mutation/README.md` has the results.

mod hunt;
mod operators;
mod report;
mod rules;
mod tokens;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use hunt::{Hunt, Outcome, State};
use operators::Mutant;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use worker::Worker;

pub(crate) type Error = Box<dyn std::error::Error>;

/// A file of `shaders/`.
#[derive(Debug)]
pub(crate) struct File {
    /// Path below `shaders/`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Changes shaders in small ways and lists the changes that no row sees.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
struct Options {
    /// Only files whose names contain this
    #[arg(long, default_value = "")]
    kernel: String,
    /// Only operators whose names contain this
    #[arg(long, default_value = "")]
    operator: String,
    /// Adapter, by a part of its name
    #[arg(long, default_value = "llvmpipe")]
    adapter: String,
    /// Take so many mutants, evenly over files and operators; the choice is always the same
    #[arg(long)]
    sample: Option<usize>,
    /// Only the I-th of N parts, so that several processes share the work
    ///
    /// Each needs a `--state` of its own. `--resume` on all of their lines in one file writes the
    /// tables.
    #[arg(long, value_name = "I/N", value_parser = part)]
    part: Option<(usize, usize)>,
    /// List the mutants that compile, and run nothing
    #[arg(long)]
    list: bool,
    /// Keep what an earlier run found
    #[arg(long)]
    resume: bool,
    /// Keep what an earlier run found, but run survivors again
    #[arg(long)]
    retry: bool,
    /// Stop after so many seconds; `--resume` goes on
    #[arg(long)]
    seconds: Option<u64>,
    /// Seconds after which a row that gives no answer counts as failed
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// Rows that a mutant runs through at the most, for a quick look; all, if not given
    #[arg(long)]
    rows: Option<usize>,
    /// Where results are kept while they come in
    #[arg(long, default_value = "target/mutate/results.jsonl")]
    state: PathBuf,
    /// Write the tables here
    #[arg(long)]
    report: Option<PathBuf>,
    /// Be the child
    #[arg(long, hide = true)]
    worker: bool,
}

/// Runs the program. The exit code is 1 if a survivor has no reason.
pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

/// Runs the program; returns whether every survivor has a reason.
fn run(options: &Options) -> Result<bool, Error> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files(&tools.with_file_name("shaders"))?;
    let all: Vec<Mutant> =
        files.iter().flat_map(|file| operators::mutants(&file.name, &file.text)).collect();
    if options.worker {
        return worker::serve(&files, &all, &options.adapter).map(|()| true);
    }
    let mut work = Work {
        options,
        files: &files,
        all: &all,
        chosen: Vec::new(),
        unlinked: Vec::new(),
        started: Instant::now(),
    };
    work.choose();
    if options.list {
        for &i in &work.chosen {
            eprintln!("{}", all[i].id);
        }
        return Ok(true);
    }
    let mut state = State::open(&options.state, options.resume || options.retry)?;
    let hunt = work.hunt(&mut state)?;
    work.interpret(&hunt, &mut state)?;
    work.conclude(&tools.join("mutation/survivors.json"), &state)
}

/// The parameters of a run.
struct Work<'a> {
    options: &'a Options,
    files: &'a [File],
    all: &'a [Mutant],
    /// The mutants to run, all of which compile to another program.
    chosen: Vec<usize>,
    /// Names of files that no row links on this adapter. Their mutants do not run.
    unlinked: Vec<&'a str>,
    started: Instant,
}

impl<'a> Work<'a> {
    /// The text of a mutant's file.
    fn text(&self, i: usize) -> &'a str {
        let file = self.files.iter().find(|file| file.name == self.all[i].file);
        file.map_or("", |file| &file.text)
    }

    fn outcome<'s>(&self, i: usize, state: &'s State) -> Option<&'s Outcome> {
        state.outcome(&self.all[i], self.text(i))
    }

    fn late(&self) -> bool {
        self.options.seconds.is_some_and(|most| self.started.elapsed().as_secs() >= most)
    }

    fn choose(&mut self) {
        let Options { kernel, operator, .. } = self.options;
        let programs = programs();
        let linked =
            |file: &File| programs.iter().any(|program| program.source.contains(&file.text));
        self.unlinked =
            self.files.iter().filter(|file| !linked(file)).map(|file| &*file.name).collect();
        for file in &self.unlinked {
            eprintln!("no row on this adapter links {file}, and its mutants do not run");
        }
        let wanted: Vec<usize> = (0..self.all.len())
            .filter(|&i| self.all[i].file.contains(kernel))
            .filter(|&i| self.all[i].operator.contains(operator))
            .collect();
        let differs =
            |&i: &usize| differs(&programs, self.text(i), &self.all[i].apply(self.text(i)));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut chosen: Vec<usize> = thread::scope(|scope| {
            let parts: Vec<_> = wanted
                .chunks(wanted.len().div_ceil(threads).max(1))
                .map(|part| {
                    scope.spawn(|| part.iter().copied().filter(differs).collect::<Vec<_>>())
                })
                .collect();
            parts.into_iter().flat_map(|part| part.join().expect("shaders compile")).collect()
        });
        eprintln!("{} mutants, {} compile to other programs", wanted.len(), chosen.len());
        if let Some(count) = self.options.sample {
            chosen = sample(self.all, chosen, count);
            eprintln!("{} of them are taken", chosen.len());
        }
        if let Some((part, parts)) = self.options.part {
            chosen = chosen.into_iter().skip(part - 1).step_by(parts).collect();
        }
        self.chosen = chosen;
    }

    /// Runs the mutants on the device.
    fn hunt(&self, state: &mut State) -> Result<Hunt<'a>, Error> {
        let Options { adapter, timeout, rows, retry, .. } = self.options;
        let worker = Worker::new(adapter, Duration::from_secs(*timeout));
        let mut hunt = Hunt::new(self.files, self.all, worker, rows.unwrap_or(usize::MAX), state)?;
        eprintln!("all rows pass without a mutant, {} s", self.started.elapsed().as_secs());
        for (n, &i) in self.chosen.iter().enumerate() {
            let known = self.outcome(i, state);
            if known.is_some_and(|known| !retry || *known != Outcome::Survived) || self.late() {
                continue;
            }
            let Mutant { id, file, .. } = &self.all[i];
            if hunt.rows_of(file) == 0 {
                return Err(format!("no row links {file}").into());
            }
            let word = match hunt.run(i, state)? {
                Outcome::Refused => "refused".into(),
                Outcome::Killed { by, .. } => format!("killed by {by}"),
                Outcome::Faulty { .. } | Outcome::Survived => "SURVIVED".into(),
            };
            let seconds = self.started.elapsed().as_secs();
            eprintln!("{}/{} {seconds} s: {id}: {word}", n + 1, self.chosen.len());
        }
        Ok(hunt)
    }

    /// Runs the survivors in the interpreter.
    fn interpret(&self, hunt: &Hunt<'_>, state: &mut State) -> Result<(), Error> {
        let survivors: Vec<usize> = self
            .chosen
            .iter()
            .copied()
            .filter(|&i| self.outcome(i, state) == Some(&Outcome::Survived))
            .collect();
        if self.late() {
            return Ok(());
        }
        let links = |kernel: &str| survivors.iter().any(|&i| hunt.links(kernel, &self.all[i].file));
        let rows = rules::rows(&links)?;
        eprintln!("{} survivors through the interpreter, {} rows", survivors.len(), rows.len());
        for i in survivors {
            if self.late() {
                break;
            }
            let text = self.text(i);
            if let Some((by, how)) = rules::fault(&rows, text, &self.all[i].apply(text)) {
                eprintln!("{}: {how} ({by})", self.all[i].id);
                state.settle(&self.all[i], text, Outcome::Faulty { by, how })?;
            }
        }
        Ok(())
    }

    /// Prints the tables and writes the report; returns whether every survivor has a reason.
    fn conclude(&self, reasons: &Path, state: &State) -> Result<bool, Error> {
        let results: Vec<(&Mutant, &Outcome)> = self
            .chosen
            .iter()
            .filter_map(|&i| Some((&self.all[i], self.outcome(i, state)?)))
            .collect();
        let reasons = report::reasons(reasons)?;
        let tables = report::Tables::new(&results, &reasons);
        eprintln!("{tables}");
        let unfinished = self.chosen.len() - results.len();
        if unfinished > 0 {
            eprintln!("{unfinished} mutants have not run; --resume goes on");
        }
        if let Some(path) = &self.options.report {
            let Options { adapter, sample, rows, .. } = self.options;
            fs::write(path, tables.document(adapter, *sample, *rows, &self.unlinked))?;
        }
        let faults = tables.faults(self.all);
        for fault in &faults {
            eprintln!("error: {fault}");
        }
        Ok(faults.is_empty() && unfinished == 0)
    }
}

/// Reads `I/N` with I from 1 to N.
fn part(text: &str) -> Result<(usize, usize), String> {
    let read = || {
        let (part, parts) = text.split_once('/')?;
        let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
        (1..=parts).contains(&part).then_some((part, parts))
    };
    read().ok_or_else(|| "expected I/N with I from 1 to N".into())
}

/// Files of kernels, of variants and of libraries, each sorted by name.
fn files(shaders: &Path) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    for (folder, prefix) in [("kernels", ""), ("variants", "variants/"), ("lib", "lib/")] {
        let folder = shaders.join(folder);
        let mut names: Vec<String> = fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, Error>>()?;
        names.retain(|name| Path::new(name).extension().is_some_and(|end| end == "wgsl"));
        names.sort();
        for name in names {
            let text = fs::read_to_string(folder.join(&name))?;
            files.push(File { name: format!("{prefix}{name}"), text });
        }
    }
    Ok(files)
}

/// A linked program's text, and its IR for comparisons.
struct Program {
    kernel: &'static str,
    source: String,
    meaning: String,
}

/// Every program of a row.
fn programs() -> Vec<Program> {
    let mut found = BTreeMap::new();
    for (case, _, tuning) in worker::rows() {
        let mut host = grok_wgpu::lab::machine::host::Host::of_shapes();
        let shader = case.build(&mut host).shader(&tuning);
        found.entry(shader.label()).or_insert_with(|| (case.kernel, shader.source()));
    }
    let program = |(kernel, source): (&'static str, String)| {
        let module = compiled(&source).expect("shaders compile");
        Program { kernel, source, meaning: meaning(&module) }
    };
    found.into_values().map(program).collect()
}

/// Whether the IR of at least one program changes, and naga accepts the mutant in one program of
/// each kernel that links the file, or in all if there is no change. Without a change, the mutant
/// is equivalent. What only other programs refuse shows when their rows run.
fn differs(programs: &[Program], file: &str, mutant: &str) -> bool {
    let mut differs = false;
    let mut seen = BTreeSet::new();
    for program in programs.iter().filter(|program| program.source.contains(file)) {
        if !seen.insert(program.kernel) && differs {
            continue;
        }
        let Some(module) = compiled(&program.source.replacen(file, mutant, 1)) else {
            return false;
        };
        differs = differs || meaning(&module) != program.meaning;
    }
    differs
}

/// The module, if naga accepts it.
fn compiled(source: &str) -> Option<naga::Module> {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let module = naga::front::wgsl::parse_str(source).ok()?;
    let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16
        | Capabilities::COOPERATIVE_MATRIX;
    Validator::new(ValidationFlags::all(), core).validate(&module).ok()?;
    Some(module)
}

/// The IR of a program as text: constant expressions are evaluated, and there are no source
/// positions.
fn meaning(module: &naga::Module) -> String {
    format!("{module:?}")
}

/// At most `count` of the mutants, spread evenly over pairs of a file and an operator.
fn sample(all: &[Mutant], mut chosen: Vec<usize>, count: usize) -> Vec<usize> {
    if chosen.len() <= count {
        return chosen;
    }
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut any = |len: usize| random.next_u32() as usize % len;
    let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for i in chosen.drain(..) {
        groups.entry((&all[i].file, all[i].operator)).or_default().push(i);
    }
    // In turns, so that no pair is left out before another has its second. A last turn that is not
    // whole has some of them.
    while chosen.len() < count {
        let mut turn: Vec<usize> = groups
            .values_mut()
            .map(|group| {
                let at = any(group.len());
                group.swap_remove(at)
            })
            .collect();
        groups.retain(|_, group| !group.is_empty());
        while turn.len() > count - chosen.len() {
            let at = any(turn.len());
            turn.swap_remove(at);
        }
        chosen.extend(turn);
    }
    chosen.sort_unstable();
    chosen
}
