//! What SentencePiece does to a text before it looks for pieces: replaces characters, and blanks.

use super::prefixes::Prefixes;
use crate::base::json;

/// The character that stands for a blank within pieces: U+2581.
pub(super) const BLANK: &str = "\u{2581}";

/// Bytes of the longest string that a rule replaces, and of the longest that it is replaced by. The
/// rules of Unicode's NFKC have 33.
const MAX_RULE: usize = 256;

/// How a text is normalized, as the file says it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
pub(in crate::text::tokenizer) struct Rules<'a> {
    /// Replacements of characters (`precompiled_charsmap`); none if empty.
    pub(in crate::text::tokenizer) charsmap: &'a [u8],
    /// Whether a text gets a blank at its beginning (`add_dummy_prefix`).
    pub(in crate::text::tokenizer) dummy_prefix: bool,
    /// Whether blanks are dropped at both ends and after another (`remove_extra_whitespaces`).
    pub(in crate::text::tokenizer) remove_extra: bool,
    /// Whether blanks become [`BLANK`] (`escape_whitespaces`).
    pub(in crate::text::tokenizer) escape: bool,
    /// Whether the added blank is at the end instead (`treat_whitespace_as_suffix`).
    pub(in crate::text::tokenizer) suffix: bool,
}

/// What holds where the file says nothing.
impl Default for Rules<'_> {
    fn default() -> Self {
        Self { charsmap: &[], dummy_prefix: true, remove_extra: true, escape: true, suffix: false }
    }
}

/// Normalizes texts.
#[derive(Debug)]
pub(super) struct Normalizer {
    charsmap: Option<Charsmap>,
    /// Pieces that are found as they are spelt, before any rule.
    whole: Prefixes,
    pub(super) dummy_prefix: bool,
    pub(super) remove_extra: bool,
    suffix: bool,
    /// What becomes of a blank.
    blank: &'static [u8],
}

impl Normalizer {
    /// Fails if the replacements are not in the format.
    pub(super) fn new(rules: &Rules<'_>, whole: Prefixes) -> Result<Self, String> {
        let charsmap = if rules.charsmap.is_empty() {
            None
        } else {
            let read = Charsmap::parse(rules.charsmap);
            Some(read.map_err(|what| format!("precompiled_charsmap: {what}"))?)
        };
        Ok(Self {
            charsmap,
            whole,
            dummy_prefix: rules.dummy_prefix,
            remove_extra: rules.remove_extra,
            suffix: rules.suffix,
            blank: if rules.escape { BLANK.as_bytes() } else { b" " },
        })
    }

    /// The pieces that are found as they are spelt.
    pub(super) fn whole(&self) -> &Prefixes {
        &self.whole
    }

    /// What the text from byte `at` on begins with, normalized, and how many bytes that takes.
    fn step<'t>(&'t self, text: &'t str, at: usize) -> (&'t [u8], usize) {
        let rest = &text.as_bytes()[at..];
        if let Some(len) = self.whole.longest(rest) {
            return (&rest[..len], len);
        }
        if let Some(found) = self.charsmap.as_ref().and_then(|map| map.longest(rest)) {
            return found;
        }
        // A rule that ends within a character leaves bytes that are none.
        match text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(c) => (&rest[..c.len_utf8()], c.len_utf8()),
            None => ("\u{fffd}".as_bytes(), 1),
        }
    }

    /// The text in which pieces are looked for.
    pub(super) fn normalize(&self, text: &str) -> Result<String, String> {
        let mut at = 0;
        if self.remove_extra {
            while at < text.len() {
                let (to, len) = self.step(text, at);
                if to != b" " {
                    break;
                }
                at += len;
            }
        }
        if at == text.len() {
            return Ok(String::new());
        }
        let mut out = Vec::with_capacity(text.len() + text.len() / 2);
        if self.dummy_prefix && !self.suffix {
            out.extend_from_slice(self.blank);
        }
        let mut after_blank = self.remove_extra;
        while at < text.len() {
            let (mut to, len) = self.step(text, at);
            at += len;
            while after_blank && let [b' ', rest @ ..] = to {
                to = rest;
            }
            for &byte in to {
                if byte == b' ' {
                    out.extend_from_slice(self.blank);
                } else {
                    out.push(byte);
                }
            }
            if let Some(&last) = to.last() {
                after_blank = self.remove_extra && last == b' ';
            }
        }
        while self.remove_extra && out.ends_with(self.blank) {
            out.truncate(out.len() - self.blank.len());
        }
        if self.dummy_prefix && self.suffix {
            out.extend_from_slice(self.blank);
        }
        String::from_utf8(out).map_err(|error| {
            let good =
                String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            let end: String =
                good.chars().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect();
            format!(
                "precompiled_charsmap makes what is not UTF-8 after \"{}\"; the file is broken",
                json::clipped(&end)
            )
        })
    }
}

/// Replacements of strings by strings: a double-array trie of the first (as the Darts library
/// writes it), with positions of the second.
#[derive(Debug)]
struct Charsmap {
    /// The trie's units. Bits 0 to 7 are the byte that leads to a unit; bit 31 marks a value, in
    /// bits 0 to 30. Bit 8: a value is among the next units. Bits 10 to 30, shifted by 8 if bit 9
    /// is set, are combined with the unit's own position to that of the next ones.
    units: Vec<u32>,
    /// The strings to replace by, each ended by a zero byte.
    strings: Vec<u8>,
}

