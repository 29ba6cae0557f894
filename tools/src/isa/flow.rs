//! Loops of a program, and paths through an iteration of one.
//!
//! A path begins at the first block of the loop and ends where it begins again. A loop inside of it
//! counts as often as it runs, if a constant says that, else once. Branches that only skip what no
//! invocation of the subgroup needs are not taken.

use std::collections::BTreeSet;

use super::listing::{Block, Instruction};

/// A natural loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Its first block.
    pub header: usize,
    /// All its blocks, those of loops inside of it among them.
    pub blocks: BTreeSet<usize>,
    /// The smallest loop around it.
    pub parent: Option<usize>,
    /// How often it runs, where its counter goes by a constant to a constant.
    pub trips: Option<u32>,
}

/// The loops of a program, in the order of their first blocks.
pub fn loops(blocks: &[Block]) -> Vec<Loop> {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); blocks.len()];
    for (at, block) in blocks.iter().enumerate() {
        for next in block.next() {
            before[next].push(at);
        }
    }
    let mut found: Vec<Loop> = Vec::new();
    for header in 0..blocks.len() {
        let latches = before[header].iter().copied().filter(|&latch| latch >= header);
        let mut left: Vec<usize> = latches.collect();
        if left.is_empty() {
            continue;
        }
        let last = left.iter().copied().max().unwrap_or(header);
        let mut of = BTreeSet::from([header]);
        while let Some(block) = left.pop() {
            if (header..=last).contains(&block) && of.insert(block) {
                left.extend(&before[block]);
            }
        }
        found.push(Loop { header, blocks: of, parent: None, trips: None });
    }
    for at in 0..found.len() {
        let around = |&other: &usize| {
            other != at
                && found[other].blocks.contains(&found[at].header)
                && found[other].blocks.len() > found[at].blocks.len()
        };
        found[at].parent =
            (0..found.len()).filter(around).min_by_key(|&other| found[other].blocks.len());
    }
    for at in 0..found.len() {
        let own = own(&found, at);
        found[at].trips = trips(blocks, &found[at], &own);
    }
    found
}

/// The loops inside of another one before them, which stands for the whole program: its path begins
/// at the first block and ends where the program does.
pub fn within_whole(blocks: &[Block], mut loops: Vec<Loop>) -> Vec<Loop> {
    for one in &mut loops {
        one.parent = Some(one.parent.map_or(0, |parent| parent + 1));
    }
    let all = (0..blocks.len()).collect();
    loops.insert(0, Loop { header: 0, blocks: all, parent: None, trips: Some(1) });
    loops
}

/// The blocks of a loop that are in no loop inside of it.
pub fn own(loops: &[Loop], at: usize) -> BTreeSet<usize> {
    let mut own = loops[at].blocks.clone();
    for inner in loops.iter().filter(|inner| inner.parent == Some(at)) {
        own.retain(|block| !inner.blocks.contains(block));
    }
    own
}

/// How often a loop runs whose counter is less than a constant `end` and grows by a constant
/// `step`: `end / step`, rounded up, as it begins with less than a step.
fn trips(blocks: &[Block], of: &Loop, own: &BTreeSet<usize>) -> Option<u32> {
    let leaves = |at: usize| blocks[at].next().any(|next| !of.blocks.contains(&next));
    let all = || own.iter().flat_map(|&at| &blocks[at].instructions);
    for &at in own {
        // The comparison of a vector changes the mask, which the next block tests.
        if !leaves(at) && !blocks[at].falls.is_some_and(leaves) {
            continue;
        }
        for compare in blocks[at].instructions.iter().filter(|one| one.op.contains("_cmp")) {
            let operands = 0..compare.operands.len();
            let Some(end) = operands.clone().find_map(|operand| compare.constant(operand)) else {
                continue;
            };
            let counts = |one: &&Instruction| {
                let adds = one.op.starts_with("s_add") || one.op.starts_with("v_add_nc_u32");
                let to = one.operands.first();
                let to_itself = one.op.starts_with("s_addk")
                    || one.operands.iter().skip(1).any(|from| Some(from) == to);
                adds && to_itself && compare.operands.iter().any(|one| Some(one) == to)
            };
            let step = all().find(counts).and_then(|one| one.constant(1).or(one.constant(2)));
            let count = |end: i64, step: i64| u32::try_from((end + step - 1) / step).ok();
            if let Some(step) = step.filter(|&step| step > 0 && end > 0) {
                return count(end, step);
            }
        }
    }
    None
}

