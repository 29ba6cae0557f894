//! Mutation testing of the shaders, as a program: `scripts/mutate` runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    grok_wgpu_tools::mutate::main()
}
