//! Which experts are in the slots of a pool, and which one makes room for another.

/// The slots for experts of one or several layers.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    /// Counts uses.
    clock: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    holds: Option<Unit>,
    /// When it was used last.
    used: u64,
}

/// An expert of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unit {
    pub(super) layer: usize,
    pub(super) expert: u32,
}

impl Unit {
    /// Number of the dense MLP among the experts of a layer.
    pub(super) const DENSE: u32 = u32::MAX;
}

impl Pool {
    /// Empty slots.
    pub(super) fn new(slots: u32) -> Self {
        Self { slots: vec![Slot::default(); slots as usize], clock: 0 }
    }

    /// The slot that holds an expert, if one does.
    pub(super) fn find(&self, unit: Unit) -> Option<u32> {
        let at = self.slots.iter().position(|slot| slot.holds == Some(unit))?;
        u32::try_from(at).ok()
    }

    /// As many of these experts of a layer as there are slots, first those that are there.
    pub(super) fn round(&self, layer: usize, experts: &[u32]) -> Vec<u32> {
        let there = |&&expert: &&u32| self.find(Unit { layer, expert }).is_some();
        let (mut round, absent): (Vec<u32>, Vec<u32>) = experts.iter().partition(there);
        round.extend(absent);
        round.truncate(self.slots.len());
        round
    }

    /// Empties the slot that was used longest ago and holds none of the experts `keep` of the
    /// layer. `None` if all hold one of those.
    pub(super) fn make_room(&mut self, layer: usize, keep: &[u32]) -> Option<u32> {
        let kept = |slot: &Slot| {
            slot.holds.is_some_and(|unit| unit.layer == layer && keep.contains(&unit.expert))
        };
        let free = self.slots.iter().enumerate().filter(|(_, slot)| !kept(slot));
        let (at, _) = free.min_by_key(|(_, slot)| slot.used)?;
        self.slots[at] = Slot::default();
        u32::try_from(at).ok()
    }

    /// The slot holds this expert from now on.
    pub(super) fn put(&mut self, slot: u32, unit: Unit) {
        self.slots[slot as usize].holds = Some(unit);
    }

    /// Notes a use of the slot.
    pub(super) fn touch(&mut self, slot: u32) {
        self.clock += 1;
        self.slots[slot as usize].used = self.clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random experts of random layers, against a list in the order of their last use.
    #[test]
    fn what_was_used_last_stays() {
        for slots in 1..6u32 {
            let (mut pool, mut list) = (Pool::new(slots), Vec::<Unit>::new());
            let mut state = u64::from(slots);
            let mut random = |below: u32| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                u32::try_from(state >> 33).expect("31 bits") % below
            };
            let (mut hits, mut loads) = (0, 0);
            for _ in 0..500 {
                let layer = usize::from(random(2) == 1);
                let mut wanted: Vec<u32> = (0..=random(4)).map(|_| random(5)).collect();
                wanted.sort_unstable();
                wanted.dedup();
                let mut left = wanted.clone();
                let mut seen = Vec::new();
                while !left.is_empty() {
                    let round = pool.round(layer, &left);
                    assert!(!round.is_empty() && round.len() <= slots as usize);
                    for &expert in &round {
                        let unit = Unit { layer, expert };
                        let listed = list.contains(&unit);
                        let slot = if let Some(slot) = pool.find(unit) {
                            assert!(listed);
                            hits += 1;
                            slot
                        } else {
                            assert!(!listed);
                            loads += 1;
                            let slot = pool.make_room(layer, &round).expect("there is room");
                            if list.len() == slots as usize {
                                let kept = |unit: &Unit| {
                                    unit.layer == layer && round.contains(&unit.expert)
                                };
                                let oldest = list.iter().position(|unit| !kept(unit));
                                list.remove(oldest.expect("one makes room"));
                            }
                            pool.put(slot, unit);
                            slot
                        };
                        pool.touch(slot);
                        list.retain(|listed| *listed != unit);
                        list.push(unit);
                    }
                    left.retain(|expert| !round.contains(expert));
                    seen.extend(round);
                }
                seen.sort_unstable();
                assert_eq!(seen, wanted, "each comes once");
            }
            assert!(loads > 50 && (hits > 20 || slots == 1), "{slots}: {hits} {loads}");
        }
    }
}
