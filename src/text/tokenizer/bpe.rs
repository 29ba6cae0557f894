//! Byte-pair encoding (BPE) in which a token's id is its merge rank, as in tiktoken.
//!
//! The `tokenizers` crate could run these merges. But it needs a merge list, which this format does
//! not have, and tokens spelt in its byte alphabet, while they need not be UTF-8 here. Deriving
//! both at load costs more code and time than the merges themselves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Marks a part that was merged into the one on its left.
const GONE: usize = usize::MAX;

/// A vocabulary of byte strings.
pub(super) struct Bpe {
    /// The id of every regular token's bytes.
    ranks: HashMap<Box<[u8]>, u32>,
    /// The ids of the single bytes.
    bytes: [u32; 256],
    /// Bytes of the longest token. Longer strings need no look-up.
    longest: usize,
}

/// Buffers for the merges of one run, reused for the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// By the part's first byte: the rank of the pair that it was made of, or what the caller put
    /// there.
    ranks: Vec<u32>,
    /// By the part's first byte: where the next part starts, or [`GONE`].
    next: Vec<usize>,
    /// By the part's first byte: where the part on its left starts.
    prev: Vec<usize>,
    /// Min-heap of pairs that can merge, by rank, then from the left: rank, start, end.
    pairs: BinaryHeap<Reverse<(u32, usize, usize)>>,
}

impl Scratch {
    /// Divides a run of `len` bytes into parts that end at these bytes.
    pub(super) fn parts(&mut self, len: usize, ends: impl Iterator<Item = usize>) {
        self.next.clear();
        self.next.resize(len, GONE);
        self.prev.clear();
        self.prev.resize(len, 0);
        let (mut start, mut before) = (0, 0);
        for end in ends {
            self.next[start] = end;
            self.prev[start] = before;
            before = start;
            start = end;
        }
    }

    /// Merges neighbouring parts, the pair of the least rank first, in time `n log n` of the run's
    /// length. `rank` gets where the left part begins, where the right one does, and its end.
    pub(super) fn merge(
        &mut self,
        len: usize,
        mut rank: impl FnMut(usize, usize, usize) -> Option<u32>,
    ) {
        let Self { ranks, next, prev, pairs } = self;
        ranks.resize(len, 0);
        pairs.clear();
        let mut start = 0;
        pairs.extend(std::iter::from_fn(|| {
            while start < len && next[start] < len {
                let (left, right) = (start, next[start]);
                start = right;
                if let Some(rank) = rank(left, right, next[right]) {
                    return Some(Reverse((rank, left, next[right])));
                }
            }
            None
        }));
        while let Some(Reverse((least, start, end))) = pairs.pop() {
            // A pair is stale once either part has merged: then no part starts here, or the two
            // parts from here do not end where they did.
            let right = next[start];
            if right >= len || next[right] != end {
                continue;
            }
            ranks[start] = least;
            next[start] = end;
            next[right] = GONE;
            // The pair on the left is looked up first, as SentencePiece does.
            if start > 0 {
                let before = prev[start];
                if let Some(rank) = rank(before, start, end) {
                    pairs.push(Reverse((rank, before, end)));
                }
            }
            if end < len {
                prev[end] = start;
                let after = next[end];
                if let Some(rank) = rank(start, end, after) {
                    pairs.push(Reverse((rank, start, after)));
                }
            }
        }
    }

    /// Where each part begins and ends.
    pub(super) fn merged(&self, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let part = (start, *self.next.get(start).filter(|_| start < len)?);
            start = part.1;
            Some(part)
        })
    }
}

impl Bpe {
    /// Fails with the missing bytes if the vocabulary lacks one of the 256 single bytes.
    pub(super) fn new(ranks: HashMap<Box<[u8]>, u32>) -> Result<Self, Vec<u8>> {
        let mut bytes = [0; 256];
        let mut missing = Vec::new();
        for byte in 0..=u8::MAX {
            match ranks.get(&[byte][..]) {
                Some(&id) => bytes[usize::from(byte)] = id,
                None => missing.push(byte),
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let longest = ranks.keys().map(|token| token.len()).max().unwrap_or(1);
        Ok(Self { ranks, bytes, longest })
    }

    fn rank(&self, token: &[u8]) -> Option<u32> {
        if token.len() > self.longest { None } else { self.ranks.get(token).copied() }
    }

    /// Appends the ids of `run` to `out`, in time `n log n` of its length.
    pub(super) fn encode(&self, run: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        if let Some(id) = self.rank(run) {
            out.push(id);
            return;
        }
        scratch.parts(run.len(), 1..=run.len());
        scratch.ranks.clear();
        scratch.ranks.extend(run.iter().map(|&byte| self.bytes[usize::from(byte)]));
        scratch.merge(run.len(), |start, _, end| self.rank(&run[start..end]));
        out.extend(scratch.merged(run.len()).map(|(start, _)| scratch.ranks[start]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    /// The definition: look at every pair, merge the best, begin again.
    fn by_definition(ranks: &HashMap<Box<[u8]>, u32>, run: &[u8]) -> Vec<u32> {
        let mut parts: Vec<Vec<u8>> = run.iter().map(|&byte| vec![byte]).collect();
        if ranks.contains_key(run) {
            parts = vec![run.to_vec()];
        }
        loop {
            let best = parts
                .windows(2)
                .enumerate()
                .filter_map(|(i, pair)| ranks.get(&pair.concat()[..]).map(|&rank| (rank, i)))
                .min();
            let Some((_, i)) = best else { break };
            let right = parts.remove(i + 1);
            parts[i].extend(right);
        }
        parts.iter().map(|part| ranks[&part[..]]).collect()
    }

    fn random_ranks(rng: &mut ChaCha8Rng, merges: u32) -> HashMap<Box<[u8]>, u32> {
        let mut ranks: HashMap<Box<[u8]>, u32> =
            (0..=u8::MAX).map(|byte| (vec![byte].into(), u32::from(byte))).collect();
        // Small alphabet, lengths 2 to 6, in random order: tokens that no merge reaches included.
        for id in 256..256 + merges {
            let len = 2 + rng.next_u32() as usize % 5;
            let token: Vec<u8> = (0..len).map(|_| b'a' + (rng.next_u32() % 3) as u8).collect();
            ranks.entry(token.into()).or_insert(id);
        }
        ranks
    }

    #[test]
    fn merges_by_definition() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut scratch = Scratch::default();
        for round in 0..40 {
            let ranks = random_ranks(&mut rng, 5 * round);
            let bpe = Bpe::new(ranks.clone()).expect("all bytes are there");
            for _ in 0..50 {
                let len = rng.next_u32() as usize % 40;
                let run: Vec<u8> = (0..len).map(|_| b'a' + (rng.next_u32() % 3) as u8).collect();
                let mut ids = Vec::new();
                bpe.encode(&run, &mut scratch, &mut ids);
                assert_eq!(ids, by_definition(&ranks, &run), "{run:?}");
            }
        }
    }

    #[test]
    fn missing_bytes_are_named() {
        let mut ranks = random_ranks(&mut ChaCha8Rng::seed_from_u64(1), 10);
        ranks.remove(&[0x7f][..]);
        ranks.remove(&[0xff][..]);
        assert_eq!(Bpe::new(ranks).err(), Some(vec![0x7f, 0xff]));
    }
}
