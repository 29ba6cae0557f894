//! Reads `tokenizer.model`, SentencePiece's file: the protobuf message `ModelProto`.

use super::{
    Algorithm, Kind, MAX_PIECES, Piece, Vocabulary,
    normalizer::Rules,
    protobuf::{Fields, Value},
};
use crate::base::json;

/// What the file says of its texts and its special pieces; the defaults are those of the format.
struct Trainer<'a> {
    model_type: u64,
    suffix: bool,
    byte_fallback: bool,
    eos_piece: &'a str,
    unk_surface: &'a str,
}

impl Default for Trainer<'_> {
    fn default() -> Self {
        Self {
            model_type: 1,
            suffix: false,
            byte_fallback: false,
            eos_piece: "</s>",
            unk_surface: " \u{2047} ",
        }
    }
}

/// Reads the file. A message that occurs twice is joined, as protobuf has it.
pub(super) fn parse(bytes: &[u8]) -> Result<Vocabulary<'_>, String> {
    if let Some(line) = tiktoken_line(bytes) {
        return Err(format!(
            "this is a vocabulary of tiktoken, as Llama 3 has it, no SentencePiece model (its \
             first line is \"{}\"); put the model's tokenizer.json beside it",
            json::clipped(line)
        ));
    }
    let mut pieces = Vec::new();
    let mut trainer = Trainer::default();
    let mut rules = Rules::default();
    for field in Fields::new(bytes, 0) {
        match field? {
            (1, value) => {
                if pieces.len() == MAX_PIECES {
                    return Err(format!("it has more than the {MAX_PIECES} pieces allowed"));
                }
                let what = || format!("pieces[{}]", pieces.len());
                pieces.push(piece(value, &what)?);
            }
            (2, value) => train(value, &mut trainer)?,
            (3, value) => normalize(value, &mut rules)?,
            (5, value) => {
                let mut back = Rules::default();
                normalize(value, &mut back)?;
                if !back.charsmap.is_empty() {
                    return Err("denormalizer_spec has rules, which are not applied".into());
                }
            }
            _ => {}
        }
    }
    rules.suffix = trainer.suffix;
    let algorithm = match trainer.model_type {
        1 => Algorithm::Unigram,
        2 => Algorithm::Bpe,
        other => {
            let name = match other {
                3 => " (words)",
                4 => " (characters)",
                _ => "",
            };
            return Err(format!(
                "trainer_spec.model_type is {other}{name}, wanted 1 (unigram) or 2 (BPE)"
            ));
        }
    };
    Ok(Vocabulary {
        pieces,
        algorithm,
        byte_fallback: trainer.byte_fallback,
        rules,
        unknown: None,
        unk_surface: trainer.unk_surface,
        eos: Some(trainer.eos_piece),
    })
}

/// The first line of a file of lines of base64 and a number.
fn tiktoken_line(bytes: &[u8]) -> Option<&str> {
    let line = bytes.split(|&byte| byte == b'\n').next()?;
    let line = str::from_utf8(line).ok()?.trim_end_matches('\r');
    let (token, rank) = line.split_once(' ')?;
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let is_one = token.len().is_multiple_of(4)
        && !token.is_empty()
        && token.bytes().all(base64)
        && !rank.is_empty()
        && rank.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then_some(line)
}

fn wrong(what: &str, value: Value<'_>) -> String {
    let got = match value {
        Value::Varint(value) => format!("the number {value}"),
        Value::Fixed64 => "eight bytes".into(),
        Value::Bytes(bytes, _) => format!("{} bytes", bytes.len()),
        Value::Fixed32(_) => "four bytes".into(),
    };
    format!("{what} is {got}, which is not its type; the file is no SentencePiece model")
}

fn bytes_of<'a>(what: &str, value: Value<'a>) -> Result<&'a [u8], String> {
    if let Value::Bytes(bytes, _) = value { Ok(bytes) } else { Err(wrong(what, value)) }
}

fn message<'a>(what: &str, value: Value<'a>) -> Result<Fields<'a>, String> {
    match value {
        Value::Bytes(bytes, at) => Ok(Fields::new(bytes, at)),
        _ => Err(wrong(what, value)),
    }
}

fn text<'a>(what: &str, value: Value<'a>) -> Result<&'a str, String> {
    str::from_utf8(bytes_of(what, value)?).map_err(|_| format!("{what} is not UTF-8"))
}

fn number(what: &str, value: Value<'_>) -> Result<u64, String> {
    if let Value::Varint(number) = value { Ok(number) } else { Err(wrong(what, value)) }
}

fn truth(what: &str, value: Value<'_>) -> Result<bool, String> {
    number(what, value).map(|number| number != 0)
}

fn piece<'a>(value: Value<'a>, what: &dyn Fn() -> String) -> Result<Piece<'a>, String> {
    let Value::Bytes(bytes, at) = value else { return Err(wrong(&what(), value)) };
    let mut piece = Piece { text: "", score: 0.0, kind: Kind::Normal };
    for field in Fields::new(bytes, at) {
        let (field, value) = field.map_err(|problem| format!("{}: {problem}", what()))?;
        match (field, value) {
            (1, Value::Bytes(bytes, _)) => {
                piece.text =
                    str::from_utf8(bytes).map_err(|_| format!("{}.piece is not UTF-8", what()))?;
            }
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Varint(kind)) => {
                piece.kind = i64::try_from(kind)
                    .ok()
                    .and_then(Kind::of)
                    .ok_or_else(|| format!("{}.type is {kind}, wanted 1 to 6", what()))?;
            }
            (1..=3, _) => return Err(wrong(&format!("field {field} of {}", what()), value)),
            _ => {}
        }
    }
    Ok(piece)
}

fn train<'a>(value: Value<'a>, trainer: &mut Trainer<'a>) -> Result<(), String> {
    for field in message("trainer_spec", value)? {
        match field.map_err(|problem| format!("trainer_spec: {problem}"))? {
            (3, value) => trainer.model_type = number("trainer_spec.model_type", value)?,
            (24, value) => {
                trainer.suffix = truth("trainer_spec.treat_whitespace_as_suffix", value)?;
            }
            (35, value) => trainer.byte_fallback = truth("trainer_spec.byte_fallback", value)?,
            (44, value) => trainer.unk_surface = text("trainer_spec.unk_surface", value)?,
            (47, value) => trainer.eos_piece = text("trainer_spec.eos_piece", value)?,
            _ => {}
        }
    }
    Ok(())
}

fn normalize<'a>(value: Value<'a>, rules: &mut Rules<'a>) -> Result<(), String> {
    for field in message("normalizer_spec", value)? {
        match field.map_err(|problem| format!("normalizer_spec: {problem}"))? {
            (2, value) => {
                rules.charsmap = bytes_of("normalizer_spec.precompiled_charsmap", value)?;
            }
            (3, value) => {
                rules.dummy_prefix = truth("normalizer_spec.add_dummy_prefix", value)?;
            }
            (4, value) => {
                rules.remove_extra = truth("normalizer_spec.remove_extra_whitespaces", value)?;
            }
            (5, value) => rules.escape = truth("normalizer_spec.escape_whitespaces", value)?,
            _ => {}
        }
    }
    Ok(())
}
