//! Bugs planted in variants that no software driver can run: the interpreter's rows must see each,
//! as those on a device must see the bugs of `tests/planted.rs`.

use std::{fs, path::Path};

use grok_wgpu::lab::{files::threads::map_on_all_cores, kernels, selftest::CaseData};
use grok_wgpu_tools::{
    interpret::{Program, Subgroups, run},
    programs::tunings_with_matrices,
};

use super::differs;

/// A bug: an edit of one shader file.
struct Bug {
    name: &'static str,
    /// Path below `shaders/`.
    file: &'static str,
    /// Text to replace; it occurs exactly once.
    find: &'static str,
    replace: &'static str,
    /// Rows that must see it, each in a wrong result.
    rows: &'static [&'static str],
}

const BUGS: &[Bug] = &[
    Bug {
        name: "the lower halves of activations are left out",
        file: "variants/coop.wgsl",
        find: "x_lower[at] = vec4<f16>(v - vec4<f32>(upper));",
        replace: "x_lower[at] = vec4<f16>();",
        rows: &["matmul/Q4 31x31x64 normal", "gated_matmul/BF16 31x31x32 normal"],
    },
    Bug {
        name: "the lower halves of weights are left out",
        file: "variants/coop.wgsl",
        find: "w_lower[at] = vec4<f16>(v - vec4<f32>(upper));",
        replace: "w_lower[at] = vec4<f16>();",
        rows: &["matmul/Q8 31x31x64 normal", "matmul/Q4 31x31x64 normal"],
    },
    Bug {
        name: "the second rows of weights have the lower halves of the first",
        file: "variants/coop.wgsl",
        find: "s01 = coopMultiplyAdd(a0, coopLoad<Right>(&w_lower[w_at + HIGH], STRIDE), s01);",
        replace: "s01 = coopMultiplyAdd(a0, coopLoad<Right>(&w_lower[w_at], STRIDE), s01);",
        rows: &["matmul/Q8 31x31x64 normal"],
    },
    Bug {
        name: "the second tokens have the sums of the first",
        file: "variants/coop.wgsl",
        find: "coopStoreT(c10, &stage[slot], 16u);",
        replace: "coopStoreT(c00, &stage[slot], 16u);",
        rows: &["matmul/Q4 32x33x288 integers"],
    },
    Bug {
        name: "a token has the power of its neighbour",
        file: "variants/coop.wgsl",
        find: "let of_x = f32(x_upper[t].x);",
        replace: "let of_x = f32(x_upper[t ^ 1u].x);",
        rows: &["matmul/Q4 31x31x64 normal"],
    },
    Bug {
        name: "a row of weights has the power of another",
        file: "variants/coop.wgsl",
        find: "let of_w = f32(x_upper[64u + r].x);",
        replace: "let of_w = f32(x_upper[64u].x);",
        rows: &["matmul/BF16 31x31x32 normal"],
    },
    Bug {
        name: "columns beyond the end are added",
        file: "variants/coop.wgsl",
        find: "let is_there = 2u * c + quad < 2u * params.cols8;",
        replace: "let is_there = true;",
        rows: &["matmul/F16 2x3x24 integers", "matmul/BF16 2x3x24 normal"],
    },
    Bug {
        name: "up has the sums of gate",
        file: "variants/coop.wgsl",
        find: "second = result(own + 256u, t, r + 32u);",
        replace: "second = result(own, t, r);",
        rows: &["gated_matmul/Q4 31x31x64 normal"],
    },
    Bug {
        name: "integers may be too large for their power",
        file: "lib/powers.wgsl",
        find: "exponent += f32(INTEGER_BITS);",
        replace: "exponent += 0.0;",
        rows: &["matmul/Q8 31x31x64 normal"],
    },
    Bug {
        name: "an infinity among activations is hidden",
        file: "lib/powers.wgsl",
        find: "(e << 23u) | QUIET, e == 255u",
        replace: "(e << 23u) | QUIET, e == 256u",
        rows: &["matmul/Q4 5 tokens, 9x40, cap 30, x Inf"],
    },
    Bug {
        name: "the largest of a row's later quads is not looked for",
        file: "lib/powers.wgsl",
        find: "quad < 2u * params.cols8; quad += 8u",
        replace: "quad < 8u; quad += 8u",
        rows: &["matmul/Q4 65x5x1024 outliers"],
    },
];

#[test]
fn bugs_in_what_no_driver_runs_are_seen() {
    let tunings = tunings_with_matrices();
    let missed = map_on_all_cores(BUGS, |bug| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders").join(bug.file);
        let text = fs::read_to_string(&path).expect("shaders are text");
        assert_eq!(text.matches(bug.find).count(), 1, "{}: `{}`", bug.file, bug.find);
        let broken = text.replacen(bug.find, bug.replace, 1);
        let mut missed = Vec::new();
        for name in bug.rows {
            let mut cases = kernels::cases().into_iter();
            let case = cases.find(|case| case.full_name() == *name);
            let case = case.unwrap_or_else(|| panic!("there is no row `{name}`"));
            for (tuning, value) in &tunings {
                let row = CaseData::of(&case, value).expect("rows are sound");
                let source = row.dispatch.shader.source();
                let wrong = |source: &str| {
                    let program = Program::parse(source, &row.dispatch.constants)
                        .unwrap_or_else(|error| panic!("{}: {error}", bug.name));
                    let outcome = run(&program, &row, Subgroups::InOrder(32))
                        .unwrap_or_else(|error| panic!("{}: {error}", bug.name));
                    let mut outputs = row.data.iter().zip(&outcome.operands);
                    outputs.find_map(|(data, words)| differs(data, words))
                };
                assert_eq!(wrong(&source), None, "{name} [{tuning}] fails by itself");
                assert!(source.contains(&text), "{name} [{tuning}] does not link {}", bug.file);
                if wrong(&source.replacen(&text, &broken, 1)).is_none() {
                    missed.push(format!("{name} [{tuning}] does not see that {}", bug.name));
                }
            }
        }
        missed
    });
    let missed: Vec<String> = missed.into_iter().flatten().collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
