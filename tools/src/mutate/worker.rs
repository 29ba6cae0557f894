//! The child process that runs rows on mutants, one for each line of input, and the parent's side.
//! A mutant may hang or crash the driver; then only the child is lost.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use grok_wgpu::lab::{
    kernels::{self, Case},
    machine::{
        gpu::{AdapterChoice, Gpu, LimitProfile},
        host::Host,
    },
    selftest,
    variants::{Capabilities, Tuning},
};

use super::{Error, File, operators::Mutant};
use crate::edited::{Edit, Edited};

/// Random rows of each kernel: as many as `cargo test` runs.
const RANDOM: u32 = 20;

/// The subgroup size of lavapipe, on which the table is made.
pub(crate) const SUBGROUP: u32 = 8;

/// The capabilities of lavapipe.
pub(crate) const LAVAPIPE: Capabilities =
    Capabilities { is_cpu: true, subgroups: Some((SUBGROUP, SUBGROUP)), matrices: false };

/// The rows, numbered by position: a case with a tuning.
pub(crate) fn rows() -> Vec<(Case, String, Tuning)> {
    let tunings = Tuning::all(&LAVAPIPE);
    let cases = || kernels::cases().into_iter().chain(kernels::random_cases(RANDOM));
    let ways: Vec<_> =
        cases().map(|case| selftest::ways(&case, &tunings).expect("rows are sound")).collect();
    let mut rows = Vec::new();
    for (name, tuning) in &tunings {
        // Cases cannot be cloned, so the list is built for each tuning.
        for (case, ways) in cases().zip(&ways) {
            if ways.iter().any(|(other, _)| other == name) {
                rows.push((case, name.clone(), tuning.clone()));
            }
        }
    }
    rows
}

/// The result of a row.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The row passes.
    Pass {
        millis: u64,
        /// Indices of the files that its program links.
        files: Vec<usize>,
    },
    /// The row fails, with the message.
    Fail(String),
    /// The device refused the program.
    Refused(String),
    /// The child ended.
    Crashed,
    /// The child did not answer in time.
    TimedOut,
}

/// Serves the parent: each line has the number of a mutant, or `-`, and the number of a row.
pub(crate) fn serve(files: &[File], mutants: &[Mutant], adapter: &str) -> Result<(), Error> {
    let current: Arc<Mutex<Option<Arc<Edit>>>> = Arc::default();
    let rows: Vec<(Case, Tuning)> = rows()
        .into_iter()
        .map(|(case, _, tuning)| {
            let current = current.clone();
            let case = case.map(move |kernel| {
                match &*current.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(edit) => Box::new(Edited::new(kernel, edit.clone())),
                    None => kernel,
                }
            });
            (case, tuning)
        })
        .collect();
    let choice = AdapterChoice::Named(adapter.into());
    let open = || pollster::block_on(Gpu::open(&choice, LimitProfile::Baseline));
    let mut gpu = None;
    let mut before = String::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (mutant, row) = line.split_once(' ').ok_or("a line has two words")?;
        if before != mutant {
            // A new device for each mutant: cached pipelines do not pile up, and a loss affects one
            // mutant.
            gpu = None;
            before = mutant.into();
            let edit = match mutant.parse::<usize>() {
                Ok(number) => {
                    let mutant = &mutants[number];
                    let file = files.iter().find(|file| file.name == mutant.file);
                    let text = file.map_or("", |file| &file.text);
                    Edit::new(format!("#{number}"), text.into(), mutant.apply(text))
                }
                // The unchanged program, on the same path as a mutant.
                Err(_) => Edit::new("unchanged".into(), String::new(), "// unchanged\n".into()),
            };
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(edit));
        }
        let (case, tuning) = &rows[row.parse::<usize>()?];
        let mut device = match gpu.take() {
            Some(device) => device,
            None => open()?,
        };
        let started = Instant::now();
        let result = pollster::block_on(selftest::check(&mut device, case, tuning));
        let millis = started.elapsed().as_millis();
        let answer = match result {
            Ok(selftest::Report { failure: Some(failure), .. }) => format!("fail {failure}"),
            Ok(_) if mutant == "-" => {
                let mut host = Host::of_shapes();
                let source = case.build(&mut host).shader(tuning).source();
                let linked = (0..files.len()).filter(|&i| source.contains(&files[i].text));
                let numbers: Vec<String> = linked.map(|i| i.to_string()).collect();
                format!("pass {millis} {}", numbers.join(" "))
            }
            Ok(_) => format!("pass {millis}"),
            Err(error) => format!("refused {error}"),
        };
        if !answer.starts_with("refused") {
            gpu = Some(device);
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", answer.replace('\n', " "))?;
        out.flush()?;
    }
    Ok(())
}

/// A child process, started on demand and restarted after a crash.
pub(crate) struct Worker {
    adapter: String,
    timeout: Duration,
    running: Option<Running>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if the child has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    pub(crate) fn new(adapter: &str, timeout: Duration) -> Self {
        Self { adapter: adapter.into(), timeout, running: None }
    }

    /// Runs a row on a mutant, or on the unchanged shaders.
    pub(crate) fn ask(&mut self, mutant: Option<usize>, row: usize) -> Result<Answer, Error> {
        let running = match self.running.take() {
            Some(running) => running,
            None => start(&self.adapter)?,
        };
        let running = self.running.insert(running);
        let mutant = mutant.map_or("-".into(), |number| number.to_string());
        let sent = writeln!(running.input, "{mutant} {row}").and_then(|()| running.input.flush());
        let line = match (sent, running.lines.recv_timeout(self.timeout)) {
            (Ok(()), Ok(line)) => line,
            (Ok(()), Err(mpsc::RecvTimeoutError::Timeout)) => {
                self.running = None;
                return Ok(Answer::TimedOut);
            }
            _ => {
                self.running = None;
                return Ok(Answer::Crashed);
            }
        };
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        Ok(match word {
            "pass" => {
                let mut numbers = rest.split(' ').filter(|word| !word.is_empty());
                let millis = numbers.next().ok_or("no time in an answer")?.parse()?;
                let files = numbers.map(str::parse).collect::<Result<_, _>>()?;
                Answer::Pass { millis, files }
            }
            "fail" => Answer::Fail(rest.into()),
            "refused" => Answer::Refused(rest.into()),
            _ => return Err(format!("the child said `{line}`").into()),
        })
    }
}

fn start(adapter: &str) -> Result<Running, Error> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--worker", "--adapter", adapter])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let input = child.stdin.take().ok_or("the child has no input")?;
    let output = child.stdout.take().ok_or("the child has no output")?;
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    Ok(Running { child, input, lines })
}
