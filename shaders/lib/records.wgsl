// Records of the rows and tiles of a step, and what follows from a row's position.

// Most rows, and most tiles.
const RECORDS: u32 = 4096u;

// Most splits that a row's attention has.
const SPLITS: u32 = 32u;

// A token of some sequence.
struct RowRecord {
    pos: u32,   // position in its sequence
    table: u32, // where its sequence's pages begin in the page table
    flags: u32,
    sequence: u32,
}

// Consecutive rows of one sequence, at consecutive positions.
struct TileRecord {
    first: u32, // row
    rows: u32,
    pos: u32,   // position of the first
    table: u32, // where their sequence's pages begin in the page table
}

// Positions of a split for the row at `pos`: at least `least`, a power of two, and so many that
// there are at most SPLITS of them. It depends on the row alone, so that neighbours change no bits.
fn split_len(pos: u32, least: u32) -> u32 {
    return max(least, 1u << (32u - countLeadingZeros(pos / SPLITS)));
}
