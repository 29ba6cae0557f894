//! Loads a model and prints text after a prompt, as it comes.
//!
//! `cargo run --release --example generate -- models/demo "Once upon a time"`

use std::{
    error::Error,
    io::{Write as _, stdout},
    ops::ControlFlow,
};

use grok_wgpu::{Engine, Event, Gpu, Options, Sampler, Sampling, Sequence, SessionOptions, open};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().unwrap_or_else(|| "models/demo".to_owned());
    let prompt = words.next().unwrap_or_else(|| "Once upon a time".to_owned());
    pollster::block_on(run(&folder, &prompt))
}

async fn run(folder: &str, prompt: &str) -> Result<(), Box<dyn Error>> {
    let model = open(folder).await?;
    for warning in &model.warnings {
        eprintln!("{warning}");
    }
    let tokenizer = model.tokenizer().await?;
    for warning in tokenizer.warnings() {
        eprintln!("{warning}");
    }

    let gpu = Gpu::open_best().await?;
    eprintln!("{}", gpu.caps().describe());
    let total = model.weights.bytes();
    let mut progress = |done: u64| {
        eprint!("\rloading: {} %", 100 * done / total.max(1));
        Ok(())
    };
    let sizes = SessionOptions::of(&model.config).on(&gpu);
    let mut engine = Engine::load(gpu, &model.config, &model.weights, sizes, &mut progress).await?;
    eprintln!();

    let ids = tokenizer.encode_prompt(prompt)?;
    let mut sampler = Sampler::new(Sampling { seed: 7, ..Sampling::USUAL })?;
    let mut options = Options::until_end(&tokenizer);
    options.max_tokens = 100;
    let on_event = |event: Event<'_>| {
        // A reader that is gone ends the text.
        match write!(stdout(), "{}", event.text()).and_then(|()| stdout().flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let mut sequence = Sequence::new();
    let text =
        engine.generate(&mut sequence, &tokenizer, &mut sampler, &ids, &options, on_event).await?;
    writeln!(stdout())?;
    eprintln!("{} tokens, {}", text.tokens.len(), text.finish.name());
    Ok(())
}
