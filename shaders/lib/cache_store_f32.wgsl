// Rows of the KV cache as f32. Every lib/cache_store_*.wgsl declares the same things, and uses the
// kernel's `Row`, `element` and `put`.

// Elements of a row that one invocation stores.
const UNIT: u32 = 1u;

// Words from one row to the next.
fn row_words(cols: u32) -> u32 {
    return cols;
}

// Stores one unit of a row.
fn store(row: Row, unit: u32) {
    put(row, unit, bitcast<u32>(element(row, unit)));
}
