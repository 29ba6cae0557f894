//! How many tokens of a prompt should go through a model at once on a device: measured.

use super::lengths::Timed;
use crate::{
    base::error::{Error, Result},
    engine::{SessionOptions, session::Session, step::Readback},
    machine::gpu::{Gpu, wait::now},
    model::{config::Config, schema, weights::Weights},
};

/// The lengths that are compared unless others are asked for.
pub const LENGTHS: [u32; 3] = [256, 512, 1024];

/// Seconds after which no more rounds are needed: a long run is hardly disturbed.
const LONG: f64 = 10.0;

/// What models have in common for which one length is measured: the type of most weights of a
/// layer, and the widths of its products. How many layers there are makes no difference.
///
/// # Errors
///
/// Those of [`Weights::dtype`].
pub fn class(config: &Config, weights: &impl Weights) -> Result<String> {
    let of_mlp = |kind| matches!(kind, schema::Kind::Dense | schema::Kind::Expert);
    let tensors = schema::tensors(config).into_iter().filter(|tensor| of_mlp(tensor.kind()));
    let largest = tensors.max_by_key(|tensor| tensor.shape.iter().product::<u64>());
    let dtype = largest.map(|tensor| weights.dtype(&tensor.name)).transpose()?;
    let dtype = dtype.map_or("none", |dtype| dtype.name());
    let dense = config.dense_width().unwrap_or_default();
    let (experts, chosen) = (config.num_local_experts(), config.num_experts_per_tok());
    let width = config.moe_intermediate_size();
    Ok(format!("{dtype} {}, dense {dense}, {chosen} of {experts}x{width}", config.hidden_size))
}

/// Measures a prompt in chunks of each of `lengths` that context and memory allow:
/// `rounds` times, or until they have taken ten seconds, after one that does not count. The session
/// is left with sizes for one of them. Nothing is measured where there is no choice. The times are
/// seconds of the whole prompt, the least of all rounds.
/// `progress` is called after each prompt; an error from it stops the work.
///
/// # Errors
///
/// Errors of the device and of `progress`.
pub async fn measure(
    session: &mut Session<Gpu>,
    lengths: &[u32],
    rounds: u32,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Timed>> {
    let (most, sizes) = (session.config().max_position_embeddings, session.options());
    let of = |context, prefill| SessionOptions { context, prefill, ..sizes };
    let mut lengths: Vec<u32> = lengths.iter().copied().filter(|&rows| rows <= most).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let longest = loop {
        let [.., _, longest] = lengths[..] else { return Ok(Vec::new()) };
        match session.resize(of(longest, longest)) {
            Ok(()) => break longest,
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => lengths.pop(),
            Err(error) => return Err(error),
        };
    };
    let vocab = session.config().vocab_size;
    let prompt: Vec<u32> = (0..longest).map(|i| i.wrapping_mul(7919) % vocab).collect();
    let mut timed = Vec::new();
    for length in lengths {
        // A plan of this length has no padding then.
        session.resize(of(longest, length))?;
        let (mut seconds, mut all) = (f64::INFINITY, 0.0);
        for round in 0..=rounds {
            session.rewind(0);
            let start = now();
            for part in prompt.chunks(length as usize) {
                let last = session.tokens().len() + part.len() == prompt.len();
                let read = if last { Readback::Top(1) } else { Readback::Nothing };
                session.prefill(part, read).await?;
            }
            let time = now() - start;
            progress()?;
            if round > 0 {
                seconds = seconds.min(time);
                all += time;
            }
            if all > LONG {
                break;
            }
        }
        timed.push(Timed { length, seconds });
    }
    Ok(timed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::tensor::DType, checkpoint::Synthetic};

    #[test]
    fn models_of_one_shape_are_a_class() {
        let of = |name: &str, layers, dtype| {
            let config = Config::preset(name).expect("a preset").with_layers(layers);
            let weights = Synthetic::new(&config, dtype, 0).expect("weights");
            class(&config, &weights).expect("a class")
        };
        assert_eq!(of("grok-2", 1, DType::Q4), "Q4 8192, dense 32768, 2 of 8x16384");
        assert_eq!(of("grok-2", 1, DType::Q4), of("grok-2", 2, DType::Q4));
        assert_ne!(of("grok-2", 1, DType::Q4), of("grok-2", 1, DType::Q8));
        assert_ne!(of("grok-2", 1, DType::Q4), of("bench", 1, DType::Q4));
        assert!(of("tiny-grok-1", 1, DType::BF16).contains("dense 0"));
    }
}
