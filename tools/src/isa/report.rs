//! What the compiler makes of every program, on one family of GPUs.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use grok_wgpu::lab::files::threads::map_on_all_cores;
use serde::{Deserialize, Serialize};

use super::{
    count,
    figures::MainLoop,
    programs::{self, Program},
    spirv::Checks,
};

/// A program, as compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Vector registers of an invocation.
    pub vgprs: u32,
    /// Scalar registers of a subgroup; RDNA gives each the same number.
    pub sgprs: u32,
    /// Registers of both kinds that are kept in memory.
    pub spills: u32,
    /// Bytes of memory that an invocation has for what does not fit its registers.
    pub scratch: u32,
    /// Bytes of workgroup memory (LDS).
    pub shared: u32,
    /// Bytes of machine code.
    pub code: u32,
    /// Waves that a SIMD holds at once, as registers and workgroup memory allow. RADV counts waves
    /// of 32 invocations: one of 64 counts as two.
    pub waves: u32,
    /// The main loop, or the whole program if its loops load nothing; if it has loops.
    pub main: Option<MainLoop>,
}

/// All programs on a family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The driver's version: `Mesa 22.3.6`.
    pub version: String,
    /// The device, as the driver calls it.
    pub device: String,
    /// By the name of the program.
    pub rows: BTreeMap<String, Row>,
}

/// What is compiled, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Only programs whose name contains this.
    pub kernel: String,
    /// What naga adds.
    pub checks: Checks,
    /// A file for the machine code.
    pub dump: Option<PathBuf>,
}

/// Compiles the programs on the device that the environment names, on several threads.
///
/// # Errors
///
/// If there is no such driver, or it or naga refuses a program.
#[cfg(all(unix, not(target_vendor = "apple")))]
pub fn make(work: &Work) -> Result<Report, String> {
    let driver = super::radv::Driver::open()?;
    let mut programs = programs::all();
    programs.retain(|program| program.name.contains(&work.kernel));
    let compile = |program: &Program| {
        let words = super::spirv::of(&program.dispatch, work.checks)?;
        let compiled = driver.compile(&words, &program.bindings(), program.subgroup)?;
        let row = row(&compiled.statistics, &compiled.assembly, program)?;
        Ok::<_, String>((row, compiled.assembly))
    };
    let done = map_on_all_cores(&programs, compile);
    let mut rows = BTreeMap::new();
    let mut dump = String::new();
    for (Program { name, .. }, made) in programs.iter().zip(done) {
        let (row, assembly) = made.map_err(|error| format!("{name}: {error}"))?;
        if work.dump.is_some() {
            writeln!(dump, "; {name}\n{assembly}").expect("a string takes all");
        }
        rows.insert(name.clone(), row);
    }
    if let Some(file) = &work.dump {
        std::fs::write(file, dump).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let about = driver.about.clone();
    Ok(Report { version: about.version, device: about.device, rows })
}

/// The version of the driver that the environment names.
///
/// # Errors
///
/// If there is no such driver.
#[cfg(all(unix, not(target_vendor = "apple")))]
pub fn version() -> Result<String, String> {
    super::radv::Driver::open().map(|driver| driver.about.version.clone())
}

/// There is no such driver on this system.
///
/// # Errors
///
/// Always.
#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub fn make(_work: &Work) -> Result<Report, String> {
    version().map(|_| unreachable!("there is no driver"))
}

/// There is no such driver on this system.
///
/// # Errors
///
/// Always.
#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub fn version() -> Result<String, String> {
    Err("Mesa's driver for AMD GPUs does not exist for this system".into())
}

#[cfg_attr(
    not(all(unix, not(target_vendor = "apple"))),
    expect(dead_code, reason = "nothing is compiled")
)]
fn row(
    statistics: &BTreeMap<String, u64>,
    assembly: &str,
    program: &Program,
) -> Result<Row, String> {
    let get = |name: &str| {
        let value = statistics.get(name).ok_or_else(|| format!("the driver tells no `{name}`"))?;
        u32::try_from(*value).map_err(|_| format!("{value} of `{name}`"))
    };
    Ok(Row {
        vgprs: get("VGPRs")?,
        sgprs: get("SGPRs")?,
        spills: get("Spilled VGPRs")? + get("Spilled SGPRs")?,
        scratch: get("Scratch size")?,
        shared: get("LDS size")?,
        code: get("Code size")?,
        waves: get("Subgroups per SIMD")?,
        main: count::main_loop(assembly, &program.weights)?,
    })
}
