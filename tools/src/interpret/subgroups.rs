//! Subgroups of the interpreter: which invocations form one, and what they take from each other.

use naga::{Expression, GatherMode, Handle};

use super::{
    machine::{Frame, Machine},
    mask::Mask,
};

/// How a device forms subgroups. WebGPU promises neither which invocations of a workgroup form one
/// nor which of them is which.
#[derive(Clone, Copy, Debug)]
pub enum Subgroups {
    /// Neighbouring invocations form a subgroup of this size, in their order.
    InOrder(usize),
    /// Subgroups of this size, dealt out as cards are, last invocation first.
    Scattered(usize),
}

impl Subgroups {
    pub(crate) fn size(self) -> usize {
        match self {
            Self::InOrder(size) | Self::Scattered(size) => size,
        }
    }

    /// The subgroup of an invocation in a workgroup of `lanes`, and its number there.
    pub(crate) fn place(self, lanes: usize, lane: usize) -> (usize, usize) {
        match self {
            Self::InOrder(size) => (lane / size, lane % size),
            Self::Scattered(size) => {
                let subgroups = lanes.div_ceil(size);
                let back = lanes - 1 - lane;
                (back % subgroups, back / subgroups)
            }
        }
    }

    /// The invocations of each subgroup of a workgroup of `lanes`, by their number there.
    pub(crate) fn members(self, lanes: usize) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); lanes.div_ceil(self.size())];
        let mut placed: Vec<_> = (0..lanes).map(|lane| (self.place(lanes, lane), lane)).collect();
        placed.sort_unstable();
        for ((subgroup, _), lane) in placed {
            members[subgroup].push(lane);
        }
        members
    }
}

impl<'a, const W: usize> Machine<'a, W> {
    /// Gives each of these invocations the value that another one of its subgroup has.
    pub(crate) fn gather(
        &mut self,
        frame: &mut Frame<'a, W>,
        mode: GatherMode,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        mask: Mask,
    ) -> Result<(), String> {
        self.count(mask)?;
        let (index, is_xor) = match mode {
            GatherMode::Shuffle(index) => (index, false),
            GatherMode::ShuffleXor(index) => (index, true),
            ref other => return Err(format!("the subgroup operation {other:?}")),
        };
        // Invocations that are masked out keep what they had.
        let mut values = std::mem::take(&mut frame.values[result.index()]);
        values.resize(self.lanes, [0; W]);
        let members = std::mem::take(&mut self.members);
        for subgroup in &members {
            let arrived = subgroup.iter().filter(|&&lane| mask.has(lane)).count();
            if arrived == 0 {
                continue;
            }
            if arrived < subgroup.len() {
                self.fault(frame, result, "a shuffle that not all invocations of a subgroup reach");
            }
            let mut first = None;
            for (number, &lane) in subgroup.iter().enumerate().filter(|&(_, &l)| mask.has(l)) {
                let given = self.get(frame, index, lane)?[0];
                if is_xor && *first.get_or_insert(given) != given {
                    self.fault(frame, result, "a shuffle by masks that differ in a subgroup");
                }
                let from = if is_xor { number ^ given as usize } else { given as usize };
                match subgroup.get(from) {
                    Some(&from) => values[lane] = self.get(frame, argument, from)?,
                    None => self.nobody(frame, result, from),
                }
            }
        }
        self.members = members;
        frame.values[result.index()] = values;
        Ok(())
    }

    /// Notes a shuffle from an invocation that there is not, at each place once.
    fn nobody(&mut self, frame: &Frame<'a, W>, at: Handle<Expression>, from: usize) {
        let size = self.subgroups.size();
        let what = if from < size {
            "a shuffle from an invocation that the workgroup does not have".into()
        } else {
            format!("a shuffle from invocation {from} of subgroups of {size}")
        };
        self.fault_once(frame, at, &what);
    }
}
