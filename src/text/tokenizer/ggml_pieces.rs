//! The vocabulary of SentencePiece in a GGUF file.

use std::path::Path;

use super::{
    Tokenizer,
    sentencepiece::{Algorithm, Kind, Piece, Rules, SentencePiece, Vocabulary},
};
use crate::base::error::Result;

/// The vocabulary of a GGUF whose `tokenizer.ggml.model` is `llama` (SentencePiece's BPE) or `t5`
/// (its unigram models).
#[derive(Clone, Debug)]
pub struct GgmlPieces<'a> {
    /// Whether it is a unigram model.
    pub unigram: bool,
    /// Pieces by id.
    pub tokens: Vec<&'a str>,
    /// Their scores.
    pub scores: Vec<f32>,
    /// What they are (`tokenizer.ggml.token_type`); empty if all are normal.
    pub types: Vec<i64>,
    /// The piece for what has none (`tokenizer.ggml.unknown_token_id`), if no type says it.
    pub unknown: u64,
    /// Whether a text gets a blank at its beginning (`tokenizer.ggml.add_space_prefix`).
    pub space_prefix: bool,
    /// Whether blanks beside others are dropped (`tokenizer.ggml.remove_extra_whitespaces`).
    pub remove_extra: bool,
    /// Replacements of characters (`tokenizer.ggml.precompiled_charsmap`); empty if there are none.
    pub charsmap: Vec<u8>,
    /// Tokens that end an answer (EOS, EOT), besides those that have a well-known name.
    pub ends: Vec<u64>,
}

impl Tokenizer {
    /// A tokenizer from the vocabulary of a GGUF. `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::base::error::Error::Tokenizer) if the vocabulary is
    /// inconsistent.
    pub fn from_ggml_pieces(path: &Path, vocabulary: &GgmlPieces<'_>) -> Result<Self> {
        let build = || read(vocabulary).and_then(SentencePiece::new);
        Self::of_pieces(path.to_owned(), build)?.ending_within(&vocabulary.ends)
    }
}

fn read<'a>(vocabulary: &'a GgmlPieces<'_>) -> Result<Vocabulary<'a>, String> {
    let GgmlPieces { tokens, scores, types, .. } = vocabulary;
    let same = |name: &str, len: usize| {
        if len == tokens.len() {
            return Ok(());
        }
        Err(format!(
            "tokenizer.ggml.{name} has {len} entries, but there are {} tokens",
            tokens.len()
        ))
    };
    same("scores", scores.len())?;
    if !types.is_empty() {
        same("token_type", types.len())?;
    }
    let kinds = types.iter().map(|&kind| {
        let wrong = || format!("tokenizer.ggml.token_type has {kind}, wanted 1 to 6");
        Kind::of(kind).ok_or_else(wrong)
    });
    let kinds = kinds.chain(std::iter::repeat_n(Ok(Kind::Normal), tokens.len() - types.len()));
    let pieces = tokens.iter().zip(scores).zip(kinds);
    let pieces: Vec<Piece<'a>> = pieces
        .map(|((&text, &score), kind)| Ok(Piece { text, score, kind: kind? }))
        .collect::<Result<_, String>>()?;
    Ok(Vocabulary {
        byte_fallback: pieces.iter().any(|piece| piece.kind == Kind::Byte),
        pieces,
        algorithm: if vocabulary.unigram { Algorithm::Unigram } else { Algorithm::Bpe },
        rules: Rules {
            charsmap: &vocabulary.charsmap,
            dummy_prefix: vocabulary.space_prefix,
            remove_extra: vocabulary.remove_extra,
            ..Rules::default()
        },
        unknown: u32::try_from(vocabulary.unknown).ok(),
        unk_surface: " \u{2047} ",
        eos: None,
    })
}
