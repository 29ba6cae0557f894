//! Adapters, and the limits and features a device is opened with.

use super::{
    experimental,
    failure::{is_of_memory, no_memory},
    heaps,
};
use crate::{
    base::error::{Error, Result},
    variants::{Capabilities, Tuning},
};

/// Which limits a device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitProfile {
    /// WebGPU's default limits, which every browser grants, even if the adapter has larger ones.
    Baseline,
    /// The adapter's limits: larger bindings mean fewer shards.
    Full,
}

/// Which adapter to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The fastest kind there is: discrete, then integrated, virtual, CPU.
    #[default]
    Best,
    /// The first whose name, driver or backend contains this text, whatever its case; or the one
    /// with this number in the list.
    Named(String),
    /// wgpu's no-op backend: memory can be written and read, but dispatches do not run. For
    /// measuring the time that the host takes.
    Nothing,
}

/// An adapter and what its device was granted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Caps {
    /// The adapter's name. A page may put the browser's description in its place.
    pub name: String,
    /// Driver, backend and kind.
    pub(super) info: wgpu::AdapterInfo,
    /// Limits of the device.
    pub(super) limits: wgpu::Limits,
    /// Limits of the adapter behind it.
    adapter_limits: wgpu::Limits,
    /// Features of the device.
    features: wgpu::Features,
    /// The limits that the device was opened with.
    pub profile: LimitProfile,
    /// Whether dispatches can be timed on the device, by timestamp queries.
    pub timestamps: bool,
    /// Whether the adapter supports `f16` in shaders. Only shaders with matrices use it.
    pub f16: bool,
    /// The smallest and the largest subgroup size, if shaders may use subgroup operations. No
    /// kernel depends on them.
    pub subgroups: Option<(u32, u32)>,
    /// Whether the adapter runs on a CPU.
    pub is_cpu: bool,
    /// Bytes of its memory that the driver would give this program when the device was opened, if
    /// it tells.
    pub free_memory: Option<u64>,
}

/// What tells an adapter from others of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the vendor, as PCI has it; 0 if it is not known.
    pub vendor: u32,
    /// Number of the device, as PCI has it; 0 if it is not known.
    pub device: u32,
    /// `DiscreteGpu`, `Cpu` and so on.
    pub kind: String,
    /// The interface below WebGPU.
    pub backend: String,
    /// The driver.
    pub driver: String,
    /// What the driver says of itself, such as its version.
    pub driver_info: String,
}

/// The version of `wgpu`, and of `naga` with it, in `Cargo.lock`.
pub const WGPU: &str = "30.0.1";

impl Caps {
    /// The features that variants may use.
    pub fn capabilities(&self) -> Capabilities {
        let Self { is_cpu, subgroups, .. } = *self;
        Capabilities { is_cpu, subgroups, matrices: self.matrices() }
    }

    /// Whether shaders may multiply matrices of 16 x 16 halves with sums in f32.
    pub fn matrices(&self) -> bool {
        self.features.contains(experimental::MATRICES)
    }

    /// Whether its memory is the host's. `false` where nobody tells.
    pub fn shares_memory(&self) -> bool {
        use wgpu::DeviceType;
        matches!(self.info.device_type, DeviceType::IntegratedGpu | DeviceType::Cpu)
    }

    /// Whether shaders read pinned memory of the host.
    pub fn pins(&self) -> bool {
        self.features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
    }

    /// How to divide work where nothing was measured.
    pub fn tuning(&self) -> Tuning {
        Tuning::of(&self.capabilities())
    }

    /// Whether the adapter is a GPU with memory of its own. Browsers do not tell.
    pub fn is_discrete(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::DiscreteGpu
    }

    /// One line: name, kind, backend, driver.
    pub fn describe(&self) -> String {
        describe(&self.name, &self.info)
    }

    /// What tells the adapter from others of its name.
    pub fn identity(&self) -> Identity {
        identity(&self.info)
    }

    /// The optional features that the device was opened with, as WebGPU names them.
    pub fn features(&self) -> Vec<String> {
        let name =
            |one: wgpu::Features| one.as_str().map_or_else(|| format!("{one:?}"), str::to_owned);
        self.features.iter().map(name).collect()
    }

