//! Golden tests: whole models with synthetic weights, compared with the logits of an independent
//! program in f64.

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::MOST;
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::Synthetic,
    engine::{
        SessionOptions,
        session::Session,
        step::{Readback, Route, StepOutput},
    },
    machine::{Machine, gpu::Gpu},
    model::config::Config,
};

/// Gap of router logits below which f32 rounding may change the choice of experts.
const NEAR_TIE: f64 = 1e-5;

/// The logits and routes of a model with [`Synthetic`] weights, by position.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The model.
    pub config: Config,
    /// The input tokens.
    pub ids: Vec<u32>,
    /// Positions whose logits are in the file.
    positions: Vec<usize>,
    /// `[positions][vocab_size]`
    logits: Vec<Vec<f64>>,
    /// `[layers][rows][chosen]`
    experts: Vec<Vec<Vec<u32>>>,
    /// Router logit (capped) of the last chosen expert minus that of the first one left out:
    /// `[layers][rows]`
    margin: Vec<Vec<f64>>,
}

impl Golden {
    /// Parses a golden file and its `config.json`. `name` stands for both in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for a malformed file; those of [`Config::from_json`].
    pub fn parse(name: &str, config: &str, file: &[u8]) -> Result<Self> {
        let path = Path::new(name);
        let (config, _) = Config::from_json(path, config)?;
        let bad = |what: String| Error::format(path, what);
        let file = SafeTensors::deserialize(file).map_err(|error| bad(error.to_string()))?;
        let tensor = |name: &str| {
            file.tensor(name).map_err(|error| bad(format!("tensor `{name}`: {error}")))
        };
        let ints = |name: &str| -> Result<Vec<u32>> {
            let of = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            Ok(tensor(name)?.data().chunks_exact(4).map(of).collect())
        };
        let floats = |name: &str| -> Result<Vec<f64>> {
            let of = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap_or([0xff; 8]));
            Ok(tensor(name)?.data().chunks_exact(8).map(of).collect())
        };
        let experts = tensor("experts")?;
        let [_, rows, chosen] = *experts.shape() else {
            return Err(bad(format!("tensor `experts` has shape {:?}", experts.shape())));
        };
        if rows == 0 || chosen == 0 {
            return Err(bad(format!("tensor `experts` has shape {:?}", experts.shape())));
        }
        Ok(Self {
            logits: floats("logits")?
                .chunks_exact(config.vocab_size as usize)
                .map(<[f64]>::to_vec)
                .collect(),
            experts: ints("experts")?
                .chunks_exact(rows * chosen)
                .map(|layer| layer.chunks_exact(chosen).map(<[u32]>::to_vec).collect())
                .collect(),
            margin: floats("margin")?.chunks_exact(rows).map(<[f64]>::to_vec).collect(),
            ids: ints("ids")?,
            positions: ints("positions")?.iter().map(|&p| p as usize).collect(),
            config,
        })
    }

    /// Largest error of the logits of all positions, by prefill in chunks of 32, with weights of
    /// `dtype`. The chosen experts are compared too.
    ///
    /// # Errors
    ///
    /// [`Error::Verification`] if a logit or a route is off; errors of the session.
    pub async fn by_chunks<M: Machine>(&self, machine: M, dtype: DType) -> Result<f64> {
        let mut session = self.session(machine, dtype, 32).await?;
        session.report_routes(true);
        let mut rows = Vec::new();
        for ids in self.ids.chunks(32) {
            let first = session.tokens().len();
            let reply = session.prefill(ids, Readback::AllLogits).await?;
            self.compare_routes(first, &reply.routes)?;
            rows.extend((first..).zip(reply.rows));
        }
        self.compare(&rows)
    }

    /// Largest error of the logits after `prompt` tokens, by prefill in chunks of `prefill`, and of
    /// every later position, by decode. The chosen experts are compared too.
    ///
    /// # Errors
    ///
    /// Those of [`Golden::by_chunks`].
    pub async fn by_prefill_and_decode<M: Machine>(
        &self,
        machine: M,
        prefill: u32,
        prompt: usize,
    ) -> Result<f64> {
        let mut session = self.session(machine, DType::F32, prefill).await?;
        session.report_routes(true);
        let logits = |output: &StepOutput| output.candidates.iter().map(|c| c.logit).collect();
        let reply = session.prefill(&self.ids[..prompt], Readback::Logits).await?;
        let mut rows = vec![(prompt - 1, logits(&reply))];
        for (position, &id) in self.ids.iter().enumerate().skip(prompt) {
            let reply = session.decode(id, Readback::Logits).await?;
            self.compare_routes(position, &reply.routes)?;
            rows.push((position, logits(&reply)));
        }
        self.compare(&rows)
    }

    async fn session<M: Machine>(
        &self,
        machine: M,
        dtype: DType,
        prefill: u32,
    ) -> Result<Session<M>> {
        let weights = Synthetic::new(&self.config, dtype, 0)?;
        let context = u32::try_from(self.ids.len()).unwrap_or(u32::MAX).max(16);
        let sizes = SessionOptions::new(context, prefill, DType::F32);
        Session::load(machine, &self.config, &weights, sizes, &mut |_| Ok(())).await
    }

    /// Compares the rows that are in the file.
    fn compare(&self, rows: &[(usize, Vec<f32>)]) -> Result<f64> {
        let mut worst: f64 = 0.0;
        let mut seen = 0;
        for (position, got) in rows {
            let Some(at) = self.positions.iter().position(|p| p == position) else { continue };
            seen += 1;
            let here = super::compare_logits(got, &self.logits[at]);
            let here = here.map_err(|what| {
                Error::Verification(format!("logits at position {position}, {what}"))
            })?;
            worst = worst.max(here);
        }
        if seen == 0 {
            return Err(Error::Verification("no position was compared".into()));
        }
        Ok(worst)
    }

    /// Compares the experts chosen for tokens from position `first` on, except near ties. No routes
    /// at all are an error.
    fn compare_routes(&self, first: usize, routes: &[Vec<Route>]) -> Result<()> {
        if routes.is_empty() {
            return Err(Error::Verification("no expert was reported".into()));
        }
        for (position, layers) in (first..).zip(routes) {
            for (layer, route) in layers.iter().enumerate() {
                // Files of long cases have only some rows.
                let at = if self.experts[layer].len() == self.ids.len() {
                    position
                } else if let Some(at) = self.positions.iter().position(|&p| p == position) {
                    at
                } else {
                    continue;
                };
                let mut want = self.experts[layer][at].clone();
                let mut got = route.experts.clone();
                want.sort_unstable();
                got.sort_unstable();
                if got != want && self.margin[layer][at] > NEAR_TIE {
                    return Err(Error::Verification(format!(
                        "layer {layer}, position {position}: experts {got:?}, expected {want:?}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Largest error of a model's logits after each prompt of a file of golden logits, which has
/// tensors `NAME.input_ids` and `NAME.logits` for each prompt.
///
/// # Errors
///
/// [`Error::Format`] for a malformed file, [`Error::Verification`] if a logit is off; errors of the
/// session.
pub async fn check_logits<M: Machine>(session: &mut Session<M>, file: &[u8]) -> Result<f64> {
    let path = Path::new("golden logits");
    let file =
        SafeTensors::deserialize(file).map_err(|error| Error::format(path, error.to_string()))?;
    let mut worst: f64 = 0.0;
    let mut prompts = 0;
    for (name, tensor) in file.tensors() {
        let Some(prompt) = name.strip_suffix(".input_ids") else { continue };
        let of = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let ids: Vec<u32> = tensor.data().chunks_exact(4).map(of).collect();
        let wanted = file
            .tensor(&format!("{prompt}.logits"))
            .map_err(|error| Error::format(path, format!("`{prompt}.logits`: {error}")))?;
        let of = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap_or([0xff; 8]));
        let wanted: Vec<f64> = wanted.data().chunks_exact(8).map(of).collect();
        session.rewind(0);
        let reply = session.prefill(&ids, Readback::Logits).await?;
        let got: Vec<f32> = reply.candidates.iter().map(|candidate| candidate.logit).collect();
        let here = super::compare_logits(&got, &wanted);
        worst = worst.max(
            here.map_err(|what| Error::Verification(format!("after prompt `{prompt}`, {what}")))?,
        );
        prompts += 1;
    }
    if prompts == 0 {
        return Err(Error::format(path, "there is no tensor `NAME.input_ids`"));
    }
    Ok(worst)
}

/// The result of a whole model.
#[derive(Clone, Debug)]
pub struct ModelReport {
    /// The model, and how it ran.
    pub name: String,
    /// Largest difference of a logit.
    pub worst: f64,
    /// Largest difference that passes.
    pub most: f64,
    /// The first failure, if there was one.
    pub failure: Option<String>,
    /// Whether it is expected to fail.
    pub known: bool,
}

impl ModelReport {
    /// As JSON.
    pub fn json(&self) -> Value {
        let mut model = json!({
            "name": self.name,
            // JSON has no infinity: `null` stands for it.
            "worst": self.worst.is_finite().then_some(self.worst),
            "most": self.most,
            "failure": self.failure,
        });
        if self.known {
            model["known"] = true.into();
        }
        model
    }

    /// Its name among those of rows, for lists of known failures.
    pub fn id(&self) -> String {
        format!("model/{}", self.name)
    }

    /// The report of a comparison. Wrong or non-finite values and errors of the device become
    /// failures.
    ///
    /// # Errors
    ///
    /// Any other error of `result`.
    pub fn of(name: String, result: Result<f64>) -> Result<Self> {
        let (worst, failure) = match result {
            Ok(worst) => (worst, None),
            Err(Error::Verification(what)) => (f64::INFINITY, Some(what)),
            Err(error) if error.is_of_device() || matches!(error, Error::NonFinite { .. }) => {
                (f64::INFINITY, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { name, worst, most: MOST, failure, known: false })
    }
}

/// A small model with synthetic weights, whose logits an independent program computed.
#[derive(Clone, Copy, Debug)]
pub struct SmallModel {
    /// Its name in reports.
    pub name: &'static str,
    /// Stem of its file of logits.
    pub file: &'static str,
    /// Its `config.json`.
    config: &'static str,
}

/// One model of each generation.
pub const SMALL_MODELS: [SmallModel; 2] = [
    SmallModel {
        name: "small Grok-2",
        file: "grok2_40",
        config: include_str!("data/grok2_40.json"),
    },
    SmallModel {
        name: "small Grok-1",
        file: "grok1_12",
        config: include_str!("data/grok1_12.json"),
    },
];

/// Their files of logits. The web package does not include these bytes; a page fetches the files
/// when it needs them.
const LOGITS: [&[u8]; 2] =
    [include_bytes!("data/grok2_40.safetensors"), include_bytes!("data/grok1_12.safetensors")];

impl SmallModel {
    /// Runs the model in two ways, and compares with `logits`, the bytes of its file.
    ///
    /// # Errors
    ///
    /// Errors that are not failures of the model: see [`ModelReport::of`].
    pub async fn check(self, gpu: &mut Gpu, logits: &[u8]) -> Result<[ModelReport; 2]> {
        let Self { name, config, .. } = self;
        let keep = gpu.tensor_count();
        let golden = Golden::parse(name, config, logits)?;
        let (len, last) = (golden.ids.len(), golden.ids.len() - 4);
        let text = format!("{name}, BF16, prompt of {len} by chunks");
        let result = golden.by_chunks(&mut *gpu, DType::BF16).await;
        gpu.truncate(keep);
        let by_chunks = ModelReport::of(text, result)?;
        let text = format!("{name}, F32, prompt of {last} and {} single tokens", len - last);
        let result = golden.by_prefill_and_decode(&mut *gpu, 256, last).await;
        gpu.truncate(keep);
        Ok([by_chunks, ModelReport::of(text, result)?])
    }
}

/// Runs all small models.
///
/// # Errors
///
/// Those of [`SmallModel::check`].
pub async fn check_models(gpu: &mut Gpu) -> Result<Vec<ModelReport>> {
    let mut reports = Vec::new();
    for (model, logits) in SMALL_MODELS.iter().zip(LOGITS) {
        reports.extend(model.check(gpu, logits).await?);
    }
    Ok(reports)
}
