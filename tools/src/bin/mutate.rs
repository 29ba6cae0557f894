//! Mutation testing of the shaders: the program behind `scripts/mutate`.

use std::process::ExitCode;

fn main() -> ExitCode {
    grok_wgpu_tools::mutate::main()
}
