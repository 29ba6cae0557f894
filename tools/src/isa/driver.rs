//! Finds Mesa's driver for AMD GPUs, and has a process of its own compile for each family: the
//! driver reads its variables when it starts, and a process must not change its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::report::Report;

/// A family of GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name in tables.
    pub name: &'static str,
    /// What Mesa calls one of its GPUs; versions differ.
    forced: &'static [&'static str],
}

/// The families that programs are compiled for.
pub const FAMILIES: [Family; 2] = [
    // Mesa calls it NAVI31 from version 23.1 on.
    Family { name: "RDNA3", forced: &["gfx1100", "navi31"] },
    Family { name: "RDNA2", forced: &["navi21"] },
];

/// Where Vulkan's loader looks for manifests of drivers.
const FOLDERS: [&str; 3] =
    ["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"];

/// The manifest of Mesa's driver for AMD GPUs, for programs of this architecture. The variable
/// `RADEON_ICD` names another.
pub fn manifest() -> Option<PathBuf> {
    if let Some(file) = std::env::var_os("RADEON_ICD") {
        return Some(PathBuf::from(file)).filter(|file| file.is_file());
    }
    let names =
        [format!("radeon_icd.{}.json", std::env::consts::ARCH), "radeon_icd.json".to_owned()];
    let files =
        FOLDERS.iter().flat_map(|folder| names.iter().map(|name| Path::new(folder).join(name)));
    files.into_iter().find(|file| file.is_file())
}

/// The environment of a process that compiles.
const DEBUG: [(&str, &str); 2] = [
    // Nothing is taken from an earlier run.
    ("RADV_DEBUG", "nocache"),
    ("MESA_SHADER_CACHE_DISABLE", "true"),
];

/// Runs `program`, which is `isa`, as the process of a family, with these options. Returns what it
/// prints.
fn run(
    program: &Path,
    manifest: &Path,
    family: Family,
    options: &[String],
) -> Result<Vec<u8>, String> {
    let mut said = Vec::new();
    for forced in family.forced {
        let output = Command::new(program)
            .arg("--worker")
            .args(options)
            .envs(DEBUG)
            .env("RADV_FORCE_FAMILY", forced)
            .env("VK_DRIVER_FILES", manifest)
            .env("VK_ICD_FILENAMES", manifest)
            .env_remove("RADV_PERFTEST")
            .env_remove("ACO_DEBUG")
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let error = String::from_utf8_lossy(&output.stderr);
        said.push(format!("{forced}: {}: {}", output.status, error.trim()));
        // The driver ends the process if it does not know the name.
        if !error.contains("Unknown family") {
            break;
        }
    }
    Err(said.join("\n"))
}

/// The driver's version, such as `Mesa 22.3.6`. `program` is `isa`.
///
/// # Errors
///
/// Why the driver cannot be used.
pub fn version(program: &Path, manifest: &Path) -> Result<String, String> {
    let printed = run(program, manifest, FAMILIES[0], &["--version-of-driver".to_owned()])?;
    Ok(String::from_utf8_lossy(&printed).trim().to_owned())
}

/// Has `program`, which is `isa`, compile for a family in a process of its own.
///
/// # Errors
///
/// What that process says.
pub fn compile(
    program: &Path,
    manifest: &Path,
    family: Family,
    options: &[String],
) -> Result<Report, String> {
    serde_json::from_slice(&run(program, manifest, family, options)?)
        .map_err(|error| format!("what was compiled cannot be read: {error}"))
}

/// Has all families compiled, each in a process of its own, at the same time.
///
/// # Errors
///
/// Those of [`compile`].
pub fn compile_all(
    program: &Path,
    manifest: &Path,
    families: &[Family],
    options: &[String],
) -> Result<Vec<(Family, Report)>, String> {
    std::thread::scope(|scope| {
        let jobs: Vec<_> = families
            .iter()
            .map(|&family| {
                (family, scope.spawn(move || compile(program, manifest, family, options)))
            })
            .collect();
        jobs.into_iter()
            .map(|(family, job)| {
                let report = job.join().map_err(|_| "a thread has panicked".to_owned())?;
                Ok((family, report.map_err(|error| format!("{}: {error}", family.name))?))
            })
            .collect()
    })
}