/// Marks a unit that is a value.
const VALUE: u32 = 1 << 31;

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

impl Charsmap {
    /// Reads the length of the trie in bytes, the trie, and the strings.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let cut = || format!("it has {} bytes, fewer than it says", bytes.len());
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let len = u32::from_le_bytes(*len);
        if len == 0 || len % 1024 != 0 {
            return Err(format!("its trie has {len} bytes, wanted a multiple of 1024"));
        }
        let (trie, strings) =
            rest.split_at_checked(usize::try_from(len).unwrap_or(usize::MAX)).ok_or_else(cut)?;
        if strings.last() != Some(&0) {
            return Err("its last string has no end".into());
        }
        let longest = strings.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0);
        if longest > MAX_RULE {
            return Err(format!("a string has {longest} bytes, wanted at most {MAX_RULE}"));
        }
        let units: Vec<u32> =
            trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        // The next units are in one block of 256.
        let outside =
            |(i, &unit): (usize, &u32)| unit & VALUE == 0 && (i ^ offset(unit)) >= units.len();
        if let Some(i) = units.iter().enumerate().position(outside) {
            return Err(format!("unit {i} of its trie leads outside of its {} units", units.len()));
        }
        Ok(Self { units, strings: strings.into() })
    }

    /// The replacement of the longest string with one that `text` begins with, and the length of
    /// that string.
    fn longest(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        // A trie with a cycle has no end.
        for (i, &byte) in text.iter().take(MAX_RULE).enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { break };
            if unit & (VALUE | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1
                && let Some(value) = self.units.get(at)
            {
                found = Some(((value & !VALUE) as usize, i + 1));
            }
        }
        let (start, len) = found?;
        let string = self.strings.get(start..).filter(|string| !string.is_empty())?;
        Some((string.split(|&byte| byte == 0).next()?, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of "a" to "bc": the root, "a" and the value are one block of units.
    fn charsmap() -> Vec<u8> {
        let mut units = vec![0u32; 256];
        units[0] = 0;
        // The unit of `a` has its value at position 0x61 ^ 2.
        units[0x61] = 2 << 10 | 1 << 8 | 0x61;
        units[0x61 ^ 2] = VALUE | 1;
        let mut bytes = 1024u32.to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"\0bc\0");
        bytes
    }

    fn normalizer(charsmap: &[u8]) -> Result<Normalizer, String> {
        let rules = Rules { charsmap, ..Rules::default() };
        Normalizer::new(&rules, Prefixes::new(std::iter::empty()))
    }

    #[test]
    fn a_rule_is_applied() {
        let normalizer = normalizer(&charsmap()).expect("good");
        assert_eq!(normalizer.normalize("xa a").expect("text"), "▁xbc▁bc");
    }

    #[test]
    fn broken_rules_are_told() {
        type Spoil = fn(&mut Vec<u8>);
        let spoils: [(&str, Spoil); 8] = [
            ("has 3 bytes, fewer than it says", |map| map.truncate(3)),
            ("has 1000 bytes, fewer than it says", |map| map.truncate(1000)),
            ("trie has 1028 bytes, wanted a multiple", |map| map[0] = 4),
            ("trie has 0 bytes", |map| map[1] = 0),
            ("fewer than it says", |map| map[3] = 0xff),
            ("its last string has no end", |map| map.push(1)),
            ("a string has 300 bytes, wanted at most 256", |map| {
                map.splice(1028..1028, [7; 300]);
            }),
            ("unit 7 of its trie leads outside", |map| map[4 + 7 * 4 + 2] = 0x10),
        ];
        for (told, spoil) in spoils {
            let mut map = charsmap();
            spoil(&mut map);
            let error = normalizer(&map).expect_err("refused");
            assert!(error.starts_with("precompiled_charsmap: "), "{error}");
            assert!(error.contains(told), "{told}: {error}");
        }
    }

    /// Values beyond the strings, cycles, and rules that end within a character are followed
    /// nowhere.
    #[test]
    fn odd_tries_end() {
        let mut map = charsmap();
        map[4 + (0x61 ^ 2) * 4..][..4].copy_from_slice(&(VALUE | 0xffff).to_le_bytes());
        assert_eq!(normalizer(&map).expect("good").normalize("xa").expect("text"), "▁xa");

        // Every unit of `a` leads to itself.
        let mut map = charsmap();
        map[4 + 0x61 * 4..][..4].copy_from_slice(&(0x61 << 10 | 0x61u32).to_le_bytes());
        let text = "a".repeat(100_000);
        let normal = normalizer(&map).expect("good").normalize(&text).expect("text");
        assert_eq!(normal, format!("▁{text}"));

        // The first byte of a character becomes "bc"; the second is none.
        let mut map = charsmap();
        let (first, value) = (0xc3usize, 0xc3 ^ 2);
        map[4 + first * 4..][..4].copy_from_slice(&(2 << 10 | 1 << 8 | 0xc3u32).to_le_bytes());
        map[4 + value * 4..][..4].copy_from_slice(&(VALUE | 1).to_le_bytes());
        let normal = normalizer(&map).expect("good").normalize("\u{e9}").expect("text");
        assert_eq!(normal, "▁bc\u{fffd}");

        // A string that is not UTF-8.
        let mut map = charsmap();
        let at = map.len() - 2;
        map[at] = 0xff;
        let error = normalizer(&map).expect("good").normalize("xa").expect_err("refused");
        assert!(error.contains("not UTF-8 after \"▁xb\""), "{error}");
    }
}
