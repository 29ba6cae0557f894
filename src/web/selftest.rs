//! The table of kernels, row by row, on the device of a page.

use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use super::{describe, throw};
use crate::{
    Error, Gpu, Result,
    gpu::{AdapterChoice, Profile},
    kernels::{self, Case},
    selftest,
};

/// A device, and the rows to check on it.
#[wasm_bindgen]
#[derive(Debug)]
pub struct SelfTest {
    gpu: Gpu,
    cases: Vec<Case>,
}

#[wasm_bindgen]
impl SelfTest {
    /// Opens a device with WebGPU's default limits.
    pub async fn open() -> Result<SelfTest, JsValue> {
        let gpu = Gpu::open(&AdapterChoice::Best, Profile::Baseline).await;
        Ok(Self { gpu: gpu.map_err(|error| throw(&error))?, cases: kernels::cases() })
    }

    /// What the device was granted.
    pub fn caps(&self) -> String {
        describe(self.gpu.caps()).to_string()
    }

    /// Kernel and name of each row.
    pub fn rows(&self) -> String {
        let row = |case: &Case| json!({ "kernel": case.kernel, "case": case.name });
        self.cases.iter().map(row).collect::<Value>().to_string()
    }

    /// Checks one row.
    pub async fn run(&mut self, index: usize) -> Result<String, JsValue> {
        self.row(index).await.map_err(|error| throw(&error))
    }

    /// Gives the device's memory back.
    pub fn close(self) {
        self.gpu.destroyer()();
    }
}

impl SelfTest {
    async fn row(&mut self, index: usize) -> Result<String> {
        let case = self
            .cases
            .get(index)
            .ok_or_else(|| Error::Usage(format!("there is no row {index} of the self-test")))?;
        let tuning = self.gpu.tuning().clone();
        let report = selftest::check(&mut self.gpu, case, &tuning).await?;
        let mut row = json!({
            "kernel": case.kernel,
            "case": case.name,
            "elements": report.elements,
            // Not a number in JSON if it is infinite.
            "worst": report.worst.is_finite().then_some(report.worst),
            "exact": case.exact,
        });
        if let Some(failure) = report.failure {
            row["failure"] = failure.into();
        }
        Ok(row.to_string())
    }
}
