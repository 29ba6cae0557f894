//! The program `isa`: prints the figures of programs, writes the table, and is the process that
//! compiles.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use grok_wgpu::lab::variants::Form;

use super::{
    driver::{self, FAMILIES, Family},
    figures::Figures,
    programs,
    report::{self, Report, Row, Work},
    roofline,
    spirv::Checks,
    table::{self, Table},
};

/// Compiles every program that a GPU may be given with Mesa's compiler for AMD GPUs, and prints
/// what an iteration of its main loop takes. Needs no GPU, but Mesa's drivers for Vulkan.
///
/// The columns: vector instructions for each weight, on the shortest path through an iteration and
/// on the longest; multiply-adds among vector operations; loads from memory; the most of them in
/// flight at once; waits for all of them; round trips to memory that follow each other; vector
/// registers; waves of 32 invocations on a SIMD; bytes of workgroup memory; spilled registers.
/// Where a program is no matrix-vector product, the first two are vector instructions, in
/// brackets. A `*` marks a loop around others of which it is not known how often they run: they
/// count once. A program with loops that load nothing is counted as a whole.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
struct Options {
    /// Only programs whose names contain this; all their settings, not only the default ones
    #[arg(long, default_value = "")]
    kernel: String,
    /// Only this family: RDNA3 or RDNA2
    #[arg(long, value_parser = family)]
    family: Option<Family>,
    /// All settings that `tune` would measure, not only the default ones
    #[arg(long)]
    all: bool,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
    /// Write the machine code of the programs to this file; needs --family
    #[arg(long, requires = "family")]
    dump: Option<PathBuf>,
    /// Write the table of this version of Mesa to tools/isa/
    #[arg(long, conflicts_with_all = ["kernel", "family", "loop_bounding", "zero_init"])]
    write: bool,
    /// Print what five cards would give, estimated from the committed table, without a driver
    #[arg(long, conflicts_with_all = ["kernel", "family", "all", "json", "dump", "write"])]
    estimate: bool,
    /// With the counters that naga adds to loops of shaders that it does not trust
    #[arg(long)]
    loop_bounding: bool,
    /// With the zeros that workgroup memory may begin with
    #[arg(long)]
    zero_init: bool,
    /// Be the process that compiles for the family of the environment
    #[arg(long, hide = true)]
    worker: bool,
    /// As that process, only print the version of the driver
    #[arg(long, hide = true, requires = "worker")]
    version_of_driver: bool,
}

fn family(name: &str) -> Result<Family, String> {
    let known = FAMILIES.into_iter().find(|family| family.name.eq_ignore_ascii_case(name));
    known.ok_or_else(|| format!("there are {}", FAMILIES.map(|family| family.name).join(", ")))
}

/// Runs the program. The exit code is 2 without the driver, and 3 if it fails.
pub fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(text) => {
            use std::io::Write as _;
            // A closed pipe is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err((code, error)) => {
            eprintln!("error: {error}");
            ExitCode::from(code)
        }
    }
}

fn run(options: &Options) -> Result<String, (u8, String)> {
    let failed = |error: String| (3, error);
    let engine = Checks::ENGINE;
    let work = Work {
        kernel: options.kernel.clone(),
        checks: Checks {
            loop_bounding: engine.loop_bounding || options.loop_bounding,
            zero_init: engine.zero_init || options.zero_init,
        },
        dump: options.dump.clone(),
    };
    if options.estimate {
        return roofline::report().map_err(failed);
    }
    if options.version_of_driver {
        return report::version().map_err(failed);
    }
    if options.worker {
        let report = report::make(&work).map_err(failed)?;
        return serde_json::to_string(&report).map_err(|error| failed(error.to_string()));
    }
    let manifest = driver::manifest()
        .ok_or((2, "Mesa's Vulkan driver for AMD GPUs is not installed".to_owned()))?;
    let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let families = options.family.map_or(FAMILIES.to_vec(), |family| vec![family]);
    let arguments = arguments(options);
    let reports = driver::compile_all(&own, &manifest, &families, &arguments).map_err(failed)?;
    if options.write {
        return write(&reports).map_err(failed);
    }
    if options.json {
        let all: serde_json::Map<_, _> = reports
            .iter()
            .map(|(family, report)| (family.name.to_owned(), serde_json::json!(report)))
            .collect();
        return serde_json::to_string_pretty(&all).map_err(|error| failed(error.to_string()));
    }
    let default = !options.all && options.kernel.is_empty();
    Ok(reports.iter().map(|(family, report)| print(*family, report, default)).collect())
}

/// What the process that compiles is told.
fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec!["--kernel".to_owned(), options.kernel.clone()];
    let switches = [(options.loop_bounding, "--loop-bounding"), (options.zero_init, "--zero-init")];
    arguments.extend(switches.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
    if let Some((file, family)) = options.dump.as_ref().zip(options.family) {
        let both = ["--dump", &file.to_string_lossy(), "--family", family.name].map(str::to_owned);
        arguments.extend(both);
    }
    arguments
}

fn write(reports: &[(Family, Report)]) -> Result<String, String> {
    let version = reports.first().map_or("", |(_, report)| report.version.as_str());
    let file = table::file(version);
    let rows = |(family, report): &(Family, Report)| (family.name.to_owned(), report.rows.clone());
    let table: Table = reports.iter().map(rows).collect();
    let said = |error| format!("{}: {error}", file.display());
    file.parent().map_or(Ok(()), |folder: &Path| std::fs::create_dir_all(folder)).map_err(said)?;
    std::fs::write(&file, table::write(&table)).map_err(said)?;
    let count: usize = table.values().map(table::Rows::len).sum();
    Ok(format!("wrote {count} rows to {}\n", file.display()))
}

/// A report as people read it; only what GPUs run by default, if so wanted.
pub fn print(family: Family, report: &Report, default: bool) -> String {
    let programs = programs::all();
    let rows: Vec<(&str, String)> = programs
        .iter()
        .filter(|program| !default || program.default)
        .filter_map(|program| {
            let row = report.rows.get(&program.name)?;
            Some((program.name.as_str(), line(row, program.form() == Some(Form::Vector))))
        })
        .collect();
    let wide = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let Report { version, device, .. } = report;
    let first =
        [format!("{}: {device}, {version}\n", family.name), format!("{:wide$} {HEAD}\n", "")];
    let rows = rows.iter().map(|(name, line)| format!("{name:wide$} {line}\n"));
    first.into_iter().chain(rows).chain(["\n".to_owned()]).collect()
}

const HEAD: &str = "   least    most  adds  loads flight  waits  trips  VGPRs  waves shared spills";

fn line(row: &Row, of_weights: bool) -> String {
    let Row { vgprs, waves, shared, spills, .. } = row;
    let end = format!("{vgprs:6} {waves:6} {shared:6} {spills:6}");
    let Some(main) = &row.main else { return format!("{:>8}{:42} {end}", "-", "") };
    let each = |figures: &Figures| match figures.vector_per_weight() {
        Some(number) if of_weights => format!("{number:.2}"),
        _ => format!("({})", figures.vector),
    };
    let most = main.most;
    let unknown = if main.inner.contains(&0) { "*" } else { " " };
    let all = [most.loads, most.in_flight, most.waits, most.trips];
    let all: Vec<String> = all.iter().map(|number| format!("{number:6}")).collect();
    let (least, longest) = (each(&main.least), each(&most));
    format!("{least:>8}{longest:>8}{unknown}{:4.0}% {} {end}", most.share(), all.join(" "))
}
