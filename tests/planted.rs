//! Bugs that other engines shipped or that are easily made, planted one at a time: the rows that
//! must see each of them are red, and green without it.

mod common;
#[path = "common/edited.rs"]
mod edited;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use edited::{Edit, Edited};
use grok_wgpu::{
    Gpu, Tuning,
    gpu::Profile,
    kernels::{self, Case},
    selftest,
};
use libtest_mimic::{Arguments, Failed, Trial};

/// A wrong change of one shader file.
#[derive(Clone, Copy)]
struct Bug {
    name: &'static str,
    /// Path below `shaders/`.
    file: &'static str,
    /// Text that is there exactly once.
    find: &'static str,
    replace: &'static str,
    /// Beginnings of the names of rows, each of which must see it.
    rows: &'static [&'static str],
}

const BUGS: &[Bug] = &[
    Bug {
        name: "rope pairs neighbours",
        file: "rope_cache.wgsl",
        find: "head) + d;
    let a = qkv[src];
    let b = qkv[src + params.half];",
        replace: "head) + 2u * d;
    let a = qkv[src];
    let b = qkv[src + 1u];",
        rows: &["rope_cache/one token normal", "rope_cache/wide head quarter turn"],
    },
    Bug {
        name: "a cached position is late by one",
        file: "rope_cache.wgsl",
        find: "let slot = step.pos + token - params.pos0;",
        replace: "let slot = step.pos + token - params.pos0 + 1u;",
        rows: &["rope_cache/one token normal", "rope_cache/positions straddle"],
    },
    Bug {
        name: "the router renormalizes",
        file: "route.wgsl",
        find: "params.renormalize != 0u",
        replace: "true",
        rows: &["route/1 tokens, 2 of 8, 64 wide, cap 30"],
    },
    Bug {
        name: "ties go to the higher expert",
        file: "route.wgsl",
        find: "c > best)",
        replace: "c >= best)",
        rows: &["route/ties go to the lower index"],
    },
    Bug {
        name: "heads find their keys by modulo",
        file: "attention.wgsl",
        find: "kv_head * group + (row0 + row) % group",
        replace: "(row0 + row) % group * params.n_kv_heads + kv_head",
        rows: &["attention/prefill, cap 30"],
    },
    Bug {
        name: "the causal mask is late by one",
        file: "attention.wgsl",
        find: "(row0 + local) / group + 1u);",
        replace: "(row0 + local) / group + 2u);",
        rows: &["attention/prefill, cap 30", "attention/prefill in splits, cap 2"],
    },
    Bug {
        name: "attention's maximum is not subtracted",
        file: "attention.wgsl",
        find: "exp_bounded(scores[at + j] - largest)",
        replace: "exp_bounded(scores[at + j])",
        rows: &["attention/prefill, outliers"],
    },
    Bug {
        name: "attention's soft cap is left out",
        file: "attention.wgsl",
        find: "tanh_bounded(inner) * (params.cap * heat)",
        replace: "inner * (params.cap * heat)",
        rows: &["attention/prefill, cap 2"],
    },
    Bug {
        name: "the soft cap of logits is left out",
        file: "lib/math.wgsl",
        find: "return cap * tanh_bounded(x / cap);",
        replace: "return x;",
        rows: &["matvec/F32 capped and scaled", "route/large logits, cap 30"],
    },
    Bug {
        name: "eps is left out",
        file: "rms_norm.wgsl",
        find: "inverseSqrt(mean + params.eps)",
        replace: "inverseSqrt(mean)",
        rows: &["rms_norm/1x8 normal", "rms_norm/3x264 tiny", "rms_norm/2x8192 zero"],
    },
    Bug {
        name: "the residual is dropped",
        file: "rms_norm_add.wgsl",
        find: "let s = sum[row + c] + h[row + c]",
        replace: "let s = h[row + c]",
        rows: &["rms_norm_add/3x264 normal"],
    },
    Bug {
        name: "one term of 8192 is lost",
        file: "matvec.wgsl",
        find: "let e = decode(w, p);",
        replace: "var e = decode(w, p);
                if c == 771u {
                    e.hi.z = 0.0;
                }",
        rows: &["matvec/BF16 5x8192 integers"],
    },
    Bug {
        name: "the tile's last columns are lost",
        file: "lib/tile.wgsl",
        find: "quad < QUADS;",
        replace: "quad < QUADS - 1u;",
        rows: &["matmul/F32 31x31x32 normal", "matmul/BF16 31x31x32 integers"],
    },
    Bug {
        name: "the expert is off by one",
        file: "expert_matvec.wgsl",
        find: "(ids[choice] * params.rows + row)",
        replace: "((ids[choice] + 1u) * params.rows + row)",
        rows: &["expert_matvec/F32 33x64 normal"],
    },
    Bug {
        name: "gate and up are swapped",
        file: "gated_matvec.wgsl",
        find: "gelu(total.x, params.gelu_tanh) * total.y",
        replace: "gelu(total.y, params.gelu_tanh) * total.x",
        rows: &["gated_matvec/F32 33x64 normal"],
    },
    Bug {
        name: "bfloat16 is shifted by 15",
        file: "lib/weight_bf16.wgsl",
        find: "vec4(16u)",
        replace: "vec4(15u)",
        rows: &["matvec/BF16 33x64 integers", "embed/BF16"],
    },
    Bug {
        name: "padded rows are computed",
        file: "combine.wgsl",
        find: "if token >= step.rows {",
        replace: "if false {",
        rows: &["combine/3 of 5"],
    },
];

fn main() {
    let args = Arguments::from_args();
    let trials = BUGS.iter().map(|bug| {
        Trial::test(bug.name, move || {
            let edit = edit(bug)?;
            let mut gpu = shared();
            for prefix in bug.rows {
                red(&mut gpu, bug, prefix, &edit)?;
            }
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

/// The file with the bug in it.
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

/// Every row that begins so is green as it is, and red with the bug, with the element named.
fn red(gpu: &mut Gpu, bug: &Bug, prefix: &str, edit: &Arc<Edit>) -> Result<(), Failed> {
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
        // Bugs are planted in the text that every device can run.
        for (tuning_name, tuning) in Tuning::all(None) {
            let mut failure = |case: &Case| -> Result<Option<String>, Failed> {
                Ok(pollster::block_on(selftest::check(gpu, case, &tuning))?.failure)
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

/// One device for all bugs, with WebGPU's default limits.
fn shared() -> MutexGuard<'static, Gpu> {
    static GPU: OnceLock<Mutex<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Mutex::new(common::open(Profile::Baseline)))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
