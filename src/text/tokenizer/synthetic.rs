//! Makes small tokenizers for models that come without one.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::base::error::{Error, Result};

/// Special tokens of the released Grok-2. Its byte tokens follow them.
const GROK_SPECIALS: u32 = 128;

/// Special tokens that a conversation needs.
const FEWEST_SPECIALS: u32 = 3;

/// Single bytes.
const BYTES: u32 = 256;

/// Largest vocabulary made, which bounds the text.
const MAX_VOCAB: u32 = 1 << 20;

/// Frequent pieces of English, separated by bars. Their prefixes become tokens too.
const ENGLISH: &str = concat!(
    "th|he|in|er|an|re|on|at|en|nd|ed|es|or|is|it|ou| a| t| s| w| o| b| h| f| m| p| c| d| l| n| i|",
    "the| the| th|and| and|ing| to| of| in| is| it| he| was| be| on|er |ll|om|ar|al|st|le|ve|se|",
    "me|ly|ent|ion|tion| that| for| you| with| are| have| not| this| his| she| her| they| we| my|",
    " said| what| one| all| there|ight|ould|\n\n|  |    |. |, |Human|Assistant|System",
);

/// The text of a valid `tokenizer.tok.json` of exactly `vocab_size` tokens, always the same.
///
/// `<|pad|>`, `<|separator|>` and `<|eos|>` are 0, 1 and 2; the single bytes follow the special
/// tokens in order; then come pieces of English and runs of letters. From 384 tokens on there
/// are 128 special tokens, so that the bytes have Grok-2's ids.
///
/// # Errors
///
/// [`Error::Usage`] if there are fewer than 259 tokens, which cannot hold the bytes, or more than
/// 1,048,576.
pub fn synthetic_tok_json(vocab_size: u32) -> Result<String> {
    if !(FEWEST_SPECIALS + BYTES..=MAX_VOCAB).contains(&vocab_size) {
        return Err(Error::Usage(format!(
            "a synthetic tokenizer has {} to {MAX_VOCAB} tokens, not {vocab_size}",
            FEWEST_SPECIALS + BYTES
        )));
    }
    let specials =
        if vocab_size >= GROK_SPECIALS + BYTES { GROK_SPECIALS } else { FEWEST_SPECIALS };
    let regular = (vocab_size - specials) as usize;

    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let mut seen: HashSet<Vec<u8>> = tokens.iter().cloned().collect();
    let english = ENGLISH.split('|').flat_map(prefixes);
    for token in english.chain(letter_runs()) {
        if tokens.len() == regular {
            break;
        }
        if seen.insert(token.clone()) {
            tokens.push(token);
        }
    }

    let special_names = (0..specials).map(|id| match id {
        0 => b"<|pad|>".to_vec(),
        1 => b"<|separator|>".to_vec(),
        2 => b"<|eos|>".to_vec(),
        _ => format!("<|reserved_{id}|>").into_bytes(),
    });
    let mut json = String::from("{\n  \"regular_tokens\": [");
    write_tokens(&mut json, tokens, specials);
    json.push_str("\n  ],\n  \"special_tokens\": [");
    write_tokens(&mut json, special_names, 0);
    json.push_str("\n  ],\n  \"word_split\": \"V1\",\n");
    // Writing to a string cannot fail.
    _ = writeln!(json, "  \"vocab_size\": {vocab_size}\n}}");
    Ok(json)
}

/// The prefixes of `piece` from two bytes on, so that merges reach the whole piece step by step.
fn prefixes(piece: &str) -> impl Iterator<Item = Vec<u8>> {
    (2..=piece.len()).map(|len| piece.as_bytes()[..len].to_vec())
}

/// `aa`, `ab` … `zz`, `aaa` and so on without end. Each comes after its prefixes.
fn letter_runs() -> impl Iterator<Item = Vec<u8>> {
    (2_u32..).flat_map(|len| {
        (0..26_u64.saturating_pow(len)).map(move |mut index| {
            let mut run = vec![0; len as usize];
            for letter in run.iter_mut().rev() {
                *letter = b'a' + u8::try_from(index % 26).unwrap_or_default();
                index /= 26;
            }
            run
        })
    })
}

/// Appends `tokens` as the file's objects, with ids from `first_id` on.
fn write_tokens(json: &mut String, tokens: impl IntoIterator<Item = Vec<u8>>, first_id: u32) {
    for (id, token) in (first_id..).zip(tokens) {
        let separator = if id == first_id { "" } else { "," };
        let bytes: Vec<String> = token.iter().map(u8::to_string).collect();
        // Writing to a string cannot fail.
        _ = write!(json, "{separator}\n    {{\"bytes\": [{}], \"token\": {id}}}", bytes.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::Tokenizer;

    #[test]
    fn every_size_is_valid_and_exact() {
        for vocab_size in [259, 260, 300, 383, 384, 385, 512, 1000, 2048, 4096, 70_000] {
            let json = synthetic_tok_json(vocab_size).expect("in range");
            let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid");
            assert_eq!(tokenizer.vocab_size(), vocab_size as usize);
            assert_eq!(tokenizer.stop_ids(), [1, 2]);
            let text = "The cat sat on the mat.\n\nÜber 12 日本";
            let ids = tokenizer.encode(text).expect("text");
            assert_eq!(tokenizer.decode_lossy(&ids).expect("ids"), text);
        }
    }

    #[test]
    fn bytes_have_the_ids_of_grok() {
        let json = synthetic_tok_json(384).expect("in range");
        let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid");
        assert_eq!(tokenizer.encode(":?").expect("text"), [186, 191]);
    }

    #[test]
    fn merges_shorten_english() {
        let json = synthetic_tok_json(2048).expect("in range");
        let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid");
        let text = "Human: and the other thing that was there";
        assert!(tokenizer.encode(text).expect("text").len() * 2 < text.len());
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for vocab_size in [0, 258, MAX_VOCAB + 1, u32::MAX] {
            let error = synthetic_tok_json(vocab_size).expect_err("out of range");
            assert!(error.to_string().contains(&vocab_size.to_string()), "{error}");
        }
    }
}
