//! A step: tokens in, logits out. Its input, the buffers written for it, and the decoding of its
//! output.

use std::ops::Range;

use super::{
    SessionOptions,
    sequence::{Kind, Sequence},
};
use crate::{
    base::error::{Error, Result},
    machine::{
        Machine,
        step::{self, PAGE},
    },
    model::{Scratch, config::Config, rope},
    text::sampler::{Candidate, Needs},
};

/// What a step reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Readback {
    /// Nothing.
    Nothing,
    /// This many of the last token's largest logits.
    Top(u32),
    /// All logits of the last token.
    Logits,
    /// All logits of every token of a prompt.
    AllLogits,
}

impl From<Needs> for Readback {
    fn from(needs: Needs) -> Self {
        match needs {
            Needs::Greedy => Self::Top(1),
            Needs::Top(count) => Self::Top(count),
            Needs::All => Self::Logits,
        }
    }
}

/// Tokens of one text that go through the model in one pass, and what is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// The tokens, in order: at most [`SessionOptions::chunk`] of a prompt, or one generated token.
    pub ids: &'a [u32],
    /// Whether they are of a prompt or generated.
    pub kind: Kind,
    /// What is read back.
    pub read: Readback,
    /// Whether the chosen experts are read back with the logits.
    pub routes: bool,
}

impl<'a> Input<'a> {
    /// A chunk of a prompt.
    pub fn prompt(ids: &'a [u32], read: Readback) -> Self {
        Self { ids, kind: Kind::Prompt, read, routes: false }
    }

    /// The first chunk of the `rest` of a prompt. `read` applies to the last token of the prompt,
    /// so chunks before the last read nothing back, unless `read` is [`Readback::AllLogits`].
    pub fn next_chunk(rest: &'a [u32], read: Readback, options: SessionOptions) -> Self {
        let (ids, later) = rest.split_at(rest.len().min(options.chunk(read)));
        let more = !later.is_empty() && read != Readback::AllLogits;
        Self::prompt(ids, if more { Readback::Nothing } else { read })
    }

    /// One generated token.
    pub fn generated(id: &'a u32, read: Readback) -> Self {
        Self { ids: std::slice::from_ref(id), kind: Kind::Generated, read, routes: false }
    }

    /// The same, with or without reading the chosen experts back.
    #[must_use]
    pub fn with_routes(self, routes: bool) -> Self {
        Self { routes, ..self }
    }
}

/// The part of a step that belongs to one sequence.
#[derive(Debug)]
pub struct Run<'a> {
    /// The sequence that the tokens extend.
    pub sequence: &'a mut Sequence,
    /// The tokens.
    pub input: Input<'a>,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StepOutput {
    /// Candidates for the next token: the largest logits in descending order, or all logits by id.
    pub candidates: Vec<Candidate>,
    /// Logits of every token, if they were asked for: `[tokens][vocab_size]`.
    pub rows: Vec<Vec<f32>>,
    /// The chosen experts, if they were requested, of each token whose logits were read, in each
    /// layer that has experts: `[tokens][layers]`.
    pub routes: Vec<Vec<Route>>,
}

/// The experts that a layer chose for a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// Their ids, the most probable first.
    pub experts: Vec<u32>,
    /// Their probabilities, with which their outputs are weighted.
    pub probs: Vec<f32>,
}

/// One sequence on an engine: the interface that [`generate`](super::generation::generate) drives.
/// Wrappers of a session implement it too.
#[expect(async_fn_in_trait, reason = "an engine is one thread, and browser futures are not Send")]
pub trait Stepper {
    /// The model's configuration.
    fn config(&self) -> &Config;

    /// The sizes of the engine.
    fn options(&self) -> SessionOptions;

    /// The sequence.
    fn sequence(&mut self) -> &mut Sequence;

    /// Runs tokens through the model and appends them to the sequence.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`](super::Engine::step), and what a wrapper adds.
    async fn step(&mut self, input: Input<'_>) -> Result<StepOutput>;
}

/// Tokens of one text in a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    /// The tokens, in order.
    pub(crate) ids: &'a [u32],
    /// The position of the first.
    pub(crate) position: u32,
    /// The text's pages of the cache, in the order of its positions.
    pub(crate) pages: &'a [u32],
    /// Whether the logits of its last token are wanted.
    pub(crate) wanted: bool,
}

