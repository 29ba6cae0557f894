// Multiply-adds, many for each element: what a device computes at the most. No model runs it.
//
//     out[i] = f(f(… f(x[i]))), 4 rounds times, where f(a) = a * factor + addend
//
// An invocation has four vectors: sixteen chains, which hide the latency of each other.

struct Params {
    vectors: u32, // elements / 4
    rounds: u32,
    factor: f32,
    addend: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [len]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>; // [len]

// Invocations of a workgroup. Vectors of one invocation are as far apart.
const WIDE = 256u;

@compute @workgroup_size(WIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = group.x * 4u * WIDE + local;
    let factor = vec4(params.factor);
    let addend = vec4(params.addend);
    var a = load(first);
    var b = load(first + WIDE);
    var c = load(first + 2u * WIDE);
    var d = load(first + 3u * WIDE);
    for (var i = 0u; i < params.rounds; i += 1u) {
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        c = fma(c, factor, addend);
        d = fma(d, factor, addend);

        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        c = fma(c, factor, addend);
        d = fma(d, factor, addend);

        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        c = fma(c, factor, addend);
        d = fma(d, factor, addend);

        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        c = fma(c, factor, addend);
        d = fma(d, factor, addend);
    }
    store(first, a);
    store(first + WIDE, b);
    store(first + 2u * WIDE, c);
    store(first + 3u * WIDE, d);
}

fn load(at: u32) -> vec4<f32> {
    if at < params.vectors {
        return x[at];
    }
    return vec4(0.0);
}

fn store(at: u32, value: vec4<f32>) {
    if at < params.vectors {
        out[at] = value;
    }
}
