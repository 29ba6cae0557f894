//! A set of byte strings that finds those that a text begins with.

/// Strings in ascending order, side by side. A look-up narrows the range of those that begin as the
/// text does, byte by byte: a trie without its nodes, which a large vocabulary would pay for in
/// memory and in time to load.
#[derive(Debug)]
pub(super) struct Prefixes {
    bytes: Vec<u8>,
    /// String `i` is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    /// What each string stands for.
    values: Vec<u32>,
    /// The first string that begins with each byte or a larger one; then the number of all.
    first: Box<[usize; 257]>,
}

impl Prefixes {
    /// A set of these strings, each with its value. None is empty, and no two are equal.
    pub(super) fn new<'a>(strings: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut strings: Vec<(&[u8], u32)> =
            strings.map(|(text, value)| (text.as_bytes(), value)).collect();
        strings.sort_unstable();
        let mut first = Box::new([strings.len(); 257]);
        for (i, (text, _)) in strings.iter().enumerate().rev() {
            first[usize::from(text[0])] = i;
        }
        for byte in (0..256).rev() {
            first[byte] = first[byte].min(first[byte + 1]);
        }
        let mut bytes = Vec::with_capacity(strings.iter().map(|(text, _)| text.len()).sum());
        let mut ends = Vec::with_capacity(strings.len());
        for (text, _) in &strings {
            bytes.extend_from_slice(text);
            ends.push(bytes.len());
        }
        Self { bytes, ends, values: strings.into_iter().map(|(_, value)| value).collect(), first }
    }

    fn string(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// The first of the strings `low..high` for which `wanted` holds, as it does for all after it.
    fn search(&self, low: usize, high: usize, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            if wanted(self.string(middle)) { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// Length and value of every string that `text` begins with, the shortest first.
    pub(super) fn of(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let start = text.first().map_or(0, |&byte| usize::from(byte));
        let (mut low, mut high) = (self.first[start], self.first[start + 1]);
        let mut depth = usize::from(!text.is_empty());
        if text.is_empty() {
            high = low;
        }
        std::iter::from_fn(move || {
            // Strings `low..high` begin with the first `depth` bytes of the text.
            while low < high {
                if self.string(low).len() == depth {
                    low += 1;
                    return Some((depth, self.values[low - 1]));
                }
                let &byte = text.get(depth)?;
                low = self.search(low, high, |string| string[depth] >= byte);
                high = self.search(low, high, |string| string[depth] > byte);
                depth += 1;
            }
            None
        })
    }

    /// The length of the longest string that `text` begins with.
    pub(super) fn longest(&self, text: &[u8]) -> Option<usize> {
        self.of(text).last().map(|(len, _)| len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_a_text_begins_with() {
        let words = ["1", "12", "123", "124", "2", "2\u{ff}", "\u{10ffff}", "\0"];
        let set = Prefixes::new(words.iter().copied().zip(0..));
        for text in ["", "1", "1234", "124", "13", "2\u{ff}\u{ff}", "3", "\u{10ffff}x", "\0", "21"]
        {
            let mut wanted: Vec<(usize, u32)> = words
                .iter()
                .zip(0..)
                .filter(|(word, _)| text.starts_with(**word))
                .map(|(word, i)| (word.len(), i))
                .collect();
            wanted.sort_unstable();
            assert_eq!(set.of(text.as_bytes()).collect::<Vec<_>>(), wanted, "{text:?}");
            assert_eq!(set.longest(text.as_bytes()), wanted.last().map(|(len, _)| *len));
        }
        assert_eq!(Prefixes::new(std::iter::empty()).longest(b"1"), None);
    }
}
