//! Estimates of what cards give, on paper: from the committed table of machine code, the bytes and
//! operations of each dispatch, and the cards' published figures.

use std::fmt::Write as _;

use grok_wgpu::lab::{
    base::tensor::DType,
    model::Phase,
    variants::{Form, Tuning},
};

use super::{
    cards::{CARDS, Card},
    figures::Figures,
    report::Row,
    table::{self, Rows},
    tasks::{self, Load, Task, Tasks},
};

/// The part of the published bandwidth that the best readers reach.
const READ: f64 = 0.9;
/// The part of the slots for instructions that a good kernel fills.
const ISSUE: f64 = 0.8;
/// Seconds of a round trip to memory that is busy.
const LATENCY: f64 = 700e-9;
/// Seconds between two dispatches of which one waits for the other.
const BETWEEN: f64 = 2.5e-6;
/// Limits that come close to each other hinder each other: the exponent of the norm over them.
const NORM: f64 = 4.0;

/// The family of the table whose instructions are counted.
const FAMILY: &str = "RDNA3";
/// The version of the driver whose table is read.
const MESA: &str = "Mesa 22.3.6";

/// What bounds a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// The memory's bandwidth.
    Bytes,
    /// Slots for vector instructions.
    Instructions,
    /// Loads in flight, by Little's law.
    Loads,
    /// The time between dispatches.
    Dispatch,
}

impl Limit {
    const ALL: [Self; 4] = [Self::Bytes, Self::Instructions, Self::Loads, Self::Dispatch];

    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Instructions => "instructions",
            Self::Loads => "loads",
            Self::Dispatch => "dispatches",
        }
    }

    /// What would be done about it.
    fn next(self, phase: Phase) -> &'static str {
        match (self, phase) {
            (Self::Bytes, _) => "fewer bytes: smaller weights, or a smaller cache",
            (Self::Instructions, Phase::Decode) => {
                "fewer instructions a weight: several integers in a word at once, or dp4a with \
                 activations of more than one byte"
            }
            (Self::Instructions, Phase::Prefill) => {
                "matrix units, or more results for each invocation where registers allow it"
            }
            (Self::Loads, _) => "more loads in flight: more rows or more invocations for a core",
            (Self::Dispatch, _) => "fewer dispatches: kernels that are fused",
        }
    }
}

/// Seconds of a run of a task, by [`Limit`]. The first three overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times([f64; 4]);

impl Times {
    /// Of a task whose program has this row, on a card.
    fn of(task: &Task, row: &Row, card: &Card) -> Self {
        // The path with the fewest instructions is that of one column.
        let figures = row.main.as_ref().map(|main| {
            if task.form == Some(Form::Vector) && !task.columns { main.least } else { main.most }
        });
        let Figures { vector, multiply_adds, trips, weights, .. } = figures.unwrap_or_default();
        let turns = match task.form {
            Some(Form::Matrix) => task.operations / 2.0 / f64::from(multiply_adds.max(1)),
            _ if weights > 0 && task.weights > 0.0 => task.weights / f64::from(weights),
            _ => task.turns * f64::from(task.workgroups * task.invocations),
        };
        let of_core = task.workgroups.div_ceil(card.cores);
        // Of all invocations of the core that has the most workgroups.
        let turns = turns / f64::from(task.workgroups) * f64::from(of_core);
        let together = resident(task, row, card).min(of_core) * task.invocations;
        let slots = f64::from(card.lanes) * card.clock * 1e9;
        Self([
            task.bytes / (card.bandwidth * 1e9 * READ),
            turns * f64::from(vector) / (slots * ISSUE),
            turns * f64::from(trips.max(1)) * LATENCY / f64::from(together),
            BETWEEN,
        ])
    }

    fn seconds(&self) -> f64 {
        let [overlap @ .., between] = self.0;
        overlap.iter().map(|time| time.powf(NORM)).sum::<f64>().powf(1.0 / NORM) + between
    }

    fn limit(&self) -> Limit {
        let longest = self.0.iter().zip(Limit::ALL).max_by(|a, b| a.0.total_cmp(b.0));
        longest.map_or(Limit::Bytes, |(_, limit)| limit)
    }
}

/// Workgroups that a core holds at once, by registers, workgroup memory and invocations.
fn resident(task: &Task, row: &Row, card: &Card) -> u32 {
    let registers = (card.registers << 10) / (4 * row.vgprs * task.invocations).max(1);
    let shared = (card.shared << 10) / row.shared.max(1);
    registers.min(shared).min(card.invocations / task.invocations).max(1)
}

/// A sum over tasks, each as often as it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    seconds: f64,
    bytes: f64,
    operations: f64,
    /// Seconds by what bounds them.
    limits: [f64; 4],
}

