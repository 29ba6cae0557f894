//! Subgroups: which invocations form one, and shuffles between them.

use naga::{Expression, GatherMode, Handle};

use super::{
    machine::{Frame, Machine},
    mask::Mask,
};

/// How a device forms subgroups. WebGPU specifies neither which invocations of a workgroup form a
/// subgroup nor their order in it.
#[derive(Clone, Copy, Debug)]
pub enum Subgroups {
    /// Consecutive invocations form a subgroup of this size, in order.
    InOrder(usize),
    /// Invocations are dealt to subgroups of this size in turn, the last invocation first.
    Scattered(usize),
}

impl Subgroups {
    pub(crate) fn size(self) -> usize {
        match self {
            Self::InOrder(size) | Self::Scattered(size) => size,
        }
    }

    /// The subgroup of an invocation in a workgroup of `lanes`, and its index there.
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

    /// The invocations of each subgroup of a workgroup of `lanes`, in order.
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
    /// Executes a shuffle for the invocations in `mask`.
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
        // Invocations outside of the mask keep their earlier values.
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

    /// Reports a shuffle from an invocation that does not exist, once for each place.
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
