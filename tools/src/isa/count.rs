//! What an iteration of a program's main loop takes, counted in its machine code.
//!
//! The main loop is the smallest one that loads weights and has the most multiply-adds in it. An
//! iteration may take several paths, where uniform branches skip a part of it. Of those that load
//! the most weights, two are counted: the one with the fewest vector instructions, and the one with
//! the most.
//!
//! A program with loops that load nothing is counted as a whole: it loads before and between them.
//!
//! An instruction of RDNA3 that starts with `v_dual_` is one instruction with two operations.

use std::collections::{BTreeSet, HashMap};

use super::{
    figures::{Figures, MainLoop},
    flow::{self, Loop},
    listing::{self, Block, Instruction},
};

/// Which loads are loads of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// The bindings that weights are in.
    pub bindings: Vec<u32>,
    /// Bits of a weight.
    pub bits: u32,
    /// Whether scales are among them, as f16: what is loaded from a weight and converted from f16
    /// is a scale.
    pub scaled: bool,
}

/// Counts the main loop of a listing; `None` if it has no loop.
///
/// # Errors
///
/// If it is no listing.
pub fn main_loop(text: &str, weights: &Weights) -> Result<Option<MainLoop>, String> {
    let blocks = listing::parse(text)?;
    let mut loops = flow::loops(&blocks);
    let loads = |at: &usize| blocks[*at].instructions.iter().any(Instruction::is_load);
    let whole = !loops.is_empty() && !loops.iter().flat_map(|one| &one.blocks).any(loads);
    if whole {
        loops = flow::within_whole(&blocks, loops);
    }
    let found = if whole { Some(0) } else { main(&blocks, &loops, weights) };
    let Some(at) = found else { return Ok(None) };
    let scales = if weights.scaled { scales(&blocks, &loops[at]) } else { BTreeSet::new() };
    let is_weight = |place: (usize, usize), one: &Instruction| {
        one.binding.is_some_and(|binding| weights.bindings.contains(&binding))
            && !scales.contains(&place)
    };
    let bytes = |at: usize| -> u32 {
        let all = blocks[at].instructions.iter().enumerate();
        all.filter(|&(i, one)| is_weight((at, i), one)).map(|(_, one)| one.bytes()).sum()
    };
    let along = |sign: i64| {
        let value = |at: usize| {
            let all = blocks[at].instructions.iter();
            let vector: i64 = all.map(|one| i64::from(is_vector(&one.op))).sum();
            let loaded = if whole { i64::from(loads(&at)) } else { i64::from(bytes(at)) };
            (loaded, sign * vector)
        };
        let path = flow::path(&blocks, &loops, at, &value)?;
        let mut figures = follow(&blocks, &path, if whole { 1 } else { 2 });
        let loaded: u32 = path.iter().map(|&at| bytes(at)).sum();
        figures.weights = loaded * 8 / weights.bits.max(1);
        Some(figures)
    };
    let (Some(least), Some(most)) = (along(-1), along(1)) else { return Ok(None) };
    let inner = loops.iter().filter(|inner| inner.parent == Some(at));
    let inner = inner.map(|inner| inner.trips.unwrap_or(0)).collect();
    Ok(Some(MainLoop { least, most, inner }))
}

/// The main loop: of the loops that load weights, and of those inside of them, the one that has the
/// most multiply-adds outside of further loops; if it loads no weights itself, the smallest loop
/// around it that does. For programs without weights, any load from memory counts as one.
fn main(blocks: &[Block], loops: &[Loop], weights: &Weights) -> Option<usize> {
    let with = |wanted: &dyn Fn(&Instruction) -> bool| -> Vec<usize> {
        let has = |&at: &usize| {
            let mut all = loops[at].blocks.iter().flat_map(|&at| &blocks[at].instructions);
            all.any(wanted)
        };
        (0..loops.len()).filter(has).collect()
    };
    let bound = |one: &Instruction| one.binding.is_some_and(|at| weights.bindings.contains(&at));
    let candidates = [with(&bound), with(&Instruction::is_load)];
    let loading = candidates.into_iter().find(|loops| !loops.is_empty())?;
    let around = |at: usize| {
        let mut around = std::iter::successors(Some(at), |&at| loops[at].parent);
        around.find(|at| loading.contains(at))
    };
    let work = |&at: &usize| {
        let own = flow::own(loops, at);
        let all = || own.iter().flat_map(|&at| &blocks[at].instructions);
        let adds: u32 = all().map(|one| multiply_adds(&one.op)).sum();
        (adds, all().filter(|one| is_vector(&one.op)).count())
    };
    // Of equals, the first.
    (0..loops.len()).rev().filter(|&at| around(at).is_some()).max_by_key(work).and_then(around)
}

