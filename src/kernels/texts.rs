//! Steps of several texts, for test rows: which token is where, and on which pages.

use std::fmt;

use crate::{
    base::tensor::Tensor,
    machine::{
        host::Host,
        step::{self, PAGE, RowRecord},
    },
};

/// The rows of a step, and the page table of their texts.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    pub(super) rows: Vec<RowRecord>,
    pub(super) table: Vec<u32>,
}

/// The record of such a step, as tensors.
pub(super) struct Staged {
    pub(super) step: Tensor,
    pub(super) rows: Tensor,
    pub(super) tiles: Tensor,
    pub(super) table: Tensor,
}

impl Texts {
    /// Texts with so many rows each, from a position on, one text after another. Their pages are
    /// scattered over a cache that is just large enough.
    pub(super) fn new(texts: &[(u32, u32)]) -> Self {
        let (mut rows, mut pages) = (Vec::new(), 0);
        for (sequence, &(pos, count)) in (0..).zip(texts) {
            rows.extend(step::rows_of(sequence, pages, pos..pos + count));
            pages += (pos + count).div_ceil(PAGE);
        }
        Self { rows, table: scattered(pages) }
    }

    /// One text.
    pub(super) fn one(pos: u32, rows: u32) -> Self {
        Self::new(&[(pos, rows)])
    }

    /// The same rows in another order: the texts take turns.
    pub(super) fn by_turns(mut self) -> Self {
        let first = |row: &RowRecord| {
            let of_text = self.rows.iter().filter(|other| other.sequence == row.sequence);
            of_text.map(|other| other.position).min().unwrap_or_default()
        };
        let mut turns: Vec<(u32, RowRecord)> =
            self.rows.iter().map(|row| (row.position - first(row), *row)).collect();
        turns.sort_by_key(|&(turn, _)| turn);
        self.rows = turns.into_iter().map(|(_, row)| row).collect();
        self
    }

    /// The same texts on other pages: the pages of all texts, one text after another.
    pub(super) fn on(self, table: impl IntoIterator<Item = u32>) -> Self {
        let table: Vec<u32> = table.into_iter().collect();
        assert_eq!(table.len(), self.table.len(), "a row gave the wrong number of pages");
        Self { table, ..self }
    }

    /// Slots of the smallest cache that has all of the pages.
    pub(super) fn slots(&self) -> u32 {
        PAGE * (1 + self.table.iter().max().expect("there are pages"))
    }

    /// Where the cache holds a position of the text that has this row.
    pub(super) fn slot(&self, row: usize, position: u32) -> u32 {
        step::slot_of(&self.table, self.rows[row].table, position)
    }

    /// Runs of rows of one text side by side.
    pub(super) fn runs(&self) -> u32 {
        let runs = self.rows.chunk_by(|a, b| a.sequence == b.sequence).count();
        u32::try_from(runs).expect("few rows")
    }

    /// Number of rows.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("few rows")
    }

    /// Writes the record of the step, in tiles of at most `tile` rows.
    pub(super) fn stage(&self, host: &mut Host, tile: u32) -> Staged {
        let tiles = step::tiles_of(&self.rows, tile);
        let pages = u32::try_from(self.table.len()).expect("few pages");
        Staged {
            step: host
                .ints_from([step::STEP_LEN], step::header(tiles.len(), self.rows.len()).to_vec()),
            rows: host.records(&self.rows),
            tiles: host.records(&tiles),
            table: host.ints_from([pages], self.table.clone()),
        }
    }
}

impl fmt::Display for Texts {
    /// Sequence and position of each row, as in `0:5-6 1:30`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.rows.chunk_by(|a, b| a.sequence == b.sequence);
        for (i, run) in runs.enumerate() {
            let (first, last) = (run[0], run[run.len() - 1]);
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{}:{}", first.sequence, first.position)?;
            if run.len() > 1 {
                write!(f, "-{}", last.position)?;
            }
        }
        Ok(())
    }
}

/// The numbers below `count` in an order that keeps no two neighbours together, where it can.
fn scattered(count: u32) -> Vec<u32> {
    let divides = |n: u32, d: u32| n.is_multiple_of(d);
    let coprime = |a: u32| (2..=a).all(|d| !(divides(a, d) && divides(count, d)));
    let stride = (count / 2 + 1..=count + 1).find(|&a| coprime(a)).unwrap_or(1);
    (0..count).map(|i| (i * stride + count / 2) % count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_all_there_and_scattered() {
        for count in 1..200 {
            let mut pages = scattered(count);
            let neighbours = pages.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
            assert!(neighbours == 0 || count < 3, "{count}: {pages:?}");
            pages.sort_unstable();
            assert_eq!(pages, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn texts_take_turns() {
        let texts = Texts::new(&[(30, 3), (5, 1), (0, 2)]).by_turns();
        let of: Vec<(u32, u32)> =
            texts.rows.iter().map(|row| (row.sequence, row.position)).collect();
        assert_eq!(of, [(0, 30), (1, 5), (2, 0), (0, 31), (2, 1), (0, 32)]);
        assert_eq!(texts.rows.iter().map(|row| row.table).collect::<Vec<_>>(), [0, 2, 3, 0, 3, 0]);
        assert_eq!((texts.slots(), texts.runs()), (4 * PAGE, 6));
    }
}
