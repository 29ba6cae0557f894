//! SentencePiece: vocabularies of pieces with scores, from `tokenizer.model` or a GGUF.
//!
//! Blanks are part of pieces, and a text gets one before its first word. The algorithms, unigram
//! and BPE, choose pieces by their scores; what has no piece becomes bytes, or the unknown piece.

mod file;
mod normalizer;
mod prefixes;
mod protobuf;

use std::collections::HashMap;

use super::{STOPS, bpe::Scratch};
use crate::base::json;
use normalizer::{BLANK, Normalizer};
use prefixes::Prefixes;

pub(super) use normalizer::Rules;

/// Most pieces of a vocabulary. The largest known has a million.
pub(super) const MAX_PIECES: usize = 1 << 22;

/// Longest piece accepted, in bytes.
const MAX_PIECE: usize = 4096;

/// Bytes of an incomplete character at most.
const MAX_PENDING: usize = 3;

/// What an unknown piece costs beyond the least score, for a unigram model.
const UNKNOWN_PENALTY: f32 = 10.0;

/// What a piece is. The numbers are those of the file and of GGUF's `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A piece of text.
    Normal,
    /// Stands for what has no piece.
    Unknown,
    /// A mark that no text holds.
    Control,
    /// A piece of text that is found before all others.
    UserDefined,
    /// A piece that no text becomes.
    Unused,
    /// One byte.
    Byte,
}

impl Kind {
    pub(super) fn of(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether a text is searched for such pieces.
    fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

/// The spelling of unused pieces that only fill a vocabulary.
const FILLER: &str = "\0";

/// A piece as the file has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

impl Piece<'_> {
    fn fills(&self) -> bool {
        self.kind == Kind::Unused && self.text == FILLER
    }
}

/// How pieces are chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Algorithm {
    /// Those with the largest sum of scores.
    Unigram,
    /// Neighbours are joined, those with the largest score first.
    Bpe,
}

/// What a file says.
pub(super) struct Vocabulary<'a> {
    /// By id.
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) algorithm: Algorithm,
    /// Whether what has no piece becomes bytes.
    pub(super) byte_fallback: bool,
    pub(super) rules: Rules<'a>,
    /// The unknown piece, if it is not the one of that kind.
    pub(super) unknown: Option<u32>,
    /// The text of the unknown piece.
    pub(super) unk_surface: &'a str,
    /// The control piece that ends a text.
    pub(super) eos: Option<&'a str>,
}

/// What encodes.
#[derive(Debug)]
enum Model {
    Unigram {
        pieces: Prefixes,
        /// The least score.
        least: f32,
    },
    Bpe {
        pieces: HashMap<Box<str>, u32>,
        /// Bytes of the longest piece. Longer strings need no look-up.
        longest: usize,
    },
}

/// A vocabulary of SentencePiece.
pub(super) struct SentencePiece {
    normalizer: Normalizer,
    model: Model,
    /// Piece `id` is `text[ends[id - 1]..ends[id]]`.
    text: String,
    ends: Vec<usize>,
    scores: Vec<f32>,
    kinds: Vec<Kind>,
    unknown: u32,
    unk_surface: String,
    /// The piece of each byte, if what has no piece becomes bytes.
    bytes: Option<Box<[u32; 256]>>,
    eos: Option<u32>,
}

/// Decodes ids that come one by one.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Bytes of an incomplete character; at most [`MAX_PENDING`].
    pending: Vec<u8>,
    /// How many of them are of the ids before, whose text has a U+FFFD for each.
    told: usize,
    /// Whether the blank before the first word, if any, is behind.
    begun: bool,
}