fn is_vector(op: &str) -> bool {
    op.starts_with("v_") && op != "v_nop"
}

/// Operations of a vector instruction that multiply and add.
fn multiply_adds(op: &str) -> u32 {
    const NAMES: [&str; 8] =
        ["fma_", "fmac_", "fmaak_", "fmamk_", "mac_f", "mad_f", "mad_mix", "wmma_"];
    let name = op.trim_start_matches("v_").trim_start_matches("dual_").trim_start_matches("pk_");
    let is_one = NAMES.iter().any(|one| name.starts_with(one)) || name.starts_with("dot");
    u32::from(op.starts_with("v_") && is_one)
}

/// The second operation of a dual instruction.
fn second(one: &Instruction) -> Option<&str> {
    let rest = one.operands.iter().find_map(|operand| operand.split_once(":: "))?.1;
    rest.split_whitespace().next()
}

fn is_scalar(op: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "s_wait",
        "s_nop",
        "s_clause",
        "s_delay",
        "s_branch",
        "s_cbranch",
        "s_barrier",
        "s_load",
        "s_buffer_load",
        "s_endpgm",
        "s_sleep",
        "s_inst_prefetch",
    ];
    op.starts_with("s_") && !OTHERS.iter().any(|other| op.starts_with(other))
}

/// Counts along a path the last time that it is followed. That of a loop is followed twice, so that
/// what an iteration loads for the next one is in flight when it begins.
fn follow(blocks: &[Block], path: &[usize], times: u32) -> Figures {
    // The numbers of the loads that are not there yet, the oldest first.
    let mut flying: Vec<u32> = Vec::new();
    let mut issued = 0;
    // Loads before this one were issued before the last round trip was waited for.
    let mut waited = 0;
    let mut figures = Figures::default();
    for _ in 0..times {
        figures = Figures::default();
        for one in path.iter().flat_map(|&at| &blocks[at].instructions) {
            let op = one.op.as_str();
            if is_vector(op) {
                figures.vector += 1;
                let also = second(one);
                figures.operations += 1 + u32::from(also.is_some());
                figures.multiply_adds += multiply_adds(op) + also.map_or(0, multiply_adds);
            }
            figures.scalar += u32::from(is_scalar(op));
            let scalar_load = op.starts_with("s_load") || op.starts_with("s_buffer_load");
            figures.scalar_loads += u32::from(scalar_load);
            figures.shared += u32::from(op.starts_with("ds_"));
            figures.barriers += u32::from(op.starts_with("s_barrier"));
            if one.is_load() {
                figures.loads += 1;
                flying.push(issued);
                issued += 1;
                figures.in_flight = figures.in_flight.max(flying.len().try_into().expect("few"));
            }
            if let Some(left) = left_in_flight(one) {
                let there: Vec<u32> = flying.drain(..flying.len().saturating_sub(left)).collect();
                figures.waits += u32::from(flying.is_empty() && !there.is_empty());
                if there.last().is_some_and(|&last| last >= waited) {
                    figures.trips += 1;
                    waited = issued;
                }
            }
        }
    }
    figures
}

/// How many loads may be in flight after a wait.
fn left_in_flight(one: &Instruction) -> Option<usize> {
    if one.op == "s_waitcnt" {
        let rest = one.operands.iter().find_map(|operand| operand.split_once("vmcnt("))?.1;
        return rest.split(')').next()?.parse().ok();
    }
    // From RDNA4 on, each kind has an instruction of its own.
    let count = one.op.starts_with("s_wait_loadcnt").then(|| one.constant(0))??;
    usize::try_from(count).ok()
}

