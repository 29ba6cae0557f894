//! How much memory a model may take, and what of it goes where.

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::{HostCompute, SessionOptions},
    machine::{counting::DeviceLimits, gpu::Gpu},
    measure::{
        placement::{Budget, Bytes, Placed, choose},
        rates::Outlook,
    },
    model::{Model, Placement, config::Config, weights::Weights},
};
use serde_json::{Value, json};

use super::{
    expected,
    room::too_little,
    terminal::Terminal,
    units::{self, short_size},
};

/// How much memory a model may take.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Memory")]
pub(crate) struct MemoryOption {
    /// Memory of the device that the model may take, such as 21.5GiB. What does not fit goes to
    /// --host-memory, and what does not fit there is read from the model's files whenever a token
    /// needs it. `auto` is what the driver has to give, less a margin; where it does not tell, all
    /// that the model needs
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "auto")]
    #[arg(visible_alias = "memory")]
    pub(crate) device_memory: Memory,
    /// Memory of the computer that may be pinned, so that the device reads weights in it. `auto` is
    /// three quarters of what is free, for GPUs with memory of their own, and nothing for others
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "auto")]
    pub(crate) host_memory: Memory,
}

/// Whether the CPU computes what is not on the device.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Memory")]
pub(crate) struct HostOption {
    /// Have the CPU compute the experts and dense MLPs that are neither on the device nor in pinned
    /// memory, for generated tokens, instead of bringing them to the device; unless --host-memory
    /// says otherwise, nothing is pinned then. Once read, their weights stay in the computer's
    /// memory, up to SIZE (--host-compute=40GiB) or three quarters of what is free. The same
    /// --device-memory gives the same text every time; with another one, or without the option, its
    /// last bits may differ
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    host_compute: Option<Memory>,
}

impl HostOption {
    /// Bytes of weights that the CPU may keep, as they were given or else as they are chosen.
    pub(crate) fn kept(self) -> u64 {
        match self.host_compute {
            Some(Memory::Size(bytes)) => bytes,
            Some(Memory::Auto) | None => free().map_or(u64::MAX, |free| free / 4 * 3),
        }
    }

    /// Whether nobody said how much it may keep.
    pub(crate) fn is_auto(self) -> bool {
        !matches!(self.host_compute, Some(Memory::Size(_)))
    }

    /// The memory to choose by, if it is asked for without saying how much: then measured rates
    /// say what the CPU computes.
    pub(crate) fn to_choose(self, memory: MemoryOption) -> Option<MemoryOption> {
        (self.host_compute == Some(Memory::Auto)).then_some(memory)
    }

    /// For [`SessionOptions::with_host_compute`].
    pub(crate) fn wanted(self) -> Option<HostCompute> {
        self.host_compute.map(|_| HostCompute::new(0, self.kept()))
    }

    /// The memory beside it: what nobody asked to pin is the CPU's.
    pub(crate) fn beside(self, memory: MemoryOption) -> MemoryOption {
        if self.host_compute.is_some() && memory.host_memory == Memory::Auto {
            return MemoryOption { host_memory: Memory::Size(0), ..memory };
        }
        memory
    }
}

/// How many layers have experts, and how many a dense MLP, that the CPU would compute.
pub(crate) fn computed(placed: &Placed, config: &Config) -> [u32; 2] {
    let layers = config.num_hidden_layers();
    let Placement { dense, experts, pinned, .. } = placed.placement;
    let away = |there: u32, pinned: u32| layers.saturating_sub(there.saturating_add(pinned));
    let of = |has: bool, away: u32| if has { away } else { 0 };
    [
        of(config.num_local_experts() > 0, away(experts, pinned.experts)),
        of(config.dense_width().is_some(), away(dense, pinned.dense)),
    ]
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

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// What the platform tells.
    Auto,
    /// Bytes.
    Size(u64),
}

/// Reads an amount of memory.
fn memory(text: &str) -> std::result::Result<Memory, String> {
    if text.trim().eq_ignore_ascii_case("auto") {
        return Ok(Memory::Auto);
    }
    units::bytes(text).map(Memory::Size)
}

