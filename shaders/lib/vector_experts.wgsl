// A matrix-vector product whose items are tokens. Each is the sum over its chosen experts, which
// have activations of their own, weighted by the router. The kernel binds `ids` and `probs`.
// Links: lib/term.wgsl.

fn terms() -> u32 {
    return params.chosen;
}

fn term_of(item: u32, i: u32) -> Term {
    let choice = item * params.chosen + i;
    return Term(choice, ids[choice] * params.rows, probs[choice]);
}