/// The loads of a loop, as block and place in it, whose values are converted from f16. Goes over
/// the loop twice, for values that are used in the next iteration.
fn scales(blocks: &[Block], of: &Loop) -> BTreeSet<(usize, usize)> {
    let mut from: HashMap<u32, BTreeSet<(usize, usize)>> = HashMap::new();
    let mut scales = BTreeSet::new();
    for &at in of.blocks.iter().chain(&of.blocks) {
        for (i, one) in blocks[at].instructions.iter().enumerate() {
            let written = one.registers(0, 'v');
            if one.is_load() {
                from.extend(written.map(|register| (register, BTreeSet::from([(at, i)]))));
                continue;
            }
            if !is_vector(&one.op) {
                continue;
            }
            let read = (1..one.operands.len()).flat_map(|operand| one.registers(operand, 'v'));
            let read: BTreeSet<_> =
                read.filter_map(|register| from.get(&register)).flatten().copied().collect();
            let name = one.op.as_str();
            if name.contains("cvt_f32_f16") || name.contains("fma_mix") || name.contains("mad_mix")
            {
                scales.extend(&read);
            }
            // Only moves and operations on bits hand on what was loaded.
            let arithmetic = name.contains("_f32") || name.contains("_f16");
            for register in written {
                if arithmetic || read.is_empty() {
                    from.remove(&register);
                } else {
                    from.insert(register, read.clone());
                }
            }
        }
    }
    scales
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str, weights: &Weights) -> MainLoop {
        main_loop(text, weights).expect("it is a listing").expect("it has a loop")
    }

    fn q4(bindings: &[u32]) -> Weights {
        Weights { bindings: bindings.to_vec(), bits: 4, scaled: true }
    }

    /// Binding 2 has the weights, with their scales; binding 1 is read where a branch does not skip
    /// it.
    const OPTIONAL: &str = "BB0:
