//! Builds a tokenizer from the vocabulary in a GGUF file, by way of `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Tokenizer, split::V1_PATTERN};
use crate::base::error::{Error, Result};

/// The vocabulary of a GGUF whose `tokenizer.ggml.model` is `gpt2`: byte-pair encoding over bytes
/// that are written as printable characters.
#[derive(Clone, Debug)]
pub struct Ggml<'a> {
    /// Tokens by id.
    pub tokens: Vec<&'a str>,
    /// BPE merges by rank, each two tokens with a space between them.
    pub merges: Vec<&'a str>,
    /// Token types (`tokenizer.ggml.token_type`); empty if all are normal.
    pub types: Vec<i64>,
    /// Name of the pre-tokenizer (`tokenizer.ggml.pre`), if the file has one.
    pub pre: Option<&'a str>,
    /// Tokens that end an answer (EOS, EOT), besides those that have a well-known name.
    pub ends: Vec<u64>,
}

/// Token type of control tokens.
const CONTROL: i64 = 3;
/// Token type of tokens that were added to the vocabulary.
const USER_DEFINED: i64 = 4;
/// Largest vocabulary accepted.
const MAX_TOKENS: usize = 1 << 24;

/// Pre-tokenizer patterns, by llama.cpp's names.
const PATTERNS: &[(&str, &str)] = &[
    ("grok-2", V1_PATTERN),
    (
        "llama-bpe",
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    ("gpt-2", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
];

impl Tokenizer {
    /// A tokenizer from the vocabulary of a GGUF. `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the vocabulary is inconsistent or its pre-tokenizer is unknown.
    pub fn from_ggml(path: &Path, vocabulary: &Ggml<'_>) -> Result<Self> {
        let json = tokenizer_json(vocabulary)
            .map_err(|what| Error::Tokenizer { path: path.to_owned(), what })?;
        Self::from_tokenizer_json(path, json.to_string().as_bytes())?
            .ending_within(&vocabulary.ends)
    }

    /// The same tokenizer, with these ids among [`Tokenizer::stop_ids`].
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it has no such token.
    pub(super) fn ending_within(mut self, ends: &[u64]) -> Result<Self> {
        for &end in ends {
            let id = u32::try_from(end).ok().filter(|&id| (id as usize) < self.vocab_size());
            let id = id.ok_or_else(|| {
                let tokens = self.vocab_size();
                self.error(format!("token {end} should end an answer, but there are only {tokens}"))
            })?;
            self.ends.push(id);
        }
        Ok(self)
    }
}

fn tokenizer_json(vocabulary: &Ggml<'_>) -> Result<Value, String> {
    let Ggml { tokens, merges, types, pre, .. } = vocabulary;
    if tokens.len() > MAX_TOKENS {
        return Err(format!("{} tokens are too many (at most {MAX_TOKENS})", tokens.len()));
    }
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(format!(
            "tokenizer.ggml.token_type has {} entries, but there are {} tokens",
            types.len(),
            tokens.len()
        ));
    }
    let pattern = PATTERNS.iter().find(|(name, _)| Some(*name) == *pre).ok_or_else(|| {
        let names: Vec<&str> = PATTERNS.iter().map(|(name, _)| *name).collect();
        let got = pre.map_or_else(
            || "missing".to_owned(),
            |pre| format!("\"{}\"", crate::base::json::clipped(pre)),
        );
        format!("tokenizer.ggml.pre is {got}, wanted {}", names.join(", "))
    })?;
    let mut vocab = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert((*token).to_owned(), id.into()).is_some() {
            return Err(format!(
                "tokenizer.ggml.tokens has \"{}\" twice",
                crate::base::json::clipped(token)
            ));
        }
    }
    let makes_a_token = |merge: &str| {
        merge.split_once(' ').is_some_and(|(a, b)| {
            [a, b, &format!("{a}{b}")].iter().all(|token| vocab.contains_key(*token))
        })
    };
    if let Some(odd) = merges.iter().find(|merge| !makes_a_token(merge)) {
        return Err(format!(
            "tokenizer.ggml.merges has \"{}\", wanted two tokens that make a third",
            crate::base::json::clipped(odd)
        ));
    }
    let added: Vec<Value> = tokens
        .iter()
        .zip(types)
        .enumerate()
        .filter(|(_, (token, kind))| matches!(**kind, CONTROL | USER_DEFINED) && !token.is_empty())
        .map(|(id, (token, kind))| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": *kind == CONTROL,
            })
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": pattern.1},
                    "behavior": "Isolated",
                    "invert": false,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": false,
                    "trim_offsets": false,
                    "use_regex": false,
                },
            ],
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": false,
            "use_regex": false,
        },
        // A word that is a token is that token, whether or not merges lead to it.
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": merges,
            "ignore_merges": true,
        },
    }))
}
