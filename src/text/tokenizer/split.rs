//! Pre-tokenization: cuts text into runs, which byte-pair merges never cross.

use regex_syntax::hir::{Class, HirKind};

/// Grok's pattern, which `word_split` calls `V1`: cl100k's, but every digit stands alone.
pub(super) const V1_PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Longest `pat_str` accepted, in bytes. Compiled size grows with it.
const MAX_PATTERN: usize = 64 << 10;

/// Steps that a match of a foreign pattern may backtrack before it fails.
const BACKTRACK_LIMIT: usize = 100_000;

/// Largest compiled size of the parts of a foreign pattern, in bytes.
const COMPILED_LIMIT: usize = 8 << 20;

/// The pre-tokenizer of a `tokenizer.tok.json`.
pub(super) enum Splitter {
    /// The known pattern, by a hand-written scanner: no backtracking, no recursion, linear time.
    V1(Classes),
    /// Any other pattern.
    Pattern(Box<fancy_regex::Regex>),
}

impl Splitter {
    /// The splitter of `pattern`, or of V1 where the file names none.
    pub(super) fn new(pattern: Option<&str>) -> Result<Self, String> {
        match pattern {
            None | Some(V1_PATTERN) => Ok(Self::V1(Classes::new())),
            Some(long) if long.len() > MAX_PATTERN => Err(format!(
                "`pat_str` has {} bytes, more than the {MAX_PATTERN} allowed",
                long.len()
            )),
            Some(pattern) => fancy_regex::RegexBuilder::new(pattern)
                .backtrack_limit(BACKTRACK_LIMIT)
                .delegate_size_limit(COMPILED_LIMIT)
                .delegate_dfa_size_limit(COMPILED_LIMIT)
                .build()
                .map(|regex| Self::Pattern(Box::new(regex)))
                .map_err(|error| format!("`pat_str` is not a usable pattern: {error}")),
        }
    }

    /// Hands the runs of `text` to `visit`, in order and without gaps.
    ///
    /// What a foreign pattern does not match becomes a run of its own, so that no text is lost.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        mut visit: impl FnMut(&'t str),
    ) -> Result<(), String> {
        match self {
            Self::V1(classes) => {
                let mut rest = text;
                while !rest.is_empty() {
                    let (run, after) = rest.split_at(classes.first_run(rest));
                    visit(run);
                    rest = after;
                }
            }
            Self::Pattern(regex) => {
                let mut done = 0;
                for found in regex.find_iter(text) {
                    let found = found.map_err(|error| {
                        format!("`pat_str` gives up on this text after byte {done}: {error}")
                    })?;
                    if done < found.start() {
                        visit(&text[done..found.start()]);
                    }
                    if !found.as_str().is_empty() {
                        visit(found.as_str());
                    }
                    done = found.end();
                }
                if done < text.len() {
                    visit(&text[done..]);
                }
            }
        }
        Ok(())
    }
}

