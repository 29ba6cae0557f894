//! Prints the likeliest next tokens after a prompt, with their logits.
//!
//! `cargo run --release --example logits -- models/demo "Once upon a"`

use std::{
    error::Error,
    io::{Write as _, stdout},
};

use grok_wgpu::{Engine, Gpu, Sequence, open};

/// Tokens that are shown.
const SHOWN: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().unwrap_or_else(|| "models/demo".to_owned());
    let prompt = words.next().unwrap_or_else(|| "Once upon a".to_owned());
    pollster::block_on(run(&folder, &prompt))
}

async fn run(folder: &str, prompt: &str) -> Result<(), Box<dyn Error>> {
    let model = open(folder).await?;
    let tokenizer = model.tokenizer().await?;
    let mut engine = Engine::of(Gpu::open_best().await?, &model).await?;

    let ids = tokenizer.encode_prompt(prompt)?;
    let logits = engine.logits(&mut Sequence::new(), &ids).await?;
    // The model may have more rows than the tokenizer has tokens.
    let mut order: Vec<(u32, f32)> = (0..).zip(logits).take(tokenizer.vocab_size()).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (id, logit) in order.into_iter().take(SHOWN) {
        writeln!(stdout(), "{logit:9.4}  {id:6}  {:?}", tokenizer.token_text(&ids, id)?)?;
    }
    Ok(())
}
