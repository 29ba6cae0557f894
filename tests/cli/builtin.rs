//! The model inside the program.

use std::{fs, process::Stdio};

use super::{path, program, text_of};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo-q4");

/// The program where nothing else is, as `cargo install` leaves it.
fn alone(args: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("grok-wgpu");
    let known = program();
    fs::copy(known.get_program(), &copy).expect("copied");
    let mut command = std::process::Command::new(&copy);
    for (name, value) in known.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.current_dir(folder.path()).stdin(Stdio::null()).args(args).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{args:?}: {}", text_of(&output));
    (String::from_utf8(output.stdout.clone()).expect("text"), text_of(&output))
}

#[test]
fn an_installed_program_talks_without_a_file() {
    let end = ["Once upon a time", "-n", "12", "--temperature", "0"];
    let (text, told) = alone(&[&["generate"][..], &end].concat());
    assert!(told.contains("the built-in demo model"), "{told}");
    let (named, told) = alone(&[&["generate", SHIPPED][..], &end].concat());
    assert!(!told.contains("built-in"), "{told}");
    assert_eq!(text, named);
    let (shown, _) = alone(&["inspect", "--no-device"]);
    assert!(shown.starts_with("the built-in demo model: 7."), "{shown}");
}

#[test]
fn the_library_has_no_model_in_it() {
    let weights = fs::read(path(&std::path::Path::new(SHIPPED).join("model.safetensors")));
    let weights = weights.expect("there");
    // Far into the weights, where no two models are alike.
    let some = &weights[weights.len() / 2..][..64];
    let holds = |file: &std::path::Path| {
        let bytes = fs::read(file).expect("an executable");
        bytes.windows(some.len()).any(|part| part == some)
    };
    assert!(holds(program().get_program().as_ref()));
    // These tests are linked with the library.
    assert!(!holds(&std::env::current_exe().expect("a path")));
}
