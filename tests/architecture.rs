//! Checks the invariants of `ARCHITECTURE.md` that the source text shows: layering, words confined
//! to some folders, files that come in pairs. Needs no device.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use grok_wgpu::lab::{
    kernels::{self, Case},
    machine::host::Host,
    variants::Tuning,
};

/// Folders of `src/`, the lowest first. A file uses its own folder and those before it.
const FLOORS: [&str; 14] = [
    "base",
    "text",
    "files",
    "variants",
    "machine",
    "kernels",
    "model",
    "checkpoint",
    "engine",
    "measure",
    "selftest",
    "serve",
    "cli",
    "web",
];

/// Folders that must not know of `wgpu`: they use devices through `machine` only.
const UNAWARE: [&str; 4] = ["kernels", "model", "checkpoint", "engine"];

/// Words, the reason for confining them, and the paths under `src/` that may have them.
const CONFINED: &[(&str, &str, &[&str])] = &[
    ("wgpu::", "one place talks to the device", &["machine/gpu/"]),
    ("naga", "shaders are checked in tests, and translated for others", &["cli/selftest/"]),
    ("fearless_simd", "one place has SIMD", &["machine/cpu/"]),
    ("rayon", "one place keeps threads to compute with", &["machine/cpu/"]),
    ("ureq", "one place talks to servers", &["files/hub/"]),
    ("rustls", "one place talks to servers", &["files/hub/"]),
    ("cfg(target_arch", "browsers differ in few places", BROWSERS),
    ("cfg(not(target_arch", "browsers differ in few places", BROWSERS),
    ("web_sys", "browsers differ in few places", &["files/", "web/"]),
    ("js_sys", "browsers differ in few places", &["files/", "web/"]),
    ("std::fs", "parsing is pure", FILES),
    ("fs::", "parsing is pure", FILES),
    ("llguidance", "one place has grammars", &["text/grammar.rs"]),
    ("hyper", "one place talks to clients", &["serve/"]),
    ("tokio", "one place talks to clients", &["serve/"]),
    ("std::thread", "an engine is one thread", &["files/", "serve/", "cli/"]),
    ("std::time", "browsers have another clock", &["machine/gpu/wait.rs", "serve/", "cli/"]),
    ("std::env", "options come in through the doors", &["cli/", "main.rs"]),
    ("println!", "only the doors print", &["cli/"]),
    ("print!", "only the doors print", &["cli/"]),
    ("unsafe", "four modules are audited", AUDITED),
    (".unwrap()", "say with `expect` why it cannot fail", &[]),
];

/// Code that differs between native and browser builds, and lists of modules that only one has.
const BROWSERS: &[&str] = &["files/", "machine/gpu/", "checkpoint/mod.rs", "lib.rs", "main.rs"];

/// One call each.
const AUDITED: &[&str] = &[
    "machine/gpu/experimental.rs",
    "machine/gpu/heaps.rs",
    "machine/gpu/pipeline_cache.rs",
    "machine/gpu/trusted.rs",
];

/// Code that opens files.
const FILES: &[&str] = &["files/"];

struct File {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

impl File {
    /// Path below `src/`.
    fn inner(&self) -> Option<&str> {
        self.path.strip_suffix(".rs")?;
        self.path.strip_prefix("src/")
    }

    /// `a::b` of `src/a/b.rs` and of `src/a/b/mod.rs`.
    fn module(&self) -> Option<String> {
        let stem = self.inner()?.strip_suffix(".rs")?;
        Some(stem.strip_suffix("/mod").unwrap_or(stem).replace('/', "::"))
    }

    /// Lines of code with their numbers: without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        (1..).zip(lines.map(|line| {
            let comment = line.find("//").filter(|&at| !line[..at].contains('"'));
            &line[..comment.unwrap_or(line.len())]
        }))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files that git tracks or would track; without git, all files except build output.
fn tracked() -> Vec<File> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let names: Vec<String> = match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            .map(str::to_owned)
            .collect(),
        _ => {
            let mut found = Vec::new();
            walk(root(), &mut found);
            found
        }
    };
    let mut files: Vec<File> = names
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(fs::read(root().join(&path)).ok()?).ok()?;
            Some(File { path, text })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the source tree was not found");
    files
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the source tree").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if ["target", ".git", "node_modules", "models"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            let relative = path.strip_prefix(root()).expect("below the root");
            found.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

fn sources() -> Vec<File> {
    tracked().into_iter().filter(|file| file.inner().is_some()).collect()
}

/// A file's code on one line, so that imports over several lines are found.
fn joined(file: &File) -> String {
    file.code().map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Paths below the crate's root that a text names: `a::b` of `crate::a::b` and of
/// `crate::{a::{b, c}, d}`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "grok_wgpu::lab::"] {
        for (at, _) in text.match_indices(prefix) {
            if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                expand("", &text[at + prefix.len()..], &mut found);
            }
        }
    }
    found
}