/// What a platform tells of memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Bytes that the device has to give.
    device: Option<u64>,
    /// Bytes of the host that are free.
    host: Option<u64>,
    /// Whether the device's memory is the host's.
    shared: bool,
    /// Whether the device reads pinned memory of the host.
    pins: bool,
    /// Whether it is a GPU with memory of its own.
    discrete: bool,
}

impl Told {
    /// What is known of a device, and of the computer around it.
    pub(crate) fn of(gpu: &Gpu) -> Self {
        let caps = gpu.caps();
        Self {
            device: caps.free_memory,
            host: free(),
            shared: caps.shares_memory(),
            pins: caps.pins(),
            discrete: caps.is_discrete(),
        }
    }
}

/// Bytes of the computer's memory that are free; in a container, of its own. `None` if the system
/// does not tell, as in a root folder without `/proc`.
pub(crate) fn free() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    free_of(&system)
}

/// The same, of what was asked of a system.
fn free_of(system: &sysinfo::System) -> Option<u64> {
    if system.total_memory() == 0 {
        // `cgroup_limits` takes that for a caller's mistake, and panics.
        return None;
    }
    let limits = system.cgroup_limits().map(|limits| limits.free_memory);
    let free = system.available_memory();
    Some(limits.map_or(free, |limit| limit.min(free))).filter(|&free| free > 0)
}

impl MemoryOption {
    /// All of a model on the device.
    pub(crate) const WHOLE: Self =
        Self { device_memory: Memory::Size(u64::MAX), host_memory: Memory::Size(0) };

    /// Whether memory of the host is asked for, also of adapters without memory of their own.
    pub(crate) fn pins(self) -> bool {
        matches!(self.host_memory, Memory::Size(1..))
    }

    /// The memory that a model may take.
    pub(crate) fn budget(self, told: Told) -> Budget {
        let device = match (self.device_memory, told) {
            (Memory::Size(bytes), _) => bytes,
            // Other programs use it too.
            (Memory::Auto, Told { shared: true, device, host: Some(host), .. }) => {
                device.map_or(host, |device| device.min(host)) / 100 * 80
            }
            // No buffer is made beyond nine tenths.
            (Memory::Auto, Told { device: Some(device), .. }) => device / 100 * 85,
            (Memory::Auto, _) => u64::MAX,
        };
        let host = match self.host_memory {
            _ if !told.pins => 0,
            Memory::Size(bytes) => bytes,
            Memory::Auto if told.discrete => told.host.unwrap_or_default() / 4 * 3,
            Memory::Auto => 0,
        };
        Budget { device, host }
    }
}

/// Chooses what of a model goes where.
///
/// # Errors
///
/// [`Error::Limit`], with what to do, if the budget is less than any placement takes; those of
/// [`choose`].
pub(crate) fn place(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    budget: Budget,
) -> Result<Placed> {
    choose(config, weights, limits, sizes, budget).map_err(|error| match error {
        Error::Limit { got, limit, .. } if limit == budget.device => {
            error.with_hint(too_little(config, weights, limits, sizes, (got, limit)))
        }
        error => error,
    })
}

/// Says in a line what goes where, if not everything is on the device.
pub(crate) fn tell(terminal: Terminal, placed: &Placed) {
    if !placed.bytes.is_whole() {
        terminal.note(describe(placed));
    }
}

/// The same, and how many tokens a second are expected; in another line, whether the CPU would make
/// that more, unless it computes.
pub(crate) fn tell_rate(terminal: Terminal, placed: &Placed, outlook: &Outlook, on_cpu: bool) {
    if placed.bytes.is_whole() {
        return;
    }
    terminal.note(format!("{}; {}", describe(placed), expected::in_short(outlook, on_cpu)));
    if let Some(hint) = expected::hint(outlook).filter(|_| !on_cpu) {
        terminal.note(hint);
    }
}

/// Says it if a driver refused to pin as much as was planned.
pub(crate) fn tell_refused(terminal: Terminal, model: &Model) {
    if let Some(why) = &model.refused {
        terminal.warn(format!(
            "{why}; {} of weights are in memory of the host, and the rest is read from the files",
            short_size(model.pinned_bytes())
        ));
    }
}

