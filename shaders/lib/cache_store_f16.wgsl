// Rows of the KV cache as f16, as lib/weight_f16.wgsl reads them.
// Links: lib/half.wgsl.

// Elements of a row that one invocation stores: a word.
const UNIT: u32 = 2u;

// Words from one row to the next.
fn row_words(cols: u32) -> u32 {
    return cols / UNIT;
}

// Stores one unit of a row.
fn store(row: Row, unit: u32) {
    let low = half_of(element(row, UNIT * unit));
    let high = half_of(element(row, UNIT * unit + 1u));
    put(row, unit, low | (high << 16u));
}
