// Loads, as in lib/tile.wgsl, of a kernel's `gate` and `up`, of which `params.rows` rows from a first one
// on belong together and have `params.cols8` times eight columns.

// Puts 32 columns from column 8 c on of `ROWS` rows from `row` on in place; zeros where there are none.
fn load_gate(local: u32, first: u32, row: u32, c: u32) {
    for (var i = local; i < ROWS * TILE_CHUNKS; i += TILE_WG) {
        let chunk = i % TILE_CHUNKS;
        let r = i / TILE_CHUNKS;
        let at = c / PARTS + chunk;
        if row + r < params.rows && at * PARTS < params.cols8 {
            let base = (first + row + r) * row_stride(params.cols8);
            let scale = scale_of(gate[base + scale_at(params.cols8, at)], at);
            store_w(chunk, r, gate[base + at], scale);
        } else {
            clear_w(chunk, r);
        }
    }
}

fn load_up(local: u32, first: u32, row: u32, c: u32) {
    for (var i = local; i < ROWS * TILE_CHUNKS; i += TILE_WG) {
        let chunk = i % TILE_CHUNKS;
        let r = i / TILE_CHUNKS;
        let at = c / PARTS + chunk;
        if row + r < params.rows && at * PARTS < params.cols8 {
            let base = (first + row + r) * row_stride(params.cols8);
            let scale = scale_of(up[base + scale_at(params.cols8, at)], at);
            store_w(chunk, r, up[base + at], scale);
        } else {
            clear_w(chunk, r);
        }
    }
}
