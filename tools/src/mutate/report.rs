//! Tables of killed and surviving mutants, and the reasons for survivors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    fs,
    path::Path,
};

use serde::Deserialize;

use super::{Error, hunt::Outcome, operators::Mutant};

/// Reasons for a mutant to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The program computes the same, or stays within what WGSL allows.
    Equivalent,
    /// The program is wrong, but no row shows it.
    Unseen,
}

/// An entry of `tools/mutation/survivors.json`.
#[derive(Debug, Deserialize)]
struct Entry {
    verdict: Verdict,
    reason: String,
    mutants: Vec<String>,
}

/// The entries of `survivors.json`.
pub(crate) struct Reasons {
    entries: Vec<Entry>,
}

pub(crate) fn reasons(path: &Path) -> Result<Reasons, Error> {
    let entries: Vec<Entry> = serde_json::from_str(&fs::read_to_string(path)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Reasons { entries })
}

impl Reasons {
    fn of(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.mutants.iter().any(|mutant| mutant == id))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    compiled: u32,
    /// Killed by a row on the device.
    wrong: u32,
    /// Killed by the interpreter alone.
    faulty: u32,
    equivalent: u32,
}

impl Count {
    fn killed(self) -> u32 {
        self.wrong + self.faulty
    }

    fn survived(self) -> u32 {
        self.compiled - self.killed()
    }

    fn raw(self) -> f64 {
        percent(self.killed(), self.compiled)
    }

    fn score(self) -> f64 {
        percent(self.killed(), self.compiled - self.equivalent)
    }

    fn row(self, name: &str) -> String {
        let Self { compiled, wrong, faulty, equivalent } = self;
        let survived = self.survived();
        let (raw, score) = (self.raw(), self.score());
        format!(
            "| {name} | {compiled} | {wrong} | {faulty} | {survived} | {equivalent} | {raw:.1} % | \
             {score:.1} % |"
        )
    }
}

fn percent(part: u32, whole: u32) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * f64::from(part) / f64::from(whole) }
}

const HEAD: &str = "\
| | compiled | wrong result | broken rule | survived | equivalent | killed / \
compiled | killed / (compiled - equivalent) |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

/// Counts by file and by operator, and the survivors.
pub(crate) struct Tables<'a> {
    reasons: &'a Reasons,
    total: Count,
    files: BTreeMap<String, Count>,
    operators: BTreeMap<&'static str, Count>,
    survivors: Vec<&'a str>,
    killed: BTreeSet<&'a str>,
}

impl<'a> Tables<'a> {
    pub(crate) fn new(results: &[(&'a Mutant, &'a Outcome)], reasons: &'a Reasons) -> Self {
        let mut tables = Self {
            reasons,
            total: Count::default(),
            files: BTreeMap::new(),
            operators: BTreeMap::new(),
            survivors: Vec::new(),
            killed: BTreeSet::new(),
        };
        for &(mutant, outcome) in results {
            if *outcome == Outcome::Refused {
                continue;
            }
            let survived = *outcome == Outcome::Survived;
            let verdict = reasons.of(&mutant.id).map(|entry| entry.verdict);
            let add = |count: &mut Count| {
                count.compiled += 1;
                count.wrong += u32::from(matches!(outcome, Outcome::Killed { .. }));
                count.faulty += u32::from(matches!(outcome, Outcome::Faulty { .. }));
                count.equivalent += u32::from(survived && verdict == Some(Verdict::Equivalent));
            };
            let id = mutant.id.as_str();
            add(&mut tables.total);
            add(tables.files.entry(mutant.file.clone()).or_default());
            add(tables.operators.entry(mutant.operator).or_default());
            if survived {
                tables.survivors.push(id);
            } else {
                tables.killed.insert(id);
            }
        }
        tables
    }

    /// Errors: survivors without a reason, and reasons for mutants that are killed or do not exist.
    pub(crate) fn faults(&self, all: &[Mutant]) -> Vec<String> {
        let all: BTreeSet<&str> = all.iter().map(|mutant| mutant.id.as_str()).collect();
        let without = self.survivors.iter().filter(|id| self.reasons.of(id).is_none());
        let listed = self.reasons.entries.iter().flat_map(|entry| &entry.mutants);
        let stale = listed.filter_map(|id| match id.as_str() {
            id if self.killed.contains(id) => {
                Some(format!("a reason is given, but it is killed: {id}"))
            }
            id if !all.contains(id) => Some(format!("a reason is given, but there is no {id}")),
            _ => None,
        });
        without.map(|id| format!("no row sees {id}")).chain(stale).collect()
    }

