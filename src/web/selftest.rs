//! The table of kernels, row by row, and small models, on the device of a page.

use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use super::{describe, throw};
use crate::{
    base::error::{Error, Result},
    kernels::Case,
    machine::gpu::{AdapterChoice, Gpu, Profile},
    selftest::{
        self, ModelReport, Replay, Row, Runner, SMALL_MODELS, SmallModel, Summary, Suspect,
    },
    variants::Tuning,
};

/// A device with WebGPU's default limits.
async fn device() -> Result<Gpu> {
    Gpu::open(&AdapterChoice::Best, Profile::Baseline).await
}

/// A device, what to check on it, and what was found.
#[wasm_bindgen]
#[derive(Debug)]
pub struct SelfTest {
    runner: Runner,
    /// How the device divides work, and what that is called.
    tuning: (String, Tuning),
    cases: Vec<Case>,
    rows: Vec<Row>,
    models: Vec<ModelReport>,
}

#[wasm_bindgen]
impl SelfTest {
    /// Opens a device with WebGPU's default limits.
    pub async fn open() -> Result<SelfTest, JsValue> {
        let gpu = device().await.map_err(|error| throw(&error))?;
        let quick = selftest::Profile::Quick;
        // The device's own way has a name among all.
        let own = quick.tunings(&gpu).swap_remove(0);
        Ok(Self {
            runner: Runner::new(gpu, quick),
            tuning: own,
            cases: quick.cases(),
            rows: Vec::new(),
            models: Vec::new(),
        })
    }

    /// What the device was granted.
    pub fn caps(&self) -> String {
        describe(self.runner.caps()).to_string()
    }

    /// Kernel and name of each row.
    pub fn rows(&self) -> String {
        let row = |case: &Case| json!({ "kernel": case.kernel, "case": case.name });
        self.cases.iter().map(row).collect::<Value>().to_string()
    }

    /// Whether a row's full name contains this text, in capitals or not.
    #[wasm_bindgen(js_name = isMeantBy)]
    pub fn is_meant_by(&self, index: usize, text: &str) -> bool {
        self.cases.get(index).is_some_and(|case| case.is_meant_by(text))
    }

    /// Checks one row.
    pub async fn run(&mut self, index: usize) -> Result<String, JsValue> {
        self.row(index).await.map_err(|error| throw(&error))
    }

    /// Checks a small model, with the bytes of its file of logits.
    #[wasm_bindgen(js_name = runModel)]
    pub async fn run_model(&mut self, file: &str, logits: &[u8]) -> Result<String, JsValue> {
        self.model(file, logits).await.map_err(|error| throw(&error))
    }

    /// What all that was run says, as JSON: the page of HTML, and where to look first if rows failed.
    /// Takes the adapter as browsers describe it, the browser, the call, when, how long, and why it
    /// ended early if it did.
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
        caps.info.name = adapter;
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

    /// Gives the device's memory back.
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