/// What a path is chosen by, of each block: summed over the path, the largest is taken.
pub type Value = (i64, i64);

/// The path through an iteration of the loop with the largest value, as blocks; `None` if no
/// iteration comes to an end. Where the program ends, its path does.
pub fn path(
    blocks: &[Block],
    loops: &[Loop],
    at: usize,
    value: &dyn Fn(usize) -> Value,
) -> Option<Vec<usize>> {
    route(blocks, loops, at, value).map(|route| route.blocks)
}

#[derive(Clone, Debug)]
struct Route {
    value: Value,
    blocks: Vec<usize>,
}

fn route(
    blocks: &[Block],
    loops: &[Loop],
    at: usize,
    value: &dyn Fn(usize) -> Value,
) -> Option<Route> {
    let of = &loops[at];
    let inner: Vec<usize> =
        (0..loops.len()).filter(|&inner| loops[inner].parent == Some(at)).collect();
    let inside =
        |block: usize| inner.iter().copied().find(|&inner| loops[inner].blocks.contains(&block));
    // Where a path may be: a block, or a whole loop by its first block. Both go forward only.
    let place = |block: usize| inside(block).map_or(block, |inner| loops[inner].header);
    let mut best: Vec<Option<Route>> = vec![None; blocks.len()];
    best[of.header] = Some(Route { value: (0, 0), blocks: Vec::new() });
    let mut ends: Option<Route> = None;
    for &here in &of.blocks {
        let Some(mut route_here) = best[here].take() else { continue };
        let inner = inside(here).filter(|_| here != of.header);
        let from: Vec<usize> = match inner {
            None => {
                route_here.add(value(here), &[here], 1);
                vec![here]
            }
            Some(inner) => {
                let Some(once) = route(blocks, loops, inner, value) else { continue };
                route_here.add(once.value, &once.blocks, loops[inner].trips.unwrap_or(1));
                loops[inner].blocks.iter().copied().collect()
            }
        };
        if from.iter().any(|&block| blocks[block].next().next().is_none()) {
            keep_larger(&mut ends, &route_here);
        }
        for next in from.iter().flat_map(|&block| taken(blocks, of, block)) {
            if next == of.header {
                keep_larger(&mut ends, &route_here);
            } else if of.blocks.contains(&next) && place(next) > here {
                keep_larger(&mut best[place(next)], &route_here);
            }
        }
    }
    ends
}

impl Route {
    fn add(&mut self, value: Value, blocks: &[usize], times: u32) {
        for _ in 0..times {
            self.value.0 += value.0;
            self.value.1 += value.1;
            self.blocks.extend_from_slice(blocks);
        }
    }
}

fn keep_larger(best: &mut Option<Route>, other: &Route) {
    if best.as_ref().is_none_or(|best| best.value < other.value) {
        *best = Some(other.clone());
    }
}

