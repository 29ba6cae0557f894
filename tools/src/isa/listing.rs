//! Machine code of AMD GPUs as text, as basic blocks with their successors.
//!
//! A block begins at a label (`BB12:`) or behind a branch. Of the operands only registers and
//! constants matter here; the bytes of an instruction, which follow it, are left out.

use std::collections::HashMap;

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its name, as in `v_fmac_f32_e32`.
    pub op: String,
    /// Its operands, the destination first where it has one.
    pub operands: Vec<String>,
    /// Of loads through a descriptor: the number of the binding, if it can be told.
    pub binding: Option<u32>,
}

/// Instructions without a branch before the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The instructions.
    pub instructions: Vec<Instruction>,
    /// The block behind it, where it may go on.
    pub falls: Option<usize>,
    /// The block that its last instruction may jump to.
    pub jumps: Option<usize>,
}

impl Block {
    /// The blocks that may come next.
    pub fn next(&self) -> impl Iterator<Item = usize> {
        self.falls.into_iter().chain(self.jumps)
    }

    /// What ends it, if that is a branch.
    pub fn branch(&self) -> Option<&str> {
        let last = self.instructions.last()?;
        self.jumps.map(|_| last.op.as_str())
    }
}

impl Instruction {
    fn parse(line: &str) -> Self {
        let (op, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let operands = rest.split(',').map(|operand| operand.trim().to_owned());
        let operands = operands.filter(|operand| !operand.is_empty()).collect();
        Self { op: op.to_owned(), operands, binding: None }
    }

    /// Whether it loads from memory into vector registers.
    pub fn is_load(&self) -> bool {
        let from = ["buffer_", "global_", "flat_", "scratch_"];
        from.iter().any(|from| self.op.starts_with(from)) && self.op.contains("load")
    }

    /// Bytes that an invocation loads or stores with it, by its name.
    pub fn bytes(&self) -> u32 {
        const SIZES: [(&str, u32); 12] = [
            ("dwordx4", 16),
            ("dwordx3", 12),
            ("dwordx2", 8),
            ("dword", 4),
            ("b128", 16),
            ("b96", 12),
            ("b64", 8),
            ("b32", 4),
            ("short", 2),
            ("16", 2),
            ("byte", 1),
            ("8", 1),
        ];
        SIZES.iter().find(|(name, _)| self.op.contains(name)).map_or(0, |&(_, bytes)| bytes)
    }

    /// The registers of this operand, if it has registers of a kind (`'v'` or `'s'`).
    pub fn registers(&self, operand: usize, kind: char) -> std::ops::Range<u32> {
        self.operands.get(operand).map_or(0..0, |text| registers(text, kind))
    }

    /// The number that this operand is.
    pub fn constant(&self, operand: usize) -> Option<i64> {
        let text = self.operands.get(operand)?;
        match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }
}

/// `v7`, `v[4:7]` and so on; empty for anything else. Signs and modifiers are ignored.
pub fn registers(text: &str, kind: char) -> std::ops::Range<u32> {
    let text = text.split_whitespace().next().unwrap_or_default();
    let text = text.trim_matches(|c| c == '-' || c == '|');
    let range = || {
        let rest = text.strip_prefix(kind)?;
        if let Some(inner) = rest.strip_prefix('[') {
            let (first, last) = inner.strip_suffix(']')?.split_once(':')?;
            return Some(first.parse().ok()?..last.parse::<u32>().ok()? + 1);
        }
        let only: u32 = rest.parse().ok()?;
        Some(only..only + 1)
    };
    range().unwrap_or(0..0)
}

/// The blocks of a listing, in its order.
///
/// # Errors
///
/// If there are no instructions, or one jumps to a label that is not there.
pub fn parse(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = vec![Block::default()];
    let mut labels = HashMap::new();
    let mut targets: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or_default().trim();
        if let Some(label) = line.strip_suffix(':') {
            if blocks.last().is_some_and(|block| !block.instructions.is_empty()) {
                blocks.push(Block::default());
            }
            labels.insert(label.to_owned(), blocks.len() - 1);
            continue;
        }
        if !line.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        let instruction = Instruction::parse(line);
        let at = blocks.len() - 1;
        let ends = instruction.op.starts_with("s_branch")
            || instruction.op.starts_with("s_cbranch")
            || instruction.op == "s_endpgm";
        if ends && instruction.op != "s_endpgm" {
            let target = instruction.operands.last().cloned().unwrap_or_default();
            targets.push((at, target));
        }
        blocks[at].instructions.push(instruction);
        if ends {
            blocks.push(Block::default());
        }
    }
    // Labels at the end have no instructions.
    let end = blocks.len();
    for (at, target) in targets {
        let target = labels.get(&target).ok_or_else(|| format!("no label is called {target}"))?;
        blocks[at].jumps = Some(*target).filter(|&target| target < end);
    }
    for (at, block) in blocks.iter_mut().enumerate() {
        let last = block.instructions.last().map(|last| last.op.as_str());
        let goes_on = !matches!(last, Some("s_branch" | "s_endpgm"));
        block.falls = Some(at + 1).filter(|&next| goes_on && next < end);
    }
    if blocks.iter().all(|block| block.instructions.is_empty()) {
        return Err("the listing has no instructions".into());
    }
    bind(&mut blocks);
    Ok(blocks)
}

