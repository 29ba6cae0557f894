// Pages of the KV cache. The kernel's `table` has the page of each PAGE positions of each sequence.

// Positions of a page. Blocks of attention divide it, so that a block has one page.
const PAGE: u32 = 32u;

// Where the cache holds a position of the sequence whose pages begin at `pages` in the table.
fn slot_of(pages: u32, pos: u32) -> u32 {
    return table[pages + pos / PAGE] * PAGE + pos % PAGE;
}
