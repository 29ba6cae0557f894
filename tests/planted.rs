//! Planted bugs, one at a time: bugs that other engines shipped or that are easy to make. The named
//! rows must fail with the bug and pass without it. Bugs in variants that the adapter cannot run
//! are listed as ignored; with `--ignored` they fail.

#[path = "planted/attention.rs"]
mod attention;
mod common;
#[path = "common/devices.rs"]
mod devices;

use std::{fs, path::Path, sync::Arc};

use devices::on_gpu;
use grok_wgpu::lab::{
    kernels::{self, Case},
    machine::gpu::Gpu,
    selftest,
    variants::{Capabilities, Tuning},
};
use grok_wgpu_tools::edited::{Edit, Edited};
use libtest_mimic::{Arguments, Failed, Trial};

/// A bug: an edit of one shader file.
#[derive(Clone, Copy)]
struct Bug {
    name: &'static str,
    /// Path below `shaders/`.
    file: &'static str,
    /// Text to replace; it occurs exactly once.
    find: &'static str,
    replace: &'static str,
    /// Prefixes of row names. Every row with such a name must fail.
    rows: &'static [&'static str],
    /// The variant with the bug; `None` for the variants that need no optional feature.
    variant: Option<&'static str>,
}

const BUGS: &[Bug] = &[
    Bug {
        name: "the last vectors of a workgroup are left out",
        file: "kernels/multiply_adds.wgsl",
        find: "    store(first + 3u * WIDE, d);",
        replace: "",
        rows: &["multiply_adds/4096, 0 rounds", "multiply_adds/4100, 5 rounds up"],
        variant: None,
    },
    Bug {
        name: "a chain skips a multiply-add",
        file: "kernels/multiply_adds.wgsl",
        find: "    store(first, a);",
        replace: "    store(first, a - addend);",
        rows: &["multiply_adds/4, 1 rounds up", "multiply_adds/64, 5 rounds doubled"],
        variant: None,
    },
    Bug {
        name: "rope pairs neighbours",
        file: "kernels/rope_cache.wgsl",
        find: "    let a = qkv[head + d];
    let b = qkv[head + d + params.half];",
        replace: "    let a = qkv[head + 2u * d];
    let b = qkv[head + 2u * d + 1u];",
        rows: &["rope_cache/F32 one token normal", "rope_cache/F16 wide head quarter turn"],
        variant: None,
    },
    Bug {
        name: "a cached position is late by one",
        file: "kernels/rope_cache.wgsl",
        find: "rows[token].pos) - params.slot0;",
        replace: "rows[token].pos) - params.slot0 + 1u;",
        rows: &["rope_cache/F32 one token normal", "rope_cache/Q8 a text goes on in another page"],
        variant: None,
    },
    Bug {
        name: "half floats are cut off and not rounded",
        file: "lib/half.wgsl",
        find: "(mantissa + (1u << (drop - 1u)) - 1u + even) >> drop",
        replace: "mantissa >> drop",
        rows: &["rope_cache/F16 one token normal", "rope_cache/F16 one head at 1e-5"],
        variant: None,
    },
    Bug {
        name: "the cache overflows to infinity",
        file: "lib/half.wgsl",
        find: "min((above << 10u) + rounded, HALF_MAX)",
        replace: "min((above << 10u) + rounded, 0x7c00u)",
        rows: &["rope_cache/F16 one token at 1e20", "rope_cache/F16 one token at 6.552e4"],
        variant: None,
    },
    Bug {
        name: "the router renormalizes",
        file: "kernels/norm_route.wgsl",
        find: "params.renormalize != 0u",
        replace: "true",
        rows: &["norm_route/1 tokens, 2 of 8, 64 wide, cap 30"],
        variant: None,
    },
    Bug {
        name: "ties go to the higher expert",
        file: "kernels/norm_route.wgsl",
        find: "c > best)",
        replace: "c >= best)",
        rows: &["norm_route/ties go to the lower index"],
        variant: None,
    },
    Bug {
        name: "the soft cap of logits is left out",
        file: "lib/math.wgsl",
        find: "return cap * tanh_bounded(x / cap);",
        replace: "return x;",
        rows: &["matvec/F32 capped and scaled", "norm_route/large logits, cap 30"],
        variant: None,
    },
    Bug {
        name: "eps is left out",
        file: "kernels/rms_norm.wgsl",
        find: "inverse_root(mean + params.eps)",
        replace: "inverse_root(mean)",
        rows: &["rms_norm/1x8 normal", "rms_norm/3x264 tiny", "rms_norm/2x8192 zero"],
        variant: None,
    },
    Bug {
        name: "a softmax hides what is not a number",
        file: "lib/math.wgsl",
        find: "return select(x, exp_bounded(x - largest), is_finite(x));",
        replace: "return exp_bounded(x - largest);",
        rows: &[
            "attention/F32 decode in splits, cap 0, q NaN",
            "attention/Q8 prefill in splits, cap 30, k NaN",
            "attention_merge/three splits, stats NaN",
            "norm_route/3 tokens, 2 of 8, cap 0, false, router NaN",
        ],
        variant: None,
    },
    Bug {
        name: "the chosen experts hide what is not a number of the others",
        file: "kernels/norm_route.wgsl",
        find: "let shown = !is_finite(total);",
        replace: "let shown = false;",
        rows: &["norm_route/3 tokens, 2 of 8, cap 30, true, router NaN"],
        variant: None,
    },
    Bug {
        name: "the root of an infinity is zero",
        file: "lib/math.wgsl",
        find: "return select(x, inverseSqrt(x), is_finite(x));",
        replace: "return inverseSqrt(x);",
        rows: &["rms_norm/squares beyond f32", "rms_norm_add/squares beyond f32"],
        variant: None,
    },
    Bug {
        name: "lists of the largest lose what is not a number",
        file: "lib/pairs.wgsl",
        find: "return select(value, 3.4028234e38, exponent == 0x7f800000u);",
        replace: "return value;",
        rows: &["topk/4 of 2x1500, logits NaN", "topk_merge/4 of 2x1500, values NaN"],
        variant: None,
    },
    Bug {
        name: "the residual is dropped",
        file: "lib/norm_add.wgsl",
        find: "Quads(s.low + change.low, s.high + change.high)",
        replace: "change",
        rows: &[
            "rms_norm_add/3x264 normal",
            "norm_route/33 tokens, 2 of 8, 264 wide",
            "combine_norm/3 of 5, 2x260 normal",
        ],
        variant: None,
    },
    Bug {
        name: "the residual of a row beyond registers is dropped",
        file: "lib/norm_add.wgsl",
        find: "let s = sum[row + c] + block(row + c)",
        replace: "let s = block(row + c)",
        rows: &[
            "rms_norm_add/1x8196 normal",
            "norm_route/1 tokens, 1 of 2, 32768 wide, index",
            "combine_norm/1 of 2, 3x8196 normal",
        ],
        variant: None,
    },
    Bug {
        name: "the last quad that an invocation owns is left out",
        file: "lib/quads.wgsl",
        find: "    if c < params.cols4 {
        keep",
        replace: "    if c + 1u < params.cols4 {
        keep",
        rows: &["rms_norm/3x264 normal", "rms_norm_add/3x264 normal"],
        variant: None,
    },
    Bug {
        name: "one chunk of 8192 columns is lost",
        file: "variants/lanes.wgsl",
        find: "let scale = scale_of(w_cell(0u, scales), c);",
        replace: "let scale = select(scale_of(w_cell(0u, scales), c), 0.0, c == 771u);",
        rows: &["matvec/BF16 3x5x8192 integers"],
        variant: None,
    },
    Bug {
        name: "a column has its neighbour's activations",
        file: "variants/lanes.wgsl",
        find: "first_of(loaded, at.z)",
        replace: "first_of(loaded, at.y)",
        rows: &["matvec/BF16 33x288, equal tokens among others", "matvec/F16 4x33x64 integers"],
        variant: None,
    },
    Bug {
        name: "a sum depends on the other tokens",
        file: "variants/lanes.wgsl",
        find: "sum.first[0] += first_of(loaded, at.x);",
        replace: "sum.first[0] += select(1.0, 1.0000001, count > 1u) * first_of(loaded, at.x);",
        rows: &["matvec/BF16 33x288, equal tokens among others"],
        variant: None,
    },
    Bug {
        name: "the second of four rows has the activations of another column",
        file: "variants/rows.wgsl",
        find: "sum.b.z = chain(sum.b.z, b, lo_2, hi_2);",
        replace: "sum.b.z = chain(sum.b.z, b, lo_1, hi_2);",
        rows: &["matvec/Q4 4x33x288 normal", "gated_matvec/Q8 4x33x288 normal"],
        variant: Some("rows"),
    },
    Bug {
        name: "the last eight of three bits miss a byte",
        file: "lib/weight_q3.wgsl",
        find: "((w.z >> 8u) & 0xff0000u)",
        replace: "((w.y >> 8u) & 0xff0000u)",
        rows: &["matvec/Q3 1x1x32 normal", "embed/Q3 index"],
        variant: None,
    },
    Bug {
        name: "a row of three bits begins where it has no padding",
        file: "lib/weight_q3.wgsl",
        find: "(7u * (cols8 / PARTS) + 7u) / 8u * 4u",
        replace: "(7u * (cols8 / PARTS) + 1u) / 2u",
        rows: &["matmul/Q3 2x3x96 normal", "expert_matvec/Q3 2x3x96 integers"],
        variant: None,
    },
    Bug {
        name: "odd groups of two bits are those before them",
        file: "lib/weight_q2.wgsl",
        find: "word >> 13u",
        replace: "word << 3u",
        rows: &["matvec/Q2 1x1x32 normal", "embed/Q2 index"],
        variant: None,
    },
    Bug {
        name: "the second half of a block has the scale of the first",
        file: "lib/weight_two_scales.wgsl",
        find: "part >= 2u",
        replace: "part >= 4u",
        rows: &["matvec/Q3 1x1x32 normal", "matmul/Q2 1x1x32 integers"],
        variant: None,
    },
    Bug {
        name: "neighbouring blocks have each other's scales",
        file: "lib/weight_two_scales.wgsl",
        find: "16u * (c % 2u)",
        replace: "16u * (1u - c % 2u)",
        rows: &["gated_matvec/Q2 3x31x64 normal", "expert_gated_matmul/Q3 31x31x64 normal"],
        variant: None,
    },
    Bug {
        name: "the last chunk of a row is left out by groups of lanes",
        file: "variants/rows.wgsl",
        find: "c += 2u * LANES) {",
        replace: "c += 2u * LANES + 1u) {",
        rows: &["matvec/Q4 3x5x8192 integers", "expert_matvec/Q8 2x3x8192 integers"],
        variant: Some("rows"),
    },
    Bug {
        name: "the tile's last columns are lost",
        file: "lib/tile_float.wgsl",
        find: "quad < QUADS;",
        replace: "quad < QUADS - 1u;",
        rows: &["matmul/F32 31x31x32 normal", "matmul/BF16 31x31x32 integers"],
        variant: Some("tiles"),
    },
    Bug {
        name: "a step multiplies the columns of the step before",
        file: "variants/blocks.wgsl",
        find: "min(c + 4u, last)",
        replace: "min(c, last)",
        rows: &["matmul/F32 32x33x64 normal", "expert_gated_matmul/Q4 33x67x256 normal"],
        variant: Some("blocks"),
    },
    Bug {
        name: "a row of x has the sums of its neighbour",
        file: "lib/block.wgsl",
        find: "x_tile[q][i ^ 3u][g]",
        replace: "x_tile[q][i ^ 2u][g]",
        rows: &["matmul/F32 31x31x32 normal", "gated_matmul/BF16 32x33x64 normal"],
        variant: Some("blocks"),
    },
    Bug {
        name: "columns beyond the last are multiplied",
        file: "lib/block.wgsl",
        find: "PARTS > 1u || first + quad < 2u * params.cols8",
        replace: "true",
        rows: &["matmul/BF16 1x1x8 normal", "expert_matmul/F16 2x3x24 normal"],
        variant: Some("blocks"),
    },
    Bug {
        name: "the second half of a wide block is the first",
        file: "lib/block_wide.wgsl",
        find: "first.c2, first.c3,",
        replace: "first.c0, first.c1,",
        rows: &["expert_matmul/F32 31x31x32 normal", "expert_matmul/Q8 2x3x96 normal"],
        variant: Some("blocks"),
    },
    Bug {
        name: "the expert is off by one",
        file: "lib/rows_slots.wgsl",
        find: "tile.x * params.rows",
        replace: "(tile.x + 1u) * params.rows",
        rows: &["expert_matvec/F32 4x33x64 normal", "expert_matmul/F32 32x33x64 normal"],
        variant: None,
    },
    Bug {
        name: "runs of slots far ahead are not counted",
        file: "kernels/expert_groups.wgsl",
        find: "by <<= 2u",
        replace: "by <<= 3u",
        rows: &["expert_groups/40 of 40", "expert_groups/2047 of 2048", "expert_groups/33 of 33"],
        variant: None,
    },
    Bug {
        name: "an id beyond the last expert is taken for one",
        file: "kernels/expert_groups.wgsl",
        find: "slot < end && id < params.experts",
        replace: "slot < end",
        rows: &["expert_groups/257 of 300 tokens, 3 of 20, tiles of 4, some ids"],
        variant: None,
    },
    Bug {
        name: "the joined paths are not scaled",
        file: "kernels/combine_norm.wgsl",
        find: "h.low * params.scale",
        replace: "h.low",
        rows: &["combine_norm/3 of 5, 2x260 large eps"],
        variant: None,
    },
    Bug {
        name: "the dense path is left out",
        file: "kernels/combine_norm.wgsl",
        find: "var h = own_of(DENSE, token * params.cols4, local);",
        replace: "var h = Quads();",
        rows: &["combine_norm/3 of 5, 2x260 normal", "combine_norm/3 of 5, 2x260 large eps"],
        variant: None,
    },
    Bug {
        name: "an expert has the router's row of its neighbour",
        file: "kernels/norm_route.wgsl",
        find: "router_quad(first + 5u, c)",
        replace: "router_quad(first + 4u, c)",
        rows: &["norm_route/33 tokens, 2 of 8, 264 wide", "norm_route/2 tokens, 2 of 8, 8192 wide"],
        variant: None,
    },
    Bug {
        name: "experts beyond the eighth have the logits of the first",
        file: "kernels/norm_route.wgsl",
        find: "logits[first + local] =",
        replace: "logits[local] =",
        rows: &["norm_route/2 tokens, 3 of 9, 32 wide", "norm_route/2 tokens, 8 of 64, 512 wide"],
        variant: None,
    },
    Bug {
        name: "gate and up are swapped",
        file: "kernels/gated_matmul.wgsl",
        find: "gelu(g, params.gelu_tanh) * u",
        replace: "gelu(u, params.gelu_tanh) * g",
        rows: &["gated_matvec/F32 4x33x64 normal", "gated_matmul/F32 32x33x64 normal"],
        variant: None,
    },
    Bug {
        name: "bfloat16 is shifted by 15",
        file: "lib/weight_bf16.wgsl",
        find: "vec4(16u)",
        replace: "vec4(15u)",
        rows: &["matvec/BF16 4x33x64 integers", "embed/BF16"],
        variant: None,
    },
    Bug {
        name: "padded rows are computed",
        file: "kernels/combine_norm.wgsl",
        find: "if token >= step.rows {",
        replace: "if false {",
        rows: &["combine_norm/3 of 5"],
        variant: None,
    },
    Bug {
        name: "activations come from another lane",
        file: "lib/spread.wgsl",
        find: "subgroupShuffle(held, first + 1u) * e.hi",
        replace: "subgroupShuffle(held, first) * e.hi",
        rows: &["matvec/F32 3x31x32 normal", "matvec/Q4 4x33x288 normal"],
        variant: Some("spread"),
    },
    Bug {
        name: "the second row of an invocation has the first row's weights",
        file: "lib/spread_loads.wgsl",
        find: "row_at(weight0, row + WG)",
        replace: "row_at(weight0, row)",
        rows: &["matmul/F32 32x33x64 normal"],
        variant: Some("spread"),
    },
    Bug {
        name: "a column of spread products has its neighbour's activations",
        file: "variants/spread_vector.wgsl",
        find: "b.z += mul_block(block_b, x_2);",
        replace: "b.z += mul_block(block_b, x_0);",
        rows: &["matvec/BF16 4x33x64 integers", "gated_matvec/Q8 4x33x288 normal"],
        variant: Some("spread"),
    },
    Bug {
        name: "a chunk of a block is multiplied twice",
        file: "lib/spread.wgsl",
        find: "sum += mul_chunk(block.c3, 3u * CHUNK_QUADS, held);",
        replace: "sum += mul_chunk(block.c2, 3u * CHUNK_QUADS, held);",
        rows: &["matvec/BF16 3x31x32 normal"],
        variant: Some("spread"),
    },
    Bug {
        name: "a subgroup's sum leaves a half out",
        file: "lib/lanes_subgroup.wgsl",
        find: "for (var half = LANES / 2u;",
        replace: "for (var half = LANES / 4u;",
        rows: &["matvec/F32 9x5x1024 normal", "gated_matvec/Q8 9x5x1024 normal"],
        variant: Some("subgroup"),
    },
    Bug {
        name: "activations are cut off and not rounded to bytes",
        file: "lib/tile_packed.wgsl",
        find: "clamp(round(x_tile[quad * TILE + t] * inverse),",
        replace: "clamp(trunc(x_tile[quad * TILE + t] * inverse * 0.999),",
        rows: &[
            "matmul/Q8 33x35x96 bytes",
            "gated_matmul/Q8 33x35x96 bytes",
            "expert_matmul/Q4 33x35x96 bytes",
            "expert_gated_matmul/Q4 33x35x96 bytes",
        ],
        variant: Some("packed"),
    },
];

