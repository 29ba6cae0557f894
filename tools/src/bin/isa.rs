//! Figures of the machine code that Mesa makes of the shaders: see `grok_wgpu_tools::isa`.

use std::process::ExitCode;

fn main() -> ExitCode {
    grok_wgpu_tools::isa::main()
}
