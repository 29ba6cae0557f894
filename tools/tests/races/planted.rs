//! Small programs with one fault each, to prove that the interpreter detects it.

use grok_wgpu::lab::machine::host::POISON;
use grok_wgpu_tools::interpret::{Memory, Program, Subgroups, dispatch};

/// Faults of a program with 64 invocations in each of two workgroups. Inputs count from 0; the
/// output has 128 words.
fn faults(declarations: &str, body: &str) -> Vec<String> {
    run(declarations, body, Subgroups::InOrder(8)).0
}

/// Faults and output with these subgroups.
fn run(declarations: &str, body: &str, subgroups: Subgroups) -> (Vec<String>, Vec<u32>) {
    let source = format!(
        "@group(0) @binding(0) var<uniform> params: vec4<u32>;
         @group(0) @binding(1) var<storage, read> x: array<u32>;
         @group(0) @binding(2) var<storage, read_write> out: array<u32>;
         var<workgroup> tile: array<u32, 64>;
         {declarations}
         @compute @workgroup_size(64)
         fn main(
             @builtin(workgroup_id) group: vec3<u32>,
             @builtin(local_invocation_index) local: u32,
             @builtin(subgroup_invocation_id) lane: u32,
             @builtin(subgroup_size) size: u32,
         ) {{
             let at = 64u * group.x + local;
             {body}
         }}"
    );
    let program = Program::parse(&source, &[]).expect("the program is valid");
    let bindings = vec![
        Memory::constant(vec![64, 0, 1, 2]),
        Memory::constant((0..128).collect()),
        Memory::shadowed(vec![POISON; 128], POISON),
    ];
    let (faults, memories) =
        dispatch(&program, bindings, [2, 1, 1], subgroups).expect("it can be interpreted");
    (faults.into_iter().collect(), memories[2].words().to_vec())
}

#[track_caller]
fn clean(declarations: &str, body: &str) {
    let found = faults(declarations, body);
    assert!(found.is_empty(), "{found:#?}");
}

/// Expects exactly one fault, which begins with `what`.
#[track_caller]
fn caught(what: &str, declarations: &str, body: &str) {
    let found = faults(declarations, body);
    assert!(matches!(&found[..], [one] if one.starts_with(what)), "wanted {what}: {found:#?}");
}

#[test]
fn right_programs_are_clean() {
    clean("", "out[at] = x[at];");
    clean("", "tile[local] = x[at]; workgroupBarrier(); out[at] = tile[63u - local];");
    clean("", "tile[local] = x[at]; out[at] = tile[local];");
    // Several invocations may read the same word, and barriers may be in uniform loops and
    // functions.
    clean(
        "fn turn(local: u32) { workgroupBarrier(); let a = tile[63u - local];
            workgroupBarrier(); tile[local] = a; }",
        "tile[local] = x[at];
         for (var i = 0u; i < params.w; i++) { turn(local); }
         workgroupBarrier(); out[at] = tile[0];",
    );
    clean("", "if local == 0u { tile[0] = 7u; } out[at] = workgroupUniformLoad(&tile[0]);");
    clean(
        "",
        "if group.x == 1u { return; } tile[local] = at; workgroupBarrier(); out[at] = tile[0];",
    );
}

#[test]
fn races_in_a_workgroup_are_caught() {
    caught("a race on `tile`", "", "tile[local] = x[at]; out[at] = tile[63u - local];");
    // Writes of equal values are a race too.
    caught("a race on `tile`", "", "tile[0] = 1u; out[at] = local;");
    // A read, then a write by another invocation.
    caught(
        "a race on `tile`",
        "",
        "tile[local] = x[at]; workgroupBarrier();
         let a = tile[63u - local]; tile[local] = a; out[at] = a;",
    );
    // An access after a loop's last barrier races with the next round.
    caught(
        "a race on `tile`",
        "",
        "for (var i = 0u; i < 2u; i++) {
             tile[local] = x[at] + i; workgroupBarrier(); out[at] = tile[63u - local];
         }",
    );
    // A plain read in place of `workgroupUniformLoad`.
    caught(
        "a race on `tile`",
        "",
        "if local == 0u { tile[0] = 7u; } if local == 1u { out[at] = tile[0]; }",
    );
}

#[test]
fn races_in_storage_are_caught() {
    // No barrier orders two workgroups.
    caught("a race on `out`", "", "out[local] = x[at];");
    caught("a race on `out`", "", "out[at / 2u] = x[at];");
    // `workgroupBarrier` does not order storage.
    caught(
        "a race on `out`",
        "",
        "out[at] = x[at]; workgroupBarrier(); \
         let a = out[64u * group.x + 63u - local]; tile[local] = a;",
    );
}

#[test]
fn divergent_barriers_are_caught() {
    let what = "a barrier that not all invocations";
    // Some invocations have returned, branch around the barrier, or leave a loop early.
    caught(what, "", "if local >= params.w { return; } workgroupBarrier(); out[at] = 1u;");
    caught(what, "", "if x[at] > 20u { workgroupBarrier(); } out[at] = 1u;");
    caught(what, "", "for (var i = 0u; i < local; i++) { workgroupBarrier(); } out[at] = 1u;");
    caught(
        what,
        "",
        "loop { if x[local] < 9u { break; } workgroupBarrier(); break; } out[at] = 1u;",
    );
}

