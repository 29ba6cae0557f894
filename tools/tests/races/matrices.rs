//! Small programs with matrices that subgroups hold, to prove that the interpreter multiplies right
//! and detects what goes wrong with them.

use grok_wgpu::lab::machine::host::POISON;
use grok_wgpu_tools::interpret::{Memory, Program, Subgroups, dispatch};

/// Elements of a matrix.
const ALL: usize = 256;

/// Faults and output of a program with a workgroup of 64 invocations, two subgroups of 32. `a` and
/// `b` are halves of 16 x 16, `c` has two such matrices in f32, one for each subgroup; the program
/// stores in it what it multiplies, and it is copied to the output.
fn run(body: &str) -> (Vec<String>, Vec<f32>) {
    let source = format!(
        "enable f16;
         enable wgpu_cooperative_matrix;
         @group(0) @binding(0) var<uniform> params: vec4<u32>;
         @group(0) @binding(1) var<storage, read_write> out: array<f32>;
         alias Left = coop_mat16x16<f16, A>;
         alias Right = coop_mat16x16<f16, B>;
         alias Sum = coop_mat16x16<f32, C>;
         var<workgroup> a: array<f16, 256>;
         var<workgroup> b: array<vec4<f16>, 64>;
         var<workgroup> c: array<f32, 512>;
         @compute @workgroup_size(64)
         fn main(
             @builtin(local_invocation_index) local: u32,
             @builtin(subgroup_id) subgroup: u32,
             @builtin(num_subgroups) subgroups: u32,
         ) {{
             let own = 256u * subgroup;
             for (var i = local; i < 256u; i += 64u) {{ a[i] = f16(i % 7u); }}
             b[local] = vec4(f16(local % 5u), 1.0h, 0.5h, f16(local % 3u));
             {body}
             workgroupBarrier();
             for (var i = local; i < 512u; i += 64u) {{ out[i] = c[i]; }}
         }}"
    );
    let program = Program::parse(&source, &[]).unwrap_or_else(|error| panic!("{error}"));
    let bindings =
        vec![Memory::constant(vec![16, 0, 1, 2]), Memory::shadowed(vec![POISON; 2 * ALL], POISON)];
    let (faults, memories) = dispatch(&program, bindings, [1, 1, 1], Subgroups::InOrder(32))
        .unwrap_or_else(|error| panic!("{body}: {error}"));
    let output = memories[1].words().iter().map(|&word| f32::from_bits(word)).collect();
    (faults.into_iter().collect(), output)
}

const LOADS: &str = "let left = coopLoadT<Left>(&a[0], 16u);
    let right = coopLoad<Right>(&b[0], 4u);";
const STORE: &str = "coopStoreT(coopMultiplyAdd(left, right, Sum()), &c[own], 16u);";

#[test]
fn a_product_is_right() {
    let small = |i: usize| f32::from(u16::try_from(i).expect("it is small"));
    let a = |row: usize, k: usize| small((16 * row + k) % 7);
    // Columns of the right matrix lie one after the other, four quads each.
    let b = |k: usize, column: usize| match (4 * column + k / 4, k % 4) {
        (quad, 0) => small(quad % 5),
        (_, 1) => 1.0,
        (_, 2) => 0.5,
        (quad, _) => small(quad % 3),
    };
    let sum = |row, column| (0..16).map(|k| a(row, k) * b(k, column)).sum::<f32>();

    let (faults, output) = run(&format!("workgroupBarrier(); {LOADS} {STORE}"));
    assert!(faults.is_empty(), "{faults:#?}");
    let wanted: Vec<f32> = (0..ALL).map(|i| sum(i / 16, i % 16)).collect();
    assert_eq!(output, [wanted.clone(), wanted.clone()].concat());

    // By columns, and added to itself.
    let twice = "var sum = coopMultiplyAdd(left, right, Sum());
        sum = sum + coopMultiplyAdd(left, right, sum);
        coopStore(sum, &c[own], 16u);";
    let (faults, output) = run(&format!("workgroupBarrier(); {LOADS} {twice}"));
    assert!(faults.is_empty(), "{faults:#?}");
    let wanted: Vec<f32> = (0..ALL).map(|i| 3.0 * sum(i % 16, i / 16)).collect();
    assert_eq!(output[..ALL], wanted);
}

/// Expects a fault that begins with `what`.
#[track_caller]
fn caught(what: &str, body: &str) {
    let (found, _) = run(body);
    assert!(found.iter().any(|one| one.starts_with(what)), "wanted {what}: {found:#?}");
}

#[test]
fn wrong_matrices_are_caught() {
    let after = |rest: &str| format!("workgroupBarrier(); {LOADS} {rest}");
    // Which invocation reads or writes which element is up to the device.
    caught("a race on `a`", &format!("{LOADS} workgroupBarrier(); {STORE}"));
    caught("a race on `c`", &after("coopStoreT(coopMultiplyAdd(left, right, Sum()), &c[0], 16u);"));
    caught("a race on `c`", &after(&format!("{STORE} c[local] = 1.0;")));
    caught("a race on `c`", &after(&format!("{STORE} {STORE}")));
    caught("a race on `a`", &after(&format!("{STORE} a[local] = 1.0h;")));
    let end = "a matrix past the end of its array";
    caught(end, &after("let at = own + 16u; coopStoreT(Sum(), &c[at], 16u);"));
    caught(end, &after("coopStoreT(Sum(), &c[own], 32u);"));
    let rows = "a matrix with rows at no multiple of 16 bytes";
    caught(rows, &after("let at = 2u * subgroup; coopStoreT(Sum(), &c[at], 16u);"));
    caught(rows, &after("coopStoreT(Sum(), &c[0], 18u);"));
    let part = "matrices that not all invocations of a subgroup reach";
    caught(part, &after("if local % 2u == 0u { coopStoreT(Sum(), &c[own], 16u); }"));
    let differ = "a matrix at places that differ in a subgroup";
    caught(differ, &after("let at = local / 16u * 4u; coopStoreT(Sum(), &c[at], 16u);"));
}
