//! Tokens of WGSL, with the structure that operators need: which `<` opens a template list, which
//! brackets match, and where functions and statements are.

use std::{collections::HashMap, ops::Range};

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword.
    Word,
    /// A number with its suffix.
    Number,
    /// An operator or a bracket.
    Sign,
    /// `<` or `>` of a template list.
    Template,
}

/// A token: no white space and no comment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// Byte offset of its first character.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// Byte offset after its last character.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// A tokenized file.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    pub(crate) tokens: Vec<Token<'a>>,
    /// The closing bracket of each opening one, as token indices.
    pub(crate) close: HashMap<usize, usize>,
    /// Token ranges between the braces of functions.
    pub(crate) bodies: Vec<Range<usize>>,
}

/// Words after which `<` opens a template list.
const GENERIC: [&str; 9] =
    ["array", "bitcast", "vec2", "vec3", "vec4", "mat4x4", "var", "ptr", "atomic"];

/// Operators of several characters, longest first.
const LONG: [&str; 18] = [
    "<<=", ">>=", "->", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "==", "!=", "<=",
    ">=", "&&", "||",
];

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let tokens = tokens(text);
        let close = brackets(&tokens);
        let mut bodies = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            if token.text == "fn" {
                let open = (i..tokens.len()).find(|&j| tokens[j].text == "{");
                if let Some(open) = open {
                    bodies.push(open + 1..close[&open]);
                }
            }
        }
        Self { text, tokens, close, bodies }
    }

    /// Text of a token; empty beyond the end.
    pub(crate) fn word(&self, i: usize) -> &'a str {
        self.tokens.get(i).map_or("", |token| token.text)
    }

    /// The source text of a range of tokens.
    pub(crate) fn slice(&self, range: Range<usize>) -> &'a str {
        if range.is_empty() {
            return "";
        }
        &self.text[self.tokens[range.start].start..self.tokens[range.end - 1].end()]
    }

    /// Line and column of a byte offset, counted from one.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        (line, at - before.rfind('\n').map_or(0, |n| n + 1) + 1)
    }

    /// Whether a token is an operator between two operands.
    pub(crate) fn is_binary(&self, i: usize) -> bool {
        let Some(before) = i.checked_sub(1).map(|b| &self.tokens[b]) else { return false };
        match before.kind {
            Kind::Word => before.text != "return",
            Kind::Number => true,
            Kind::Template => false,
            Kind::Sign => matches!(before.text, ")" | "]"),
        }
    }

    /// Ranges inside of a bracket that commas or semicolons separate.
    pub(crate) fn parts(&self, open: usize, separator: &str) -> Vec<Range<usize>> {
        let end = self.close[&open];
        let (mut parts, mut from, mut i) = (Vec::new(), open + 1, open + 1);
        while i < end {
            if self.tokens[i].kind == Kind::Template && self.word(i) == "<" {
                i = self.close[&i];
            } else if let Some(&closing) = self.close.get(&i) {
                i = closing;
            } else if self.word(i) == separator {
                parts.push(from..i);
                from = i + 1;
            }
            i += 1;
        }
        if from < end || separator == ";" {
            parts.push(from..end);
        }
        parts
    }

    /// The index after the last token of the statement that begins with this token.
    pub(crate) fn statement_end(&self, start: usize) -> usize {
        let mut i = start;
        while i < self.tokens.len() {
            match self.word(i) {
                ";" => return i + 1,
                "{" => {
                    let after = self.close[&i] + 1;
                    if self.word(after) != "else" {
                        return after;
                    }
                    i = after + 1;
                    continue;
                }
                _ => i = self.close.get(&i).copied().unwrap_or(i),
            }
            i += 1;
        }
        i
    }

    /// The statements of a block, those of nested blocks included.
    pub(crate) fn statements(&self, block: Range<usize>) -> Vec<Range<usize>> {
        let (mut found, mut i) = (Vec::new(), block.start);
        while i < block.end {
            let end = self.statement_end(i);
            found.push(i..end);
            for j in i..end {
                if self.word(j) == "{" {
                    // Nested braces are visited when the statements inside of them are.
                    let outer = (i..j).any(|k| self.word(k) == "{" && self.close[&k] > j);
                    if !outer {
                        found.extend(self.statements(j + 1..self.close[&j]));
                    }
                }
            }
            i = end;
        }
        found
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut at, mut depth): (Vec<Token<'_>>, usize, usize) = (Vec::new(), 0, 0);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let span = |keep: &dyn Fn(char) -> bool| rest.find(|c| !keep(c)).unwrap_or(rest.len());
        let before = found.last().copied();
        let (kind, len) = if first.is_alphabetic() || first == '_' {
            (Kind::Word, span(&|c| c.is_alphanumeric() || c == '_'))
        } else if first.is_ascii_digit() {
            (Kind::Number, number(rest))
        } else if first == '<' && before.is_some_and(|b| GENERIC.contains(&b.text) && b.end() == at)
        {
            depth += 1;
            (Kind::Template, 1)
        } else if first == '>' && depth > 0 {
            depth -= 1;
            (Kind::Template, 1)
        } else {
            let long = LONG.iter().find(|long| rest.starts_with(**long));
            let shift = ["<<", ">>"].iter().find(|sign| rest.starts_with(**sign));
            let len = match (long, shift) {
                (Some(long), _) => long.len(),
                (None, Some(shift)) => shift.len(),
                (None, None) => first.len_utf8(),
            };
            (Kind::Sign, len)
        };
        found.push(Token { kind, text: &rest[..len], start: at });
        at += len;
    }
    found
}

/// Length of the number at the start of a text.
fn number(text: &str) -> usize {
    let bytes = text.as_bytes();
    let hex = text.starts_with("0x");
    let mut len = if hex { 2 } else { 0 };
    while let Some(&byte) = bytes.get(len) {
        let sign = matches!(byte, b'+' | b'-') && !hex && matches!(bytes[len - 1], b'e' | b'E');
        if !(byte.is_ascii_alphanumeric() || byte == b'.' || (sign && len > 0)) {
            break;
        }
        len += 1;
    }
    len
}

fn brackets(tokens: &[Token<'_>]) -> HashMap<usize, usize> {
    let (mut close, mut open) = (HashMap::new(), Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        match (token.kind, token.text) {
            (Kind::Sign, "(" | "[" | "{") | (Kind::Template, "<") => open.push(i),
            (Kind::Sign, ")" | "]" | "}") | (Kind::Template, ">") => {
                if let Some(start) = open.pop() {
                    close.insert(start, i);
                }
            }
            _ => {}
        }
    }
    close
}
