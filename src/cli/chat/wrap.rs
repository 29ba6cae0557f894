//! Answers on a terminal, with lines that break between words.

use std::io;

use grok_wgpu::lab::base::error::Result;
use terminal_size::terminal_size_of;
use unicode_linebreak::linebreaks;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::super::terminal::{out, printable};

/// White space that is left out where a line ends at it.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Columns from one tab stop to the next.
const TAB: usize = 8;

/// The standard output, on which an answer is drawn as it comes.
///
/// Text that does not go to a terminal stays as it is.
#[derive(Debug, Default)]
pub(super) struct Screen {
    wrap: Wrap,
    begun: bool,
}

impl Screen {
    /// Draws text that follows what was drawn.
    pub(super) fn draw(&mut self, text: &str) -> Result<()> {
        self.begun |= !text.is_empty();
        match terminal_size_of(io::stdout()) {
            Some((width, _)) => out(&self.wrap.push(&printable(text), width.0.into())),
            None => out(text),
        }
    }

    /// Whether there was any text.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Draws what was held back, and ends the line.
    pub(super) fn end(&mut self) -> Result<()> {
        let width = terminal_size_of(io::stdout()).map_or(usize::MAX, |(width, _)| width.0.into());
        out(&(self.wrap.end(width) + "\n"))
    }
}

/// Text in lines of the width of the standard error, if that is a terminal.
pub(super) fn wrapped(text: &str) -> String {
    let Some((width, _)) = terminal_size_of(io::stderr()) else { return text.to_owned() };
    let mut wrap = Wrap::default();
    let lines = wrap.push(&printable(text), width.0.into());
    lines + &wrap.end(width.0.into())
}

/// Breaks text that comes in pieces into lines.
///
/// A word is held back until its end is known, or until it is longer than a line. Lines end at
/// white space and beside wide characters, such as those of Chinese and Japanese, where Unicode's
/// rules (UAX 14) allow it.
#[derive(Debug, Default)]
struct Wrap {
    /// The column of the next character.
    column: usize,
    /// White space before `word`.
    gap: String,
    /// Text that is held back.
    word: String,
    /// Whether the beginning of the word was given out, as it is longer than a line.
    broken: bool,
}

impl Wrap {
    /// The text that can be drawn when `text` follows, on a terminal with `width` columns.
    fn push(&mut self, text: &str, width: usize) -> String {
        let mut drawn = String::new();
        self.word.push_str(text);
        let word = std::mem::take(&mut self.word);
        let mut start = 0;
        for (at, _) in linebreaks(&word) {
            // At its end the text breaks only if that is known now.
            if at < word.len() && breaks(&word[start..at], &word[at..]) {
                self.place(&word[start..at], width, &mut drawn);
                start = at;
            }
        }
        self.word.push_str(&word[start..]);
        if self.word.width() > width || self.word.ends_with('\n') {
            let word = std::mem::take(&mut self.word);
            self.place(&word, width, &mut drawn);
            self.broken = !word.ends_with(BLANKS);
        }
        drawn
    }

    /// The rest of the text.
    fn end(&mut self, width: usize) -> String {
        let mut drawn = String::new();
        let word = std::mem::take(&mut self.word);
        self.place(&word, width, &mut drawn);
        *self = Self::default();
        drawn
    }

    /// Draws a word with the white space after it.
    fn place(&mut self, text: &str, width: usize, drawn: &mut String) {
        // The terminal has become narrower, and may have wrapped the line.
        if self.column > width {
            self.column %= width;
        }
        let word = text.trim_end_matches(BLANKS);
        if !word.is_empty() {
            let fits = |from: usize| from.saturating_add(word.width()) <= width;
            let after = columns(self.column, &self.gap);
            if self.broken || fits(after) {
                drawn.push_str(&self.gap);
                self.column = after;
            } else if self.column > 0 {
                drawn.push('\n');
                self.column = 0;
            }
            self.gap.clear();
            if fits(self.column) {
                drawn.push_str(word);
                self.column += word.width();
            } else {
                for c in word.chars() {
                    let columns = c.width().unwrap_or(0);
                    if self.column > 0 && self.column + columns > width {
                        drawn.push('\n');
                        self.column = 0;
                    }
                    drawn.push(c);
                    self.column += columns;
                }
            }
        }
        self.broken = false;
        for c in text[word.len()..].chars() {
            if c == '\n' {
                drawn.push('\n');
                self.column = 0;
                self.gap.clear();
            } else {
                self.gap.push(c);
            }
        }
    }
}