/// Bytes of a buffer's descriptor in RADV's sets.
const DESCRIPTOR: i64 = 16;

/// Finds the binding of each load through a descriptor. Descriptors come by scalar loads from the
/// set, which has them in the order of bindings; what a register holds is what was last loaded
/// into it above, in the order of the listing.
fn bind(blocks: &mut [Block]) {
    let mut held: HashMap<u32, u32> = HashMap::new();
    for instruction in blocks.iter_mut().flat_map(|block| &mut block.instructions) {
        if instruction.is_load() {
            instruction.binding = (0..instruction.operands.len())
                .map(|operand| instruction.registers(operand, 's'))
                .find(|registers| registers.len() == 4)
                .and_then(|registers| held.get(&registers.start).copied());
            continue;
        }
        let reads = ["s_cmp", "s_bitcmp", "s_cbranch", "s_set", "v_cmpx"];
        if reads.iter().any(|op| instruction.op.starts_with(op)) {
            continue;
        }
        let written = instruction.registers(0, 's');
        for register in written.clone() {
            held.remove(&register);
        }
        if instruction.op.starts_with("s_load_") && instruction.registers(1, 's').len() == 2 {
            let null = instruction.operands.get(2).is_some_and(|offset| offset == "null");
            let offset = instruction.constant(2).or(null.then_some(0));
            let Some(first) = offset.and_then(|offset| u32::try_from(offset / DESCRIPTOR).ok())
            else {
                continue;
            };
            held.extend(written.step_by(4).zip(first..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_at_labels_and_behind_branches() {
        let blocks = parse(
            "BB0:\n\ts_mov_b32 s0, 1      ; be800081\n\ts_cbranch_scc0 BB2 ; 1\n\ts_nop 0\n\
             BB1:\n\tv_mov_b32_e32 v0, 0 ; 7e\n\ts_branch BB1\nBB2:\nBB3:\n\ts_endpgm\n",
        )
        .expect("it is a listing");
        let next: Vec<Vec<usize>> = blocks.iter().map(|block| block.next().collect()).collect();
        assert_eq!(next[..4], [vec![1, 3], vec![2], vec![2], vec![]]);
        assert_eq!(blocks[0].branch(), Some("s_cbranch_scc0"));
        assert_eq!(blocks[0].instructions[0].operands, ["s0", "1"]);
        assert_eq!(blocks[1].branch(), None);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert!(parse("").is_err());
        assert!(parse("BB0:\n").is_err());
        assert!(parse("\ts_branch BB7\n").is_err_and(|error| error.contains("BB7")));
    }

    #[test]
    fn registers_constants_and_sizes_are_read() {
        let load =
            Instruction::parse("buffer_load_b128 v[12:15], v11, s[20:23], 0 offen offset:16");
        assert!(load.is_load());
        assert_eq!((load.registers(0, 'v'), load.registers(1, 'v')), (12..16, 11..12));
        assert_eq!((load.registers(2, 's'), load.registers(2, 'v')), (20..24, 0..0));
        assert_eq!(load.bytes(), 16);
        assert_eq!(Instruction::parse("buffer_load_dwordx2 v[0:1], off, s[0:3], 0").bytes(), 8);
        assert_eq!(Instruction::parse("buffer_load_ushort v0, off, s[0:3], 0").bytes(), 2);
        assert_eq!(Instruction::parse("buffer_load_u8 v0, off, s[0:3], 0").bytes(), 1);
        let compare = Instruction::parse("v_cmpx_le_u32_e32 0x100, v17");
        assert_eq!((compare.constant(0), compare.constant(1)), (Some(256), None));
        assert_eq!(registers("-|v3|", 'v'), 3..4);
        assert_eq!(registers("vcc", 'v'), 0..0);
        assert!(!Instruction::parse("ds_load_b128 v[0:3], v4").is_load());
        assert!(!Instruction::parse("buffer_store_b32 v0, v1, s[4:7], 0 offen").is_load());
    }

    #[test]
    fn a_load_has_the_binding_of_the_descriptor_in_its_registers() {
        let text = "BB0:\n\ts_load_b256 s[8:15], s[2:3], 0x20\n\
            \tbuffer_load_b32 v0, v1, s[8:11], 0 offen\n\
            \tbuffer_load_b32 v0, v1, s[12:15], 0 offen\n\
            \ts_load_b128 s[12:15], s[2:3], null\n\
            \tbuffer_load_b32 v0, v1, s[12:15], 0 offen\n\
            \ts_cmp_eq_i32 s8, 0\n\
            \tbuffer_load_b32 v0, v1, s[8:11], 0 offen\n\
            \ts_mov_b32 s8, 0\n\
            \tbuffer_load_b32 v0, v1, s[8:11], 0 offen\n\ts_endpgm\n";
        let blocks = parse(text).expect("it is a listing");
        let all = blocks.iter().flat_map(|block| &block.instructions);
        let bindings: Vec<_> = all.filter(|one| one.is_load()).map(|one| one.binding).collect();
        assert_eq!(bindings, [Some(2), Some(3), Some(0), Some(2), None]);
    }
}
