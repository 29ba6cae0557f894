//! Runs the rows on each mutant until one fails, the most promising row first, and records results.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Error, File,
    operators::Mutant,
    worker::{Answer, Worker, rows},
};

/// The result for a mutant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// naga or the device refused the program, so the mutant does not count.
    Refused,
    /// A row failed.
    Killed {
        /// The row.
        by: String,
        /// The row's failure.
        how: String,
    },
    /// Every row passes on the device, but the interpreter reports a race, an access out of bounds,
    /// or a read of unwritten memory.
    Faulty {
        /// The row.
        by: String,
        /// The interpreter's report.
        how: String,
    },
    /// No row failed.
    Survived,
}

/// A line of the results file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Mutant { id: String, text: u64, outcome: Outcome },
    Row { row: String, millis: u64, files: Vec<String> },
}

/// Results so far, in memory and in a file that is appended to.
pub(crate) struct State {
    path: PathBuf,
    /// By name of the mutant and hash of its file.
    outcomes: HashMap<(String, u64), Outcome>,
    rows: HashMap<String, (u64, Vec<String>)>,
}

impl State {
    /// Opens the results file; `resume` keeps the results of an earlier run.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<Self, Error> {
        let folder = path.parent().ok_or("the file of results is in no folder")?;
        fs::create_dir_all(folder)?;
        let mut state = Self { path: path.into(), outcomes: HashMap::new(), rows: HashMap::new() };
        if !resume {
            fs::write(path, "")?;
        } else if path.exists() {
            for line in fs::read_to_string(path)?.lines() {
                match serde_json::from_str(line)? {
                    Line::Mutant { id, text, outcome } => {
                        state.outcomes.insert((id, text), outcome);
                    }
                    Line::Row { row, millis, files } => {
                        state.rows.insert(row, (millis, files));
                    }
                }
            }
        }
        Ok(state)
    }

    fn write(&self, line: &Line) -> Result<(), Error> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(file, "{}", serde_json::to_string(line)?)?;
        Ok(())
    }

    pub(crate) fn outcome(&self, mutant: &Mutant, text: &str) -> Option<&Outcome> {
        self.outcomes.get(&(mutant.id.clone(), digest(&mutant.apply(text))))
    }

    pub(crate) fn settle(
        &mut self,
        mutant: &Mutant,
        text: &str,
        outcome: Outcome,
    ) -> Result<(), Error> {
        let (id, text) = (mutant.id.clone(), digest(&mutant.apply(text)));
        self.write(&Line::Mutant { id: id.clone(), text, outcome: outcome.clone() })?;
        self.outcomes.insert((id, text), outcome);
        Ok(())
    }
}

fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A row with its time and the files it links.
struct Target {
    name: String,
    millis: u64,
    files: Vec<String>,
}

/// Rows, the child process, and statistics on which rows kill mutants.
pub(crate) struct Hunt<'a> {
    files: &'a [File],
    mutants: &'a [Mutant],
    worker: Worker,
    /// The most rows to run on a mutant.
    most: usize,
    targets: Vec<Target>,
    /// By the mutant's file and by row: kills and runs.
    record: BTreeMap<(String, usize), (f64, f64)>,
}

impl<'a> Hunt<'a> {
    /// Runs every row on the unchanged shaders. All must pass; their times help to order the rows.
    pub(crate) fn new(
        files: &'a [File],
        mutants: &'a [Mutant],
        mut worker: Worker,
        most: usize,
        state: &mut State,
    ) -> Result<Self, Error> {
        let mut targets = Vec::new();
        for (number, (case, tuning, _)) in rows().into_iter().enumerate() {
            let name = format!("{} [{tuning}]", case.full_name());
            if let Some((millis, files)) = state.rows.get(&name).cloned() {
                targets.push(Target { name, millis, files });
                continue;
            }
            let (millis, linked) = match worker.ask(None, number)? {
                Answer::Pass { millis, files } => (millis, files),
                other => return Err(format!("{name} fails without any mutant: {other:?}").into()),
            };
            let linked: Vec<String> = linked.iter().map(|&i| files[i].name.clone()).collect();
            state.write(&Line::Row { row: name.clone(), millis, files: linked.clone() })?;
            state.rows.insert(name.clone(), (millis, linked.clone()));
            targets.push(Target { name, millis, files: linked });
        }
        Ok(Self { files, mutants, worker, most, targets, record: BTreeMap::new() })
    }

    /// Whether a row of the kernel links this file.
    pub(crate) fn links(&self, kernel: &str, file: &str) -> bool {
        let of = |target: &Target| target.name.split('/').next() == Some(kernel);
        self.targets.iter().any(|t| of(t) && t.files.iter().any(|name| name == file))
    }

    /// The number of rows that link this file.
    pub(crate) fn rows_of(&self, file: &str) -> usize {
        self.targets.iter().filter(|target| target.files.iter().any(|name| name == file)).count()
    }

    /// Runs rows on a mutant until one fails, in the order of expected kills per time.
    pub(crate) fn run(&mut self, number: usize, state: &mut State) -> Result<Outcome, Error> {
        let mutant = &self.mutants[number];
        let file = self.files.iter().find(|file| file.name == mutant.file);
        let text = file.map_or("", |file| &file.text);
        let mut left: Vec<usize> = (0..self.targets.len())
            .filter(|&row| self.targets[row].files.contains(&mutant.file))
            .collect();
        let mut tried = 0;
        let outcome = loop {
            let worth = |&row: &usize| {
                let key = (mutant.file.clone(), row);
                let (kills, runs) = self.record.get(&key).copied().unwrap_or((0.0, 0.0));
                (kills + 0.5) / (runs + 1.0) / (self.targets[row].millis as f64 + 15.0)
            };
            let best = left
                .iter()
                .map(worth)
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            let Some((at, _)) = best.filter(|_| tried < self.most) else {
                break Outcome::Survived;
            };
            tried += 1;
            let row = left.swap_remove(at);
            let record = self.record.entry((mutant.file.clone(), row)).or_insert((0.0, 0.0));
            record.1 += 1.0;
            let how = match self.worker.ask(Some(number), row)? {
                Answer::Pass { .. } => continue,
                Answer::Refused(why) if why.contains("lost") => why,
                Answer::Refused(_) => break Outcome::Refused,
                Answer::Fail(why) => why,
                Answer::Crashed => "the process ended".into(),
                Answer::TimedOut => "no end in sight".into(),
            };
            record.0 += 1.0;
            break Outcome::Killed { by: self.targets[row].name.clone(), how };
        };
        state.settle(mutant, text, outcome.clone())?;
        Ok(outcome)
    }
}
