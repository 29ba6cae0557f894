//! Lists that exist in TypeScript and in Rust: options, fields of the configuration, error codes.
//! `src/web` compiles for browsers only, so both sides are compared as text.

use std::{collections::BTreeSet, fs, path::Path};

use grok_wgpu::lab::{
    checkpoint::open::{CONFIG, usual_files},
    text::tokenizer::Tokenizer,
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text between the line that begins with `start` and the next line that equals `end`.
fn block<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let at = text.find(start).unwrap_or_else(|| panic!("there is no `{start}`"));
    let rest = &text[at + start.len()..];
    let begin = rest.find('\n').unwrap_or_else(|| panic!("`{start}` is the last line"));
    let len = rest[begin..].find(&format!("\n{end}"));
    &rest[begin..begin + len.unwrap_or_else(|| panic!("`{start}` has no end"))]
}

/// Names before a colon at the start of a line: fields of structs and interfaces.
fn fields(block: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (name, _) = line.trim().split_once(':')?;
        let name = name.trim_end_matches('?').trim_start_matches("pub(super) ");
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (plain && !name.is_empty()).then(|| name.to_owned())
    };
    let found: BTreeSet<String> = block.lines().filter_map(name).collect();
    assert!(!found.is_empty(), "no names in {block}");
    found
}

