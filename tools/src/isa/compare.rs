//! What has changed since a table was written.
//!
//! A change beyond its tolerance is told for worse and for better: a table that an improvement has
//! left behind would not notice when that is lost again.

use std::fmt;

use super::{
    figures::{Figures, MainLoop},
    report::Row,
    table::Rows,
};

/// The relative change of a figure that is let pass, where it is not a small number.
pub const TOLERANCE: f64 = 0.02;

/// A figure that has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The program.
    pub program: String,
    /// The figure, or what else has changed; then there are no numbers.
    pub what: &'static str,
    /// What the table has; `None` if it has no such figure.
    pub before: Option<f64>,
    /// What was found.
    pub after: Option<f64>,
    /// Whether it was better before.
    pub worse: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<f64>| match number {
            None => "none".to_owned(),
            Some(number) if number.fract() == 0.0 => number.to_string(),
            Some(number) => format!("{number:.2}"),
        };
        let Self { program, what, before, after, worse } = self;
        if before.is_none() && after.is_none() {
            return write!(f, "{program}: {what}");
        }
        let how = if *worse { "worse" } else { "better" };
        write!(f, "{program}: {what}: {} -> {}, {how}", number(*before), number(*after))
    }
}

/// Which values of a figure are better.
#[derive(Clone, Copy, PartialEq)]
enum Better {
    Less,
    More,
}

/// A figure: its name, whether less of it is better, what may pass, and its value.
type Figure = (&'static str, Better, f64, Option<f64>);

/// What has changed beyond its tolerance. A program that only one side has counts as worse.
pub fn changes(before: &Rows, after: &Rows) -> Vec<Change> {
    let mut changes = Vec::new();
    let alone = |program: &String, what| Change {
        program: program.clone(),
        what,
        before: None,
        after: None,
        worse: true,
    };
    for program in before.keys().filter(|program| !after.contains_key(*program)) {
        changes.push(alone(program, "is in the table, and is no program any more"));
    }
    for (program, after) in after {
        let Some(before) = before.get(program) else {
            changes.push(alone(program, "is not in the table"));
            continue;
        };
        for (one, other) in figures(before).into_iter().zip(figures(after)) {
            let (what, better, tolerance, before) = one;
            let after = other.3;
            let worse = match (before, after) {
                (None, None) => continue,
                (Some(before), Some(after)) => {
                    if (after - before).abs() <= tolerance * before.abs() {
                        continue;
                    }
                    (after > before) == (better == Better::Less)
                }
                // It cannot be told any more, or it could not before.
                (before, _) => before.is_some(),
            };
            changes.push(Change { program: program.clone(), what, before, after, worse });
        }
    }
    changes
}

fn figures(row: &Row) -> Vec<Figure> {
    use Better::{Less, More};
    let number = |number: u32| Some(f64::from(number));
    let of = |pick: &dyn Fn(&MainLoop) -> Option<f64>| row.main.as_ref().and_then(pick);
    // For each weight, so that a longer iteration compares with a shorter one.
    let per = |count: u32, of: &Figures| Some(f64::from(count) / f64::from(of.weights.max(1)));
    vec![
        ("spilled registers", Less, 0.0, number(row.spills)),
        ("bytes of scratch memory", Less, 0.0, number(row.scratch)),
        ("vector registers", Less, TOLERANCE, number(row.vgprs)),
        ("waves", More, 0.0, number(row.waves)),
        ("bytes of workgroup memory", Less, TOLERANCE, number(row.shared)),
        (
            "vector instructions, longest path",
            Less,
            TOLERANCE,
            of(&|m| per(m.most.vector, &m.most)),
        ),
        (
            "vector instructions, shortest path",
            Less,
            TOLERANCE,
            of(&|m| per(m.least.vector, &m.least)),
        ),
        ("percent of multiply-adds", More, TOLERANCE, of(&|m| Some(m.most.share()))),
        ("loads", Less, TOLERANCE, of(&|m| per(m.most.loads, &m.most))),
        ("loads in flight", More, 0.0, of(&|m| number(m.most.in_flight))),
        ("waits for all loads", Less, 0.0, of(&|m| number(m.most.waits))),
        ("round trips", Less, 0.0, of(&|m| number(m.most.trips))),
        ("accesses to workgroup memory", Less, TOLERANCE, of(&|m| per(m.most.shared, &m.most))),
        ("barriers", Less, 0.0, of(&|m| number(m.most.barriers))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(most: Figures) -> Row {
        let main = MainLoop { least: most, most, inner: Vec::new() };
        Row { vgprs: 100, waves: 8, main: Some(main), ..Row::default() }
    }

    fn told(before: &Row, after: &Row) -> Vec<String> {
        let rows = |row: &Row| Rows::from([("a".to_owned(), row.clone())]);
        changes(&rows(before), &rows(after)).iter().map(ToString::to_string).collect()
    }

    const BASE: Figures = Figures {
        vector: 200,
        operations: 200,
        multiply_adds: 100,
        scalar: 10,
        scalar_loads: 0,
        loads: 50,
        in_flight: 8,
        waits: 1,
        trips: 1,
        shared: 50,
        barriers: 2,
        weights: 100,
    };

    #[test]
    fn what_is_worse_is_told_with_both_numbers() {
        let before = row(BASE);
        assert_eq!(told(&before, &before), [""; 0]);
        assert_eq!(
            told(&before, &Row { spills: 1, ..before.clone() }),
            ["a: spilled registers: 0 -> 1, worse"]
        );
        assert_eq!(
            told(&before, &row(Figures { in_flight: 7, waits: 2, ..BASE })),
            ["a: loads in flight: 8 -> 7, worse", "a: waits for all loads: 1 -> 2, worse"]
        );
        assert_eq!(
            told(&before, &row(Figures { vector: 205, ..BASE })),
            [
                "a: vector instructions, longest path: 2 -> 2.05, worse",
                "a: vector instructions, shortest path: 2 -> 2.05, worse",
            ]
        );
        assert_eq!(
            told(&before, &Row { waves: 7, vgprs: 103, ..before.clone() }),
            ["a: vector registers: 100 -> 103, worse", "a: waves: 8 -> 7, worse"]
        );
    }

    #[test]
    fn what_is_better_is_told_and_little_is_not() {
        let before = row(BASE);
        assert_eq!(told(&before, &row(Figures { vector: 203, ..BASE })), [""; 0]);
        assert_eq!(
            told(&before, &row(Figures { in_flight: 12, ..BASE })),
            ["a: loads in flight: 8 -> 12, better"]
        );
        // Twice the work in an iteration.
        let twice = Figures {
            vector: 400,
            operations: 400,
            multiply_adds: 200,
            loads: 100,
            shared: 100,
            weights: 200,
            ..BASE
        };
        assert_eq!(told(&before, &row(twice)), [""; 0]);
    }

    #[test]
    fn programs_and_loops_that_come_and_go_are_told() {
        let before = row(BASE);
        let gone = told(&before, &Row { main: None, ..before.clone() });
        assert_eq!(gone.len(), 9, "{gone:?}");
        assert!(gone.iter().all(|line| line.ends_with("-> none, worse")), "{gone:?}");
        let rows = Rows::from([("a".to_owned(), before)]);
        let only = changes(&rows, &Rows::new());
        assert!(only.len() == 1 && only[0].worse);
        assert_eq!(only[0].to_string(), "a: is in the table, and is no program any more");
        let only = changes(&Rows::new(), &rows);
        assert!(only.len() == 1 && only[0].worse);
        assert_eq!(only[0].to_string(), "a: is not in the table");
    }
}
