//! Machines without an adapter, and with several programs at once.

use std::process::Stdio;

use super::{good, greedy, json, path, program};

/// Vulkan's loader finds no driver.
#[cfg(target_os = "linux")]
#[test]
fn without_an_adapter_there_is_a_hint() {
    let bare = |args: &[&str]| {
        let mut command = program();
        command.args(args).env_remove("GROK_WGPU_ADAPTER");
        for name in ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"] {
            command.env(name, "/nonexistent");
        }
        let output = command.output().expect("the program starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), told)
    };
    let (code, text, told) = bare(&greedy(&[]));
    assert_eq!((code, text.as_str()), (Some(5), ""), "{told}");
    assert!(told.contains("error[no_adapter]: ") && told.contains("\nhint: "), "{told}");
    let inspect = ["inspect", path(super::model())];
    let (code, text, told) = bare(&inspect);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("warning") && told.contains("adapter"), "{told}");
    // What is planned for every device is there all the same.
    assert_eq!(text, good(&[&inspect[..], &["--no-device"]].concat()));
}

#[test]
fn programs_at_once_with_one_cache_write_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("new");
    let args = greedy(&["--pipeline-cache", path(&cache)]);
    let alone = good(&greedy(&[]));
    let running = [(); 3].map(|()| {
        let mut command = program();
        command.args(&args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    });
    for child in running {
        let output = child.wait_with_output().expect("ends");
        assert_eq!(super::text(&output, &args), alone);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!told.contains("warning"), "{told}");
    }
    assert_eq!(good(&args), alone, "with what they kept");
    // Each replaced the file of the others as a whole.
    let kept = std::fs::read_dir(&cache).map_or(0, Iterator::count);
    assert!(kept <= 1, "{kept} files");
}

#[test]
fn adapters_are_listed() {
    let list = json(&["--list-adapters", "--json"]);
    let first = &list[0];
    for field in ["name", "vendor", "device", "type", "backend", "driver", "summary"] {
        assert!(first[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {first}");
    }
    assert_eq!(first["index"], 0);
    let description = first["summary"].as_str().expect("text");
    assert!(good(&["--list-adapters"]).starts_with(&format!("0: {description}")));
}