/// What goes where, in a line.
fn describe(placed: &Placed) -> String {
    let Bytes { device, host, files, token_host, token_files, .. } = placed.bytes;
    let size = short_size;
    let mut homes = vec![format!("{} of weights are on the device", size(device))];
    let mut reads = Vec::new();
    if host > 0 {
        homes.push(format!("{} in memory of the host", size(host)));
        reads.push(format!("{} there", size(token_host)));
    }
    if files > 0 {
        homes.push(format!("{} stay in the model's files", size(files)));
        reads.push(format!("up to {} in files", size(token_files)));
    }
    format!("{}: each token reads {}", homes.join(", "), reads.join(" and "))
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
    if bytes.host > 0 {
        let pinned = placement.pinned;
        let next = |before: u32, count: u32| match count.min(layers.saturating_sub(before)) {
            0 => "none".to_owned(),
            1 => format!("layer {before}"),
            count => format!("layers {before} to {}", before + count - 1),
        };
        lines.push(format!(
            "host memory      {}: attention of {}; dense MLP of {}; experts of {}",
            short_size(bytes.host),
            next(placement.attention, pinned.attention),
            next(placement.dense, pinned.dense),
            next(placement.experts, pinned.experts)
        ));
    }
    lines.push(format!("in the files     {}", short_size(bytes.files)));
    let host = match bytes.token_host {
        0 => String::new(),
        host => format!(" {} from host memory,", short_size(host)),
    };
    lines.push(format!(
        "a token          {} from the device,{host} {} from the files",
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
    let (Placement { attention, dense, experts, slots, pinned }, bytes) =
        (placed.placement, placed.bytes);
    let layers = |count: u32| (count < u32::MAX).then_some(count);
    json!({
        "fits": true,
        "whole": bytes.is_whole(),
        "layers_of_attention": layers(attention),
        "layers_of_dense_mlps": layers(dense),
        "layers_of_experts": layers(experts),
        "slots": slots.count(),
        "pinned_layers_of_attention": pinned.attention,
        "pinned_layers_of_dense_mlps": pinned.dense,
        "pinned_layers_of_experts": pinned.experts,
        "device_bytes": bytes.device,
        "host_bytes": bytes.host,
        "file_bytes": bytes.files,
        "token_device_bytes": bytes.token_device,
        "token_host_bytes": bytes.token_host,
        "token_file_bytes": bytes.token_files,
        "total_bytes": placed.plan.total(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_does_not_tell_its_memory_has_no_budget() {
        // As after a refresh without `/proc`.
        assert_eq!(free_of(&sysinfo::System::new()), None);
    }

    const AUTO: MemoryOption =
        MemoryOption { device_memory: Memory::Auto, host_memory: Memory::Auto };

    #[test]
    fn what_is_not_asked_for_is_what_the_platform_tells() {
        let card = Told {
            device: Some(24_000),
            host: Some(100_000),
            pins: true,
            discrete: true,
            ..Told::default()
        };
        assert_eq!(AUTO.budget(card), Budget { device: 20_400, host: 75_000 });
        // One memory is not counted twice.
        let one = Told { shared: true, discrete: false, pins: false, ..card };
        assert_eq!(AUTO.budget(one), Budget::of_device(19_200));
        assert_eq!(AUTO.budget(Told { device: None, ..one }), Budget::of_device(80_000));
        // Who does not tell gets the whole model.
        assert_eq!(AUTO.budget(Told::default()), Budget::of_device(u64::MAX));
        assert_eq!(AUTO.budget(Told { host: None, ..card }), Budget::of_device(20_400));
        let asked = MemoryOption { host_memory: Memory::Size(7), device_memory: Memory::Size(9) };
        assert_eq!(asked.budget(card), Budget { device: 9, host: 7 });
        assert_eq!(asked.budget(Told { pins: false, ..card }), Budget::of_device(9));
        assert!(asked.pins() && !AUTO.pins() && !MemoryOption::WHOLE.pins());
        assert_eq!(MemoryOption::WHOLE.budget(card), Budget::of_device(u64::MAX));
    }

    #[test]
    fn memory_is_auto_or_a_size() {
        assert_eq!(memory(" Auto "), Ok(Memory::Auto));
        assert_eq!(memory("2KiB"), Ok(Memory::Size(2048)));
        assert!(memory("all").is_err());
        assert!(free().is_some_and(|free| free > 1 << 20));
    }
}
