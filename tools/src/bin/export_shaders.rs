//! Writes every linked shader to a folder as input for WGSL compilers, with pipeline constants
//! filled in. Includes variants that need optional features, but those that no browser has.
//!
//! `cargo run -p grok-wgpu-tools --bin export_shaders -- DIR`

use std::{path::PathBuf, process::ExitCode};

use grok_wgpu_tools::programs;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: export_shaders DIR");
        return ExitCode::from(2);
    };
    match export(&folder) {
        Ok(count) => {
            eprintln!("wrote {count} shaders to {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            ExitCode::from(3)
        }
    }
}

fn export(folder: &std::path::Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let mut all = programs::all();
    all.retain(|(_, dispatch)| programs::is_for_browsers(dispatch));
    for (name, dispatch) in &all {
        std::fs::write(folder.join(format!("{name}.wgsl")), programs::expanded(dispatch))?;
    }
    Ok(all.len())
}