impl Text<'_> {
    /// The position after its last token.
    pub(crate) fn end(&self) -> u32 {
        self.position + u32::try_from(self.ids.len()).expect("a step has few tokens")
    }
}

/// The inputs of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staged<'a> {
    /// The rows: those of each text, one text after another.
    pub(crate) texts: &'a [Text<'a>],
    /// Their rows of the embedding table, if it is not on the machine.
    pub(crate) embedded: &'a [u8],
}

/// Writes the inputs of a pass into its buffers. The buffers may have more rows than there are
/// tokens: the rest is padding.
pub(crate) fn stage<M: Machine>(
    machine: &mut M,
    c: &Config,
    angles: &[rope::Angles],
    s: &Scratch,
    Staged { texts, embedded }: Staged<'_>,
) -> Result<()> {
    let (mut ids, mut records, mut table, mut picked) = (vec![], vec![], vec![], vec![]);
    for (sequence, text) in (0..).zip(texts) {
        let first = u32::try_from(table.len()).expect("a cache has fewer pages");
        table.extend_from_slice(&text.pages[..text.end().div_ceil(PAGE) as usize]);
        records.extend(step::rows_of(sequence, first, text.position..text.end()));
        ids.extend_from_slice(text.ids);
        if text.wanted {
            picked.push(u32::try_from(ids.len()).expect("a step has few tokens") - 1);
        }
    }
    let tiles = step::tiles_of(&records, s.tile_rows);
    let (tokens, head_dim) = (s.tokens as usize, c.head_dim as usize);
    if let Some(tensor) = s.embedded {
        machine.write(tensor, 0, embedded)?;
        // Their rows are in the order of the tokens.
        ids = (0..s.tokens).take(ids.len()).collect();
    }
    ids.resize(tokens, 0);
    let mut temperature = vec![1.0f32; tokens];
    for (temperature, row) in temperature.iter_mut().zip(&records) {
        *temperature = rope::temperature(c.attention.temperature_len, row.position);
    }
    let mut cos_sin = vec![0.0f32; tokens * head_dim];
    for (angles, &tensor) in angles.iter().zip(&s.cos_sin) {
        for (row, of_row) in records.iter().zip(cos_sin.chunks_exact_mut(head_dim)) {
            angles.row(row.position, of_row);
        }
        machine.write(tensor, 0, bytemuck::cast_slice(&cos_sin))?;
    }
    machine.write(s.ids, 0, bytemuck::cast_slice(&ids))?;
    machine.write(s.step, 0, bytemuck::cast_slice(&step::header(tiles.len(), records.len())))?;
    if s.head_step != s.step {
        let header = step::header(0, picked.len());
        machine.write(s.head_step, 0, bytemuck::cast_slice(&header))?;
    }
    machine.write(s.rows, 0, bytemuck::cast_slice(&records))?;
    machine.write(s.row_tiles, 0, bytemuck::cast_slice(&tiles))?;
    machine.write(s.table, 0, bytemuck::cast_slice(&table))?;
    machine.write(s.temperature, 0, bytemuck::cast_slice(&temperature))?;
    // A plan may pick more rows than are wanted.
    picked.resize(s.last_row.shape.extents()[0] as usize, 0);
    machine.write(s.last_row, 0, bytemuck::cast_slice(&picked))
}

/// The bytes read back of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    /// Values and ids of the largest logits of each row that was wanted, if they were read.
    pub(super) top: Option<[&'a [u8]; 2]>,
    /// Logits of each row that was wanted, if they were read; or of all rows.
    pub(super) logits: Option<&'a [u8]>,
    /// Ids and probabilities of each layer, alternating.
    pub(super) routes: &'a [Vec<u8>],
    /// How many rows were wanted.
    pub(super) wanted: usize,
}

/// What a run gets of an answer.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) read: Readback,
    /// Its rows of the pass.
    pub(super) rows: Range<usize>,
    /// Which of the rows that were wanted is its last one.
    pub(super) picked: usize,
    /// Whether it gets routes.
    pub(super) routes: bool,
    /// Length of the text after the pass.
    pub(super) end: usize,
}