fn main() {
    let args = Arguments::from_args();
    let on = on_gpu(|gpu| Ok(gpu.caps().capabilities())).expect("nothing that fails");
    let trials = BUGS.iter().chain(attention::BUGS).map(|bug| {
        let tunings = tunings(bug, &on);
        let applies = !tunings.is_empty();
        let trial = Trial::test(bug.name, move || {
            let edit = edit(bug)?;
            if tunings.is_empty() {
                let variant = bug.variant.unwrap_or_default();
                return Err(format!("a device with {on:?} cannot run `{variant}`").into());
            }
            on_gpu(|gpu| {
                for prefix in bug.rows {
                    red(gpu, bug, prefix, &tunings, &edit)?;
                }
                Ok(())
            })
        });
        let kind = if applies { bug.variant.unwrap_or_default() } else { "not on this adapter" };
        trial.with_kind(kind).with_ignored_flag(!applies)
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

/// The tunings that run the code with the bug, on a device with these capabilities.
fn tunings(bug: &Bug, on: &Capabilities) -> Vec<(String, Tuning)> {
    let plain = [("gpu".to_owned(), Tuning::default()), ("cpu".to_owned(), Tuning::cpu())];
    match bug.variant {
        None => plain.into(),
        Some(variant) => {
            let of = |name: &str| name.split(' ').next() == Some(variant);
            Tuning::all(on).into_iter().filter(|(name, _)| of(name)).collect()
        }
    }
}

/// The shader file with the bug.
fn edit(bug: &Bug) -> Result<Arc<Edit>, Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(bug.file);
    let text = fs::read_to_string(&path)?;
    let count = text.matches(bug.find).count();
    if count != 1 {
        return Err(format!("{}: `{}` is there {count} times", bug.file, bug.find).into());
    }
    let broken = text.replacen(bug.find, bug.replace, 1);
    Ok(Arc::new(Edit::new(bug.name.into(), text, broken)))
}

/// Every row with this prefix passes without the bug, and fails with it at a named element.
fn red(
    gpu: &mut Gpu,
    bug: &Bug,
    prefix: &str,
    tunings: &[(String, Tuning)],
    edit: &Arc<Edit>,
) -> Result<(), Failed> {
    let named = |case: &Case| case.full_name().starts_with(prefix);
    let cases: Vec<Case> = kernels::cases().into_iter().filter(named).collect();
    if cases.is_empty() {
        return Err(format!("no row begins with `{prefix}`").into());
    }
    for case in cases {
        let name = case.full_name();
        let edit = edit.clone();
        let sound = kernels::cases().into_iter().find(|other| other.full_name() == name);
        let sound = sound.ok_or("a row is there once")?;
        let broken = case.map(move |kernel| Box::new(Edited::new(kernel, edit.clone())));
        for (tuning_name, tuning) in tunings {
            let mut failure = |case: &Case| -> Result<Option<String>, Failed> {
                Ok(pollster::block_on(selftest::check(gpu, case, tuning))?.failure)
            };
            if let Some(failure) = failure(&sound)? {
                return Err(format!("{name} [{tuning_name}] fails by itself: {failure}").into());
            }
            let Some(found) = failure(&broken)? else {
                let bug = bug.name;
                return Err(format!("{name} [{tuning_name}] does not see that {bug}").into());
            };
            if !found.contains("element [") {
                return Err(format!("{name} [{tuning_name}] names no element: {found}").into());
            }
        }
    }
    Ok(())
}