impl Sum {
    fn add(&mut self, task: &Task, times: Times) {
        let runs = f64::from(task.runs);
        let seconds = runs * times.seconds();
        self.seconds += seconds;
        self.bytes += runs * task.bytes;
        self.operations += runs * task.operations;
        self.limits[times.limit() as usize] += seconds;
    }

    /// What bounds most of the time.
    fn limit(&self) -> Limit {
        Times(self.limits).limit()
    }
}

/// A line of the table of kernels: which of the tasks of a load, and how its cells are shown.
struct Line {
    name: String,
    load: Load,
    /// Stems of kernels, or one of all products.
    kernels: &'static [&'static str],
    show: Show,
}

/// What a cell shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// Bytes a second, of the card's bandwidth.
    Bandwidth,
    /// Operations a second, of the card's peak.
    Peak,
    /// Microseconds of a run.
    Microseconds,
}

const PRODUCTS: &[&str] = &["matmul", "gated_matmul", "expert_gated_matmul", "expert_matmul"];

/// Types of the weights, in the order of the tables.
const WEIGHTS: [DType; 3] = [DType::Q4, DType::Q8, DType::BF16];

/// Positions of the context, and tokens of a chunk of a prompt.
const CONTEXT: u32 = 4096;
const CHUNK: u32 = 1024;

fn decode(weights: DType, tokens: u32, positions: u32) -> Load {
    Load { weights, phase: Phase::Decode, tokens, positions }
}

fn prefill(weights: DType, tokens: u32) -> Load {
    Load { weights, phase: Phase::Prefill, tokens, positions: CONTEXT }
}

fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |name: String, load, kernels, show| {
        lines.push(Line { name, load, kernels, show });
    };
    for weights in WEIGHTS {
        for (tokens, text) in [(1, "one token"), (4, "four tokens")] {
            let name = format!("GEMV {}, {text}", weights.name().to_lowercase());
            line(name, decode(weights, tokens, CONTEXT), PRODUCTS, Show::Bandwidth);
        }
    }
    for weights in WEIGHTS {
        let name = format!("GEMM {}, {CHUNK} tokens", weights.name().to_lowercase());
        line(name, prefill(weights, CHUNK), PRODUCTS, Show::Peak);
    }
    for positions in [CONTEXT, 32 << 10] {
        let load = decode(DType::Q4, 1, positions);
        let at = format!("one token at position {positions}");
        line(format!("`attention`, {at}"), load, &["attention"], Show::Bandwidth);
        line(format!("`attention_merge`, {at}"), load, &["attention_merge"], Show::Microseconds);
    }
    let load = prefill(DType::Q4, CHUNK);
    line(format!("`attention`, {CHUNK} tokens"), load, &["attention"], Show::Peak);
    let one = decode(DType::Q4, 1, CONTEXT);
    line("`norm_route`, one token".into(), one, &["norm_route"], Show::Microseconds);
    line("`combine_norm`, one token".into(), one, &["combine_norm"], Show::Microseconds);
    let name = format!("`expert_groups`, {CHUNK} tokens");
    line(name, load, &["expert_groups"], Show::Microseconds);
    lines
}

/// The passes that were recorded, each for the tuning of a card.
struct Passes<'a> {
    rows: &'a Rows,
    known: Vec<((Load, Tuning), Tasks)>,
}

impl Passes<'_> {
    fn tasks(&mut self, load: Load, card: &Card) -> Result<&Tasks, String> {
        let key = (load, Tuning::of(&card.capabilities()));
        let known = self.known.iter().position(|(known, _)| *known == key);
        let at = known.unwrap_or(self.known.len());
        if known.is_none() {
            let tasks = tasks::of(load, &key.1)?;
            self.known.push((key, tasks));
        }
        Ok(&self.known[at].1)
    }

    /// The sum of a load's tasks of these kernels, all if there are none, and how many run.
    fn sum(&mut self, load: Load, card: &Card, kernels: &[&str]) -> Result<(Sum, u32), String> {
        let rows = self.rows;
        let (mut sum, mut runs) = (Sum::default(), 0);
        for task in &self.tasks(load, card)?.tasks {
            let kernel = task.program.split(['.', '/', ' ']).next().unwrap_or("");
            let kernel = kernel.replace("matvec", "matmul");
            if kernels.is_empty() || kernels.contains(&kernel.as_str()) {
                let row = rows.get(&task.program);
                let row = row.ok_or_else(|| format!("the table lacks {}", task.program))?;
                sum.add(task, Times::of(task, row, card));
                runs += task.runs;
            }
        }
        Ok((sum, runs))
    }
}

