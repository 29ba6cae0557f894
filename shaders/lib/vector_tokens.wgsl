// A matrix-vector product whose items are tokens, each multiplied by the whole weight.
// Links: lib/term.wgsl.

fn terms() -> u32 {
    return 1u;
}

fn term_of(item: u32, i: u32) -> Term {
    return Term(item, 0u, 1.0);
}