impl SentencePiece {
    /// The vocabulary of a `tokenizer.model` and its special tokens.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, Vec<(String, u32)>), String> {
        file::parse(bytes).and_then(Self::new)
    }

    /// The vocabulary and its special tokens.
    pub(super) fn new(
        mut vocabulary: Vocabulary<'_>,
    ) -> Result<(Self, Vec<(String, u32)>), String> {
        // What ends a turn is never found in text, whatever the file says, so that nobody can forge
        // one.
        for piece in &mut vocabulary.pieces {
            if piece.kind == Kind::UserDefined && STOPS.contains(&piece.text) {
                piece.kind = Kind::Control;
            }
        }
        let Vocabulary { pieces, algorithm, byte_fallback, rules, unk_surface, .. } = &vocabulary;
        check(pieces)?;
        let ids = || (0u32..).zip(pieces);
        let of_kind = |wanted: Kind| ids().filter(move |(_, piece)| piece.kind == wanted);
        let unknown: Vec<u32> = of_kind(Kind::Unknown).map(|(id, _)| id).collect();
        let unknown = match (&unknown[..], vocabulary.unknown) {
            ([], Some(id)) if (id as usize) < pieces.len() => id,
            ([], _) => return Err("no piece is of the type unknown".into()),
            ([one], _) => *one,
            ([one, two, ..], _) => {
                return Err(format!("pieces[{one}] and pieces[{two}] are both of type unknown"));
            }
        };
        let bytes = bytes(of_kind(Kind::Byte), *byte_fallback)?;
        let whole = of_kind(Kind::UserDefined).map(|(id, piece)| (piece.text, id));
        let normalizer = Normalizer::new(rules, Prefixes::new(whole))?;
        let model = match algorithm {
            Algorithm::Unigram => {
                let found = |kind| matches!(kind, Kind::Normal | Kind::UserDefined);
                let found = ids().filter(|(_, piece)| found(piece.kind));
                let scores = of_kind(Kind::Normal).map(|(_, piece)| piece.score);
                Model::Unigram {
                    pieces: Prefixes::new(found.map(|(id, piece)| (piece.text, id))),
                    least: scores.fold(f32::MAX, f32::min),
                }
            }
            Algorithm::Bpe => {
                let found = || ids().filter(|(_, piece)| piece.kind.is_text() && !piece.fills());
                Model::Bpe {
                    pieces: found().map(|(id, piece)| (piece.text.into(), id)).collect(),
                    longest: found().map(|(_, piece)| piece.text.len()).max().unwrap_or(0),
                }
            }
        };
        let controls = || of_kind(Kind::Control);
        let eos = controls().find(|(_, piece)| Some(piece.text) == vocabulary.eos);
        let specials = controls().map(|(id, piece)| (piece.text.to_owned(), id)).collect();
        let mut text = String::with_capacity(pieces.iter().map(|piece| piece.text.len()).sum());
        let mut ends = Vec::with_capacity(pieces.len());
        for piece in pieces {
            text.push_str(piece.text);
            ends.push(text.len());
        }
        let sentence_piece = Self {
            normalizer,
            model,
            text,
            ends,
            scores: pieces.iter().map(|piece| piece.score).collect(),
            kinds: pieces.iter().map(|piece| piece.kind).collect(),
            unknown,
            unk_surface: (*unk_surface).to_owned(),
            bytes,
            eos: eos.map(|(id, _)| id),
        };
        Ok((sentence_piece, specials))
    }

    /// How many pieces there are; all ids are below it.
    pub(super) fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    /// The piece that ends a text, if there is one.
    pub(super) fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// How pieces are chosen, in words.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.model {
            Model::Unigram { .. } => "SentencePiece, unigram",
            Model::Bpe { .. } => "SentencePiece, BPE",
        }
    }

    /// Appends the ids of `text`. Control pieces in it are plain text.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), String> {
        let normal = self.normalizer.normalize(text)?;
        let mut found = Found { of: self, out, after_unknown: false };
        match &self.model {
            Model::Unigram { pieces, least } => {
                self.unigram(&normal, pieces, *least, &mut found);
            }
            Model::Bpe { pieces, longest } => {
                let rank = |text: &str| {
                    if text.len() > *longest { None } else { pieces.get(text).copied() }
                };
                self.merged(&normal, rank, &mut found);
            }
        }
        Ok(())
    }

    /// The pieces with the largest sum of scores (Viterbi's algorithm). Where two sums are equal,
    /// the one whose last piece is the longest.
    ///
    /// Sums are f32, and begin anew where they get long, as in the reference: another rounding
    /// would choose other pieces now and then.
    fn unigram(&self, text: &str, pieces: &Prefixes, least: f32, out: &mut Found<'_>) {
        /// The best way to a place: its last piece, where that begins, and the sum.
        #[derive(Clone, Copy)]
        struct Best {
            sum: f32,
            id: u32,
            start: usize,
        }
        /// Sums have fewer than this.
        const MAX_SUM: f32 = 100_000.0;
        const NONE: usize = usize::MAX;
        let mut best = vec![Best { sum: 0.0, id: 0, start: NONE }; text.len() + 1];
        // The last place with a way to it.
        let mut last = 0;
        for (start, c) in text.char_indices() {
            let so_far = best[start].sum;
            if so_far.abs() > MAX_SUM {
                for place in &mut best[start..=last] {
                    place.sum -= so_far;
                }
            }
            let so_far = best[start].sum;
            let mut found = |len: usize, id: u32, score: f32| {
                let sum = score + so_far;
                let end = &mut best[start + len];
                if end.start == NONE || sum > end.sum {
                    *end = Best { sum, id, start };
                }
                last = last.max(start + len);
            };
            let mut single = false;
            for (len, id) in pieces.of(&text.as_bytes()[start..]) {
                single |= len == c.len_utf8();
                let score = match self.kinds[id as usize] {
                    Kind::UserDefined => user_defined_score(len),
                    _ => self.scores[id as usize],
                };
                found(len, id, score);
            }
            if !single {
                found(c.len_utf8(), self.unknown, least - UNKNOWN_PENALTY);
            }
        }
        let mut path = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let Best { id, start, .. } = best[end];
            path.push((start, end, id));
            end = start;
        }
        for &(start, end, id) in path.iter().rev() {
            out.push(&text[start..end], Some(id));
        }
    }

    /// Joins neighbours, those that make the piece with the largest score first.
    fn merged(&self, text: &str, find: impl Fn(&str) -> Option<u32>, out: &mut Found<'_>) {
        // User-defined pieces are never joined with others.
        let mut fixed = vec![false; text.len()];
        let whole = self.normalizer.whole();
        let mut end = 0;
        let ends = std::iter::from_fn(|| {
            let rest = &text[end..];
            let c = rest.chars().next()?;
            let found = whole.longest(rest.as_bytes());
            fixed[end] = found.is_some();
            end += found.unwrap_or(c.len_utf8());
            Some(end)
        });
        let mut scratch = Scratch::default();
        scratch.parts(text.len(), ends);
        // A piece that is not used is joined on the way to longer ones; if it stays, it is taken
        // apart again: where it was joined last, after so many bytes.
        let mut joints: HashMap<u32, usize> = HashMap::new();
        scratch.merge(text.len(), |start, middle, end| {
            if fixed[start] || fixed[middle] {
                return None;
            }
            let id = find(&text[start..end])?;
            if self.kinds[id as usize] == Kind::Unused {
                joints.insert(id, middle - start);
            }
            Some(rank(self.scores[id as usize]))
        });
        let mut parts = Vec::new();
        for (start, end) in scratch.merged(text.len()) {
            parts.push((start, end));
            while let Some((start, end)) = parts.pop() {
                let id = find(&text[start..end]);
                match id.and_then(|id| joints.get(&id)) {
                    Some(len) => parts.extend([(start + len, end), (start, start + len)]),
                    None => out.push(&text[start..end], id),
                }
            }
        }
    }

    /// Whether there is a piece `id`.
    pub(super) fn has(&self, id: u32) -> bool {
        (id as usize) < self.ends.len()
    }

    /// The piece, if there is one, and what it is.
    fn piece(&self, id: u32) -> Option<(&str, Kind)> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some((&self.text[start..end], self.kinds[id]))
    }

    /// The bytes of piece `id` within a text, if there is one.
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let (text, kind) = self.piece(id)?;
        Some(match kind {
            Kind::Byte => vec![byte_of(text).unwrap_or_default()],
            Kind::Control => text.into(),
            Kind::Unknown => self.unk_surface.clone().into(),
            _ => text.replace(BLANK, " ").into(),
        })
    }

    /// The same of a piece that stands for text.
    pub(super) fn plain_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let (_, kind) = self.piece(id)?;
        if matches!(kind, Kind::Control | Kind::Unknown) { None } else { self.token_bytes(id) }
    }
}

