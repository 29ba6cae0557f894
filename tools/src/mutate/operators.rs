//! Mutation operators: every small wrong change of a shader file, each with a stable name.

use std::{collections::BTreeMap, ops::Range};

use super::tokens::{Kind, Source};

/// A mutant: one change in one file.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    /// Path below `shaders/`.
    pub(crate) file: String,
    pub(crate) operator: &'static str,
    /// File, line, column, operator, text before and after.
    pub(crate) id: String,
    /// The bytes to replace.
    span: Range<usize>,
    after: String,
}

impl Mutant {
    /// The changed file.
    pub(crate) fn apply(&self, text: &str) -> String {
        [&text[..self.span.start], &self.after, &text[self.span.end..]].concat()
    }
}

/// All mutants of a file, in source order.
pub(crate) fn mutants(file: &str, text: &str) -> Vec<Mutant> {
    let source = Source::new(text);
    let mut found = Found { file, source: &source, all: BTreeMap::new() };
    for body in source.bodies.clone() {
        for i in body.clone() {
            found.signs(i);
            found.numbers(i);
            found.calls(i);
            found.members(i);
            found.conditions(i);
            found.loops(i);
            found.parentheses(i);
        }
        found.statements(body);
    }
    found.constants();
    found.declared();
    found.all.into_values().collect()
}

struct Found<'a> {
    file: &'a str,
    source: &'a Source<'a>,
    /// By place and new text, so that two operators cannot make the same mutant.
    all: BTreeMap<(usize, usize, String), Mutant>,
}

