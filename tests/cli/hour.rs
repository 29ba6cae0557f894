//! A person's first hour with an installed program, on a terminal of 80 columns. What the terminal
//! shows is kept in `tests/data/first_hour.txt` (`GROK_WGPU_RENEW=1` writes it anew).

use std::{
    fmt::Write as _,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::Command,
};

use fancy_regex::Regex;

use super::{install, path};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/first_hour.txt");
const COLUMNS: NonZero<u16> = NonZero::new(80).expect("columns");
/// Enough for all that one command writes: nothing leaves the screen.
const ROWS: NonZero<u16> = NonZero::new(2000).expect("rows");
/// Time for a command, in milliseconds.
const TIMEOUT: u64 = 120_000;
/// Turns of the conversation, and the context that has no room for them.
const TURNS: usize = 30;
const CONTEXT: &str = "352";

/// A folder with nothing but the program, and what a terminal showed in it.
struct Hour {
    folder: tempfile::TempDir,
    shown: String,
}

impl Hour {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        install(folder.path());
        Self { folder, shown: String::new() }
    }

    fn file(&self, name: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        file
    }

    /// A shell on a terminal, in the folder, that runs one command and prints its exit code.
    fn shell(&self, command: &str) -> rexpect::session::PtySession {
        let mut shell = Command::new("sh");
        let script = format!("stty cols {COLUMNS} rows 24; {command}; echo \"exit code $?\"");
        shell.args(["-c", &script]).current_dir(self.folder.path());
        let found = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{found}", path(self.folder.path())));
        shell.env("HOME", self.folder.path()).env_remove("XDG_DATA_HOME").env_remove("NO_COLOR");
        shell.env("TERM", "xterm").env("GROK_WGPU_TUNING", "none");
        rexpect::session::spawn_command(shell, Some(TIMEOUT)).expect("a terminal")
    }

    /// Runs a command and keeps what the terminal shows. It must end with `code`.
    fn run(&mut self, code: i32, command: &str) {
        let mut session = self.shell(command);
        let bytes = session.exp_eof().unwrap_or_else(|error| panic!("{command}: {error}"));
        self.keep(code, command, &bytes);
    }

    fn keep(&mut self, code: i32, command: &str, bytes: &str) {
        let shown = on_screen(bytes);
        let told = format!("\nexit code {code}");
        let text = shown.strip_suffix(&told).or_else(|| told.trim().eq(&shown).then_some(""));
        let text = text.unwrap_or_else(|| panic!("{command} should end with {code}:\n{shown}"));
        assert!(!text.contains("panicked"), "{command}: {text}");
        if code > 1 {
            let helps = text.contains("\nhint: ") || text.contains("try '--help'");
            let told = text.lines().any(|line| line.starts_with("error"));
            assert!(told && helps, "{command}: {text}");
        }
        writeln!(self.shown, "$ {command}\n{text}\n").expect("a string");
    }

    /// A conversation: each line is typed when there is a prompt.
    fn talk(&mut self, command: &str, lines: &[String]) {
        let mut session = self.shell(command);
        let mut bytes = String::new();
        for line in lines {
            // The editor's empty line, after which it reads. Progress bars have a `> ` too.
            let prompt = "\u{1b}[K> \r\u{1b}[2C\u{1b}[?2026l";
            bytes += &session.exp_string(prompt).unwrap_or_else(|error| panic!("{line}: {error}"));
            bytes += prompt;
            session.send_line(line).expect("typed");
        }
        bytes += &session.exp_eof().expect("it ends");
        self.keep(0, command, &bytes);
    }
}

