//! In place of `on_host`, where the crate was built without feature `host-compute`.

use super::{pool::Unit, sizes::HostCompute};
use crate::{
    base::{
        activation::Gelu,
        error::{Error, Result},
    },
    model::{Mlp, ahead::Ahead},
};

/// There is none.
#[derive(Debug)]
pub(super) enum OnHost {}

impl OnHost {
    /// Refuses.
    ///
    /// # Errors
    ///
    /// Always.
    pub(super) fn new(_: HostCompute) -> Result<Self> {
        Err(Error::Usage("this build computes nothing on the CPU: feature `host-compute`".into()))
    }

    pub(super) fn expect(&self, _: &Ahead, _: &Mlp, _: Unit) -> Result<()> {
        match *self {}
    }

    pub(super) async fn compute(
        &mut self,
        _: &Ahead,
        _: (&Mlp, Unit),
        _: Gelu,
        _: &[f32],
        _: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(Vec<f32>, u64)> {
        match *self {}
    }
}
