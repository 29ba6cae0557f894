//! Choices that make up a random row: sizes near edges, fills, element types.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::{FILLS, WEIGHTS, texts::Texts};
use crate::{base::tensor::DType, machine::host::Fill};

/// Sizes at which tiles, vectors and workgroups end, and their neighbours, and primes.
const EDGES: [u32; 26] = [
    1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 37, 63, 64, 65, 97, 127, 128, 129, 255, 256,
    257, 509,
];

/// The random numbers of one row. The kernel and the row's number are the seed.
pub(super) struct Pick(ChaCha8Rng);

impl Pick {
    pub(super) fn new(kernel: &str, number: u32) -> Self {
        let mut seed = [0; 32];
        for (to, from) in seed.iter_mut().zip(number.to_le_bytes().iter().chain(kernel.as_bytes()))
        {
            *to = *from;
        }
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        // The remainder favours small numbers by less than one in a million here.
        self.0.next_u32() % n
    }

    /// True once in `n` times, on average.
    pub(super) fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// One of a list.
    pub(super) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(u32::try_from(list.len()).expect("a short list")) as usize]
    }

    /// A size from 1 to `most`: half of the time one at an edge.
    pub(super) fn size(&mut self, most: u32) -> u32 {
        let edges = EDGES.iter().filter(|&&edge| edge <= most).count();
        if self.once_in(2) { self.of(&EDGES[..edges]) } else { 1 + self.below(most) }
    }

    /// A multiple of `step` up to `most`.
    pub(super) fn multiple(&mut self, step: u32, most: u32) -> u32 {
        step * self.size(most / step)
    }

    /// How a random tensor is filled, with its name.
    pub(super) fn fill(&mut self) -> (&'static str, Fill) {
        self.of(&FILLS)
    }

    /// A type that weights are stored in.
    pub(super) fn weight(&mut self) -> DType {
        self.of(&WEIGHTS)
    }

    /// How a random tensor is filled, or with whole numbers: then sums must be exact.
    pub(super) fn fill_or_integers(&mut self) -> (bool, &'static str, Fill) {
        if self.once_in(3) {
            return (true, "integers", Fill::Integers(8));
        }
        let (name, fill) = self.fill();
        (false, name, fill)
    }

    /// Tokens, rows and columns of a product that takes few operations.
    pub(super) fn product(&mut self, dtype: DType, most_tokens: u32) -> [u32; 3] {
        let most = 1 << 17;
        let cols = if self.once_in(16) {
            self.of(&[2048, 4096, 8192])
        } else {
            self.multiple(dtype.block().max(8), 544)
        };
        let rows = self.size(131.min(most / cols));
        let tokens = self.size(most_tokens.min(most / (cols * rows)));
        [tokens, rows, cols]
    }

    /// Up to four texts with at most `tokens` rows together, at positions below `most` or beyond by
    /// their rows, one after another or by turns.
    pub(super) fn texts(&mut self, tokens: u32, most: u32) -> Texts {
        let mut left = tokens - if self.once_in(4) { self.below(tokens) } else { 0 };
        let mut texts = Vec::new();
        while left > 0 && texts.len() < 4 {
            let rows = if texts.len() == 3 || self.once_in(2) { left } else { self.size(left) };
            texts.push((self.below(most), rows));
            left -= rows;
        }
        let texts = Texts::new(&texts);
        if self.once_in(3) { texts.by_turns() } else { texts }
    }
}