    /// The report in Markdown. `unlinked` are the files that no row links on the adapter.
    pub(crate) fn document(
        &self,
        adapter: &str,
        sample: Option<usize>,
        rows: Option<usize>,
        unlinked: &[&str],
    ) -> String {
        let mut text = String::from(INTRODUCTION);
        let total = self.total;
        let option = |name, value: Option<usize>| value.map(|n| format!("`--{name} {n}`"));
        let options = [option("sample", sample), option("rows", rows)];
        let options: Vec<String> = options.into_iter().flatten().collect();
        let what = match &options[..] {
            [] => String::new(),
            options => format!(" with {}", options.join(" and ")),
        };
        let _ = writeln!(
            text,
            "\n## Result\n\nOn {adapter}{what}: of {} mutants that compile, {} are killed, \
             {:.1} %; of those that are not equivalent, {:.1} %.",
            total.compiled,
            total.killed(),
            total.raw(),
            total.score()
        );
        if !unlinked.is_empty() {
            let _ = writeln!(
                text,
                "No row on this adapter links {}: no mutants of them were made.",
                unlinked.join(", ")
            );
        }
        let _ = writeln!(text, "\n{self}\n## Survivors");
        let here: BTreeSet<&str> = self.survivors.iter().copied().collect();
        for (verdict, title) in
            [(Verdict::Equivalent, "Equivalent"), (Verdict::Unseen, "Wrong, and not seen")]
        {
            let _ = writeln!(text, "\n### {title}");
            for entry in self.reasons.entries.iter().filter(|entry| entry.verdict == verdict) {
                let mine: Vec<&String> =
                    entry.mutants.iter().filter(|id| here.contains(id.as_str())).collect();
                if mine.is_empty() {
                    continue;
                }
                let _ = writeln!(text, "\n{}\n", entry.reason);
                for id in mine {
                    let _ = writeln!(text, "- {id}");
                }
            }
        }
        text
    }
}

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "By file:\n\n{HEAD}")?;
        for (name, count) in &self.files {
            writeln!(f, "{}", count.row(name))?;
        }
        writeln!(f, "{}", self.total.row("all"))?;
        writeln!(f, "\nBy operator:\n\n{HEAD}")?;
        for (name, count) in &self.operators {
            writeln!(f, "{}", count.row(name))?;
        }
        Ok(())
    }
}

const INTRODUCTION: &str = "# Mutation testing of the shaders

How well do the rows see bugs?
A program makes small wrong changes to the shaders, one at a time: `<` becomes `<=`, a constant \
is off by one, a barrier is missing, one parameter stands for another.
Each such mutant that compiles to another program runs through the rows of the kernels that link \
its file, as `cargo test --test kernels` has them, until a row fails.
A mutant that no row sees is either equivalent, or a row is missing.

    scripts/mutate                    # the result below: a fixed choice, even over files and \
operators
    scripts/mutate --kernel matvec    # all of the files whose names contain this
    scripts/mutate --sample 1000      # more
    scripts/mutate --list             # the mutants, without running any
    scripts/mutate --part 1/2 --state target/mutate/1.jsonl    # every second one

The mutants are made from tokens (`tools/src/mutate/operators.rs` has the operators) and run in \
child processes, so that one that never ends costs a child.
`survivors.json` says for each survivor why it may survive; a survivor without a reason is an \
error, and so is a reason for a mutant that is killed or not there.
A mutant's name is its file, line, column, operator, and the text before and after: who edits a \
shader moves them.

- `compiled`: mutants that naga and the driver accept, and whose program is not the same to naga; \
the others are no mutants.
- `wrong result`: a row fails on the device, or does not end.
- `broken rule`: all rows pass on the device, but the interpreter in `tools/src/interpret/` \
reports a race, an access out of bounds, or a read of what nobody wrote, as `cargo test \
--workspace --test races` would. Software drivers run invocations in an order that hides races, \
and return zeros from outside of buffers.
- `equivalent`: survivors that compute the same, or stay within what WGSL allows any device.
";
