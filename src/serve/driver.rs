//! The engine's loop: makes texts one after another, in the order in which they came.

use super::engine::{Event, Failure, Job, Jobs, Usage};
use crate::{
    base::error::{Error, Result},
    engine::{
        generation::{Generation, Next},
        options,
        step::Stepper,
    },
    text::{sampler::Sampler, tokenizer::Tokenizer},
};

/// Makes texts until the server ends.
///
/// A text takes from the cache only what went through the model as a prompt, so that its bits are
/// those that it has with an empty cache.
///
/// # Errors
///
/// [`Error::Lost`] if the device was lost and could not be replaced: all texts have failed then.
/// Other errors fail the text that has them, alone.
pub async fn run<S: Stepper>(
    stepper: &mut S,
    tokenizer: &Tokenizer,
    jobs: &mut Jobs,
) -> Result<()> {
    while let Some(mut job) = jobs.take() {
        let error = match text(stepper, tokenizer, jobs, &mut job).await {
            Ok(event) => {
                job.emit(event);
                continue;
            }
            Err(error) => error,
        };
        // What the cache has of it is not used again.
        stepper.sequence().rewind(0);
        let failure = failure(&error);
        job.emit(Event::Failed(failure.clone()));
        if matches!(failure, Failure::DeviceLost(_)) {
            jobs.fail_all(&failure);
            return Err(error);
        }
    }
    Ok(())
}

/// Makes a text. Returns its last event.
async fn text<S: Stepper>(
    stepper: &mut S,
    tokenizer: &Tokenizer,
    jobs: &mut Jobs,
    job: &mut Job,
) -> Result<Event> {
    let wanted = &job.wanted;
    let sampler = Sampler::of_stream(wanted.sampling, wanted.stream)?;
    let (config, sizes) = (stepper.config(), stepper.options());
    let (prompt, options) = (&wanted.prompt, wanted.options.clone());
    let mut generation = Generation::new(config, sizes, tokenizer, sampler, prompt, options)?;
    let sequence = stepper.sequence();
    let cached = if wanted.reuse { generation.reuse(sequence.prompt()) } else { 0 };
    sequence.rewind(cached);
    let prompt = wanted.prompt.len();
    loop {
        jobs.look();
        if let Some(failure) = job.must_end() {
            return Ok(Event::Failed(failure));
        }
        match generation.advance()? {
            Next::Step(input) => {
                jobs.load().stepping(true);
                let output = stepper.step(input).await;
                jobs.load().stepping(false);
                generation.accept(output?)?;
            }
            Next::Event(options::Event::Prompt { .. }) => {}
            Next::Event(options::Event::Token(token)) => job.emit(Event::Text {
                id: Some(token.id),
                text: token.text.clone(),
                logprobs: token.logprobs.clone(),
            }),
            Next::Event(options::Event::Rest(text)) => {
                job.emit(Event::Text { id: None, text: text.to_owned(), logprobs: None });
            }
            Next::Done => {
                let made = generation.into_generated();
                let completion = made.tokens.len();
                let usage = Usage { prompt, cached, completion };
                return Ok(Event::End { finish: made.finish, usage });
            }
        }
    }
}

/// What a client learns of an error.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Hinted { error, .. } => failure(error),
        Error::Lost(why) => Failure::DeviceLost(why.clone()),
        Error::NonFinite { .. } => Failure::NonFinite(error.to_string()),
        Error::Interrupted => Failure::Stopping,
        other => Failure::Other(other.code(), other.to_string()),
    }
}
