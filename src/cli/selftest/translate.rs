//! What naga, wgpu's compiler, makes of a program for each interface below WebGPU, with the options
//! that wgpu's backends give it (`wgpu-hal`: `vulkan/adapter.rs`, `metal/device.rs` and
//! `dx12/device.rs`).
//!
//! wgpu asks the driver for some of the options, and tells nobody. SPIR-V is therefore written
//! twice, for the newest drivers and for the oldest.

use naga::{
    AddressSpace, Module, ResourceBinding, ShaderStage, StorageAccess,
    back::{
        hlsl, msl,
        pipeline_constants::process_overrides,
        spv::{self, Capability},
    },
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use serde_json::{Value, json};

/// The entry point of every program.
pub(super) const ENTRY: &str = "main";

/// A program for one interface.
pub(super) struct Translation {
    /// Name of its file.
    pub(super) file: &'static str,
    /// For whom it is, in a few words.
    pub(super) about: String,
    /// The file, or why there is none.
    pub(super) code: Result<Vec<u8>, String>,
    /// Its entry point, and where it finds the bindings.
    pub(super) places: Value,
}

/// A program that naga has read, with its constants.
pub(super) struct Parsed {
    module: Module,
    info: ModuleInfo,
}

impl Parsed {
    /// Reads linked WGSL, without `enable` directives.
    ///
    /// # Errors
    ///
    /// naga's message, if it refuses the program or a constant.
    pub(super) fn of(source: &str, constants: &[(&str, u32)]) -> Result<Self, String> {
        let module =
            naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
        // naga has a capability for `unpack2x16float`, which is core WGSL.
        let used = Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | Capabilities::SUBGROUP
            | Capabilities::SHADER_FLOAT16
            | Capabilities::COOPERATIVE_MATRIX;
        let info = Validator::new(ValidationFlags::all(), used)
            .validate(&module)
            .map_err(|error| error.emit_to_string(source))?;
        let constants =
            constants.iter().map(|&(name, value)| (name.to_owned(), f64::from(value))).collect();
        let entry = Some((ShaderStage::Compute, ENTRY));
        let (module, info) = process_overrides(&module, &info, entry, &constants)
            .map_err(|error| error.to_string())?;
        Ok(Self { module: module.into_owned(), info: info.into_owned() })
    }

    /// Invocations of a workgroup along x, y, z.
    pub(super) fn workgroup_size(&self) -> [u32; 3] {
        self.module.entry_points.first().map_or([1; 3], |entry| entry.workgroup_size)
    }

    /// The program for all interfaces that have what it uses.
    pub(super) fn translate(&self) -> Vec<Translation> {
        let mut made = vec![self.spirv(true), self.spirv(false)];
        if !self.has_matrices() {
            made.extend([self.metal((3, 0)), self.direct(hlsl::ShaderModel::V6_6)]);
        }
        made
    }

    /// Whether invocations multiply matrices together. Metal has smaller ones, and Direct3D none.
    fn has_matrices(&self) -> bool {
        let mut types = self.module.types.iter();
        types.any(|(_, ty)| matches!(ty.inner, naga::TypeInner::CooperativeMatrix { .. }))
    }

    /// The numbers of the bindings, and whether each is a uniform and is written.
    fn bindings(&self) -> Vec<(ResourceBinding, bool, bool)> {
        let binding = |(_, variable): (_, &naga::GlobalVariable)| {
            let written = |access: StorageAccess| access.contains(StorageAccess::STORE);
            let (uniform, written) = match variable.space {
                AddressSpace::Storage { access } => (false, written(access)),
                _ => (true, false),
            };
            Some((variable.binding?, uniform, written))
        };
        let mut all: Vec<_> = self.module.global_variables.iter().filter_map(binding).collect();
        all.sort_by_key(|(place, ..)| (place.group, place.binding));
        all
    }

    fn spirv(&self, newest: bool) -> Translation {
        use Capability as C;
        let buffer =
            if newest { BoundsCheckPolicy::Unchecked } else { BoundsCheckPolicy::Restrict };
        let mut capabilities = vec![
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
        ];
        if newest {
            capabilities.extend([
                C::DotProduct,
                C::DotProductInputAll,
                C::DotProductInput4x8Bit,
                C::DotProductInput4x8BitPacked,
                C::Int8,
            ]);
        }
        if self.has_matrices() {
            capabilities.extend([
                C::Float16,
                C::StorageBuffer16BitAccess,
                C::UniformAndStorageBuffer16BitAccess,
                C::CooperativeMatrixKHR,
                C::VulkanMemoryModel,
            ]);
        }
        let options = spv::Options {
            lang_version: if newest { (1, 6) } else { (1, 3) },
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            fake_missing_bindings: true,
            capabilities: Some(capabilities.into_iter().collect()),
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                buffer,
                image_load: BoundsCheckPolicy::Restrict,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            ..spv::Options::default()
        };
        let pipeline = spv::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: ENTRY.to_owned(),
        };
        let words = spv::write_vec(&self.module, &self.info, &options, Some(&pipeline));
        let bytes = |words: Vec<u32>| words.into_iter().flat_map(u32::to_le_bytes).collect();
        let places = self.bindings();
        let places =
            places.iter().map(|(at, ..)| json!({ "set": at.group, "binding": at.binding }));
        let (file, about) = if newest {
            (
                "shader.spv",
                "SPIR-V 1.6 for Vulkan 1.3 with robustBufferAccess2: accesses to buffers are not \
                 checked, and dp4a is an instruction",
            )
        } else {
            (
                "shader.checked.spv",
                "SPIR-V 1.3 for Vulkan 1.1 without extensions: every index into a buffer is \
                 limited to its length",
            )
        };
        Translation {
            file,
            about: about.to_owned(),
            code: words.map(bytes).map_err(|error| error.to_string()),
            places: json!({ "entry_point": ENTRY, "bindings": places.collect::<Value>() }),
        }
    }

    /// For Metal, in this version of its language. wgpu takes the newest that the system has.
    fn metal(&self, version: (u8, u8)) -> Translation {
        let bindings = self.bindings();
        let slot = |at: usize| u8::try_from(at).unwrap_or(u8::MAX);
        let resources = bindings.iter().enumerate().map(|(at, &(place, _, mutable))| {
            let buffer = Some(slot(at));
            (place, msl::BindTarget { buffer, mutable, ..msl::BindTarget::default() })
        });
        let resources = msl::EntryPointResources {
            resources: resources.collect(),
            immediates_buffer: None,
            // After the bindings: the lengths of those whose type has none.
            sizes_buffer: Some(slot(bindings.len())),
        };
        let options = msl::Options {
            lang_version: version,
            fake_missing_bindings: false,
            per_entry_point_map: [(ENTRY.to_owned(), resources)].into(),
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                buffer: BoundsCheckPolicy::Restrict,
                image_load: BoundsCheckPolicy::Restrict,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..msl::Options::default()
        };
        let pipeline = msl::PipelineOptions {
            entry_point: Some((ShaderStage::Compute, ENTRY.to_owned())),
            vertex_pulling_transform: true,
            ..msl::PipelineOptions::default()
        };
        let written = msl::write_string(&self.module, &self.info, &options, &pipeline);
        let (code, entry) = match written {
            Ok((text, about)) => {
                let name = about.entry_point_names.into_iter().next().and_then(Result::ok);
                (Ok(text.into_bytes()), name)
            }
            Err(error) => (Err(error.to_string()), None),
        };
        let types = &self.module.types;
        let sized = self.module.global_variables.iter().filter_map(|(_, variable)| {
            let sized = types[variable.ty].inner.needs_host_buffer_byte_size(types);
            sized.then_some(variable.binding?.binding)
        });
        let places = bindings.iter().enumerate().map(|(at, _)| json!({ "buffer": at }));
        Translation {
            file: "shader.metal",
            about: format!("Metal Shading Language {}.{}", version.0, version.1),
            code,
            places: json!({
                "entry_point": entry,
                "bindings": places.collect::<Value>(),
                "sizes_buffer": bindings.len(),
                "sizes_of_bindings": sized.collect::<Vec<_>>(),
            }),
        }
    }

    /// For Direct3D 12, in this shader model. wgpu takes 5.1 for the compiler FXC, and for DXC the
    /// newest that it and the device have.
    fn direct(&self, model: hlsl::ShaderModel) -> Translation {
        let bindings = self.bindings();
        // Registers of a kind are counted in the order of bindings.
        let mut next = [0; 3];
        let mut map = hlsl::BindingMap::default();
        let mut places = Vec::new();
        for &(place, uniform, written) in &bindings {
            let kind = if uniform { 0 } else { 1 + usize::from(written) };
            let register = next[kind];
            next[kind] += 1;
            map.insert(place, hlsl::BindTarget { register, ..hlsl::BindTarget::default() });
            places.push(json!({ "register": format!("{}{register}", ["b", "t", "u"][kind]) }));
        }
        let options = hlsl::Options {
            shader_model: model,
            binding_map: map,
            fake_missing_bindings: false,
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..hlsl::Options::default()
        };
        let pipeline =
            hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, ENTRY.to_owned())) };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&self.module, &self.info, None)
            .map_err(|error| error.to_string());
        let (code, entry) = match written {
            Ok(about) => {
                let name = about.entry_point_names.into_iter().next().and_then(Result::ok);
                (Ok(text.into_bytes()), name)
            }
            Err(error) => (Err(error), None),
        };
        Translation {
            file: "shader.hlsl",
            about: format!("HLSL (`dxc -T cs_{} -E main`), all in space 0", model.to_str()),
            code,
            places: json!({ "entry_point": entry, "bindings": places }),
        }
    }
}