/// The blocks that may follow in an iteration. A branch over what no invocation needs
/// (`s_cbranch_execz`) is not taken, if both ways stay in the loop.
fn taken(blocks: &[Block], of: &Loop, at: usize) -> Vec<usize> {
    let block = &blocks[at];
    let stays = |next: Option<usize>| next.is_some_and(|next| of.blocks.contains(&next));
    let both = stays(block.falls) && stays(block.jumps);
    match block.branch() {
        Some("s_cbranch_execz") if both => block.falls.into_iter().collect(),
        Some("s_cbranch_execnz") if both => block.jumps.into_iter().collect(),
        _ => block.next().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::listing::parse;

    /// As many vector instructions as possible, or as few.
    fn vector(blocks: &[Block], sign: i64) -> impl Fn(usize) -> Value {
        move |at| {
            let vector = blocks[at].instructions.iter().filter(|one| one.op.starts_with("v_"));
            (0, sign * i64::try_from(vector.count()).expect("a few"))
        }
    }

    fn blocks(text: &str) -> Vec<Block> {
        parse(text).expect("it is a listing")
    }

    #[test]
    fn a_path_goes_around_or_through_what_a_uniform_branch_skips() {
        let blocks = blocks(
            "BB0:\n\tv_mov_b32 v0, 0\n\
             BB1:\n\tv_add v0, v0, v1\n\ts_cbranch_scc1 BB5\n\
             BB2:\n\ts_cbranch_scc0 BB4\n\
             BB3:\n\tv_mul v0, v0, v1\n\tv_mul v0, v0, v1\n\
             BB4:\n\tv_sub v0, v0, v1\n\ts_branch BB1\n\
             BB5:\n\ts_endpgm\n",
        );
        let loops = loops(&blocks);
        assert_eq!(loops.len(), 1);
        assert_eq!((loops[0].header, loops[0].blocks.len()), (1, 4));
        assert_eq!(path(&blocks, &loops, 0, &vector(&blocks, 1)), Some(vec![1, 2, 3, 4]));
        assert_eq!(path(&blocks, &loops, 0, &vector(&blocks, -1)), Some(vec![1, 2, 4]));
    }

    #[test]
    fn what_some_invocations_need_is_not_skipped() {
        let blocks = blocks(
            "BB1:\n\ts_cbranch_execz BB3\n\
             BB2:\n\tv_mul v0, v0, v1\n\
             BB3:\n\ts_cbranch_scc1 BB1\n\
             BB4:\n\ts_endpgm\n",
        );
        let loops = loops(&blocks);
        assert_eq!(path(&blocks, &loops, 0, &vector(&blocks, -1)), Some(vec![0, 1, 2]));
    }

    #[test]
    fn a_loop_inside_counts_as_often_as_it_runs() {
        // A counter in a vector register, up to 256 by 64; then one in a scalar register, up to 3.
        let blocks = blocks(
            "BB1:\n\tv_mov_b32_e32 v17, v0\n\
             BB2:\n\tv_cmpx_le_u32_e32 0x100, v17\n\
             BB3:\n\ts_andn2_b64 s[0:1], s[0:1], exec\n\ts_cbranch_scc0 BB5\n\
             BB4:\n\tv_add_nc_u32_e32 v17, 64, v17\n\ts_branch BB2\n\
             BB5:\n\ts_cmp_ge_u32 s10, 3\n\ts_cbranch_scc1 BB7\n\
             BB6:\n\tv_mul v1, v1, v1\n\ts_add_u32 s10, s10, 1\n\ts_branch BB5\n\
             BB7:\n\ts_cbranch_scc1 BB1\n\ts_endpgm\n",
        );
        let loops = loops(&blocks);
        let about: Vec<_> = loops.iter().map(|one| (one.header, one.parent, one.trips)).collect();
        assert_eq!(about, [(0, None, None), (1, Some(0), Some(4)), (4, Some(0), Some(3))]);
        let path = path(&blocks, &loops, 0, &vector(&blocks, 1)).expect("it comes to an end");
        let times = |block: usize| path.iter().filter(|&&one| one == block).count();
        assert_eq!([0, 1, 3, 4, 5, 6].map(times), [1, 4, 4, 3, 3, 1]);
        assert_eq!(own(&loops, 0), BTreeSet::from([0, 6]));
    }

    #[test]
    fn a_counter_that_goes_down_or_to_a_variable_has_no_known_number() {
        for (compare, step) in [
            ("s_cmp_eq_i32 s10, 0", "s_add_u32 s10, s10, -1"),
            ("s_cmp_ge_u32 s10, s11", "s_add_u32 s10, s10, 1"),
            ("s_cmp_ge_u32 s10, 8", "s_lshr_b32 s10, s10, 1"),
        ] {
            let text = format!(
                "BB1:\n\t{compare}\n\ts_cbranch_scc1 BB3\n\
                 BB2:\n\t{step}\n\ts_branch BB1\nBB3:\n\ts_endpgm\n"
            );
            assert_eq!(loops(&blocks(&text))[0].trips, None, "{compare} {step}");
        }
    }
}