#[test]
fn accesses_out_of_bounds_are_caught() {
    caught("index 128 of 128 elements: `out[at] = x[at + 1u];`", "", "out[at] = x[at + 1u];");
    caught(
        "index 64 of 64 elements",
        "",
        "tile[local] = 1u; workgroupBarrier(); out[at] = tile[local + group.x];",
    );
    caught("index 4294967295 of 128 elements", "", "out[at] = x[at - 1u];");
    caught("index 4 of 4 elements", "", "if local == 4u { out[at] = params[local]; }");
}

#[test]
fn reads_of_what_nobody_wrote_are_caught() {
    caught("a read of `tile` where nobody wrote", "", "out[at] = tile[local];");
    caught("a read of `out` where nobody wrote", "", "tile[local] = out[at];");
    caught(
        "a read of `tile` where nobody wrote",
        "",
        // Workgroup memory does not keep values of an earlier workgroup.
        "if group.x == 0u { tile[local] = 1u; } out[at] = tile[local];",
    );
}

#[test]
fn undefined_arithmetic_is_caught() {
    caught("division by zero", "", "out[at] = 7u / x[at];");
    caught("division by zero", "", "out[at] = 7u % x[at];");
    caught("a shift by 32 or more", "", "if at < 33u { out[at] = 1u << x[at]; }");
}

/// Expects exactly one fault, which begins with `what`, however subgroups are formed.
#[track_caller]
fn caught_in_subgroups(what: &str, body: &str) {
    for subgroups in [Subgroups::InOrder(8), Subgroups::Scattered(8), Subgroups::Scattered(16)] {
        let (found, _) = run("", body, subgroups);
        assert!(
            matches!(&found[..], [one] if one.starts_with(what)),
            "wanted {what} of {subgroups:?}: {found:#?}"
        );
    }
}

#[test]
fn shuffles_give_what_others_have() {
    let from = |body: &str, subgroups| {
        let (faults, output) = run("", body, subgroups);
        assert!(faults.is_empty(), "{faults:#?}");
        output[..64].to_vec()
    };
    let (in_order, scattered) = (Subgroups::InOrder(8), Subgroups::Scattered(16));
    let expected = |f: fn(u32) -> u32| (0..64).map(f).collect::<Vec<u32>>();

    let third = "out[at] = subgroupShuffle(x[at], 3u);";
    assert_eq!(from(third, in_order), expected(|i| i / 8 * 8 + 3));
    // Four subgroups. The first has the invocations 63, 59, ..., 3, with ids 0, 1, ..., 15.
    assert_eq!(from(third, scattered), expected(|i| i % 4 + 48));
    assert_eq!(from("out[at] = lane;", in_order), expected(|i| i % 8));
    assert_eq!(from("out[at] = lane;", scattered), expected(|i| 15 - i / 4));
    assert_eq!(from("out[at] = size;", scattered), expected(|_| 16));
    // Each invocation may read from a different one.
    let turned = "out[at] = subgroupShuffle(x[at], size - 1u - lane);";
    assert_eq!(from(turned, in_order), expected(|i| i / 8 * 8 + 7 - i % 8));
    let summed = "var sum = x[at];
        for (var half = size / 2u; half > 0u; half >>= 1u) { sum += subgroupShuffleXor(sum, half); }
        out[at] = sum;";
    assert_eq!(from(summed, in_order), expected(|i| i / 8 * 64 + 28));
    assert_eq!(from(summed, scattered), expected(|i| 16 * (i % 4) + 4 * 120));
    // Subgroups may diverge from each other: control flow is uniform within each.
    let apart =
        "if local / 8u == 2u { out[at] = subgroupShuffle(local, 1u); } else { out[at] = 0u; }";
    assert_eq!(from(apart, in_order), expected(|i| if i / 8 == 2 { 17 } else { 0 }));
}

#[test]
fn wrong_shuffles_are_caught() {
    let alone = "a shuffle that not all invocations of a subgroup reach";
    caught_in_subgroups(alone, "if lane < 4u { out[at] = subgroupShuffle(x[at], 0u); }");
    caught_in_subgroups(alone, "if lane > 0u { return; } out[at] = subgroupShuffleXor(at, 1u);");
    caught_in_subgroups(
        alone,
        "for (var i = 0u; i < lane; i++) { out[at] = subgroupShuffle(i, 0u); }",
    );
    // An invocation's subgroup does not follow from its index in the workgroup.
    let (found, _) = run(
        "",
        "if local / 8u == 2u { out[at] = subgroupShuffle(local, 1u); }",
        Subgroups::Scattered(8),
    );
    assert!(matches!(&found[..], [one] if one.starts_with(alone)), "{found:#?}");

    caught_in_subgroups("a shuffle from invocation ", "out[at] = subgroupShuffle(at, size);");
    caught_in_subgroups("a shuffle from invocation ", "out[at] = subgroupShuffleXor(at, size);");
    caught(
        "a shuffle from invocation 12 of subgroups of 8",
        "",
        "out[at] = subgroupShuffle(at, 12u);",
    );
    caught_in_subgroups(
        "a shuffle by masks that differ in a subgroup",
        "out[at] = subgroupShuffleXor(at, lane % 2u);",
    );
    let (found, _) = run("", "out[at] = subgroupShuffle(at, 64u);", Subgroups::InOrder(128));
    let missing = "a shuffle from an invocation that the workgroup does not have";
    assert!(matches!(&found[..], [one] if one.starts_with(missing)), "{found:#?}");
}

/// A shuffle does not order memory: without a barrier, writes are not visible to other invocations.
#[test]
fn shuffles_are_no_barriers() {
    caught(
        "a race on `tile`",
        "",
        "tile[local] = x[at]; let a = subgroupShuffle(local, 7u - lane); out[at] = tile[a];",
    );
}
