//! How fast a device computes generated tokens of a model: by the time of one and of two of its
//! layers, with kernels of the sizes that the model's tokens have.
//!
//! [`super::transfers`] reads one large matrix, which is the most that a device gives. Kernels of a
//! token are smaller, and many wait for one another: software drivers run them at a tenth of that.

use std::{collections::HashMap, sync::Arc};

use super::{
    placement::placed,
    rates::{Expected, Rates, Room},
    transfers::numbers,
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{SessionOptions, session::Session, step::Readback},
    machine::{
        Machine as _,
        counting::DeviceLimits,
        gpu::{Gpu, wait::now},
    },
    model::{
        Placement,
        config::Config,
        schema::{Wanted, tensors},
        weights::Weights,
    },
};

/// Positions of the context.
const CONTEXT: u32 = 64;
/// Tokens of the longest chunk of a prompt; the prompt has one.
const CHUNK: u32 = 16;
/// Generated tokens that are not measured: the first ones compile, and encode nothing ahead.
const WARM: u32 = 3;
/// Tokens that are measured at least.
const LEAST: usize = 5;
/// Tokens that are measured at the most.
const MOST: u32 = 48;
/// Seconds after which no more are.
const LONG: f64 = 0.3;

/// Weights that are some numbers, of the types that a model has.
#[derive(Clone)]
struct Numbers {
    /// Type of a tensor, and bytes of a row.
    of: Arc<HashMap<String, (DType, u64)>>,
}

impl Numbers {
    fn new(config: &Config, weights: &impl Weights) -> Result<Self> {
        let of = |tensor: Wanted| {
            let dtype = weights.dtype(&tensor.name)?;
            let elements = tensor.shape.iter().skip(1).product();
            Ok((tensor.name, (dtype, dtype.row_bytes(elements))))
        };
        Ok(Self { of: Arc::new(tensors(config).into_iter().map(of).collect::<Result<_>>()?) })
    }

    fn get(&self, name: &str) -> Result<(DType, u64)> {
        let unknown = || Error::Usage(format!("a model of some layers has no tensor `{name}`"));
        self.of.get(name).copied().ok_or_else(unknown)
    }
}

impl Weights for Numbers {
    fn dtype(&self, name: &str) -> Result<DType> {
        Ok(self.get(name)?.0)
    }

    async fn read_rows(&self, name: &str, _: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let bytes = rows * self.get(name)?.1;
        let too_many = || Error::Usage(format!("`{name}` has rows that no memory holds"));
        *into = numbers(usize::try_from(bytes).map_err(|_| too_many())?);
        Ok(())
    }
}

/// Bytes of weights a second that the device reads and multiplies for a generated token of this
/// model, apart from what submissions and dispatches take by `rates`. Only the types of `weights`
/// count. `None` if the device has no memory for two layers, or if noise hides the second. The
/// device's tensors are those from before.
///
/// # Errors
///
/// Errors of the device other than for want of memory, those of the types of weights, and those of
/// `progress`, which is called before each token.
pub async fn of_model(
    gpu: &mut Gpu,
    config: &Config,
    weights: &impl Weights,
    rates: &Rates,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<f64>> {
    let sizes = SessionOptions::new(CONTEXT, CHUNK, DType::F32);
    let limits = DeviceLimits::of(gpu.caps());
    let whole = match placed(config, weights, limits, sizes, Placement::WHOLE) {
        Err(Error::Limit { .. }) => return Ok(None),
        whole => whole?.token,
    };
    let layers = config.num_hidden_layers();
    let mut seconds = [0.0; 2];
    for (count, seconds) in (1..=layers.min(2)).zip(&mut seconds) {
        let keep = gpu.tensor_count();
        let measured = token(gpu, few(config, count), weights, progress).await;
        gpu.truncate(keep);
        match measured {
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => return Ok(None),
            measured => *seconds = measured?,
        }
    }
    let [one, two] = seconds;
    let all = if layers > 1 { one + f64::from(layers - 1) * (two - one) } else { one };
    let calls = Expected::of(&whole, rates, Room::default()).calls;
    let rate = whole.device as f64 / (all - calls);
    Ok((rate.is_finite() && rate > 0.0 && (layers == 1 || two > one)).then_some(rate))
}

/// The same model with a few layers, and with no more experts than run for a token.
fn few(config: &Config, layers: u32) -> Config {
    let mut few = config.clone().with_layers(layers);
    if let Some(experts) = &mut few.experts {
        experts.count = experts.chosen;
    }
    few
}

/// Seconds of a generated token of a model: the median of several.
async fn token(
    gpu: &mut Gpu,
    config: Config,
    weights: &impl Weights,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<f64> {
    let sizes = SessionOptions::new(CONTEXT, CHUNK, DType::F32);
    let weights = Numbers::new(&config, weights)?;
    let vocabulary = config.vocab_size;
    let mut session = Session::load(&mut *gpu, &config, &weights, sizes, &mut |_| Ok(())).await?;
    session.prefill(&[0], Readback::Top(1)).await?;
    let (mut times, start) = (Vec::new(), now());
    for i in 0..WARM + MOST {
        progress()?;
        let began = now();
        session.decode(i % vocabulary, Readback::Top(1)).await?;
        if i >= WARM {
            times.push(now() - began);
        }
        if times.len() >= LEAST && now() - start > LONG {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
