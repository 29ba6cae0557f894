//! Variants that a device refuses: the plain ones take their place.

use std::fmt;

use super::{Gpu, pipelines::distinct, plan::Recorder};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    machine::{binder::Dispatch, kernel::Executor},
    variants::{Refused, Tuning},
};

/// Hears a sentence for each refused program.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// Who hears of what a device refuses.
#[derive(Default)]
pub(super) struct Notices {
    listener: Option<Listener>,
    told: Vec<String>,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("told", &self.told).finish_non_exhaustive()
    }
}

/// Programs that were given up, to be told of when others run in their place.
struct GivenUp {
    /// The tuning before.
    before: Tuning,
    /// A sentence for each.
    notices: Vec<String>,
}

impl Gpu {
    /// Calls `listener` with a sentence for each program that the device refuses and that another
    /// one takes the place of.
    pub fn on_notice(&mut self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.notices.listener = Some(Box::new(listener));
    }

    /// Records `program` and compiles its pipelines. A variant that the device refuses gives way to
    /// the plain one, here and from now on, unless the tuning is strict.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn recorded(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Recorder> {
        let mut given_up = self.nothing_given_up();
        loop {
            let recorder = self.recorder(program)?;
            let Err(error) = self.prepare(recorder.dispatches()) else {
                self.tell(given_up);
                return Ok(recorder);
            };
            if !matches!(error, Error::Device(_)) || self.tuning.strict {
                return Err(error);
            }
            let refused = self.pipelines.refused(&self.make, recorder.dispatches());
            self.check()?;
            if refused.is_empty() {
                // What was refused is not refused again: either a pipeline, which is there now, or
                // it was no pipeline.
                return self.prepare(recorder.dispatches()).map(|()| recorder);
            }
            self.give_up(refused, &mut given_up)?;
        }
    }

    /// Compiles the pipelines of `program` one by one, and waits for what the device says of each:
    /// browsers tell of errors later.
    pub(super) async fn compiled_each(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut given_up = self.nothing_given_up();
        loop {
            let recorder = self.recorder(program)?;
            let refused = self.compiled_until_refused(&recorder, run, progress).await;
            match refused {
                Ok(Some(refused)) => self.give_up(vec![refused], &mut given_up)?,
                result => {
                    self.tell(given_up);
                    return result.map(|_| ());
                }
            }
        }
    }

    /// Compiles the pipelines of a pass up to the first that the device refuses, and returns that.
    async fn compiled_until_refused(
        &mut self,
        recorder: &Recorder,
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Option<(Dispatch, Error)>> {
        let wanted = distinct(recorder.dispatches());
        let is_there = |gpu: &Self, dispatch: &Dispatch| gpu.pipelines.get(dispatch).is_some();
        let mut there = wanted.iter().filter(|dispatch| is_there(self, dispatch)).count();
        progress(there, wanted.len())?;
        for &dispatch in &wanted {
            if is_there(self, dispatch) {
                continue;
            }
            let built = self.pipelines.prepare_one(&self.make, dispatch).await;
            self.check()?;
            if let Err(error) = built {
                return Ok(Some((dispatch.clone(), error)));
            }
            if run {
                self.run_once(dispatch).await?;
            }
            there += 1;
            progress(there, wanted.len())?;
        }
        Ok(None)
    }

    pub(super) fn recorder(
        &self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Recorder> {
        let mut recorder = Recorder::new(self.tuning.clone());
        program(&mut recorder)?;
        Ok(recorder)
    }

    fn nothing_given_up(&self) -> GivenUp {
        GivenUp { before: self.tuning.clone(), notices: Vec::new() }
    }

    /// Notes programs as refused. An error if one has no other in its place: then the tuning is
    /// that from before.
    fn give_up(&mut self, refused: Vec<(Dispatch, Error)>, given_up: &mut GivenUp) -> Result<()> {
        for (dispatch, error) in refused {
            let Error::Device(why) = error else { return Err(error) };
            let shader = dispatch.shader;
            let program = shader.variant.map(|variant| Refused {
                kernel: shader.own.kernel,
                variant,
                dtype: shader.weight.unwrap_or(DType::F32),
                constants: dispatch.constants,
            });
            match program.filter(|program| !self.tuning.refused.contains(program)) {
                Some(program) if !self.tuning.strict => {
                    let why = shortened(&why);
                    given_up.notices.push(format!(
                        "the device refuses the program `{}` ({why}), so the plain variant of `{}` \
                         runs in its place",
                        shader.label(),
                        program.kernel
                    ));
                    self.tuning.refused.push(program);
                }
                _ => {
                    let measured = self.tuning.measured.is_some() && !given_up.notices.is_empty();
                    self.tuning = given_up.before.clone();
                    let program = shader.label();
                    return Err(if given_up.notices.is_empty() {
                        Error::Device(why)
                    } else {
                        Error::Refused { program, why, measured }
                    });
                }
            }
        }
        Ok(())
    }

    /// Tells what was not told before: several pipelines of a program differ in constants only.
    fn tell(&mut self, given_up: GivenUp) {
        for notice in given_up.notices {
            if self.notices.told.contains(&notice) {
                continue;
            }
            if let Some(listener) = &self.notices.listener {
                listener(&notice);
            }
            self.notices.told.push(notice);
        }
    }
}

/// What a device says, on one line of moderate length.
fn shortened(why: &str) -> String {
    const MOST: usize = 200;
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
