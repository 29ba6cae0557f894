// Where rows of x begin.
// Takes from the kernel: x_row.

// First quads of four rows of x, from the part's row `skip` on. Rows beyond its end are clamped to
// its last.
fn starts_of(part: Part, skip: u32) -> vec4<u32> {
    let at = min(part.begin + skip + vec4(0u, 1u, 2u, 3u), vec4(part.end - 1u));
    return 2u * params.cols8 * vec4(x_row(at.x), x_row(at.y), x_row(at.z), x_row(at.w));
}
