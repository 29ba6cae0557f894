//! The model inside the program.

use std::{fs, path::Path};

use super::{PROGRAM, install, program_at, text, text_of};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo-q4");

/// The program where nothing else is, as `cargo install` leaves it.
fn alone(args: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program_at(&install(folder.path()));
    let output = command.current_dir(folder.path()).args(args).output();
    let output = output.expect("the program starts");
    (text(&output, args), text_of(&output))
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
    let weights = fs::read(Path::new(SHIPPED).join("model.safetensors"));
    let weights = weights.expect("there");
    // Far into the weights, where no two models are alike.
    let some = &weights[weights.len() / 2..][..64];
    let holds = |file: &Path| {
        let bytes = fs::read(file).expect("an executable");
        bytes.windows(some.len()).any(|part| part == some)
    };
    assert!(holds(Path::new(PROGRAM)));
    // These tests are linked with the library.
    assert!(!holds(&std::env::current_exe().expect("a path")));
}
