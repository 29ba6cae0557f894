//! Where the wrong elements of an output lie: a pattern tells more of its cause than their number.

use std::fmt;

use serde_json::{Value, json};

/// Widest stripe that is looked for, in elements.
const WIDEST: usize = 1024;

/// The pattern that wrong elements form. Numbers count elements in memory order, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All that the kernel had to write.
    All,
    /// A single one.
    One,
    /// Whole rows, the first and the last of them.
    Rows(usize, usize),
    /// The same columns of every row, the first and the last of them.
    Columns(usize, usize),
    /// So many at the start, without a gap.
    First(usize),
    /// So many at the end, without a gap.
    Last {
        /// Number of elements.
        count: usize,
        /// Number of workgroups, if the last one could have written these and no others.
        groups: Option<usize>,
    },
    /// From one to another, without a gap.
    Run(usize, usize),
    /// In each group of `every` elements those from `from` to `to`, and no others: one lane, if
    /// these are the same.
    Stripe {
        /// Elements of a group, a power of two.
        every: usize,
        /// The first in the group.
        from: usize,
        /// The last in the group.
        to: usize,
    },
    /// Some of those at `at` in groups of `every` elements.
    Lane {
        /// Elements of a group, a power of two.
        every: usize,
        /// Which one of the group.
        at: usize,
    },
    /// No pattern, between one and another.
    Scattered(usize, usize),
}

/// An output whose elements are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Number of elements.
    pub len: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Elements that the kernel had to write.
    pub judged: usize,
    /// Workgroups of the dispatch.
    pub groups: usize,
}

impl Place {
    /// The pattern of these wrong elements, which are in rising order and at least one.
    pub fn of(wrong: &[usize], field: Field) -> Self {
        let Field { len, cols, judged, groups } = field;
        let (Some(&first), Some(&last)) = (wrong.first(), wrong.last()) else {
            return Self::Scattered(0, 0);
        };
        let count = wrong.len();
        let gapless = last - first + 1 == count;
        let rows = len.checked_div(cols).unwrap_or(0);
        let table = rows > 1 && cols > 1;
        if count == judged {
            Self::All
        } else if count == 1 {
            Self::One
        } else if table && gapless && first.is_multiple_of(cols) && count.is_multiple_of(cols) {
            Self::Rows(first / cols, last / cols)
        } else if gapless && last + 1 == len {
            let own = groups > 1 && count <= len.div_ceil(groups);
            Self::Last { count, groups: own.then_some(groups) }
        } else if gapless && first == 0 {
            Self::First(count)
        } else if gapless {
            Self::Run(first, last)
        } else if let Some((from, to)) = table.then(|| stripe(wrong, len, cols)).flatten() {
            Self::Columns(from, to)
        } else {
            Self::repeated(wrong, len).unwrap_or(Self::Scattered(first, last))
        }
    }

    /// A pattern that repeats: the narrowest stripe, or else the widest group with one lane.
    fn repeated(wrong: &[usize], len: usize) -> Option<Self> {
        let widths = || (1..).map(|log| 1 << log).take_while(|&every| every <= WIDEST.min(len / 2));
        if let Some((every, (from, to))) =
            widths().find_map(|every| Some((every, stripe(wrong, len, every)?)))
        {
            return Some(Self::Stripe { every, from, to });
        }
        let lane = |every: &usize| wrong.iter().all(|i| i % every == wrong[0] % every);
        let every = widths().take_while(lane).last().filter(|&every| every > 2)?;
        (wrong.len() > 2).then_some(Self::Lane { every, at: wrong[0] % every })
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::One => "one",
            Self::Rows(..) => "rows",
            Self::Columns(..) => "columns",
            Self::First(_) => "first",
            Self::Last { .. } => "last",
            Self::Run(..) => "run",
            Self::Stripe { from, to, .. } if from == to => "every",
            Self::Stripe { .. } => "stripe",
            Self::Lane { .. } => "lane",
            Self::Scattered(..) => "scattered",
        }
    }

    /// As JSON: the name of the pattern, and a sentence.
    pub fn json(self) -> Value {
        json!({ "pattern": self.name(), "text": self.to_string() })
    }
}

