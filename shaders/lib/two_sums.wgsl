// Two dot products are summed over lanes at once.

alias Sum = vec2<f32>;

fn sum_of(first: f32, second: f32) -> Sum {
    return vec2(first, second);
}

fn finish_sum(at: u32, sum: Sum) -> f32 {
    return finish(at, sum.x, sum.y);
}