    /// Bytes of the largest storage buffer binding of the device.
    pub fn max_binding_bytes(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size
    }

    /// Bytes of the largest buffer of the device.
    pub fn max_buffer_bytes(&self) -> u64 {
        self.limits.max_buffer_size
    }

    /// The limits that concern compute shaders: name in WebGPU, value of the device, value of the
    /// adapter.
    pub fn named_limits(&self) -> Vec<(&'static str, u64, u64)> {
        let of = |limits: &wgpu::Limits| {
            [
                ("maxBufferSize", limits.max_buffer_size),
                ("maxStorageBufferBindingSize", limits.max_storage_buffer_binding_size),
                ("maxUniformBufferBindingSize", limits.max_uniform_buffer_binding_size),
                (
                    "maxStorageBuffersPerShaderStage",
                    limits.max_storage_buffers_per_shader_stage.into(),
                ),
                (
                    "maxComputeWorkgroupStorageSize",
                    limits.max_compute_workgroup_storage_size.into(),
                ),
                (
                    "maxComputeInvocationsPerWorkgroup",
                    limits.max_compute_invocations_per_workgroup.into(),
                ),
                ("maxComputeWorkgroupSizeX", limits.max_compute_workgroup_size_x.into()),
                ("maxComputeWorkgroupSizeY", limits.max_compute_workgroup_size_y.into()),
                ("maxComputeWorkgroupSizeZ", limits.max_compute_workgroup_size_z.into()),
                (
                    "maxComputeWorkgroupsPerDimension",
                    limits.max_compute_workgroups_per_dimension.into(),
                ),
                (
                    "minStorageBufferOffsetAlignment",
                    limits.min_storage_buffer_offset_alignment.into(),
                ),
            ]
        };
        let both = of(&self.limits).into_iter().zip(of(&self.adapter_limits));
        both.map(|((name, device), (_, adapter))| (name, device, adapter)).collect()
    }
}

fn identity(info: &wgpu::AdapterInfo) -> Identity {
    Identity {
        vendor: info.vendor,
        device: info.device,
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver: info.driver.clone(),
        driver_info: info.driver_info.clone(),
    }
}

fn describe(name: &str, info: &wgpu::AdapterInfo) -> String {
    // Browsers do not name it.
    let name = if name.is_empty() { "the adapter" } else { name };
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    format!(
        "{name} ({:?}, {}{})",
        info.device_type,
        info.backend,
        match driver.trim() {
            "" => String::new(),
            driver => format!(", {driver}"),
        }
    )
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    let mut options = wgpu::BackendOptions::default();
    options.noop.enable = backends.contains(wgpu::Backends::NOOP);
    // Direct3D: Microsoft's DXC where somebody has put its library beside the program, for
    // subgroups and dp4a; else FXC, which is part of Windows. See ARCHITECTURE.md.
    options.dx12.shader_compiler = wgpu::Dx12Compiler::Auto;
    // Some drivers give more memory than there is, and lose the device when it is used.
    let memory_budget_thresholds = wgpu::MemoryBudgetThresholds {
        for_resource_creation: Some(90),
        ..wgpu::MemoryBudgetThresholds::default()
    };
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        backend_options: options,
        memory_budget_thresholds,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

fn described(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    describe(&info.name, &info)
}

/// An adapter of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What tells it from others of that name.
    pub identity: Identity,
    /// One line with all of that, as [`Caps::describe`] has it.
    pub description: String,
}

/// Every adapter of this machine, in the order that numbers refer to.
pub async fn adapters() -> Vec<Listed> {
    let backends = wgpu::Backends::PRIMARY;
    let all = instance(backends).enumerate_adapters(backends).await;
    let listed = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        Listed {
            description: describe(&info.name, &info),
            identity: identity(&info),
            name: info.name,
        }
    };
    all.iter().map(listed).collect()
}

