// Loads, as in lib/tile.wgsl, of a kernel's `x`, whose rows are the tokens of a step.

// Puts 32 columns from column 8 c on of `TILE` tokens in place; zeros where there are none.
fn load_x(local: u32, token: u32, c: u32) {
    for (var i = local; i < TILE * QUADS; i += TILE_WG) {
        let quad = i % QUADS;
        let t = i / QUADS;
        var v = vec4<f32>();
        if token + t < step.rows && 2u * c + quad < 2u * params.cols8 {
            v = x[2u * ((token + t) * params.cols8 + c) + quad];
        }
        x_tile[quad * TILE + t] = v;
    }
}
