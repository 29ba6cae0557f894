//! Reads `tokenizer.tok.json`, the tokenizer file of Grok-2, and encodes with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Deserialize;

use super::bpe::{Bpe, Scratch};
use super::split::Splitter;

/// Longest token accepted, in bytes. Every merge hashes at most this much.
const MAX_TOKEN: usize = 4096;

/// Problems that one error lists; a file that is wrong throughout needs no more.
const MAX_PROBLEMS: usize = 20;

/// The file. Unknown keys are ignored, among them `default_allowed_special`.
#[derive(Deserialize)]
struct File {
    regular_tokens: Vec<Token>,
    special_tokens: Vec<Token>,
    word_split: String,
    pat_str: Option<String>,
    vocab_size: Option<u32>,
}

/// One token of either list.
#[derive(Deserialize)]
struct Token {
    bytes: Vec<u8>,
    token: u32,
}

/// A vocabulary from `tokenizer.tok.json`.
pub(super) struct TokJson {
    bpe: Bpe,
    splitter: Splitter,
    /// The bytes of token `id` are `bytes[ends[id - 1]..ends[id]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl TokJson {
    /// The vocabulary and its special tokens, or everything that is wrong with the file.
    pub(super) fn parse(json: &[u8]) -> Result<(Self, Vec<(String, u32)>), String> {
        let file: File = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut problems = Problems::default();

        if file.word_split != "V1" {
            problems.add(format!("`word_split` is {:?}, expected \"V1\"", file.word_split));
        }
        let splitter =
            Splitter::new(file.pat_str.as_deref()).map_err(|problem| problems.add(problem)).ok();

        // Ids are the numbers below the count of tokens, each once. So a large id cannot make a
        // table larger than the file, and there are no gaps, which a model might choose.
        let count = file.regular_tokens.len() + file.special_tokens.len();
        if let Some(vocab_size) = file.vocab_size
            && vocab_size as usize != count
        {
            problems.add(format!(
                "`vocab_size` is {vocab_size}, but there are {} regular and {} special tokens",
                file.regular_tokens.len(),
                file.special_tokens.len()
            ));
        }
        let mut by_id: Vec<Option<&[u8]>> = vec![None; count];
        let mut ranks: HashMap<Box<[u8]>, u32> = HashMap::with_capacity(file.regular_tokens.len());
        let mut specials: HashMap<&str, u32> = HashMap::new();
        let regular = file.regular_tokens.iter().enumerate().map(|(i, token)| (i, token, false));
        let special = file.special_tokens.iter().enumerate().map(|(i, token)| (i, token, true));
        for (i, token, is_special) in regular.chain(special) {
            let list = if is_special { "special_tokens" } else { "regular_tokens" };
            let mut complain = |what: String| problems.add(format!("`{list}[{i}]`: {what}"));
            let id = token.token;
            match by_id.get_mut(id as usize) {
                None => complain(format!(
                    "id {id} is not below the number of tokens, {count}; ids must have no gaps"
                )),
                Some(Some(_)) => complain(format!("id {id} was given before")),
                Some(free) => *free = Some(&token.bytes),
            }
            if token.bytes.is_empty() {
                complain(format!("token {id} has no bytes"));
            } else if token.bytes.len() > MAX_TOKEN {
                complain(format!(
                    "token {id} has {} bytes, more than the {MAX_TOKEN} allowed",
                    token.bytes.len()
                ));
            } else if !is_special {
                match ranks.entry(token.bytes.as_slice().into()) {
                    Entry::Vacant(free) => _ = free.insert(id),
                    Entry::Occupied(other) => complain(format!(
                        "token {id} has the bytes of token {}: {}",
                        other.get(),
                        quote(&token.bytes)
                    )),
                }
            } else if let Ok(text) = str::from_utf8(&token.bytes) {
                // A special token may have the bytes of a regular one: they are looked up in
                // separate tables.
                match specials.entry(text) {
                    Entry::Vacant(free) => _ = free.insert(id),
                    Entry::Occupied(other) => complain(format!(
                        "token {id} has the text of token {}: {text:?}",
                        other.get()
                    )),
                }
            } else {
                complain(format!(
                    "special token {id} is not UTF-8, so no text can hold it: {}",
                    quote(&token.bytes)
                ));
            }
        }

        let bpe = match Bpe::new(ranks) {
            Ok(bpe) => Some(bpe),
            Err(missing) => {
                for byte in missing {
                    problems.add(format!("byte 0x{byte:02x} has no token of its own"));
                }
                None
            }
        };
        let (Some(bpe), Some(splitter), true) = (bpe, splitter, problems.none()) else {
            return Err(problems.into_text());
        };

        let mut bytes = Vec::with_capacity(by_id.iter().flatten().map(|token| token.len()).sum());
        let mut ends = Vec::with_capacity(count);
        for token in by_id.into_iter().flatten() {
            bytes.extend_from_slice(token);
            ends.push(bytes.len());
        }
        let specials = specials.into_iter().map(|(text, id)| (text.to_owned(), id)).collect();
        Ok((Self { bpe, splitter, bytes, ends }, specials))
    }

    /// How many tokens there are; all ids are below it.
    pub(super) fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of token `id`, if there is one.
    pub(super) fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some(&self.bytes[start..end])
    }

    /// Appends the ids of `text`. Special tokens in it are plain text.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), String> {
        let mut scratch = Scratch::default();
        self.splitter.split(text, |run| self.bpe.encode(run.as_bytes(), &mut scratch, out))
    }
}

/// The first bytes of a token, printable.
fn quote(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(32)];
    format!("\"{}\"{}", head.escape_ascii(), if head.len() < bytes.len() { "…" } else { "" })
}

/// What is wrong with a file: the first few in full, the rest as a number.
#[derive(Default)]
struct Problems {
    listed: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, problem: String) {
        if self.listed.len() < MAX_PROBLEMS {
            self.listed.push(problem);
        } else {
            self.more += 1;
        }
    }

    fn none(&self) -> bool {
        self.listed.is_empty()
    }

    fn into_text(self) -> String {
        let count = self.listed.len() + self.more;
        if let ([one], 1) = (&self.listed[..], count) {
            return one.clone();
        }
        let mut listed = self.listed;
        if self.more > 0 {
            listed.push(format!("and {} more", self.more));
        }
        format!("{count} problems\n  - {}", listed.join("\n  - "))
    }
}