pub(super) async fn choose(choice: &AdapterChoice) -> Result<wgpu::Adapter> {
    let backends = match choice {
        AdapterChoice::Nothing => wgpu::Backends::NOOP,
        AdapterChoice::Best | AdapterChoice::Named(_) => wgpu::Backends::PRIMARY,
    };
    let instance = instance(backends);
    let mut all = instance.enumerate_adapters(backends).await;
    if all.is_empty() {
        // Browsers do not enumerate adapters; they grant one on request.
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        return instance.request_adapter(&options).await.map_err(|error| {
            Error::Adapter(format!(
                "tried Vulkan, Metal, DirectX 12 and WebGPU ({error}); install a graphics driver, \
                 or Mesa's software driver for Vulkan"
            ))
        });
    }
    let names: Vec<String> = all.iter().map(described).collect();
    let index = match choice {
        AdapterChoice::Nothing => 0,
        AdapterChoice::Best => {
            (0..all.len()).min_by_key(|&i| rank(all[i].get_info().device_type)).unwrap_or(0)
        }
        AdapterChoice::Named(text) => {
            let lower = text.to_lowercase();
            text.parse()
                .ok()
                .filter(|&i: &usize| i < all.len())
                .or_else(|| names.iter().position(|name| name.to_lowercase().contains(&lower)))
                .ok_or_else(|| {
                    Error::Adapter(format!(
                        "none is called `{text}`; there are: {}",
                        names.join("; ")
                    ))
                })?
        }
    };
    Ok(all.swap_remove(index))
}

fn rank(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// Asks an adapter for a device.
async fn request(
    adapter: &wgpu::Adapter,
    features: wgpu::Features,
    limits: &wgpu::Limits,
) -> std::result::Result<(wgpu::Device, wgpu::Queue), wgpu::RequestDeviceError> {
    let wanted = wgpu::DeviceDescriptor {
        label: Some("grok-wgpu"),
        required_features: features,
        experimental_features: experimental::token(features),
        required_limits: limits.clone(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    adapter.request_device(&wanted).await
}

/// Opens a device. With `pin` it can read pinned memory of the host, if the adapter allows that;
/// natively, GPUs with memory of their own always can.
pub(super) async fn open(
    adapter: &wgpu::Adapter,
    profile: LimitProfile,
    pin: bool,
) -> Result<(wgpu::Device, wgpu::Queue, Caps)> {
    let info = adapter.get_info();
    let adapter_limits = adapter.limits();
    let limits = match profile {
        LimitProfile::Baseline => wgpu::Limits::defaults(),
        LimitProfile::Full => adapter_limits.clone(),
    };
    let wanted =
        wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP | wgpu::Features::PIPELINE_CACHE;
    let matrices = experimental::multiplies_matrices(adapter);
    let matrices = if matrices { experimental::MATRICES } else { wgpu::Features::empty() };
    let pin = pin || info.device_type == wgpu::DeviceType::DiscreteGpu;
    // Browsers have no such feature.
    let host = if pin { wgpu::Features::MAPPABLE_PRIMARY_BUFFERS } else { wgpu::Features::empty() };
    let plain = adapter.features() & (wanted | host);
    let mut features = plain | matrices;
    let mut made = request(adapter, features, &limits).await;
    // What is on trial must not keep anybody from a device.
    if made.is_err() && features != plain {
        features = plain;
        made = request(adapter, features, &limits).await;
    }
    let (device, queue) = made.map_err(|error| {
        // In browsers it is the debug text of a JavaScript error: only the first line matters, the
        // others are its stack.
        let said = error.to_string();
        let line = said.lines().next().unwrap_or_default();
        let line = line.strip_prefix("JsValue(").map_or(line, |inner| inner.trim_end_matches(')'));
        let name = describe(&info.name, &info);
        if is_of_memory(line) {
            return no_memory(&format!("a device on {name}"), line.to_owned());
        }
        Error::Adapter(format!("{name}: {line}"))
    })?;
    let caps = Caps {
        name: info.name.clone(),
        limits: device.limits(),
        adapter_limits,
        features,
        profile,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        f16: adapter.features().contains(wgpu::Features::SHADER_F16),
        subgroups: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        is_cpu: info.device_type == wgpu::DeviceType::Cpu,
        free_memory: heaps::free(adapter),
        info,
    };
    Ok((device, queue, caps))
}