/// The score of a user-defined piece of so many bytes in a unigram model: above those of normal
/// pieces, and one long piece above several short ones.
#[expect(clippy::cast_possible_truncation, reason = "the reference's rounding")]
fn user_defined_score(len: usize) -> f32 {
    (0.1 * (len - 1) as f64) as f32
}

/// Joined pairs with larger scores come first.
fn rank(score: f32) -> u32 {
    // Zero has one sign.
    let bits = (score + 0.0).to_bits();
    // Ascending with the score, as floats are ordered by sign and magnitude.
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// Collects ids.
struct Found<'a> {
    of: &'a SentencePiece,
    out: &'a mut Vec<u32>,
    after_unknown: bool,
}

impl Found<'_> {
    /// Appends a piece. What has none becomes bytes, or one unknown piece with its neighbours.
    fn push(&mut self, text: &str, id: Option<u32>) {
        match (id.filter(|&id| id != self.of.unknown), &self.of.bytes) {
            (Some(id), _) => self.out.push(id),
            (None, Some(bytes)) => {
                self.out.extend(text.bytes().map(|byte| bytes[usize::from(byte)]));
            }
            (None, None) if self.after_unknown => {}
            (None, None) => self.out.push(self.of.unknown),
        }
        self.after_unknown = id.is_none_or(|id| id == self.of.unknown);
    }
}