/// The estimates as Markdown.
///
/// # Errors
///
/// If the committed table cannot be read, or lacks a program.
pub fn report() -> Result<String, String> {
    let file = table::file(MESA);
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(&file).map_err(|error| said(&error))?;
    let table = table::read(&text).map_err(|error| said(&error))?;
    let rows = table.get(FAMILY).ok_or_else(|| said(&format!("no family {FAMILY}")))?;
    let mut passes = Passes { rows, known: Vec::new() };
    let mut text = String::new();
    cards(&mut text);
    kernels(&mut text, &mut passes)?;
    let low = models(&mut text, &mut passes)?;
    text.push_str("\nBelow 60 % (decode in q4, prefill in any type):\n\n");
    for line in low {
        text.push_str(&line);
    }
    Ok(text)
}

/// A line of a table.
fn row_of(text: &mut String, first: &str, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    writeln!(text, "| {first} | {} |", cells.join(" | ")).expect("a string takes all");
}

fn head(text: &mut String, first: &str) {
    row_of(text, first, CARDS.map(|card| card.name.to_owned()));
    row_of(text, "---", CARDS.map(|_| "---".to_owned()));
}

fn cards(text: &mut String) {
    head(text, "card");
    row_of(text, "GB/s", CARDS.map(|card| card.bandwidth.to_string()));
    row_of(text, "TFLOP/s in f32", CARDS.map(|card| card.peak.to_string()));
    row_of(text, "cores, GHz", CARDS.map(|card| format!("{}, {}", card.cores, card.clock)));
    row_of(text, "lanes of a core", CARDS.map(|card| card.lanes.to_string()));
    let memory = |card: Card| format!("{}, {} KiB", card.registers, card.shared);
    row_of(text, "registers, workgroup memory of a core", CARDS.map(memory));
    row_of(text, "invocations of a core", CARDS.map(|card| card.invocations.to_string()));
    text.push('\n');
    for Card { name, source, .. } in CARDS {
        writeln!(text, "- {name}: {source}.").expect("a string takes all");
    }
    text.push('\n');
}

fn kernels(text: &mut String, passes: &mut Passes<'_>) -> Result<(), String> {
    head(text, "kernel");
    for Line { name, load, kernels, show } in lines() {
        let mut cell = |card: &Card| {
            let (sum, runs) = passes.sum(load, card, kernels)?;
            let number = match show {
                Show::Bandwidth => percent(sum.bytes / sum.seconds / (card.bandwidth * 1e9)),
                Show::Peak => percent(sum.operations / sum.seconds / (card.peak * 1e12)),
                Show::Microseconds => format!("{:.1} us", sum.seconds / f64::from(runs) * 1e6),
            };
            Ok(format!("{number}, {}", sum.limit().name()))
        };
        let cells = CARDS.iter().map(&mut cell).collect::<Result<Vec<_>, String>>()?;
        row_of(text, &name, cells);
    }
    text.push('\n');
    Ok(())
}

