//! The self-test on a page's device: rows of the kernel table one at a time, and small models.

use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use super::{describe, throw};
use crate::{
    base::error::{Error, Result},
    kernels::Case,
    machine::gpu::{AdapterChoice, Gpu, LimitProfile},
    selftest::{
        self, ModelReport, Replay, Row, Runner, SMALL_MODELS, SmallModel, Summary, Suspect,
    },
    variants::Tuning,
};

/// A device with WebGPU's default limits.
async fn device() -> Result<Gpu> {
    Gpu::open(&AdapterChoice::Best, LimitProfile::Baseline).await
}

/// A device, the checks for it, and their results so far.
#[wasm_bindgen]
#[derive(Debug)]
pub struct SelfTest {
    runner: Runner,
    /// The device's own tuning, with its name.
    tuning: (String, Tuning),
    cases: Vec<Case>,
    rows: Vec<Row>,
    models: Vec<ModelReport>,
}

#[wasm_bindgen]
impl SelfTest {
    /// Opens a device with WebGPU's default limits.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code` if there is no such device.
    pub async fn open() -> Result<SelfTest, JsValue> {
        let gpu = device().await.map_err(|error| throw(&error))?;
        let quick = selftest::Profile::Quick;
        // The quick profile has one tuning: the device's own.
        let own = quick.tunings(&gpu).swap_remove(0);
        Ok(Self {
            runner: Runner::new(gpu, quick),
            tuning: own,
            cases: quick.cases(),
            rows: Vec::new(),
            models: Vec::new(),
        })
    }

    /// Limits and features of the device, as JSON.
    pub fn caps(&self) -> String {
        describe(self.runner.caps()).to_string()
    }

    /// Kernel and name of each row, as JSON.
    pub fn rows(&self) -> String {
        let row = |case: &Case| json!({ "kernel": case.kernel, "case": case.name });
        self.cases.iter().map(row).collect::<Value>().to_string()
    }

    /// Whether a row's full name contains `text`, ignoring case.
    #[wasm_bindgen(js_name = isMeantBy)]
    pub fn is_meant_by(&self, index: usize, text: &str) -> bool {
        self.cases.get(index).is_some_and(|case| case.is_meant_by(text))
    }

    /// Checks one row; the result is JSON.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code` if there is no such row or a lost device cannot be
    /// replaced.
    pub async fn run(&mut self, index: usize) -> Result<String, JsValue> {
        self.row(index).await.map_err(|error| throw(&error))
    }

    /// Checks a small model against its golden logits, the bytes of a safetensors file; the result
    /// is JSON.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code` if there is no such model, the file cannot be read, or a
    /// lost device cannot be replaced.
    #[wasm_bindgen(js_name = runModel)]
    pub async fn run_model(&mut self, file: &str, logits: &[u8]) -> Result<String, JsValue> {
        self.model(file, logits).await.map_err(|error| throw(&error))
    }

    /// The results so far, as JSON: the report as HTML, and shader files to suspect if rows failed.
    ///
    /// `adapter` is the browser's description of the adapter, `system` the browser, `command` the
    /// call that was made, and `unfinished` the reason if the run ended early.
    pub fn report(
        &self,
        adapter: String,
        system: String,
        command: String,
        date: String,
        seconds: f64,
        unfinished: Option<String>,
    ) -> String {
        let mut caps = self.runner.caps().clone();
        caps.name = adapter;
        let summary = Summary {
            caps,
            system,
            command,
            replay: Replay::Package,
            date,
            seconds,
            rows: self.rows.clone(),
            models: self.models.clone(),
            unfinished,
        };
        let suspects: Value = summary.suspects().iter().map(Suspect::json).collect();
        json!({ "html": summary.html(), "suspects": suspects }).to_string()
    }

    /// Frees the device's memory.
    pub fn close(self) {
        self.runner.close();
    }
}

impl SelfTest {
    async fn row(&mut self, index: usize) -> Result<String> {
        let case = self
            .cases
            .get(index)
            .ok_or_else(|| Error::Usage(format!("there is no row {index} of the self-test")))?;
        let (tuning, value) = &self.tuning;
        let row = self.runner.row(case, tuning, value, device).await?;
        let json = row.json().to_string();
        self.rows.push(row);
        Ok(json)
    }

    async fn model(&mut self, file: &str, logits: &[u8]) -> Result<String> {
        let model: Option<SmallModel> = SMALL_MODELS.into_iter().find(|model| model.file == file);
        let model = model.ok_or_else(|| Error::Usage(format!("there is no model `{file}`")))?;
        let reports = model.check(self.runner.gpu(device).await?, logits).await?;
        let json: Value = reports.iter().map(ModelReport::json).collect();
        self.models.extend(reports);
        Ok(json.to_string())
    }
}