/// Refuses pieces that make no sense.
fn check(pieces: &[Piece<'_>]) -> Result<(), String> {
    if !pieces.iter().any(|piece| piece.kind.is_text()) {
        return Err(format!("it has {} pieces, none of them of text", pieces.len()));
    }
    if pieces.len() > MAX_PIECES {
        return Err(format!("it has more than the {MAX_PIECES} pieces allowed"));
    }
    // A piece of text may be spelt as a special one.
    let mut known: HashMap<(&str, bool), usize> = HashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        let Piece { text, score, kind } = piece;
        if text.is_empty() || text.len() > MAX_PIECE {
            return Err(format!("pieces[{id}] has {} bytes, wanted 1 to {MAX_PIECE}", text.len()));
        }
        if !score.is_finite() {
            return Err(format!("the score of pieces[{id}] is {score}, wanted a finite number"));
        }
        if let Some(other) = known.insert((text, kind.is_text()), id)
            && !piece.fills()
        {
            let text = json::clipped(text);
            return Err(format!("pieces[{other}] and pieces[{id}] are both \"{text}\""));
        }
    }
    Ok(())
}

/// The pieces of all bytes, if there should be any.
fn bytes<'a>(
    pieces: impl Iterator<Item = (u32, &'a Piece<'a>)>,
    wanted: bool,
) -> Result<Option<Box<[u32; 256]>>, String> {
    let mut ids = Box::new([0; 256]);
    let mut found = [false; 256];
    for (id, piece) in pieces {
        let text = json::clipped(piece.text);
        if !wanted {
            return Err(format!("pieces[{id}], \"{text}\", is a byte, but byte_fallback is false"));
        }
        let byte = byte_of(piece.text).ok_or_else(|| {
            format!("pieces[{id}] is a byte, but is spelt \"{text}\", wanted one such as <0x0A>")
        })?;
        ids[usize::from(byte)] = id;
        found[usize::from(byte)] = true;
    }
    match found.iter().position(|found| !found) {
        None => Ok(Some(ids)),
        Some(_) if !wanted => Ok(None),
        Some(byte) => Err(format!("byte_fallback is true, but no piece is <0x{byte:02X}>")),
    }
}

