//! The command line. What it can do is in `cli`.

fn main() {}