/// The first and the last of the places in groups of `every` elements at which all elements are
/// wrong, if these are neighbours, not the whole group, and no other element is wrong.
fn stripe(wrong: &[usize], len: usize, every: usize) -> Option<(usize, usize)> {
    let mut counts = vec![0; every];
    for i in wrong {
        counts[i % every] += 1;
    }
    let whole = |at: usize| len / every + usize::from(at < len % every);
    let from = counts.iter().position(|&count| count > 0)?;
    let to = counts.iter().rposition(|&count| count > 0)?;
    let full = (from..=to).all(|at| counts[at] == whole(at));
    (full && to - from + 1 < every).then_some((from, to))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |f: &mut fmt::Formatter<'_>, what: &str, from: usize, to: usize| {
            if from == to {
                write!(f, "{what} {from}")
            } else {
                write!(f, "{what}s {from} to {to}")
            }
        };
        match *self {
            Self::All => f.write_str("all of them"),
            Self::One => f.write_str("this one alone"),
            Self::Rows(from, to) => {
                several(f, "row", from, to)?;
                f.write_str(", whole, and no other")
            }
            Self::Columns(from, to) => {
                several(f, "column", from, to)?;
                f.write_str(" of every row, and no other")
            }
            Self::First(count) => write!(f, "the first {count}"),
            Self::Last { count, groups: None } => write!(f, "the last {count}"),
            Self::Last { count, groups: Some(groups) } => {
                write!(f, "the last {count}, which may be those of the last of {groups} workgroups")
            }
            Self::Run(from, to) => write!(f, "numbers {from} to {to}, without a gap"),
            Self::Stripe { every, from, to } if from == to => {
                let what = if every <= 4 { "component of vectors" } else { "lane" };
                write!(f, "number {from} of every {every}, as of one {what}")
            }
            Self::Stripe { every, from, to } => {
                write!(f, "numbers {from} to {to} of every {every}: a stripe")
            }
            Self::Lane { every, at } => {
                write!(f, "some, but each is number {at} of a group of {every}")
            }
            Self::Scattered(from, to) => {
                write!(f, "scattered between numbers {from} and {to}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(len: usize, cols: usize, wrong: impl Fn(usize) -> bool) -> Place {
        let wrong: Vec<usize> = (0..len).filter(|&i| wrong(i)).collect();
        Place::of(&wrong, Field { len, cols, judged: len, groups: 4 })
    }

    #[test]
    fn patterns_are_recognized() {
        assert_eq!(of(100, 10, |_| true), Place::All);
        assert_eq!(of(100, 10, |i| i == 7), Place::One);
        assert_eq!(of(100, 10, |i| i / 10 == 3), Place::Rows(3, 3));
        assert_eq!(of(100, 10, |i| i / 10 > 7), Place::Rows(8, 9));
        assert_eq!(of(100, 10, |i| (2..5).contains(&(i % 10))), Place::Columns(2, 4));
        assert_eq!(of(100, 100, |i| i < 5), Place::First(5));
        assert_eq!(of(100, 100, |i| i > 79), Place::Last { count: 20, groups: Some(4) });
        assert_eq!(of(100, 100, |i| i > 49), Place::Last { count: 50, groups: None });
        assert_eq!(of(100, 100, |i| (30..40).contains(&i)), Place::Run(30, 39));
        assert_eq!(of(102, 102, |i| i % 8 == 3), Place::Stripe { every: 8, from: 3, to: 3 });
        assert_eq!(of(102, 102, |i| i % 32 > 27), Place::Stripe { every: 32, from: 28, to: 31 });
        assert_eq!(of(256, 256, |i| i % 16 == 5 && i != 37), Place::Lane { every: 16, at: 5 });
        assert_eq!(of(256, 256, |i| [3, 18, 200].contains(&i)), Place::Scattered(3, 200));
        assert_eq!(of(2, 1, |i| i == 1), Place::One);
    }

    /// All that had to be written is all, though other elements are right to be left alone.
    #[test]
    fn all_is_all_that_was_to_be_written() {
        let field = Field { len: 64, cols: 8, judged: 3, groups: 1 };
        assert_eq!(Place::of(&[3, 9, 20], field), Place::All);
    }

    #[test]
    fn patterns_read_well() {
        assert_eq!(Place::Rows(2, 2).to_string(), "row 2, whole, and no other");
        let lane = Place::Stripe { every: 32, from: 3, to: 3 };
        assert_eq!(lane.to_string(), "number 3 of every 32, as of one lane");
        assert_eq!(Place::Columns(2, 4).to_string(), "columns 2 to 4 of every row, and no other");
        assert_eq!(Place::Stripe { every: 8, from: 3, to: 3 }.json()["pattern"], "every");
    }
}
