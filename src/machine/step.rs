//! The record of a step: the parameters that change from pass to pass.
//!
//! It has a header, which many kernels read, and two lists, of which a kernel binds the one that it
//! needs: a record for each row, and one for each tile of rows that attention takes at once. The
//! lists are uniforms: `WebGPU`'s uniformity analysis lets loops with barriers depend on them.

use bytemuck::{Pod, Zeroable};

/// Words of the header: how many tiles, how many rows are real, and two that no kernel reads.
///
/// A plan is recorded for a fixed number of rows; a step may fill fewer. Rows beyond are padding:
/// kernels with side effects (the cache) or data-dependent work (experts) skip them.
pub const STEP_LEN: u32 = 4;

/// Most rows, and most tiles, of a step: what fits the 64 KiB that every device can bind as a
/// uniform.
pub const RECORDS: u32 = 4096;

/// Positions of a page of the KV cache. Every block of attention divides it, so that a block has
/// one page.
pub const PAGE: u32 = 32;

/// Most splits that a row's attention has.
pub const SPLITS: u32 = 32;

/// A row of a step: a token of some sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RowRecord {
    /// Its position in its sequence.
    pub position: u32,
    /// Where its sequence's pages begin in the page table.
    pub table: u32,
    /// For later use; 0.
    pub flags: u32,
    /// The number of its sequence in the step. Tiles are cut by it.
    pub sequence: u32,
}

/// Consecutive rows of one sequence, at consecutive positions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TileRecord {
    /// The first row.
    pub first: u32,
    /// How many there are.
    pub rows: u32,
    /// Position of the first.
    pub position: u32,
    /// Where their sequence's pages begin in the page table.
    pub table: u32,
}

/// The rows of tokens of one sequence at these positions.
pub fn rows_of(
    sequence: u32,
    table: u32,
    positions: std::ops::Range<u32>,
) -> impl Iterator<Item = RowRecord> {
    positions.map(move |position| RowRecord { position, table, flags: 0, sequence })
}

/// Where the cache holds a position of the text whose pages begin at `first` in the page table.
///
/// # Panics
///
/// If the table has no page for it.
pub fn slot_of(table: &[u32], first: u32, position: u32) -> u32 {
    table[(first + position / PAGE) as usize] * PAGE + position % PAGE
}

/// Cuts rows into tiles of at most `most` each, in the order of the rows.
///
/// # Panics
///
/// If there are more rows than a step can have.
pub fn tiles_of(rows: &[RowRecord], most: u32) -> Vec<TileRecord> {
    let mut tiles: Vec<TileRecord> = Vec::new();
    let mut before = None;
    for (at, row) in rows.iter().enumerate() {
        let goes_on = before.is_some_and(|before: &RowRecord| {
            (before.sequence, before.position + 1) == (row.sequence, row.position)
        });
        before = Some(row);
        match tiles.last_mut() {
            Some(tile) if goes_on && tile.rows < most => tile.rows += 1,
            _ => tiles.push(TileRecord {
                first: u32::try_from(at).expect("a step has at most RECORDS rows"),
                rows: 1,
                position: row.position,
                table: row.table,
            }),
        }
    }
    tiles
}

/// Most tiles of `most` rows each that `rows` rows of up to `sequences` sequences are cut into, if
/// the rows of a sequence are side by side.
pub fn most_tiles(rows: u32, most: u32, sequences: u32) -> u32 {
    rows.min(rows.div_ceil(most) + sequences.saturating_sub(1))
}

/// The header of a step with so many tiles and real rows.
///
/// # Panics
///
/// If there are more than a step can have.
pub fn header(tiles: usize, rows: usize) -> [u32; STEP_LEN as usize] {
    let count = |len: usize| u32::try_from(len).expect("a step has at most RECORDS rows");
    [count(tiles), count(rows), 0, 0]
}

/// Positions of a split of attention for the row at `position`: at least `least`, and so many that
/// there are at most [`SPLITS`] of them. A power of two if `least` is. It depends on the row's own
/// position alone, so that neighbours and plans change no bits.
pub fn split_len(position: u32, least: u32) -> u32 {
    (position / SPLITS + 1).next_power_of_two().max(least)
}

/// Splits up to the row's own position.
pub fn splits(position: u32, least: u32) -> u32 {
    position / split_len(position, least) + 1
}

/// Most splits of rows at positions below `positions`.
pub fn most_splits(positions: u32, least: u32) -> u32 {
    positions.div_ceil(least).clamp(1, SPLITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_neighbours_of_one_sequence() {
        let rows: Vec<RowRecord> = rows_of(0, 0, 5..10)
            .chain(rows_of(1, 4, 10..12))
            // The same sequence, elsewhere; then another at the position that would follow.
            .chain(rows_of(1, 4, 40..41))
            .chain(rows_of(0, 0, 41..44))
            .collect();
        let tile = |first, rows, position, table| TileRecord { first, rows, position, table };
        assert_eq!(
            tiles_of(&rows, 3),
            [
                tile(0, 3, 5, 0),
                tile(3, 2, 8, 0),
                tile(5, 2, 10, 4),
                tile(7, 1, 40, 4),
                tile(8, 3, 41, 0),
            ]
        );
        let single = tiles_of(&rows, 1);
        assert_eq!(single.len(), rows.len());
        assert!(single.iter().zip(&rows).all(|(tile, row)| tile.position == row.position));
        assert_eq!(tiles_of(&[], 8), []);
    }

    #[test]
    fn no_step_has_more_tiles_than_foreseen() {
        for most in [1, 2, 3, 32] {
            for sequences in 1..5 {
                for each in 1..70 {
                    let rows: Vec<RowRecord> =
                        (0..sequences).flat_map(|i| rows_of(i, 0, 0..each + i)).collect();
                    let count = u32::try_from(rows.len()).expect("few");
                    let tiles = tiles_of(&rows, most).len();
                    assert!(tiles <= most_tiles(count, most, sequences) as usize);
                }
            }
        }
        assert_eq!(most_tiles(256, 32, 1), 8);
        assert_eq!(most_tiles(3, 32, 8), 3);
    }

    #[test]
    fn splits_are_few_and_whole_pages() {
        let least = (5..=10).map(|bits| 1 << bits);
        let far = [8191, 8192, 131_071, 131_072, 1 << 20, u32::MAX];
        for (least, position) in
            least.flat_map(|least| (0..5000).chain(far).map(move |p| (least, p)))
        {
            let len = split_len(position, least);
            assert!(len.is_power_of_two() && len.is_multiple_of(PAGE), "{position}: {len}");
            let count = splits(position, least);
            assert!((1..=SPLITS).contains(&count), "{position}: {count} splits");
            assert!(len == least || count > SPLITS / 2, "{position}: {count} splits of {len}");
            assert!(count <= most_splits(position.saturating_add(1), least), "{position}");
        }
        assert_eq!(splits(4095, 32), SPLITS);
        assert_eq!([0, 31, 32, 1023, 1024].map(|p| splits(p, 32)), [1, 1, 2, 32, 17]);
        assert_eq!([0, 127, 128, 4095, 4096].map(|p| splits(p, 128)), [1, 1, 2, 32, 17]);
    }
}