/// What a terminal shows of these bytes, without blanks at the ends of lines.
fn on_screen(bytes: &str) -> String {
    let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
    terminal.process(bytes.as_bytes());
    let shown = terminal.screen().contents();
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// The same for every machine: without times, rates, and the names of devices.
fn plain(text: &str) -> String {
    let rules = [
        (r"\d+(\.\d+)?(e\d+)? ?(ms|us|s|tokens/s|GB/s|MB/s|/s)\b", "N $3"),
        (r"running on .*(\n.*\))?", "running on DEVICE"),
        (r"(?m)^shaders were compiled.*\n", ""),
        (r"(?m)^.*\((Cpu|IntegratedGpu|DiscreteGpu|VirtualGpu|Other), .*\)$", "DEVICE"),
        (r"(?m)^seed +\d+$", "seed N"),
        (r"(\d+ +\d+ +)\d\.\d{3}( +\d+ )", "$1R$2"),
    ];
    rules.iter().fold(text.to_owned(), |text, (pattern, by)| {
        Regex::new(pattern).expect("valid").replace_all(&text, *by).into_owned()
    })
}

#[test]
fn the_first_hour_has_no_stumble() {
    let mut hour = Hour::new();
    hour.run(0, "grok-wgpu --version");
    hour.run(0, "grok-wgpu help | head -n 12");
    hour.run(0, "grok-wgpu generate 'Once upon a time' -n 40 --temperature 0");

    // What people type who know other programs.
    hour.run(2, "grok-wgpu pull grok-2");
    hour.run(0, "grok-wgpu serve --help | head -n 6");
    hour.run(3, "grok-wgpu run xai-org/grok-2");
    hour.run(0, "grok-wgpu -p 'Once upon a time' -n 8 --temperature 0");

    // Files that are no models, and options that are nearly right.
    fs::write(hour.file("model.onnx"), "x").expect("written");
    fs::write(hour.file("onnx/model.onnx"), "x").expect("written");
    fs::write(hour.file("torch/config.json"), "{}").expect("written");
    fs::write(hour.file("torch/pytorch_model.bin"), "x").expect("written");
    fs::write(hour.file("notes.gguf"), "These are notes, and no model at all.").expect("written");
    fs::create_dir(hour.file("empty")).expect("made");
    hour.run(3, "grok-wgpu generate model.onnx Once");
    hour.run(3, "grok-wgpu generate onnx Once");
    hour.run(3, "grok-wgpu generate torch Once");
    hour.run(3, "grok-wgpu generate notes.gguf Once");
    hour.run(3, "grok-wgpu generate empty Once");
    hour.run(2, "grok-wgpu inspect --config empty");
    hour.run(2, "grok-wgpu perplexity empty");
    hour.run(2, "grok-wgpu inspect --preset grok-2 --memory 24");
    hour.run(2, "grok-wgpu selftest --case zzzzz");
    hour.run(2, "grok-wgpu chat --context 1000000");

    hour.run(0, "grok-wgpu inspect --preset grok-2 --memory 24GiB --type q4 --no-device");

    // A conversation that passes its context.
    let mut lines = vec!["/help".to_owned(), "\"\"\"Tell me a story.\"\"\"".into()];
    lines.extend((1..=TURNS).map(|turn| format!("Is it {turn}?")));
    lines.extend(["/show", "/clear", "/bye"].map(str::to_owned));
    let talk = format!("grok-wgpu chat -n 6 --temperature 0 --context {CONTEXT} --stats off");
    hour.talk(&talk, &lines);
    let told = "tokens is full";
    assert_eq!(hour.shown.matches(told).count(), 1, "the context is passed once");

    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    std::os::unix::fs::symlink(demo, hour.file("demo")).expect("linked");
    hour.run(0, "grok-wgpu quantize demo demo-q4 --type q4");
    hour.run(0, "grok-wgpu generate demo-q4 'Once upon a time' -n 8 --temperature 0");
    hour.run(0, "grok-wgpu selftest --kernel rms_norm --case normal --report report.html");
    assert!(fs::read_to_string(hour.file("report.html")).expect("a report").contains("rms_norm"));

    let shown = plain(&hour.shown);
    if std::env::var_os("GROK_WGPU_RENEW").is_some() {
        fs::write(KEPT, &shown).expect("written");
    }
    let kept = fs::read_to_string(Path::new(KEPT)).expect("a recording");
    for (line, (shown, kept)) in shown.lines().zip(kept.lines()).enumerate() {
        assert_eq!(shown, kept, "line {} of {KEPT}", line + 1);
    }
    assert_eq!(shown.lines().count(), kept.lines().count());
}
