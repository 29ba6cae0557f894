//! What wgpu gives a Vulkan driver of a program: SPIR-V from naga, with the options that `wgpu-hal`
//! has in `vulkan/adapter.rs` for a driver of Vulkan 1.3 with `robustBufferAccess2`.

use grok_wgpu::lab::machine::binder::Dispatch;
use naga::{
    Module, ShaderStage,
    back::{
        pipeline_constants::process_overrides,
        spv::{self, Capability},
    },
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

/// The entry point of every program.
pub const ENTRY: &str = "main";

/// Code that naga adds to a shader, and that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// A counter in every loop, which ends the loop after 2^64 iterations.
    pub loop_bounding: bool,
    /// Workgroup memory is filled with zeros when a workgroup starts.
    pub zero_init: bool,
}

impl Checks {
    /// What the engine's pipelines are made with.
    pub const ENGINE: Self = Self { loop_bounding: false, zero_init: false };
}

/// The program of a dispatch with its constants, as words of SPIR-V.
///
/// # Errors
///
/// naga's message, if it refuses the program or a constant.
pub fn of(dispatch: &Dispatch, checks: Checks) -> Result<Vec<u32>, String> {
    of_source(&dispatch.shader.source(), &dispatch.constants, checks)
}

/// Linked WGSL with the values of its `override` declarations, as words of SPIR-V.
///
/// # Errors
///
/// Those of [`of`].
pub fn of_source(
    source: &str,
    constants: &[(&str, u32)],
    checks: Checks,
) -> Result<Vec<u32>, String> {
    let (module, info) = resolved(source, constants)?;
    let pipeline =
        spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: ENTRY.to_owned() };
    spv::write_vec(&module, &info, &options(checks), Some(&pipeline))
        .map_err(|error| error.to_string())
}

/// Invocations of a workgroup of a dispatch.
///
/// # Errors
///
/// Those of [`of`].
pub fn workgroup_size(dispatch: &Dispatch) -> Result<u32, String> {
    let (module, _) = resolved(&dispatch.shader.source(), &dispatch.constants)?;
    let entry = module.entry_points.first().ok_or("it has no entry point")?;
    Ok(entry.workgroup_size.iter().product())
}

/// The module with values in place of its `override` declarations.
fn resolved(source: &str, constants: &[(&str, u32)]) -> Result<(Module, ModuleInfo), String> {
    let module =
        naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    // naga has a capability for `unpack2x16float`, which is core WGSL.
    let used = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP;
    let info = Validator::new(ValidationFlags::all(), used)
        .validate(&module)
        .map_err(|error| error.emit_to_string(source))?;
    let constants = constants.iter();
    let constants = constants.map(|&(name, value)| (name.to_owned(), f64::from(value))).collect();
    let entry = Some((ShaderStage::Compute, ENTRY));
    let (module, info) =
        process_overrides(&module, &info, entry, &constants).map_err(|error| error.to_string())?;
    Ok((module.into_owned(), info.into_owned()))
}

fn options(checks: Checks) -> spv::Options<'static> {
    use Capability as C;
    let capabilities = [
        C::Shader,
        C::Matrix,
        C::Sampled1D,
        C::Image1D,
        C::ImageQuery,
        C::DerivativeControl,
        C::StorageImageExtendedFormats,
        C::GroupNonUniform,
        C::GroupNonUniformVote,
        C::GroupNonUniformArithmetic,
        C::GroupNonUniformBallot,
        C::GroupNonUniformShuffle,
        C::GroupNonUniformShuffleRelative,
        C::GroupNonUniformQuad,
        C::DotProduct,
        C::DotProductInputAll,
        C::DotProductInput4x8Bit,
        C::DotProductInput4x8BitPacked,
        C::Int8,
    ];
    spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        // A binding's place is its number, as in the layouts that wgpu makes of the engine's.
        fake_missing_bindings: true,
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            // The driver checks accesses to buffers.
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: if checks.zero_init {
            spv::ZeroInitializeWorkgroupMemoryMode::Native
        } else {
            spv::ZeroInitializeWorkgroupMemoryMode::None
        },
        force_loop_bounding: checks.loop_bounding,
        ..spv::Options::default()
    }
}
