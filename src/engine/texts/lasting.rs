//! Texts that survive the loss of their device.

use super::{OnEvent, Ran, Texts};
use crate::{
    base::error::{Error, Result},
    engine::{
        Engine,
        resume::{Change, Rebuild, TRIES},
    },
    machine::{Machine, step::PAGE},
};

/// Devices that were lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    all: u64,
    /// Since anything last went through the model.
    in_a_row: u32,
}

impl<M: Machine> Texts<'_, M> {
    /// Runs one step as [`Texts::step`] does. If the device is lost, another engine is built, and
    /// the step runs there: pages that are kept on the host are written back, and tokens after them
    /// go through the model again, in the steps to come, as they went before.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if that device is lost too, and the next ones; others of [`Rebuild::build`]
    /// and [`Texts::step`]. The step can be tried again then.
    pub async fn step_on<R: Rebuild<Machine = M>>(
        &mut self,
        rebuild: &mut R,
        clock: &mut dyn FnMut() -> u64,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Ran> {
        loop {
            let ran = match self.revive(rebuild).await {
                Ok(()) => self.step(clock, on_event).await,
                Err(error) => Err(error),
            };
            match ran {
                Ok(ran) => {
                    if !ran.is_empty() {
                        self.losses.in_a_row = 0;
                    }
                    return Ok(ran);
                }
                Err(error @ Error::Lost(_)) => {
                    self.engine = None;
                    self.losses.all += 1;
                    self.losses.in_a_row += 1;
                    if self.losses.in_a_row > TRIES {
                        self.losses.in_a_row = 0;
                        rebuild.on_change(Change::Failed(&error));
                        return Err(error);
                    }
                    rebuild.on_change(Change::Lost(&error));
                }
                Err(error) => {
                    // A device that was lost for want of memory: another one would be, too. Its
                    // memory is freed, and the next step, with fewer texts, may have enough.
                    let lost = |engine: &Engine<M>| engine.machine().is_lost();
                    if self.engine.as_ref().is_none_or(lost) {
                        self.engine = None;
                        rebuild.on_change(Change::Failed(&error));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// How many devices were lost.
    pub fn losses(&self) -> u64 {
        self.losses.all
    }

    /// Builds an engine if there is none.
    async fn revive<R: Rebuild<Machine = M>>(&mut self, rebuild: &mut R) -> Result<()> {
        if self.engine.is_some() {
            return Ok(());
        }
        // Loading has large futures, and happens seldom.
        let engine = Box::pin(rebuild.build()).await?;
        self.replace(engine)?;
        rebuild.on_change(Change::Restored { replayed: self.to_replay() });
        Ok(())
    }

    /// Tokens that had gone through the model and are on the host no more than in the cache.
    fn to_replay(&self) -> usize {
        let there = |text: &super::Text<'_>| {
            text.sequence
                .tokens()
                .len()
                .saturating_sub(self.store.count(&text.sequence) * PAGE as usize)
        };
        self.by_id.values().map(there).sum()
    }
}