/// Whether a line may end between two parts of a text, where Unicode's rules allow it.
fn breaks(before: &str, after: &str) -> bool {
    let wide = |c: Option<char>| c.is_some_and(|c| c.width() == Some(2));
    before.ends_with(char::is_whitespace)
        || wide(before.chars().next_back())
        || wide(after.chars().next())
}

/// The column after white space.
fn columns(from: usize, blanks: &str) -> usize {
    let next = |at: usize, c| if c == '\t' { (at / TAB + 1) * TAB } else { at + 1 };
    blanks.chars().fold(from, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text as it is drawn when it comes in pieces of this many characters.
    fn drawn(text: &str, piece: usize, width: usize) -> String {
        let mut wrap = Wrap::default();
        let chars: Vec<char> = text.chars().collect();
        let pieces = chars.chunks(piece).map(|piece| piece.iter().collect::<String>());
        let mut all: String = pieces.map(|piece| wrap.push(&piece, width)).collect();
        all += &wrap.end(width);
        all
    }

    #[test]
    fn lines_break_between_words_however_the_text_comes() {
        for (text, width, want) in [
            ("", 10, ""),
            ("one two", 10, "one two"),
            ("one two three", 7, "one two\nthree"),
            ("one two three", 8, "one two\nthree"),
            ("one two three", 6, "one\ntwo\nthree"),
            ("one  two", 5, "one\ntwo"),
            ("well-known and/or", 11, "well-known\nand/or"),
            // Line ends and indents of the text stay.
            ("one\ntwo\n\n  three four", 9, "one\ntwo\n\n  three\nfour"),
            ("one \ntwo", 10, "one\ntwo"),
            ("a\tb c", 10, "a\tb\nc"),
            // A word that is longer than a line begins a line.
            ("an abcdefghijkl end", 5, "an\nabcde\nfghij\nkl\nend"),
            ("abcdefghij", 5, "abcde\nfghij"),
            ("abcde fghij", 5, "abcde\nfghij"),
            ("non\u{a0}breaking text", 9, "non\u{a0}break\ning text"),
        ] {
            for piece in 1..=text.chars().count().max(1) {
                assert_eq!(drawn(text, piece, width), want, "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn wide_characters_have_two_columns() {
        for (text, width, want) in [
            ("日本語の文", 6, "日本語\nの文"),
            ("日本語の文", 7, "日本語\nの文"),
            ("a日本語", 5, "a日本\n語"),
            // No line begins with a full stop.
            ("日本語。文", 6, "日本\n語。文"),
            ("ok \u{1f600}\u{1f600} ok", 5, "ok \u{1f600}\n\u{1f600} ok"),
            // An accent that is a character of its own has no column.
            ("cafe\u{301} cafe\u{301}", 9, "cafe\u{301} cafe\u{301}"),
        ] {
            for piece in 1..=text.chars().count() {
                assert_eq!(drawn(text, piece, width), want, "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn words_come_as_soon_as_they_are_whole() {
        let mut wrap = Wrap::default();
        assert_eq!(wrap.push("Once", 20), "");
        assert_eq!(wrap.push(" upon", 20), "Once");
        assert_eq!(wrap.push(" a", 20), " upon");
        assert_eq!(wrap.push(".\n", 20), " a.\n");
        assert_eq!(wrap.push("日本", 20), "日");
        assert_eq!(wrap.end(20), "本");
    }

    #[test]
    fn a_width_that_changes_is_that_of_the_next_word() {
        let mut wrap = Wrap::default();
        assert_eq!(wrap.push("one two three four", 20), "one two three");
        // Thirteen columns are used of lines of ten: the terminal has wrapped them.
        assert_eq!(wrap.push(" five six ", 10), " four\nfive");
        assert_eq!(wrap.push("seven eight", 40), " six seven");
        assert_eq!(wrap.end(1), "e\ni\ng\nh\nt");
    }

    /// Nothing but white space at the ends of lines is lost, and no line is too long.
    #[test]
    fn the_text_is_the_same_in_every_width() {
        let text = "The fox, who had lost her hat (red, of course!), said: \"日本語 is もの—hard\"; \
                    http://example.org/a/very/long/path?of=it 😀👩‍👩‍👧 cafe\u{301}.";
        let plain = |text: &str| text.replace(BLANKS, "");
        for width in 2..60 {
            let lines = drawn(text, 3, width);
            assert_eq!(plain(&lines), plain(text), "{width}");
            for line in lines.lines().filter(|line| !line.contains('\u{200d}')) {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
        }
    }
}