/// The byte that is spelt so: `<0x0A>`.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let byte = u8::from_str_radix(digits, 16).ok()?;
    (format!("{byte:02X}") == digits).then_some(byte)
}

impl Decoder {
    /// A decoder for ids that follow `ids`. Those that are no pieces have no text.
    pub(super) fn after(of: &SentencePiece, ids: &[u32]) -> Self {
        let mut decoder = Self::default();
        let mut ids = ids.iter();
        while let Some(&id) = ids.next() {
            decoder.push(of, id);
            if decoder.begun {
                // All that still counts is an incomplete character at the end.
                let skipped = ids.len().saturating_sub(MAX_PENDING);
                if skipped > 0 {
                    decoder.pending.clear();
                    ids.nth(skipped - 1);
                }
            }
        }
        decoder.told = decoder.pending.len();
        decoder
    }

    /// The text that piece `id` completes, if there is such a piece: empty within a character that
    /// is spelt in bytes.
    ///
    /// The blank that encoding put before the first word is left out. A control piece is its
    /// spelling. Each byte that is no part of a character is U+FFFD.
    pub(super) fn push(&mut self, of: &SentencePiece, id: u32) -> Option<String> {
        let (text, kind) = of.piece(id)?;
        if kind == Kind::Byte {
            self.pending.push(byte_of(text).unwrap_or_default());
            self.begun = true;
            return Some(self.characters(false));
        }
        let mut shown = self.characters(true);
        match kind {
            Kind::Control => shown.push_str(text),
            Kind::Unknown => {
                shown.push_str(&of.unk_surface);
                self.begun |= !of.unk_surface.is_empty();
            }
            _ => {
                let Normalizer { dummy_prefix, remove_extra, .. } = of.normalizer;
                let strips = !self.begun && (dummy_prefix || remove_extra);
                let rest = if strips { text.strip_prefix(BLANK) } else { None };
                shown.push_str(&rest.unwrap_or(text).replace(BLANK, " "));
                // Where blanks are dropped at the beginning, each piece loses one until there is
                // text.
                let stripped = rest.is_some() && !remove_extra;
                self.begun |= stripped || !rest.unwrap_or(text).is_empty();
            }
        }
        Some(shown)
    }

    /// The rest of the text, when no more ids come.
    pub(super) fn finish(&mut self) -> String {
        self.begun = false;
        self.characters(true)
    }

    /// Takes whole characters, and bytes that are none, from the front of `pending`; at the end of
    /// the bytes all that is left.
    fn characters(&mut self, at_end: bool) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            let (valid, bad) = match str::from_utf8(rest) {
                Ok(valid) => (valid, false),
                Err(error) => {
                    let valid = str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default();
                    (valid, at_end || error.error_len().is_some())
                }
            };
            // A character that is U+FFFD itself was told too.
            let told = if self.told > 0 { char::REPLACEMENT_CHARACTER.len_utf8() } else { 0 };
            let again = valid.starts_with(char::REPLACEMENT_CHARACTER);
            text.push_str(if again { &valid[told..] } else { valid });
            rest = &rest[valid.len()..];
            self.told = self.told.saturating_sub(valid.len());
            if !bad {
                break;
            }
            if self.told == 0 {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            self.told = self.told.saturating_sub(1);
            rest = &rest[1..];
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        text
    }
}
