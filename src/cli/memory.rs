//! How much memory a model may take, and what of it goes where.

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::SessionOptions,
    machine::counting::DeviceLimits,
    measure::placement::{Placed, choose},
    model::{Placement, config::Config, weights::Weights},
};
use serde_json::{Value, json};

use super::{
    room::too_little,
    terminal::Terminal,
    units::{self, short_size},
};

/// How much memory a model may take.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Memory")]
pub(crate) struct MemoryOption {
    /// Memory of the device that the model may take, such as 21.5GiB. What does not fit is read
    /// from the model's files whenever a token needs it. The default is all that the model needs
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, visible_alias = "memory")]
    pub(crate) device_memory: Option<u64>,
}

/// Whether the cache is kept on the host as well.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Memory")]
pub(crate) struct KeepOption {
    /// Keep finished parts of the key-value cache in the computer's memory as well: after a lost
    /// device the text goes on without being computed again. Models that are read from their files
    /// while they run always do
    #[arg(long)]
    keep_cache: bool,
}

impl KeepOption {
    /// For [`Resuming::keeping_cache`](grok_wgpu::lab::engine::resume::Resuming::keeping_cache).
    pub(crate) fn wanted(self) -> Option<bool> {
        self.keep_cache.then_some(true)
    }
}

/// Chooses what of a model goes to the device.
///
/// # Errors
///
/// [`Error::Limit`], with what to do, if `memory` is less than any placement takes; those of
/// [`choose`].
pub(crate) fn place(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    memory: u64,
) -> Result<Placed> {
    choose(config, weights, limits, sizes, memory).map_err(|error| match error {
        Error::Limit { got, limit, .. } if limit == memory => {
            error.with_hint(too_little(config, weights, limits, sizes, (got, limit)))
        }
        error => error,
    })
}

/// Says in a line what goes where, if not everything is on the device.
pub(crate) fn tell(terminal: Terminal, placed: &Placed) {
    if placed.bytes.moves() {
        terminal.note(describe(placed));
    }
}

/// What goes where, in a line.
fn describe(placed: &Placed) -> String {
    let bytes = placed.bytes;
    format!(
        "{} of weights are on the device, and {} stay in the model's files: each token reads up to \
         {} of them",
        short_size(bytes.device),
        short_size(bytes.files),
        short_size(bytes.token_files)
    )
}

/// The layers of a placement, a line for each part of the model.
pub(crate) fn lines(placed: &Placed, config: &Config) -> Vec<String> {
    let layers = config.num_hidden_layers();
    let of = |count: u32| match count.min(layers) {
        0 => "none".to_owned(),
        all if all == layers => "all layers".to_owned(),
        1 => "layer 0".to_owned(),
        count => format!("layers 0 to {}", count - 1),
    };
    let (placement, bytes) = (placed.placement, placed.bytes);
    let mut lines = vec![format!(
        "on the device    {}: head, norms and routers; attention of {}",
        short_size(bytes.device),
        of(placement.attention)
    )];
    if config.dense_width().is_some() {
        lines.push(format!("                 dense MLP of {}", of(placement.dense)));
    }
    if config.num_local_experts() > 0 {
        lines.push(format!("                 experts of {}", of(placement.experts)));
    }
    lines.push(format!("in the files     {}", short_size(bytes.files)));
    lines.push(format!(
        "a token          {} from the device, {} from the files",
        short_size(bytes.token_device),
        short_size(bytes.token_files)
    ));
    lines.push(format!(
        "memory           {}: room for weights {}, cache {}, activations {}",
        short_size(placed.plan.total()),
        short_size(placed.plan.weights),
        short_size(placed.plan.cache),
        short_size(placed.plan.scratch)
    ));
    lines
}

/// What goes where as an object; of memory that is too little, the least.
pub(crate) fn placement_json(placed: &Result<Placed>) -> Value {
    let placed = match placed {
        Ok(placed) => placed,
        Err(error) => return json!({ "fits": false, "error": error.to_string() }),
    };
    let (Placement { attention, dense, experts, slots, .. }, bytes) =
        (placed.placement, placed.bytes);
    let layers = |count: u32| (count < u32::MAX).then_some(count);
    json!({
        "fits": true,
        "whole": !bytes.moves(),
        "layers_of_attention": layers(attention),
        "layers_of_dense_mlps": layers(dense),
        "layers_of_experts": layers(experts),
        "slots": slots.count(),
        "device_bytes": bytes.device,
        "file_bytes": bytes.files,
        "token_device_bytes": bytes.token_device,
        "token_file_bytes": bytes.token_files,
        "total_bytes": placed.plan.total(),
    })
}