/// The character classes that the V1 pattern distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None of the others.
    Mark,
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`, line breaks included.
    Space,
}

/// The class of every character, and the scanner that uses them.
pub(super) struct Classes(Vec<Kind>);

impl Classes {
    fn new() -> Self {
        let mut kinds = vec![Kind::Mark; 0x11_0000];
        for (class, kind) in
            [(r"\p{L}", Kind::Letter), (r"\p{N}", Kind::Number), (r"\s", Kind::Space)]
        {
            // The same tables a regex engine would use, so that the two cannot differ.
            let hir = regex_syntax::parse(class).map(regex_syntax::hir::Hir::into_kind);
            let Ok(HirKind::Class(Class::Unicode(class))) = hir else {
                unreachable!("{class} is a Unicode class");
            };
            for range in class.ranges() {
                kinds[range.start() as usize..=range.end() as usize].fill(kind);
            }
        }
        Self(kinds)
    }

    fn kind(&self, c: char) -> Kind {
        self.0[c as usize]
    }

    /// Bytes of the characters of `kind` that `text` starts with.
    fn run(&self, text: &str, kind: Kind) -> usize {
        text.find(|c| self.kind(c) != kind).unwrap_or(text.len())
    }

    /// Bytes of the first match of the V1 pattern in `text`, which is not empty.
    ///
    /// A character is looked at a bounded number of times: only the tail of a whitespace run
    /// after its last line break is scanned again.
    fn first_run(&self, text: &str) -> usize {
        if let Some(len) = contraction(text) {
            return len;
        }
        let Some(first) = text.chars().next() else {
            return 0;
        };
        let len = first.len_utf8();
        match self.kind(first) {
            Kind::Letter => return len + self.run(&text[len..], Kind::Letter),
            Kind::Number => return len,
            Kind::Mark | Kind::Space => {}
        }
        // One character of any kind but a line break joins the word after it.
        if !matches!(first, '\r' | '\n') {
            let word = self.run(&text[len..], Kind::Letter);
            if word > 0 {
                return len + word;
            }
        }
        // Punctuation, with one space before it and the line breaks after it.
        let lead = usize::from(first == ' ');
        let marks = self.run(&text[lead..], Kind::Mark);
        if marks > 0 {
            let end = lead + marks;
            let after = &text[end..];
            return end + after.find(|c| !matches!(c, '\r' | '\n')).unwrap_or(after.len());
        }
        // White space: up to its last line break; else all of it at the end of the text; else all
        // but the last character, which may join what follows; else that character.
        let spaces = &text[..self.run(text, Kind::Space)];
        if let Some(last_break) = spaces.rfind(['\r', '\n']) {
            return last_break + 1;
        }
        let last = spaces.chars().next_back().map_or(0, char::len_utf8);
        if spaces.len() < text.len() && spaces.len() > last {
            return spaces.len() - last;
        }
        spaces.len()
    }
}

/// Bytes of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at the start of `text`, in any case.
fn contraction(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    // Case-insensitive regex engines in Unicode mode match the long s with s.
    if rest.starts_with('ſ') {
        return Some(1 + 'ſ'.len_utf8());
    }
    ["s", "t", "re", "ve", "m", "ll", "d"]
        .into_iter()
        .find(|ending| {
            rest.as_bytes()
                .get(..ending.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(ending.as_bytes()))
        })
        .map(|ending| 1 + ending.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    fn split(splitter: &Splitter, text: &str) -> Vec<String> {
        let mut runs = Vec::new();
        splitter.split(text, |run| runs.push(run.to_owned())).expect("the pattern copes");
        runs
    }

    /// A character out of a mix that reaches every branch of the scanner.
    fn random_char(rng: &mut ChaCha8Rng) -> char {
        const COMMON: &[char] = &[
            ' ',
            ' ',
            ' ',
            '\n',
            '\r',
            '\t',
            '\'',
            's',
            'T',
            'r',
            'e',
            'V',
            'm',
            'L',
            'l',
            'd',
            'ſ',
            'a',
            'Z',
            '1',
            '9',
            '!',
            '^',
            '.',
            'é',
            '\u{301}',
            '你',
            '\u{3000}',
            '\u{a0}',
            '\u{85}',
            '\u{2028}',
            '\u{200b}',
            '\u{feff}',
            '²',
            'Ⅷ',
            '٣',
            'ª',
            '🙂',
            '\u{fffd}',
            '\0',
            'ǅ',
            'ʰ',
            '\u{10ffff}',
            '\u{e000}',
        ];
        if rng.next_u32().is_multiple_of(4) {
            loop {
                if let Some(c) = char::from_u32(rng.next_u32() % 0x11_0000) {
                    return c;
                }
            }
        }
        COMMON[rng.next_u32() as usize % COMMON.len()]
    }

    #[test]
    fn scanner_is_the_pattern_on_random_text() {
        let scanner = Splitter::new(None).expect("V1");
        let regex = fancy_regex::Regex::new(V1_PATTERN).expect("V1 is a pattern");
        let oracle = Splitter::Pattern(Box::new(regex));
        let mut rng = ChaCha8Rng::seed_from_u64(0x70c);
        for _ in 0..20_000 {
            let len = rng.next_u32() % 24;
            let text: String = (0..len).map(|_| random_char(&mut rng)).collect();
            assert_eq!(split(&scanner, &text), split(&oracle, &text), "{text:?}");
        }
    }

    #[test]
    fn every_character_has_the_class_of_the_regex_crates() {
        let classes = Classes::new();
        for (pattern, kind) in
            [(r"\p{L}", Kind::Letter), (r"\p{N}", Kind::Number), (r"\s", Kind::Space)]
        {
            let regex = fancy_regex::Regex::new(&format!("^{pattern}$")).expect("a class");
            for c in '\0'..=char::MAX {
                let matched = regex.is_match(c.encode_utf8(&mut [0; 4])).expect("no backtracking");
                assert_eq!(matched, classes.kind(c) == kind, "{c:?} {pattern}");
            }
        }
    }

    #[test]
    fn white_space_rules() {
        let v1 = Splitter::new(None).expect("V1");
        for (text, want) in [
            ("a  b", vec!["a", " ", " b"]),
            ("a \n \n  b", vec!["a", " \n \n", " ", " b"]),
            ("a   ", vec!["a", "   "]),
            ("a  1", vec!["a", " ", " ", "1"]),
            ("\tif", vec!["\tif"]),
            ("x !!\r\n\n y", vec!["x", " !!\r\n\n", " y"]),
            ("2024", vec!["2", "0", "2", "4"]),
            ("WE'LL don't", vec!["WE", "'LL", " don", "'t"]),
            ("'ſx", vec!["'ſ", "x"]),
            ("", vec![]),
        ] {
            assert_eq!(split(&v1, text), want, "{text:?}");
        }
    }

    #[test]
    fn the_v1_text_selects_the_scanner() {
        assert!(matches!(Splitter::new(Some(V1_PATTERN)), Ok(Splitter::V1(_))));
    }

    #[test]
    fn foreign_patterns_lose_no_text() {
        let vowels = Splitter::new(Some("[aeiou]+")).expect("a pattern");
        assert_eq!(split(&vowels, "queue up"), ["q", "ueue", " ", "u", "p"]);
        let nothing = Splitter::new(Some("x*")).expect("a pattern");
        assert_eq!(split(&nothing, "axxb"), ["a", "xx", "b"]);
    }

    #[test]
    fn hostile_patterns_are_errors() {
        for pattern in ["(", r"(?<!a+", "[z-a]", "a{9999999}", &"a".repeat(1 << 20)] {
            let message = Splitter::new(Some(pattern)).err().expect("refused");
            assert!(message.contains("pat_str"), "{message}");
        }
        // The lookahead keeps this out of the linear engine.
        let slow = Splitter::new(Some("(?=((a+)+$))b|(a|a)*(?=c)d")).expect("compiles");
        let message = slow.split(&"a".repeat(4000), |_| {}).expect_err("gives up");
        assert!(message.contains("pat_str"), "{message}");
        // This one is left to the linear engine, and simply matches.
        let linear = Splitter::new(Some("(a+)+$")).expect("compiles");
        assert_eq!(split(&linear, &("a".repeat(4000) + "b")).concat().len(), 4001);
    }
}
