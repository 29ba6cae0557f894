//! The program `grok-wgpu`. What it can do is in `cli`.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)
)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
