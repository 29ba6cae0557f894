//! Small mutations of files, deterministic.

/// Fragments of JSON and numbers at edge cases.
const PIECES: [&[u8]; 28] = [
    b"0",
    b"9",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"-1",
    b"-0.0",
    b"1e999",
    b"0.1",
    b"1e-320",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"null",
    b"true",
    b"{}",
    b"[[[[[[[[",
    b"../",
    b"\\u0000",
    b"\\ud800",
    "\u{feff}\u{10ffff}".as_bytes(),
    b"\xff",
];

/// Edge cases of binary integers.
const INTEGERS: [u64; 8] = [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX / 2, u64::MAX];

/// A deterministic random number generator: splitmix64.
pub(crate) struct Stream(u64);

impl Stream {
    /// The seed depends on the name.
    pub(crate) fn new(name: &str) -> Self {
        Self(name.bytes().fold(0, |sum: u64, byte| sum.rotate_left(8) ^ u64::from(byte)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn of<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }
}

/// Mutates seeds.
pub(crate) struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    stream: Stream,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seeds: &'a [Vec<u8>], stream: Stream) -> Self {
        assert!(seeds.iter().any(|seed| !seed.is_empty()), "there is nothing to change");
        Self { seeds, stream }
    }

    /// A seed with one to three mutations.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.stream.of(self.seeds).clone();
        for _ in 0..=self.stream.below(3) {
            if !bytes.is_empty() {
                self.change(&mut bytes);
            }
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let stream = &mut self.stream;
        let len = bytes.len();
        let at = stream.below(len);
        match stream.below(9) {
            0 => bytes[at] ^= 1 << stream.below(8),
            1 => bytes[at] = stream.of(&PIECES)[0],
            2 => drop(bytes.splice(at..at, stream.of(&PIECES).iter().copied())),
            3 => drop(bytes.drain(at..(at + 1 + stream.below(9)).min(len))),
            4 => bytes.truncate(at),
            5 => {
                // Changes a digit, so that JSON stays valid.
                let digits: Vec<usize> = (0..len).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    let at = *stream.of(&digits);
                    bytes[at] = b'0' + u8::try_from(stream.below(10)).expect("a digit");
                }
            }
            6 => {
                let width = *stream.of(&[4, 8]);
                let integer = stream.of(&INTEGERS).to_le_bytes();
                for (to, from) in bytes[at..].iter_mut().zip(&integer[..width]) {
                    *to = *from;
                }
            }
            7 => {
                // Duplicates a part of the file.
                let end = (at + 1 + stream.below(64)).min(len);
                let part = bytes[at..end].to_vec();
                let to = stream.below(len);
                bytes.splice(to..to, part);
            }
            _ => {
                // Inserts a part of a seed.
                let other = stream.of(self.seeds);
                if !other.is_empty() {
                    let from = stream.below(other.len());
                    let end = (from + 1 + stream.below(64)).min(other.len());
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
    }
}
