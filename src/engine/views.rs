//! A model as passes use it.

use super::sequence::Kind;
use crate::model::Model;

/// A model, and how prompts use it: generated tokens read pinned weights where they are, prompts
/// have them copied to the device.
#[derive(Debug)]
pub(super) struct Views {
    model: Model,
    /// If it is another.
    of_prompts: Option<Model>,
}

impl Views {
    pub(super) fn new(model: Model) -> Self {
        Self { of_prompts: model.of_prompts(), model }
    }

    /// The model as it was loaded.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The model as passes over such tokens use it.
    pub(super) fn of(&self, kind: Kind) -> &Model {
        match (kind, &self.of_prompts) {
            (Kind::Prompt, Some(model)) => model,
            _ => &self.model,
        }
    }
}