impl Answer<'_> {
    /// Decodes the part of a run; an error if one of its logits is not finite.
    pub(super) fn decode(self, part: Part, c: &Config) -> Result<StepOutput> {
        let Part { read, rows, picked, routes, end } = part;
        let not_finite = || Error::NonFinite { what: format!("after token {end}") };
        let mut output = StepOutput::default();
        let logits = self.logits.unwrap_or_default();
        match read {
            Readback::Nothing => {}
            Readback::Top(count) => {
                let [values, ids] = self.top.unwrap_or_default().map(|all| self.row(all, picked));
                // A longer list may have been read, for another text.
                output.candidates = words(ids)
                    .zip(words(values).map(f32::from_bits))
                    .map(|(id, logit)| Candidate { id, logit })
                    .take(count as usize)
                    .collect();
                // `topk` replaces a logit that is not finite by the largest finite number.
                if output.candidates.iter().any(|c| !c.logit.is_finite() || c.logit >= f32::MAX) {
                    return Err(not_finite());
                }
            }
            Readback::Logits => {
                let logits = words(self.row(logits, picked)).map(f32::from_bits);
                output.candidates =
                    (0..).zip(logits).map(|(id, logit)| Candidate { id, logit }).collect();
                if output.candidates.iter().any(|c| !c.logit.is_finite()) {
                    return Err(not_finite());
                }
            }
            Readback::AllLogits => {
                let logits: Vec<f32> = words(logits).map(f32::from_bits).collect();
                let of_rows = logits.chunks_exact(c.vocab_size as usize);
                output.rows =
                    of_rows.skip(rows.start).take(rows.len()).map(<[f32]>::to_vec).collect();
                if output.rows.iter().flatten().any(|logit| !logit.is_finite()) {
                    return Err(not_finite());
                }
            }
        }
        if routes {
            let first = if read == Readback::AllLogits { rows.start } else { rows.end - 1 };
            output.routes = (first..rows.end).map(|row| self.routes_of(row, c)).collect();
        }
        Ok(output)
    }

    /// The part of a row that was wanted.
    fn row(self, all: &[u8], row: usize) -> &[u8] {
        let each = all.len() / self.wanted.max(1);
        all.get(row * each..(row + 1) * each).unwrap_or_default()
    }

    /// The experts that each layer chose for this row.
    fn routes_of(self, row: usize, c: &Config) -> Vec<Route> {
        let chosen = c.num_experts_per_tok() as usize;
        let of =
            |bytes: &[u8]| -> Vec<u32> { words(bytes).skip(row * chosen).take(chosen).collect() };
        self.routes
            .chunks_exact(2)
            .map(|pair| Route {
                experts: of(&pair[0]),
                probs: of(&pair[1]).into_iter().map(f32::from_bits).collect(),
            })
            .collect()
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tensor::DType;

    #[test]
    fn prompts_are_cut_into_chunks_and_read_at_their_end() {
        let options = SessionOptions::new(256, 40, DType::F32);
        let prompt: Vec<u32> = (0..100).collect();
        let chunks = |read| {
            let (mut rest, mut chunks) = (&prompt[..], Vec::new());
            while !rest.is_empty() {
                let input = Input::next_chunk(rest, read, options);
                rest = &rest[input.ids.len()..];
                chunks.push((input.ids.to_vec(), input.read));
            }
            let ids: Vec<u32> = chunks.iter().flat_map(|(ids, _)| ids).copied().collect();
            assert_eq!(ids, prompt);
            chunks.into_iter().map(|(ids, read)| (ids.len(), read)).collect::<Vec<_>>()
        };
        let (nothing, top, all) = (Readback::Nothing, Readback::Top(3), Readback::AllLogits);
        assert_eq!(chunks(top), [(40, nothing), (40, nothing), (20, top)]);
        assert_eq!(chunks(nothing), [(40, nothing), (40, nothing), (20, nothing)]);
        assert_eq!(chunks(all), [(32, all), (32, all), (32, all), (4, all)]);
    }
}
