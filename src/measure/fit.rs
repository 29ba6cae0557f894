//! What a model takes of a device with weights of one type or another, whether that fits, and how
//! many bytes bound its speed.

use std::collections::{BTreeMap, HashMap};

use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::requantize::Choices,
    engine::SessionOptions,
    machine::counting::DeviceLimits,
    measure::{capacity::Planner, work::least_bytes},
    model::{config::Config, schema, weights::Weights},
};

/// Weights of which only the types are known.
#[derive(Clone, Debug)]
pub struct Typed(HashMap<String, DType>);

impl Typed {
    /// What `choices` make of a model's weights, which are stored as `stored` says.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `stored` lacks a tensor of the model.
    pub fn new(config: &Config, choices: &Choices, stored: &impl Weights) -> Result<Self> {
        let tensors = schema::tensors(config).into_iter();
        let types = tensors.map(|want| {
            let dtype = choices.decide(&want, stored.dtype(&want.name)?);
            Ok((want.name, dtype))
        });
        types.collect::<Result<_>>().map(Self)
    }
}

impl Weights for Typed {
    fn dtype(&self, name: &str) -> Result<DType> {
        let known = self.0.get(name).copied();
        known.ok_or_else(|| Error::Usage(format!("the model has no tensor `{name}`")))
    }

    async fn read_rows(&self, name: &str, _: u64, _: u64, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::Usage(format!("`{name}` has a type here and no rows")))
    }
}

/// The type that has the most bytes of a model's weights.
///
/// # Errors
///
/// Those of [`Weights::dtype`].
pub fn type_of_most(config: &Config, weights: &impl Weights) -> Result<DType> {
    let mut bytes = BTreeMap::<DType, u64>::new();
    for tensor in schema::tensors(config) {
        let dtype = weights.dtype(&tensor.name)?;
        *bytes.entry(dtype).or_default() += tensor.bytes(dtype);
    }
    let most = bytes.into_iter().max_by_key(|&(_, bytes)| bytes);
    Ok(most.map_or(DType::BF16, |(dtype, _)| dtype))
}

/// What a model takes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Bytes of the weights on the device.
    pub weights: u64,
    /// Bytes of everything; `None` if a buffer is larger than the device allows.
    pub total: Option<u64>,
    /// Bytes that the first generated token must read: see [`least_bytes`].
    pub token: u64,
    /// The longest context that fits into the memory, if that is known; 0 if none does.
    pub longest: Option<u32>,
}

impl Fit {
    /// What a model takes with these weights. `None` if a row of them is larger than a binding.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `sizes` do not suit the model.
    pub fn of(
        config: &Config,
        weights: &impl Weights,
        limits: DeviceLimits,
        sizes: SessionOptions,
        memory: Option<u64>,
    ) -> Result<Option<Self>> {
        let planner = match Planner::new(config, weights, limits) {
            Err(Error::Limit { .. }) => return Ok(None),
            planner => planner?,
        };
        let total = match planner.plan(sizes) {
            Err(Error::Limit { .. }) => None,
            plan => Some(plan?.total()),
        };
        let longest = memory.map(|memory| planner.longest_context(memory, sizes)).transpose()?;
        let model = planner.model();
        let token = least_bytes(model, sizes.cache, 1, 0);
        Ok(Some(Self { weights: model.bytes(), total, token, longest }))
    }

    /// Tokens that a device which reads so many bytes a second can generate in one, at the most.
    pub fn most_tokens(&self, bytes_per_second: u64) -> f64 {
        bytes_per_second as f64 / self.token.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Synthetic;

    #[test]
    fn fewer_bits_take_less_of_everything() {
        let config = Config::preset("bench").expect("a preset");
        let stored = Synthetic::new(&config, DType::BF16, 0).expect("weights");
        let sizes = SessionOptions::new(512, 64, DType::F32);
        let of = |memory| {
            let fit = |weights: &Typed| {
                Fit::of(&config, weights, DeviceLimits::BASELINE, sizes, memory)
                    .expect("sizes that suit")
                    .expect("rows that fit")
            };
            [DType::Q4, DType::Q8, DType::BF16].map(|dtype| {
                let choices = Choices::of(dtype);
                fit(&Typed::new(&config, &choices, &stored).expect("all tensors"))
            })
        };
        let [q4, q8, bf16] = of(None);
        assert!(q4.weights < q8.weights && q8.weights < bf16.weights);
        assert!(q4.token < q8.token && q8.token < bf16.token && bf16.token < bf16.weights);
        assert!(q4.longest.is_none());
        // Between q4 and q8 with the whole context.
        let memory = q8.total.expect("it fits") - 1;
        let [q4, q8, bf16] = of(Some(memory)).map(|fit| fit.longest.expect("asked for"));
        assert!(q4 > 512 && (1..512).contains(&q8) && bf16 == 0, "{q4} {q8} {bf16}");
    }

    #[test]
    fn the_speed_is_bounded_by_the_bytes_of_a_token() {
        let config = Config::preset("bench").expect("a preset");
        let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
        let sizes = SessionOptions::new(16, 16, DType::F32);
        let fit = Fit::of(&config, &weights, DeviceLimits::BASELINE, sizes, None);
        let fit = fit.expect("sizes that suit").expect("rows that fit");
        // Two bytes for each active parameter, norms and routers as f32, and a position of the
        // cache: hardly more.
        let least = 2 * config.parameters().active;
        let ratio = fit.token as f64 / least as f64;
        assert!((1.0..1.01).contains(&ratio), "{ratio}");
        assert!((fit.most_tokens(10 * fit.token) - 10.0).abs() < 1e-9);
    }
}
