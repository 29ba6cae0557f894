//! Reads a text with a model, and adds up what each of its matrices is multiplied by.
//!
//! The pass is cut at marks that it has anyway, and the buffers that hold the inputs of products
//! are read there. So the model may be whole on its machine or be brought in parts.

use crate::{
    base::{
        error::{Error, Result},
        tensor::Tensor,
    },
    checkpoint::importance::Importance,
    engine::{
        segments::{Mark, Part, Runner, Segmented, Segments},
        session::Session,
        step::Readback,
    },
    machine::{Machine, Span, kernel::Need},
    measure::perplexity::windows,
    model::{
        Scratch,
        config::Config,
        schema::{self, Key},
    },
};

/// A runner that reads the inputs of products where a pass uses them.
#[derive(Debug, Default)]
pub struct Taps(Option<Reading>);

/// What is read.
#[derive(Debug)]
struct Reading {
    config: Config,
    buffers: Scratch,
    /// Tokens of the pass that runs.
    rows: u64,
    /// Whether the output of attention has been read in this layer.
    attended: bool,
    sums: Importance,
}

impl<M: Machine> Runner<M> for Taps {
    fn cuts_at(&self, mark: Mark) -> bool {
        match mark {
            Mark::Need(Need::Layer(_)) | Mark::Used(_) => true,
            Mark::Need(_) | Mark::SumOverRanks(_) => false,
        }
    }

    async fn run(
        &mut self,
        machine: &mut M,
        pass: &Segments<M::Plan>,
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        let mut left = pass.segments().count();
        let mut answer = Vec::new();
        for part in &pass.parts {
            match part {
                Part::Segment(plan) => {
                    left -= 1;
                    let read = if left == 0 { read } else { &[] };
                    answer = machine.run_plan(plan, read).await?;
                }
                Part::Mark(mark) => {
                    if let Some(reading) = &mut self.0 {
                        reading.at(machine, *mark).await?;
                    }
                }
            }
        }
        Ok(answer)
    }
}

impl Reading {
    /// Reads what the buffers hold at this mark: see [`forward`](crate::model::forward).
    async fn at<M: Machine>(&mut self, machine: &mut M, mark: Mark) -> Result<()> {
        use schema::Part::{DenseDown, DenseGate, Head, O, Q};
        let &Scratch { h, heads, dense_act, .. } = &self.buffers;
        let key = |layer: usize, part| Key::new(u32::try_from(layer).unwrap_or(u32::MAX), part);
        if let Mark::Used(
            Need::Layer(layer) | Need::Dense { layer, .. } | Need::Experts { layer, .. },
        ) = mark
            && !self.attended
        {
            self.attended = true;
            self.add(machine, key(layer, O), heads).await?;
        }
        match mark {
            Mark::Need(Need::Layer(layer)) => {
                self.attended = false;
                self.add(machine, key(layer, Q), h).await
            }
            Mark::Used(Need::Dense { layer, .. }) => {
                self.add(machine, key(layer, DenseGate), h).await?;
                self.add(machine, key(layer, DenseDown), dense_act).await
            }
            Mark::Used(Need::Experts { layer, ids, .. }) => {
                self.add_experts(machine, key(layer, schema::Part::Router), ids).await
            }
            // The last layer has left it normalized for the head.
            Mark::Used(Need::Layer(layer)) if layer + 1 == self.config.layers.len() => {
                self.add(machine, key(0, Head), h).await
            }
            Mark::Used(Need::Layer(_)) | Mark::Need(_) | Mark::SumOverRanks(_) => Ok(()),
        }
    }

    async fn add<M: Machine>(&mut self, machine: &mut M, key: Key, input: Tensor) -> Result<()> {
        let input = self.read(machine, input).await?;
        self.sums.add(key, bytemuck::cast_slice(&input))
    }

    /// Each expert has the tokens that chose it, and what it made of them. This is the place where
    /// all are there, in however many rounds they came.
    async fn add_experts<M: Machine>(
        &mut self,
        machine: &mut M,
        Key { layer, .. }: Key,
        ids: Tensor,
    ) -> Result<()> {
        let input = self.read(machine, self.buffers.h).await?;
        let made = self.read(machine, self.buffers.expert_act).await?;
        let ids = self.read(machine, ids).await?;
        let of_token = input.len() / usize::try_from(self.rows).unwrap_or(1).max(1);
        let chosen = self.config.num_experts_per_tok().max(1) as usize;
        let width = made.len() / ids.len().max(1);
        for (slot, (&expert, made)) in ids.iter().zip(made.chunks_exact(width.max(1))).enumerate() {
            if expert >= self.config.num_local_experts() {
                return Err(Error::NonFinite { what: format!("in the router of layer {layer}") });
            }
            let key = |part| Key { part, layer, expert };
            let token = &input[slot / chosen * of_token..][..of_token];
            self.sums.add(key(schema::Part::ExpertGate), bytemuck::cast_slice(token))?;
            self.sums.add(key(schema::Part::ExpertDown), bytemuck::cast_slice(made))?;
        }
        Ok(())
    }

    /// The rows of a buffer that are tokens, as words.
    async fn read<M: Machine>(&self, machine: &mut M, tensor: Tensor) -> Result<Vec<u32>> {
        let all = tensor.shape.extents().first().copied().map_or(1, u64::from);
        let row = tensor.shape.size_bytes(tensor.dtype) / all.max(1);
        let bytes = machine.read(&[Span { tensor, offset: 0, bytes: row * self.rows }]).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

/// Reads a text in windows of the session's context, each after the tokens `begin`, and adds up the
/// inputs of all products. `progress` is called before each chunk with the number of its tokens; an
/// error from it ends the work.
///
/// # Errors
///
/// [`Error::Usage`] if there are no tokens; [`Error::NonFinite`] with the matrix if an input is not
/// finite; those of [`Session::prefill`] and of `progress`.
pub async fn calibrate<M: Machine>(
    session: &mut Session<Segmented<M, Taps>>,
    begin: &[u32],
    ids: &[u32],
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Importance> {
    if ids.is_empty() {
        return Err(Error::Usage("there are no tokens to calibrate with".into()));
    }
    let options = session.options();
    let config = session.config().clone();
    let sums = Importance::new(&config);
    let buffers = session.engine().prompt_buffers().clone();
    let reading = Reading { config, buffers, rows: 0, attended: false, sums };
    session.machine_mut().runner_mut().0 = Some(reading);
    for window in windows(begin, ids, options.context as usize)? {
        session.rewind(0);
        for part in window.ids().chunks(options.chunk(Readback::Nothing)) {
            progress(part.len())?;
            if let Some(reading) = &mut session.machine_mut().runner_mut().0 {
                reading.rows = part.len() as u64;
            }
            session.prefill(part, Readback::Nothing).await?;
        }
    }
    let reading = session.machine_mut().runner_mut().0.take();
    reading.map(|reading| reading.sums).ok_or_else(|| Error::Usage("nothing was read".into()))
}