/// Tokens a second of the whole model. Returns lines for what is below 60 %.
fn models(text: &mut String, passes: &mut Passes<'_>) -> Result<Vec<String>, String> {
    let mut low = Vec::new();
    head(text, "Grok-2, tokens/s");
    let loads = WEIGHTS.map(|weights| decode(weights, 1, CONTEXT));
    for load in loads.into_iter().chain(WEIGHTS.map(|weights| prefill(weights, CHUNK))) {
        let Load { weights, phase, tokens, positions } = load;
        let weights = weights.name().to_lowercase();
        let name = match phase {
            Phase::Decode => format!("decode {weights}, at position {positions}"),
            Phase::Prefill => format!("prefill {weights}, {tokens} tokens to {positions}"),
        };
        let mut cells = Vec::new();
        for card in CARDS {
            let (sum, _) = passes.sum(load, &card, &[])?;
            let tasks = passes.tasks(load, &card)?;
            let (floor, of) = match phase {
                Phase::Decode => (tasks.least_bytes / (card.bandwidth * 1e9), "of bandwidth"),
                Phase::Prefill => (tasks.flops / (card.peak * 1e12), "of f32 peak"),
            };
            let share = floor / sum.seconds;
            let rate = f64::from(tokens) / sum.seconds;
            cells.push(format!("{} ({} {of})", digits(rate), percent(share)));
            if share < 0.6 && (phase == Phase::Prefill || load.weights == DType::Q4) {
                let limit = sum.limit();
                low.push(format!(
                    "- {}, {name}: {}, most of the time bound by {}. Next: {}.\n",
                    card.name,
                    percent(share),
                    limit.name(),
                    limit.next(phase)
                ));
            }
        }
        row_of(text, &name, cells);
    }
    Ok(low)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Three digits.
fn digits(number: f64) -> String {
    if number < 100.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::figures::MainLoop;

    /// Numbers that are easy to divide by.
    const CARD: Card = Card {
        name: "",
        source: "",
        bandwidth: 100.0,
        cores: 10,
        clock: 1.0,
        lanes: 100,
        peak: 2.0,
        registers: 64,
        shared: 64,
        invocations: 1024,
        subgroups: (32, 32),
    };

    fn task() -> Task {
        Task {
            program: String::new(),
            form: Some(Form::Vector),
            runs: 3,
            bytes: 9e6,
            operations: 32e6,
            weights: 16e6,
            workgroups: 20,
            invocations: 100,
            turns: 1.0,
            columns: false,
        }
    }

    fn row() -> Row {
        let most =
            Figures { vector: 96, multiply_adds: 64, trips: 4, weights: 16, ..Figures::default() };
        let least = Figures { vector: 48, multiply_adds: 16, trips: 2, ..most };
        let main = Some(MainLoop { least, most, inner: Vec::new() });
        Row { vgprs: 32, shared: 16 << 10, main, ..Row::default() }
    }

    fn close(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-9, "{got}, expected {want}");
    }

    #[test]
    fn limits_are_as_by_hand() {
        // Registers allow 5 workgroups, workgroup memory 4, invocations 10; there are 2 for a core.
        assert_eq!(resident(&task(), &row(), &CARD), 4);
        // 10^6 turns, 10^5 on each core, which issues 10^11 instructions a second.
        let Times([bytes, instructions, loads, _]) = Times::of(&task(), &row(), &CARD);
        close(bytes, 9e6 / 1e11 / READ);
        close(instructions, 1e5 * 48.0 / 1e11 / ISSUE);
        close(loads, 1e5 / 200.0 * 2.0 * LATENCY);
        // Four tokens take the longest path.
        let Times([_, instructions, loads, _]) =
            Times::of(&Task { columns: true, ..task() }, &row(), &CARD);
        close(instructions, 1e5 * 96.0 / 1e11 / ISSUE);
        close(loads, 1e5 / 200.0 * 4.0 * LATENCY);
        // Of a matrix product, turns follow from multiply-adds.
        let matrix = Task { form: Some(Form::Matrix), ..task() };
        let Times([_, instructions, ..]) = Times::of(&matrix, &row(), &CARD);
        close(instructions, 16e6 / 64.0 / 10.0 * 96.0 / 1e11 / ISSUE);
        // A core with two workgroups among cores with one takes as long as if all had two.
        let few = Task { workgroups: 11, weights: 8.8e6, ..task() };
        close(Times::of(&few, &row(), &CARD).0[1], 1e5 * 48.0 / 1e11 / ISSUE);
        // With no weights there are the task's own turns.
        let small = Task { form: None, weights: 0.0, workgroups: 1, turns: 3.0, ..task() };
        let Times([_, instructions, loads, _]) = Times::of(&small, &row(), &CARD);
        close(instructions, 300.0 * 96.0 / 1e11 / ISSUE);
        close(loads, 3.0 * 4.0 * LATENCY);
    }

    #[test]
    fn limits_that_are_close_hinder_each_other() {
        let times = Times([1.0, 1.0, 0.0, 0.5]);
        close(times.seconds(), 2f64.powf(0.25) + 0.5);
        assert_eq!(times.limit(), Limit::Instructions);
        assert_eq!(Times([0.0, 1.0, 0.0, 2.0]).limit(), Limit::Dispatch);
        let mut sum = Sum::default();
        sum.add(&task(), Times([2.0, 0.0, 0.0, 1.0]));
        sum.add(&task(), Times([0.0, 0.0, 3.0, 0.0]));
        assert_eq!((sum.seconds, sum.bytes, sum.operations), (18.0, 54e6, 192e6));
        close(sum.limits[0], 9.0);
        close(sum.limits[2], 9.0);
    }

    #[test]
    fn every_program_of_the_passes_is_in_the_table() {
        let text = report().expect("the table is committed");
        for card in CARDS {
            assert!(text.contains(card.name), "{text}");
        }
        let decode = tasks::of(decode(DType::Q4, 1, 4096), &Tuning::default()).expect("planned");
        let operations: f64 =
            decode.tasks.iter().map(|task| f64::from(task.runs) * task.operations).sum();
        close(operations, decode.flops);
        let bytes: f64 = decode.tasks.iter().map(|task| f64::from(task.runs) * task.bytes).sum();
        assert!((1.0..1.05).contains(&(bytes / decode.least_bytes)));
    }
}