/// The quoted strings.
fn quoted(block: &str) -> BTreeSet<String> {
    block.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The symmetric difference.
fn differ(a: &BTreeSet<String>, b: &BTreeSet<String>) -> Vec<String> {
    a.symmetric_difference(b).cloned().collect()
}

#[test]
fn options_of_a_generation_are_the_same_everywhere() {
    let rust = fields(block(&read("src/web/options.rs"), "struct GenerateOptions {", "}"));
    let types = read("web/src/types.ts");
    let sampling = fields(block(&types, "interface SamplingOptions {", "}"));
    let mut given = fields(block(&types, "interface GenerateOptions extends", "}"));
    for of_the_page in ["signal", "onPrompt"] {
        assert!(given.remove(of_the_page), "{of_the_page}");
    }
    given.extend(sampling.iter().cloned());
    assert_eq!(differ(&rust, &given), [""; 0], "types.ts");

    let mut sent =
        fields(block(&read("web/src/messages.ts"), "interface SentGenerateOptions extends", "}"));
    sent.extend(sampling);
    assert_eq!(differ(&rust, &sent), [""; 0], "messages.ts");

    let engine = read("web/src/engine.ts");
    let plain = block(&engine, "function plainOptions(", "}");
    let (_, names) = plain.split_once("return").expect("an object is returned");
    let names: BTreeSet<String> = names
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(differ(&rust, &names), [""; 0], "engine.ts");
}

#[test]
fn templates_are_the_same_everywhere() {
    let names = grok_wgpu::chat::Scaffold::ALL.map(|scaffold| scaffold.name.to_owned());
    let types = read("web/src/types.ts");
    let line = types.lines().find(|line| line.starts_with("export type Template ="));
    assert_eq!(differ(&names.into(), &quoted(line.expect("a type"))), [""; 0]);
}

#[test]
fn options_of_loading_are_the_same_everywhere() {
    let rust = fields(block(&read("src/web/options.rs"), "struct LoadOptions {", "}"));
    let mut given = fields(block(&read("web/src/types.ts"), "interface LoadOptions {", "}"));
    for of_the_page in ["onProgress", "onDevice", "signal", "cache"] {
        assert!(given.remove(of_the_page), "{of_the_page}");
    }
    // Names that are camel case in TypeScript and snake case in Rust.
    for (camel, snake) in [
        ("kvCache", "kv_cache"),
        ("allowNonFinite", "allow_non_finite"),
        ("submissionMs", "submission_ms"),
        ("deviceMemory", "device_memory"),
        ("keepCache", "keep_cache"),
    ] {
        assert!(given.remove(camel) && given.insert(snake.into()));
    }
    assert_eq!(differ(&rust, &given), [""; 0]);
}

#[test]
fn fields_of_the_configuration_are_the_same() {
    let rust = read("src/web/engine.rs");
    let rust = quoted(block(&rust, "fn config_fields(", "}"));
    let types = read("web/src/types.ts");
    let given = fields(block(&types, "  config: {", "  };"));
    assert_eq!(differ(&rust, &given), [""; 0]);
}

#[test]
fn fields_of_the_self_test_are_the_same() {
    let types = read("web/src/types.ts");
    let report = read("src/selftest/report.rs");
    let compare = read("src/selftest/compare.rs");
    let place = read("src/selftest/place.rs");
    let golden = read("src/selftest/golden.rs");
    for (interface, rust, owner) in [
        ("SelfTestRow", &report, "impl Row {"),
        ("SelfTestSuspect", &report, "impl Suspect {"),
        ("SelfTestWrong", &compare, "impl Wrong {"),
        ("SelfTestElement", &compare, "impl Element {"),
        ("SelfTestNumber", &compare, "impl Number {"),
        ("SelfTestPlace", &place, "impl Place {"),
        ("SelfTestModel", &golden, "impl ModelReport {"),
    ] {
        let mut written = quoted(block(block(rust, owner, "}"), "fn json(", "    }"));
        // Only the program reads lists of known failures.
        written.remove("known");
        let given = fields(block(&types, &format!("interface {interface} {{"), "}"));
        assert_eq!(differ(&written, &given), [""; 0], "{interface}");
    }
    let patterns = quoted(block(block(&place, "impl Place {", "}"), "fn name(", "    }"));
    let line = types.lines().find(|line| line.starts_with("  pattern: "));
    assert_eq!(differ(&patterns, &quoted(line.expect("a field"))), [""; 0], "patterns");
}

#[test]
fn a_manifest_lists_every_file_of_a_model() {
    let manifest = read("web/bin/manifest.mjs");
    let given = quoted(block(&manifest, "const NAMES =", "]"));
    let named = [CONFIG].into_iter().chain(Tokenizer::FILES).chain(usual_files());
    assert_eq!(differ(&named.map(str::to_owned).collect(), &given), [""; 0]);
}

#[test]
fn codes_of_errors_have_a_meaning_in_pages() {
    let rust = quoted(block(&read("src/base/error.rs"), "pub fn code(&self)", "    }"));
    let types = read("web/src/types.ts");
    let given = quoted(block(&(types + "\n"), "export type ErrorCode =", "\n"));
    let errors = read("web/src/errors.ts");
    let renamed = block(&errors, "const FROM_RUST", "}");
    let from = fields(renamed);
    let to = quoted(renamed);
    assert!(from.is_subset(&rust), "{:?} are no codes", differ(&from, &rust));
    assert!(to.is_subset(&given), "{to:?}");
    // Faults of the engine; a page has no code for each.
    let internal = set(["operand", "device", "non_finite", "verification"]);
    // Of grammars, which packages for pages do not have.
    let absent = set(["grammar_dead_end", "invalid_schema"]);
    let known: BTreeSet<String> =
        given.union(&from).chain(&internal).chain(&absent).cloned().collect();
    let unknown: Vec<_> = rust.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} have no meaning in errors.ts");
}

#[test]
fn small_models_are_the_same() {
    let names: BTreeSet<String> =
        grok_wgpu::lab::selftest::SMALL_MODELS.iter().map(|model| model.file.to_owned()).collect();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/selftest/data");
    let files: BTreeSet<String> = fs::read_dir(files)
        .expect("the folder is there")
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    assert_eq!(differ(&names, &files), [""; 0], "src/selftest/data");
    let worker = read("web/src/selftest.ts");
    for name in &names {
        let line = format!("[\"{name}\", new URL(\"./golden/{name}.safetensors\"");
        assert!(worker.contains(&line), "selftest.ts does not know {name}");
    }
}