impl Found<'_> {
    /// Replaces these tokens.
    fn replace(&mut self, operator: &'static str, tokens: Range<usize>, after: &str) {
        let start = self.source.tokens[tokens.start].start;
        let end = self.source.tokens[tokens.end - 1].end();
        let before = &self.source.text[start..end];
        if before == after {
            return;
        }
        let (line, column) = self.source.place(start);
        let id = format!(
            "{}:{line}:{column} {operator}: `{}` -> `{}`",
            self.file,
            one_line(before),
            one_line(after)
        );
        let mutant =
            Mutant { file: self.file.into(), operator, id, span: start..end, after: after.into() };
        self.all.entry((start, end, after.into())).or_insert(mutant);
    }

    fn signs(&mut self, i: usize) {
        let token = self.source.tokens[i];
        if token.kind != Kind::Sign {
            return;
        }
        if token.text == "-" && !self.source.is_binary(i) {
            let operand = self.source.tokens[i + 1];
            if operand.text != "-" {
                self.replace("sign dropped", i..i + 2, operand.text);
            }
            return;
        }
        let changes: &[(&'static str, &str)] = match token.text {
            "<" => &[("boundary", "<="), ("comparison reversed", ">")],
            "<=" => &[("boundary", "<"), ("comparison reversed", ">=")],
            ">" => &[("boundary", ">="), ("comparison reversed", "<")],
            ">=" => &[("boundary", ">"), ("comparison reversed", "<=")],
            "==" => &[("comparison reversed", "!=")],
            "!=" => &[("comparison reversed", "==")],
            "+" => &[("arithmetic", "-")],
            "-" => &[("arithmetic", "+")],
            "*" => &[("arithmetic", "/"), ("arithmetic", "+")],
            "/" => &[("arithmetic", "*"), ("quotient and remainder", "%")],
            "%" => &[("quotient and remainder", "/")],
            "&&" => &[("logic", "||")],
            "||" => &[("logic", "&&")],
            "&" => &[("bits", "|")],
            "|" => &[("bits", "&")],
            "<<" => &[("bits", ">>")],
            ">>" => &[("bits", "<<")],
            "+=" => &[("accumulation", "="), ("accumulation", "-=")],
            "*=" => &[("accumulation", "=")],
            "++" => &[("loop stride", " += 2u")],
            _ => &[],
        };
        for &(operator, after) in changes {
            self.replace(operator, i..i + 1, after);
        }
    }

    fn numbers(&mut self, i: usize) {
        let token = self.source.tokens[i];
        if token.kind != Kind::Number {
            return;
        }
        let text = token.text;
        if let Some(digits) = text.strip_prefix("0x") {
            let bits = u32::from_str_radix(digits.trim_end_matches('u'), 16);
            for near in bits.into_iter().flat_map(|b| [b.wrapping_add(1), b.wrapping_sub(1)]) {
                self.replace("integer off by one", i..i + 1, &format!("{near:#x}u"));
            }
        } else if let Ok(value) = text.trim_end_matches(['u', 'i']).parse::<u32>() {
            let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit());
            // A smaller stride of a loop only repeats some work.
            let stride = self.source.word(i - 1) == "+=" && self.source.word(i + 1) == ")";
            let less = if stride { None } else { value.checked_sub(1) };
            for near in [Some(value + 1), less].into_iter().flatten() {
                self.replace("integer off by one", i..i + 1, &format!("{near}{suffix}"));
            }
        } else if let Ok(value) = text.trim_end_matches('f').parse::<f64>() {
            if value == 0.0 {
                self.replace("float scaled", i..i + 1, "1.0");
            } else {
                self.replace("float scaled", i..i + 1, &format!("{:?}", value * 1.25));
                self.replace("float dropped", i..i + 1, "0.0");
            }
        }
    }

    fn calls(&mut self, i: usize) {
        let source = self.source;
        let name = source.word(i);
        if source.tokens[i].kind != Kind::Word || matches!(name, "for" | "if" | "return" | "vec4") {
            if name == "vec4" {
                self.swapped(i);
            }
            return;
        }
        match name {
            "max" => self.replace("max and min", i..i + 1, "min"),
            "min" => self.replace("max and min", i..i + 1, "max"),
            _ => {}
        }
        if source.word(i + 1) != "(" {
            return;
        }
        self.swapped(i);
        let end = source.close[&(i + 1)] + 1;
        let kept = match name {
            // The bounds of a clamp and the condition of a select are not replacements for the
            // result.
            "clamp" => 1,
            "select" => 2,
            "Eight" | "vec2" | "vec3" | "dot" | "workgroupBarrier" => 0,
            _ => usize::MAX,
        };
        for part in source.parts(i + 1, ",").into_iter().take(kept) {
            self.replace("call dropped", i..end, &format!("({})", source.slice(part)));
        }
    }

    /// Swaps adjacent arguments of a call.
    fn swapped(&mut self, i: usize) {
        let source = self.source;
        let name = source.word(i);
        if source.word(i + 1) != "(" || matches!(name, "min" | "max" | "dot") {
            return;
        }
        let parts = source.parts(i + 1, ",");
        for (a, b) in parts.iter().zip(parts.iter().skip(1)) {
            let after = format!("{}, {}", source.slice(b.clone()), source.slice(a.clone()));
            self.replace("arguments swapped", a.start..b.end, &after);
        }
    }

    fn members(&mut self, i: usize) {
        let source = self.source;
        if source.word(i) != "." || source.tokens[i + 1].kind != Kind::Word {
            return;
        }
        let after: &[&str] = match source.word(i + 1) {
            "x" => &["y"],
            "y" => &["x"],
            "z" => &["x", "y"],
            "w" => &["z"],
            "lo" => &["hi"],
            "hi" => &["lo"],
            _ => &[],
        };
        for after in after {
            self.replace("component", i + 1..i + 2, after);
        }
    }

    fn conditions(&mut self, i: usize) {
        let source = self.source;
        if source.word(i) != "if" {
            return;
        }
        let Some(open) = (i..source.tokens.len()).find(|&j| source.word(j) == "{") else { return };
        self.replace("guard dropped", i + 1..open, "true");
        self.replace("guard never met", i + 1..open, "false");
    }

    fn loops(&mut self, i: usize) {
        let source = self.source;
        if source.word(i) != "for" {
            return;
        }
        let parts = source.parts(i + 1, ";");
        let [start, end, step] = &parts[..] else { return };
        let equals = start.clone().find(|&j| source.word(j) == "=");
        if let Some(equals) = equals {
            let value = equals + 1..start.end;
            if value.len() > 1 || source.tokens[value.start].kind == Kind::Word {
                let after = format!("{} + 1u", source.slice(value.clone()));
                self.replace("loop start", value, &after);
            }
        }
        if let Some(less) = end.clone().find(|&j| matches!(source.word(j), "<" | "<=")) {
            let value = end.start..less;
            let after = format!("{} + 1u", source.slice(value.clone()));
            self.replace("last iteration lost", value, &after);
        }
        if let Some(add) = step.clone().find(|&j| source.word(j) == "+=")
            && source.tokens[add + 1].kind == Kind::Word
        {
            let value = add + 1..step.end;
            let more = format!("{} + 1u", source.slice(value.clone()));
            self.replace("loop stride", value, &more);
        }
    }

    /// Drops parentheses where that changes more than rounding.
    fn parentheses(&mut self, i: usize) {
        let source = self.source;
        let grouping = source.word(i) == "(" && !source.is_binary(i);
        if !grouping {
            return;
        }
        let close = source.close[&i];
        let inside = i + 1..close;
        // A product inside of a product only changes rounding.
        let mut sums = inside
            .clone()
            .filter(|&j| matches!(source.word(j), "+" | "-" | "%" | "/") && source.is_binary(j));
        let around = |j: usize| matches!(source.word(j), "*" | "/" | "%" | "<<");
        if sums.next().is_some() && (around(i - 1) || around(close + 1)) {
            self.replace("parentheses dropped", i..close + 1, source.slice(inside));
        }
    }

    fn statements(&mut self, body: Range<usize>) {
        let source = self.source;
        let all = source.statements(body);
        for (n, statement) in all.iter().enumerate() {
            let first = source.word(statement.start);
            if first == "workgroupBarrier" {
                self.replace("barrier dropped", statement.clone(), "");
                let barrier = source.slice(statement.clone());
                // Moving a barrier past a `let` that reads no memory changes nothing.
                let reads = |s: &Range<usize>| {
                    source.word(s.start) != "let" || source.slice(s.clone()).contains('[')
                };
                let next = all[n + 1..].iter().find(|s| s.start == statement.end && reads(s));
                if let Some(next) = next {
                    let after = format!("{} {barrier}", source.slice(next.clone()));
                    self.replace("barrier moved", statement.start..next.end, &after);
                }
                let last = all[..n].iter().find(|s| s.end == statement.start && reads(s));
                if let Some(last) = last {
                    let after = format!("{barrier} {}", source.slice(last.clone()));
                    self.replace("barrier moved", last.start..statement.end, &after);
                }
                continue;
            }
            let word = source.tokens[statement.start].kind == Kind::Word;
            if first == "return" || first == "break" {
                // In a block of its own, the statement has the same mutant as the condition around
                // it.
                let alone =
                    source.word(statement.start - 1) == "{" && source.word(statement.end) == "}";
                if !alone {
                    self.replace("return dropped", statement.clone(), "");
                }
            } else if word && !matches!(first, "let" | "var" | "const" | "if" | "for" | "loop") {
                self.replace("statement dropped", statement.clone(), "");
            }
        }
    }

    /// Constants at module scope, and sizes of arrays and workgroups. The default of an `override`
    /// is never used, so it is not mutated.
    fn constants(&mut self) {
        let source = self.source;
        for i in 0..source.tokens.len() {
            if source.bodies.iter().any(|body| body.contains(&i)) {
                continue;
            }
            let less = |found: &mut Self, at: usize| {
                let digits = source.word(at).trim_end_matches('u').parse::<u32>();
                if let Ok(size) = digits {
                    let after = size.saturating_sub(1).to_string();
                    found.replace("size reduced", at..at + 1, &after);
                }
            };
            match source.word(i) {
                "const" => {
                    for j in i..source.statement_end(i) {
                        self.numbers(j);
                        self.signs(j);
                    }
                }
                "workgroup_size" => less(self, i + 2),
                "workgroup" if source.word(i + 1) == ">" => {
                    let end = source.statement_end(i);
                    for j in (i..end).filter(|&j| source.word(j) == ",") {
                        less(self, j + 1);
                    }
                }
                _ => {}
            }
        }
    }

    /// Replaces a declared name by another one of the same type: a field of `Params` or `Step`, or
    /// a variable at module scope.
    fn declared(&mut self) {
        let source = self.source;
        let mut fields: BTreeMap<&str, Vec<(&str, String)>> = BTreeMap::new();
        fields.insert("step", vec![("tiles", "u32".into()), ("rows", "u32".into())]);
        let mut variables: Vec<(&str, String)> = Vec::new();
        for i in 0..source.tokens.len() {
            if source.word(i) == "struct" && source.word(i + 1) == "Params" {
                let members = source.parts(i + 2, ",");
                let named = members.iter().filter(|member| !member.is_empty());
                let list = named.map(|member| {
                    (
                        source.word(member.start),
                        source.slice(member.start + 2..member.end).to_owned(),
                    )
                });
                fields.insert("params", list.collect());
            }
            if source.word(i) == "var" && source.word(i + 1) == "<" {
                let close = source.close[&(i + 1)];
                let end = source.statement_end(i);
                // The type with its address space, which starts at `<`; the name is between them.
                let key = [source.slice(i + 1..close + 1), source.slice(close + 3..end)].concat();
                variables.push((source.word(close + 1), key));
            }
        }
        for body in source.bodies.clone() {
            for i in body {
                let before = source.word(i - 1);
                if before == "." {
                    if let Some(list) = fields.get(source.word(i - 2)) {
                        for other in siblings(list, source.word(i)) {
                            self.replace("wrong field", i..i + 1, other);
                        }
                    }
                } else if source.tokens[i].kind == Kind::Word {
                    for other in siblings(&variables, source.word(i)).into_iter().take(1) {
                        self.replace("wrong operand", i..i + 1, other);
                    }
                }
            }
        }
    }
}

/// The next and the previous name of the same type, cyclically.
fn siblings<'a>(list: &[(&'a str, String)], name: &str) -> Vec<&'a str> {
    let Some((_, own_ty)) = list.iter().find(|(other, _)| *other == name) else {
        return Vec::new();
    };
    let alike: Vec<&str> =
        list.iter().filter(|(_, ty)| ty == own_ty).map(|&(other, _)| other).collect();
    let own = alike.iter().position(|&other| other == name).unwrap_or(0);
    let mut found =
        vec![alike[(own + 1) % alike.len()], alike[(own + alike.len() - 1) % alike.len()]];
    found.dedup();
    found.retain(|&other| other != name);
    found
}

fn one_line(text: &str) -> String {
    let words = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    words.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
