//! The gate: what a real compiler for GPUs makes of every program, compared with a table of its
//! version and with bounds. Needs no GPU, but Mesa's Vulkan drivers.
//!
//! On Linux they must be there, unless `GROK_WGPU_NO_RADV` is set; elsewhere the gate does not run,
//! and says so. `cargo run -p grok-wgpu-tools --bin isa -- --help` tells what the figures are.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use grok_wgpu::lab::{
    base::tensor::DType,
    kernels,
    machine::{binder::Dispatch, host::Host, kernel::Kernel},
    variants::{Capabilities, Setting, Sizes, Tuning, VARIANTS},
};
use grok_wgpu_tools::isa::{
    bounds, command, compare,
    driver::{self, FAMILIES, Family},
    programs::{self, Program},
    report::Report,
    table,
};
use libtest_mimic::{Arguments, Failed, Trial};

/// How a table is written again.
const RENEW: &str = "cargo run -p grok-wgpu-tools --bin isa -- --write";

fn main() {
    let args = Arguments::from_args();
    let mut trials = vec![
        Trial::test("every kernel, variant and weight type is compiled", all_are_there),
        Trial::test("weights and bounds of every product are known", products_are_known),
        Trial::test("every table can be read", tables_can_be_read),
    ];
    match there() {
        There::Version(version) => trials.extend(gate(&version)),
        There::Not(why) => trials.push(did_not_run(&why).with_ignored_flag(true)),
        There::Missing(why) => trials.push(did_not_run(&why)),
    }
    libtest_mimic::run(&args, trials).exit();
}

/// Whether the driver can be used.
enum There {
    /// It has this version.
    Version(String),
    /// It cannot, which is no fault.
    Not(String),
    /// It cannot, and should.
    Missing(String),
}

fn there() -> There {
    if std::env::var_os("GROK_WGPU_NO_RADV").is_some() {
        return There::Not("GROK_WGPU_NO_RADV is set".into());
    }
    let found = driver::manifest()
        .ok_or_else(|| "Mesa's Vulkan driver for AMD GPUs is not installed".to_owned())
        .and_then(|manifest| driver::version(program(), &manifest));
    match found {
        Ok(version) => There::Version(version),
        Err(why) if cfg!(target_os = "linux") => There::Missing(why),
        Err(why) => There::Not(why),
    }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_isa"))
}

fn did_not_run(why: &str) -> Trial {
    eprintln!("the gate on machine code of GPUs did not run: {why}");
    let name = format!("the gate did not run: {}", why.lines().next().unwrap_or_default());
    let why = format!(
        "{why}; it is in Debian's and Ubuntu's mesa-vulkan-drivers, which scripts/setup --test \
         installs; set GROK_WGPU_NO_RADV=1 to do without"
    );
    Trial::test(name, move || Err(Failed::from(why)))
}

/// The trials of each family.
fn gate(version: &str) -> Vec<Trial> {
    let mut trials = Vec::new();
    let known = table::file(version).exists();
    for family in FAMILIES {
        let Family { name, .. } = family;
        trials.push(Trial::test(format!("{name}, {version}: within bounds"), move || {
            within_bounds(family, !known)
        }));
        let as_before = format!("{name}, {version}: as in the table of this version");
        let none = format!("{name}, {version}: there is no table of this version");
        let compared = move || as_the_table_says(family);
        let trial = Trial::test(if known { as_before } else { none }, compared);
        trials.push(trial.with_ignored_flag(!known));
    }
    trials
}

/// The programs, recorded once.
static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(programs::all);

/// All programs on all families, compiled once.
static REPORTS: LazyLock<Result<Vec<(Family, Report)>, String>> = LazyLock::new(|| {
    let manifest = driver::manifest().ok_or("the driver is gone")?;
    driver::compile_all(program(), &manifest, &FAMILIES, &[])
});

fn report(family: Family) -> Result<&'static Report, Failed> {
    let reports = REPORTS.as_ref()?;
    let found = reports.iter().find(|(one, _)| *one == family);
    Ok(found.map(|(_, report)| report).ok_or("the family was not compiled")?)
}

/// Fails with all lines, if there are any.
fn none(lines: &[String], then: &str) -> Result<(), Failed> {
    if lines.is_empty() { Ok(()) } else { Err(format!("{}\n{then}", lines.join("\n")).into()) }
}

fn within_bounds(family: Family, show: bool) -> Result<(), Failed> {
    let report = report(family)?;
    if show {
        eprintln!("{}", command::print(family, report, true));
    }
    let mut broken = Vec::new();
    for program in PROGRAMS.iter() {
        let row = report.rows.get(&program.name).ok_or("a program was not compiled")?;
        let lines = bounds::broken(program, row);
        broken.extend(lines.into_iter().map(|line| format!("{}: {line}", program.name)));
    }
    none(&broken, "these are bounds of tools/src/isa/bounds.rs")
}