/// Adds the paths of one use tree; returns what follows it.
fn expand<'a>(before: &str, text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut rest = group.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = expand(before, rest, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '*';
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if before.is_empty() { name.to_owned() } else { format!("{before}::{name}") };
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(&path, rest, found);
    }
    if !name.is_empty() {
        found.insert(path);
    }
    if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
        return renamed.trim_start().trim_start_matches(word);
    }
    // Skips any other character, so that malformed text cannot loop for ever.
    if name.is_empty() { &rest[rest.chars().next().map_or(0, char::len_utf8)..] } else { rest }
}

/// The position of a path's first folder in the list.
fn floor(path: &str) -> Option<usize> {
    let first = path.split("::").next().expect("split gives one part");
    FLOORS.iter().position(|floor| *floor == first)
}

#[test]
fn folders_are_floors() {
    let mut wrong = Vec::new();
    for file in &sources() {
        let module = file.module().expect("sources have modules");
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(own) = floor(&module) else {
            wrong.push(format!("{}: this folder is no floor", file.path));
            continue;
        };
        for import in imports(&joined(file)) {
            // Exported macros are at the crate's root and belong to no folder.
            if ["params", "shader", "source", "wgsl"].contains(&import.as_str()) {
                continue;
            }
            match floor(&import) {
                None => wrong.push(format!("{}: `{import}` is not a path of modules", file.path)),
                Some(theirs) if theirs > own => {
                    wrong.push(format!("{} imports {import}, which is above it", file.path));
                }
                Some(_) => {}
            }
            if UNAWARE.contains(&FLOORS[own]) && import.starts_with("machine::gpu") {
                wrong.push(format!("{} must not know of {import}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn use_trees_are_read() {
    let text = "use crate::{A, b::{self, c as d, e::{f, g}}, h}; let x = crate::i::j(k); $crate::l";
    let found: Vec<_> = imports(text).into_iter().collect();
    assert_eq!(found, ["A", "b::c", "b::e::f", "b::e::g", "b::self", "h", "i::j"]);
}

#[test]
fn words_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for file in sources() {
        let inner = file.inner().expect("sources are below src").to_owned();
        for (number, line) in file.code() {
            for (word, why, places) in CONFINED {
                let boundary = |at: usize| {
                    at == 0
                        || !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                        || word.starts_with('.')
                };
                // A word must not match inside a longer one: `println!` in `eprintln!`, `wgpu::` in
                // `grok_wgpu::`.
                if line.match_indices(word).any(|(at, _)| boundary(at))
                    && !places.iter().any(|place| inner.starts_with(place))
                {
                    wrong.push(format!("{}:{number}: `{word}`: {why}", file.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// File stems of a folder with an extension.
fn stems(files: &[File], folder: &str, extension: &str) -> BTreeSet<String> {
    files
        .iter()
        .filter_map(|file| file.path.strip_prefix(folder)?.strip_suffix(extension))
        .filter(|stem| !stem.contains('/'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn kernels_pair_up_and_have_rows() {
    let files = tracked();
    // A kernel may have more shader files, `kernel.word.wgsl`, without Rust files of their own.
    let shaders: BTreeSet<String> = stems(&files, "shaders/kernels/", ".wgsl")
        .iter()
        .map(|stem| stem.split('.').next().unwrap_or(stem).to_owned())
        .collect();
    let mut rust = stems(&files, "src/kernels/", ".rs");
    // `mod` lists kernels, `bounds` has error bounds for oracles, `pick` chooses random rows, and
    // `texts` has steps of several texts for rows.
    for shared in ["mod", "bounds", "pick", "texts"] {
        assert!(rust.remove(shared), "src/kernels/{shared}.rs is missing");
    }
    assert_eq!(shaders, rust, "a kernel is shaders/kernels/x.wgsl and src/kernels/x.rs");
    let mut host = Host::of_shapes();
    let stem = |case: Case| case.build(&mut host).shader(&Tuning::default()).own.stem().to_owned();
    let rows: BTreeSet<String> = kernels::cases().into_iter().map(stem).collect();
    assert_eq!(rust, rows, "every kernel has rows");
}

/// Sums of whole numbers are exact in any order. There must be rows of them as long as a model is
/// wide.
#[test]
fn rows_are_many_and_reductions_are_exact() {
    let cases = kernels::cases();
    assert!(cases.len() >= 1000, "only {} rows", cases.len());
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert(case.full_name()), "two rows are called {}", case.full_name());
    }
    // Products are the kernels that variants run; their dispatches have a class.
    let mut products = BTreeSet::new();
    for case in &cases {
        let kernel = case.build(&mut Host::of_shapes());
        if kernel.record(&Tuning::default()).is_ok_and(|dispatch| dispatch.class.is_some()) {
            products.insert(case.kernel);
        }
    }
    // Four, each as GEMV and as GEMM.
    assert_eq!(products.len(), 8, "{products:?}");
    for kernel in products {
        for cols in [8192, 16384, 32768] {
            let wide = |name: &str| {
                name.split([' ', 'x']).any(|word| word.parse::<u32>().is_ok_and(|n| n == cols))
            };
            assert!(
                cases.iter().any(|c| c.kernel == kernel && c.exact && wide(&c.name)),
                "{kernel}: no exact row of {cols} columns"
            );
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for file in tracked() {
        let extension = Path::new(&file.path).extension().and_then(|e| e.to_str());
        let lines = file.text.lines().count();
        if matches!(extension, Some("rs" | "wgsl" | "py" | "mjs" | "js" | "ts")) && lines > 650 {
            wrong.push(format!("{}: {lines} lines are too many", file.path));
        }
        if extension == Some("rs") && !file.text.starts_with("//! ") {
            wrong.push(format!("{}: open with one sentence on what it is for", file.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_code(path: &str) -> bool {
    matches!(Path::new(path).extension().and_then(|e| e.to_str()), Some("rs" | "wgsl"))
}

/// `rustfmt` leaves comments, macros and strings as they are.
#[test]
fn lines_are_within_100_columns() {
    let mut wrong = Vec::new();
    for file in tracked().iter().filter(|f| is_code(&f.path)) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let columns = line.chars().count();
            if columns > 100 {
                wrong.push(format!("{}:{number}: {columns} columns", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    // Concatenated here so that this file does not contain them.
    let leftovers = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"]].map(|parts| parts.concat());
    let machine =
        [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["sha", "red/"]].map(|p| p.concat());
    let mut wrong = Vec::new();
    for file in tracked() {
        for (number, line) in (1..).zip(file.text.lines()) {
            let found = leftovers
                .iter()
                .filter(|word| {
                    let around = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                    line.match_indices(word.as_str()).any(|(at, _)| {
                        !around(line[..at].chars().next_back())
                            && !around(line[at + word.len()..].chars().next())
                    })
                })
                .chain(machine.iter().filter(|path| {
                    // An absolute path on some machine: at the start of a word.
                    line.match_indices(path.as_str()).any(|(at, _)| {
                        !line[..at]
                            .ends_with(|c: char| c.is_alphanumeric() || "_-}.*$/".contains(c))
                    })
                }));
            wrong.extend(found.map(|word| format!("{}:{number}: `{word}`", file.path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Documents whose paths are checked.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/faults.md",
    "docs/forward.md",
    "docs/glossary.md",
    "tools/mutation/README.md",
];

#[test]
fn documents_name_files_that_exist() {
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).expect("the document is there");
        // Every second piece is between back-quotes. Those that look like paths must exist.
        for code in text.split('`').skip(1).step_by(2) {
            let known =
                ["src/", "shaders/", "tests/", "tools/", "scripts/", "examples/", "benches/"];
            // `x` stands for the name of any kernel.
            let example = Path::new(code).file_stem().is_some_and(|stem| stem == "x");
            let plain = code.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
            if plain && !example && known.iter().any(|folder| code.starts_with(folder)) {
                let path: PathBuf = root().join(code);
                if !path.exists() {
                    wrong.push(format!("{document}: there is no {code}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Faults of `docs/faults.md` that no test meets. A fault that is added comes with a test.
const UNTESTED: usize = 2;

fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, end)| end)
}

/// Whether a test of this name is in the text of a file.
fn has_test(file: &str, text: &str, name: &str) -> bool {
    if extension(file) != "rs" {
        return text.contains(&format!("test(\"{name}\""));
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let rest = line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('('))
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
                .any(|line| *line == "#[test]")
    })
}

#[test]
fn faults_have_their_tests() {
    let document = fs::read_to_string(root().join("docs/faults.md")).expect("the document");
    let (mut wrong, mut faults, mut untested) = (Vec::new(), 0, 0);
    let rows = document.lines().filter(|line| line.starts_with("| "));
    for row in rows.filter(|row| !row.starts_with("| fault |") && !row.starts_with("| ---")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, tests] = cells[..] else {
            wrong.push(format!("not three cells: {row}"));
            continue;
        };
        faults += 1;
        if tests.starts_with("not tested: ") {
            untested += 1;
            continue;
        }
        let (mut file, mut named) = ("", 0);
        for code in tests.split('`').skip(1).step_by(2) {
            if ["rs", "mjs"].contains(&extension(code)) {
                file = code;
                continue;
            }
            named += 1;
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !has_test(file, &text, code) {
                wrong.push(format!("{file} has no test {code}"));
            }
        }
        if named == 0 {
            wrong.push(format!("no test is named: {row}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(untested, UNTESTED, "faults without a test");
    let told = format!("{faults} faults are listed; {} have tests", faults - untested);
    assert!(document.contains(&told), "the document should say: {told}");
}

#[test]
fn tests_are_found_by_their_names() {
    let text = "  #[test]\n  /// Words.\n  fn one() {\n#[test]\nfn two_more() {\nfn three() {";
    for (name, found) in [("one", true), ("two", false), ("two_more", true), ("three", false)] {
        assert_eq!(has_test("a.rs", text, name), found, "{name}");
    }
    assert!(has_test("a.mjs", "test(\"a title\", () => {", "a title"));
    assert!(!has_test("a.mjs", "// a title", "a title"));
}