\ts_load_b128 s[20:23], s[2:3], 0x20
\ts_load_b128 s[24:27], s[2:3], 0x10
BB1:
\tv_cmpx_le_u32_e32 s7, v4
BB2:
\ts_and_not1_b64 s[18:19], s[18:19], exec
\ts_cbranch_scc0 BB6
BB3:
\tbuffer_load_b128 v[12:15], v11, s[20:23], 0 offen
\tbuffer_load_b32 v16, v10, s[20:23], 0 offen
\tv_lshrrev_b32_e32 v17, 16, v16
\ts_cmp_lg_i32 s6, 0
\ts_waitcnt vmcnt(0)
\tv_cvt_f32_f16_e32 v17, v17
\tv_fmac_f32_e32 v1, v17, v12
\ts_cbranch_scc0 BB5
BB4:
\tbuffer_load_b128 v[20:23], v10, s[24:27], 0 offen
\ts_waitcnt vmcnt(0)
\tv_fmac_f32_e32 v2, v17, v12
\tv_dual_fmac_f32 v3, v17, v20 :: v_dual_mul_f32 v4, v17, v21
BB5:
\tds_load_b32 v5, v6
\ts_barrier
\ts_branch BB1
BB6:
\ts_endpgm
";

    #[test]
    fn both_paths_are_counted() {
        let MainLoop { least, most, inner } = counted(OPTIONAL, &q4(&[2]));
        assert!(inner.is_empty());
        let expected = Figures {
            vector: 4,
            operations: 4,
            multiply_adds: 1,
            scalar: 2,
            scalar_loads: 0,
            loads: 2,
            in_flight: 2,
            waits: 1,
            trips: 1,
            shared: 1,
            barriers: 1,
            // Sixteen bytes of four bits each: the other load is of the scale.
            weights: 32,
        };
        assert_eq!(least, expected);
        let longer = Figures {
            vector: 6,
            operations: 7,
            multiply_adds: 3,
            loads: 3,
            waits: 2,
            trips: 2,
            ..expected
        };
        assert_eq!(most, longer);
        assert_eq!(most.vector_per_weight(), Some(6.0 / 32.0));
        assert!((most.share() - 300.0 / 7.0).abs() < 1e-9);
    }

    #[test]
    fn weights_are_those_of_the_bindings() {
        assert_eq!(counted(OPTIONAL, &q4(&[1])).most.weights, 32);
        assert_eq!(counted(OPTIONAL, &q4(&[])).most.vector_per_weight(), None);
        let floats = Weights { bindings: vec![2], bits: 32, scaled: false };
        assert_eq!(counted(OPTIONAL, &floats).least.weights, 5);
    }

    /// The most loads in flight, waits and round trips of a body of loads and waits.
    fn waits(body: &[&str]) -> (u32, u32, u32) {
        let lines: Vec<String> = body
            .iter()
            .map(|&line| match line {
                "load" => "\tbuffer_load_b32 v0, v1, s[0:3], 0 offen\n".to_owned(),
                left => format!("\ts_waitcnt vmcnt({left}) lgkmcnt(0)\n"),
            })
            .collect();
        let text = format!("BB1:\n\tv_fma_f32 v2, v2, v2, v2\n{}\ts_branch BB1\n", lines.concat());
        let MainLoop { most, .. } = counted(&text, &Weights::default());
        (most.in_flight, most.waits, most.trips)
    }

    #[test]
    fn loads_that_are_waited_for_together_are_one_round_trip() {
        assert_eq!(waits(&["load", "load", "1", "0"]), (2, 1, 1));
        assert_eq!(waits(&["load", "0", "load", "0"]), (1, 2, 2));
        assert_eq!(waits(&["load", "load", "1", "load", "0"]), (2, 1, 2));
        // Two at a time, although something is always in flight.
        assert_eq!(waits(&["load", "1", "load", "1", "load", "1"]), (2, 0, 2));
        // What the next iteration needs is loaded before this one waits.
        assert_eq!(waits(&["load", "load", "2"]), (4, 0, 1));
        assert_eq!(waits(&["0", "load", "load"]), (2, 1, 1));
    }

    /// The loop with the multiply-adds loads nothing: the one around it does, and another loop with
    /// more of them does not count.
    #[test]
    fn the_main_loop_loads_the_weights() {
        let text = "BB0:
\ts_load_b128 s[20:23], s[2:3], 0x20
BB1:
\tbuffer_load_b128 v[12:15], v11, s[20:23], 0 offen
\ts_waitcnt vmcnt(0)
\tds_store_b128 v9, v[12:15]
BB2:
\ts_cmp_ge_u32 s10, 8
\ts_cbranch_scc1 BB4
BB3:
\tv_fma_f32 v1, v2, v3, v1
\ts_add_u32 s10, s10, 1
\ts_branch BB2
BB4:
\ts_cbranch_scc1 BB1
BB5:
\tv_fma_f32 v1, v2, v3, v1
\tv_fma_f32 v1, v2, v3, v1
\ts_cbranch_scc1 BB5
\ts_endpgm
";
        let MainLoop { most, inner, .. } = counted(text, &q4(&[2]));
        assert_eq!(inner, [8]);
        assert_eq!((most.multiply_adds, most.loads, most.shared, most.weights), (8, 1, 1, 32));
    }

    /// A program that loads before and between loops that load nothing, and may return at once.
    #[test]
    fn what_loads_outside_of_loops_is_counted_whole() {
        let text = "BB0:
\ts_cbranch_scc1 BB6
BB1:
\tbuffer_load_b128 v[4:7], v11, s[20:23], 0 offen
\tbuffer_load_b128 v[8:11], v11, s[20:23], 0 offen
\ts_waitcnt vmcnt(1)
\tv_fma_f32 v1, v4, v5, v1
BB2:
\tds_load_b32 v2, v3
\ts_cbranch_scc1 BB2
BB3:
\ts_waitcnt vmcnt(0)
\tbuffer_load_b128 v[4:7], v11, s[20:23], 0 offen
\ts_waitcnt vmcnt(0)
BB4:
\ts_barrier
\ts_cbranch_scc1 BB4
BB5:
\tv_mul_f32 v1, v4, v8
BB6:
\ts_endpgm
";
        let MainLoop { least, most, inner } = counted(text, &Weights::default());
        assert_eq!(inner, [0, 0]);
        assert_eq!((most.loads, most.in_flight, most.waits, most.trips), (3, 2, 2, 2));
        assert_eq!((most.vector, most.shared, most.barriers, most.weights), (2, 1, 1, 0));
        assert_eq!(least, most, "the way that loads nothing is none of them");
    }

    #[test]
    fn operations_are_told_by_their_names() {
        for op in ["v_fma_f32", "v_fmac_f32_e32", "v_fmaak_f32", "v_dual_fmac_f32", "v_pk_fma_f16"]
        {
            assert_eq!(multiply_adds(op), 1, "{op}");
        }
        for op in ["v_dot4_i32_iu8", "v_dot4c_i32_i8_e32", "v_fma_mix_f32", "v_wmma_f32_16x16x16"] {
            assert_eq!(multiply_adds(op), 1, "{op}");
        }
        for op in ["v_mul_f32_e32", "v_mad_u32_u24", "v_add_f32_e32", "s_fmac_f32", "v_min_u32"] {
            assert_eq!(multiply_adds(op), 0, "{op}");
        }
        assert!(is_scalar("s_add_u32") && is_scalar("s_andn2_b64"));
        assert!(!is_scalar("s_load_b128") && !is_scalar("s_waitcnt_depctr"));
    }

    #[test]
    fn a_program_without_loops_has_no_main_loop() {
        assert_eq!(main_loop("BB0:\n\ts_endpgm\n", &Weights::default()), Ok(None));
        assert!(main_loop("", &Weights::default()).is_err());
    }
}