fn as_the_table_says(family: Family) -> Result<(), Failed> {
    let report = report(family)?;
    let file = table::file(&report.version);
    let text = fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}; write it: {RENEW}", file.display()))?;
    let table = table::read(&text)?;
    let before = table.get(family.name).ok_or("the table lacks the family")?;
    let changes = compare::changes(before, &report.rows);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let worse = changes.iter().filter(|change| change.worse).count();
    let then = format!(
        "{worse} of {} changes are for the worse. If they are meant, renew {} and say why in the \
         commit: {RENEW}",
        changes.len(),
        file.display(),
    );
    none(&lines, &then)
}

/// Each kernel; and each variant that is not for CPUs, with each type of weights that it takes, in
/// each setting that `tune` would measure.
fn all_are_there() -> Result<(), Failed> {
    let programs = &*PROGRAMS;
    let mut missing = Vec::new();
    let compiled: HashSet<&str> = programs.iter().map(Program::kernel).collect();
    let kernels: BTreeSet<&str> = kernels::cases().iter().map(|case| case.kernel).collect();
    missing.extend(
        kernels
            .iter()
            .filter(|kernel| !compiled.contains(*kernel))
            .map(|kernel| format!("{kernel} is in no program")),
    );
    let class_of = |dispatch: &Dispatch| {
        let class = dispatch.class.as_ref()?;
        Some((dispatch.shader.own.kernel, class.form, class.dtype))
    };
    let products: BTreeSet<_> =
        programs.iter().filter_map(|program| class_of(&program.dispatch)).collect();
    let record = |kernel: &dyn Kernel, tuning: &Tuning| {
        kernel.record(tuning).expect("rows can be dispatched")
    };
    // A row of each product.
    let of_rows: BTreeMap<_, Box<dyn Kernel>> = kernels::cases()
        .iter()
        .filter_map(|case| {
            let kernel = case.build(&mut Host::of_shapes());
            Some((class_of(&record(kernel.as_ref(), &Tuning::default()))?, kernel))
        })
        .collect();
    assert!(of_rows.len() >= 2 * DType::WEIGHTS.len(), "{:?}", of_rows.keys());
    for (kernel, _, dtype) in of_rows.keys().filter(|product| !products.contains(product)) {
        missing.push(format!("{kernel} with weights of {dtype} is in no program"));
    }
    let left_out = programs::left_out();
    // The subgroups that a variant takes which needs them to have one size.
    let on = Capabilities { subgroups: Some((32, 32)), ..Capabilities::default() };
    for variant in VARIANTS.iter().filter(|variant| !left_out.contains(&variant.name())) {
        for (&(kernel, form, dtype), row) in &of_rows {
            if !variant.forms().contains(&form) {
                continue;
            }
            let of_kernel = |one: &&Program| {
                let class = one.dispatch.class.as_ref();
                one.kernel() == kernel && class.is_some_and(|class| class.dtype == dtype)
            };
            let of_variant = |one: &&Program| one.dispatch.shader.variant == Some(variant.name());
            let found = programs.iter().filter(of_kernel).filter(of_variant).count();
            // What it cannot divide has the plain variant instead.
            let divides = |sizes: &Sizes| {
                let tuning = Tuning::by(&on, Setting::new(*variant, *sizes));
                record(row.as_ref(), &tuning).shader.variant == Some(variant.name())
            };
            let wanted = variant.settings(&on).iter().filter(|sizes| divides(sizes)).count();
            if found != wanted {
                let name = variant.name();
                missing.push(format!("{kernel}.{name}/{dtype}: {found} of {wanted} settings"));
            }
        }
    }
    if left_out != ["spread", "coop"] {
        missing.push(format!("{left_out:?} are left out, as for CPUs or beyond Mesa's compiler"));
    }
    none(&missing, "see tools/src/isa/programs.rs")
}

fn products_are_known() -> Result<(), Failed> {
    let mut unknown = Vec::new();
    for program in PROGRAMS.iter().filter(|program| program.form().is_some()) {
        if program.weights.bindings.is_empty() || program.weights.bits == 0 {
            unknown.push(format!("{}: which operands are weights?", program.name));
        }
        if program.default && bounds::of(program).is_none() {
            unknown.push(format!("{}: there are no bounds", program.name));
        }
    }
    none(&unknown, "see tools/src/isa/programs.rs and tools/src/isa/bounds.rs")
}

fn tables_can_be_read() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("isa");
    let mut count = 0;
    for entry in fs::read_dir(&folder)? {
        let file = entry?.path();
        let table = table::read(&fs::read_to_string(&file)?)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        for family in FAMILIES {
            let rows = table.get(family.name).map_or(0, table::Rows::len);
            if rows < 100 {
                return Err(format!("{}: {rows} of {}", file.display(), family.name).into());
            }
            count += 1;
        }
    }
    if count == 0 { Err("there is no table".into()) } else { Ok(()) }
}