#[cfg(test)]
mod tests {
    use grok_wgpu_tools::programs;

    use super::*;

    /// Every program that is ever dispatched, for every interface. Of Metal's language the version
    /// of macOS 11, the first on Apple's processors, and the newest that wgpu knows; of shader
    /// models that of FXC, which has no subgroups, the first of DXC, and the first with dp4a.
    #[test]
    fn every_program_can_be_translated() {
        use hlsl::ShaderModel as M;
        let all = programs::all();
        assert!(all.len() > 100, "{}", all.len());
        for (name, dispatch) in &all {
            let source = dispatch.shader.source();
            let parsed = Parsed::of(&source, &dispatch.constants)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(parsed.workgroup_size()[0] > 0);
            let mut made = parsed.translate();
            assert_eq!(parsed.has_matrices(), !programs::is_for_browsers(dispatch), "{name}");
            if !parsed.has_matrices() {
                made.extend([(2, 3), (4, 0)].map(|version| parsed.metal(version)));
                made.extend([M::V6_0, M::V6_4].map(|model| parsed.direct(model)));
            }
            if dispatch.shader.features.is_empty() {
                made.push(parsed.direct(M::V5_1));
            }
            for Translation { about, code, places, .. } in made {
                let id = format!("{name}, {about}");
                let code = code.unwrap_or_else(|error| panic!("{id}: {error}"));
                assert!(code.len() > 500 && places["entry_point"].is_string(), "{id}");
                let bindings = places["bindings"].as_array().map(Vec::len);
                assert_eq!(bindings, Some(1 + dispatch.operands.len()), "{id}");
            }
        }
    }

    #[test]
    fn what_naga_refuses_is_told() {
        let error = Parsed::of("@compute @workgroup_size(1) fn main() { let a: f32 = 1u; }", &[]);
        assert!(error.err().is_some_and(|text| text.contains("f32")));
    }
}
