//! Mesa's Vulkan driver for AMD GPUs, which compiles for a GPU that is not there.
//!
//! With `RADV_FORCE_FAMILY` in the environment the driver has one device of that family. Pipelines
//! can be made on it, and nothing can run. The driver reads the variable when an instance is made,
//! so a process has one family.
//!
//! This is the only file of the tools with `unsafe` code: every function of Vulkan is `unsafe` in
//! `ash`. The driver is trusted as wgpu trusts it, and the SPIR-V comes from naga.

use std::{collections::BTreeMap, ffi::CStr};

use ash::{Device, Entry, Instance, khr, vk};
use grok_wgpu::lab::machine::binder::Access;

use super::spirv;

/// A device of the forced family.
pub struct Driver {
    device: Device,
    executables: khr::pipeline_executable_properties::Device,
    instance: Instance,
    /// What it says of itself.
    pub about: About,
    // Last, since the functions of the others are in its library.
    _entry: Entry,
}

/// What a driver says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The device, as in `AMD RADV GFX1100`.
    pub device: String,
    /// The driver's version, as in `Mesa 22.3.6`.
    pub version: String,
}

/// What the driver makes of a program.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Its statistics, by the driver's names.
    pub statistics: BTreeMap<String, u64>,
    /// The machine code as text.
    pub assembly: String,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.about.fmt(f)
    }
}

/// A failed call, with the name of the function.
fn failed(what: &'static str) -> impl Fn(vk::Result) -> String {
    move |error| format!("{what}: {error}")
}

fn text(name: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Driver {
    /// Opens the first device of the driver that the environment names.
    ///
    /// # Errors
    ///
    /// What there is not: the loader, the driver, or what the driver lacks.
    pub fn open() -> Result<Self, String> {
        let entry = load()?;
        let instance = instance(&entry)?;
        let (physical, about) = first(&instance)?;
        let device = device(&instance, physical)?;
        let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Self { device, executables, instance, about, _entry: entry })
    }

    /// Makes the pipeline of a program with these bindings, in group 0 from binding 0 on.
    /// `subgroup` is the subgroup size, which the driver chooses otherwise.
    ///
    /// # Errors
    ///
    /// The call that failed.
    pub fn compile(
        &self,
        words: &[u32],
        bindings: &[Access],
        subgroup: Option<u32>,
    ) -> Result<Compiled, String> {
        let mut made = Made { device: &self.device, ..Made::of(&self.device) };
        made.make(words, bindings, subgroup)?;
        describe(&self.executables, made.pipeline)
    }
}

impl Drop for Driver {
    #[expect(unsafe_code, reason = "objects of Vulkan are destroyed by hand")]
    fn drop(&mut self) {
        // SAFETY: nothing that was made on them is left: `Made` has destroyed what it made.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

#[expect(unsafe_code, reason = "it loads a library")]
fn load() -> Result<Entry, String> {
    // SAFETY: the system's Vulkan loader, which wgpu loads as well.
    unsafe { Entry::load() }.map_err(|error| format!("no Vulkan loader: {error}"))
}

#[expect(unsafe_code, reason = "a call of Vulkan")]
fn instance(entry: &Entry) -> Result<Instance, String> {
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
    let create = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: `create` and what it points to live until the call returns.
    unsafe { entry.create_instance(&create, None) }.map_err(failed("vkCreateInstance"))
}

#[expect(unsafe_code, reason = "calls of Vulkan")]
fn first(instance: &Instance) -> Result<(vk::PhysicalDevice, About), String> {
    // SAFETY: the instance is alive.
    let all = unsafe { instance.enumerate_physical_devices() };
    let all = all.map_err(failed("vkEnumeratePhysicalDevices"))?;
    let physical = *all.first().ok_or("the driver has no device")?;
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
    // SAFETY: the device is of this instance, and the chain is of structures that Vulkan 1.2 has.
    unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
    let device = text(properties.properties.device_name_as_c_str());
    if driver.driver_id != vk::DriverId::MESA_RADV {
        return Err(format!("{device} is not of Mesa's driver for AMD GPUs"));
    }
    // `Mesa 22.3.6`, followed by the commit in builds from a checkout.
    let info = text(driver.driver_info_as_c_str());
    let version = info.split(" (").next().unwrap_or_default().to_owned();
    Ok((physical, About { device, version }))
}

/// A device with the features that wgpu asks for, as far as a compute shader's code depends on
/// them.
#[expect(unsafe_code, reason = "a call of Vulkan")]
fn device(instance: &Instance, physical: vk::PhysicalDevice) -> Result<Device, String> {
    let extensions =
        [ash::ext::robustness2::NAME, khr::pipeline_executable_properties::NAME].map(CStr::as_ptr);
    let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
    let mut core = vk::PhysicalDeviceFeatures2::default()
        .features(vk::PhysicalDeviceFeatures::default().robust_buffer_access(true));
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default().shader_int8(true);
    let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default()
        .subgroup_size_control(true)
        .compute_full_subgroups(true)
        .shader_integer_dot_product(true)
        .shader_zero_initialize_workgroup_memory(true);
    let mut robustness =
        vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
    let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
        .pipeline_executable_info(true);
    let create = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .push_next(&mut core)
        .push_next(&mut vulkan12)
        .push_next(&mut vulkan13)
        .push_next(&mut robustness)
        .push_next(&mut executables);
    // SAFETY: the device is of this instance; `create` and what it points to live until the call
    // returns. A driver that lacks a feature or an extension returns an error.
    unsafe { instance.create_device(physical, &create, None) }.map_err(failed("vkCreateDevice"))
}

/// A pipeline, with what it is made of. Destroys all of it.
struct Made<'a> {
    device: &'a Device,
    module: vk::ShaderModule,
    group: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

impl<'a> Made<'a> {
    fn of(device: &'a Device) -> Self {
        Self {
            device,
            module: vk::ShaderModule::null(),
            group: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
        }
    }

    #[expect(unsafe_code, reason = "calls of Vulkan")]
    fn make(
        &mut self,
        words: &[u32],
        bindings: &[Access],
        subgroup: Option<u32>,
    ) -> Result<(), String> {
        let bindings: Vec<_> = (0..)
            .zip(bindings)
            .map(|(binding, access)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
                    .descriptor_type(match access {
                        Access::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                        Access::Read | Access::Write => vk::DescriptorType::STORAGE_BUFFER,
                    })
            })
            .collect();
        let module = vk::ShaderModuleCreateInfo::default().code(words);
        let group = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the device is alive, the structures live until the calls return, and the words
        // are valid SPIR-V, since naga has written them.
        unsafe {
            self.module = (self.device.create_shader_module(&module, None))
                .map_err(failed("vkCreateShaderModule"))?;
            self.group = (self.device.create_descriptor_set_layout(&group, None))
                .map_err(failed("vkCreateDescriptorSetLayout"))?;
        }
        let groups = [self.group];
        let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&groups);
        let entry = std::ffi::CString::new(spirv::ENTRY).expect("it has no zero byte");
        let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default()
            .required_subgroup_size(subgroup.unwrap_or(0));
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(self.module)
            .name(&entry);
        let stage = match subgroup {
            // As wgpu does where subgroups are on, which they are on every device that has them.
            None => stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE),
            Some(_) => stage.push_next(&mut size),
        };
        // SAFETY: as above; the module has this entry point, and its bindings are those of the
        // layout, which is compared in the tests of the shaders.
        unsafe {
            self.layout = (self.device.create_pipeline_layout(&layout, None))
                .map_err(failed("vkCreatePipelineLayout"))?;
            let pipeline = vk::ComputePipelineCreateInfo::default()
                .flags(
                    vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                        | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
                )
                .stage(stage)
                .layout(self.layout);
            let none = vk::PipelineCache::null();
            let made = self.device.create_compute_pipelines(none, &[pipeline], None);
            let made = made.map_err(|(_, error)| error);
            self.pipeline = made.map_err(failed("vkCreateComputePipelines"))?[0];
        }
        Ok(())
    }
}

impl Drop for Made<'_> {
    #[expect(unsafe_code, reason = "objects of Vulkan are destroyed by hand")]
    fn drop(&mut self) {
        // SAFETY: each is of this device or null, which is ignored, and nothing uses them any more.
        unsafe {
            self.device.destroy_pipeline(self.pipeline, None);
            self.device.destroy_pipeline_layout(self.layout, None);
            self.device.destroy_descriptor_set_layout(self.group, None);
            self.device.destroy_shader_module(self.module, None);
        }
    }
}

/// The statistics and the machine code of a compute pipeline, which has one executable.
#[expect(unsafe_code, reason = "calls of Vulkan, a union, and pointers in its structures")]
fn describe(
    of: &khr::pipeline_executable_properties::Device,
    pipeline: vk::Pipeline,
) -> Result<Compiled, String> {
    let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
    // SAFETY: the pipeline is alive, and its statistics were captured.
    let statistics = unsafe { of.get_pipeline_executable_statistics(&info) }
        .map_err(failed("vkGetPipelineExecutableStatisticsKHR"))?;
    let statistics = statistics.iter().filter_map(|one| {
        let unsigned = one.format == vk::PipelineExecutableStatisticFormatKHR::UINT64;
        // SAFETY: the format says that this is the field of the union.
        unsigned.then(|| (text(one.name_as_c_str()), unsafe { one.value.u64 }))
    });
    let statistics = statistics.collect();

    // The first call gives names and lengths, the second fills the buffers.
    // SAFETY: as above, for the representations.
    let mut all = unsafe { of.get_pipeline_executable_internal_representations(&info) }
        .map_err(failed("vkGetPipelineExecutableInternalRepresentationsKHR"))?;
    let mut buffers: Vec<Vec<u8>> = all.iter().map(|one| vec![0; one.data_size]).collect();
    for (one, buffer) in all.iter_mut().zip(&mut buffers) {
        one.p_data = buffer.as_mut_ptr().cast();
    }
    let mut count = u32::try_from(all.len()).expect("a driver has a few");
    // SAFETY: there are `count` structures, and each has a buffer of the length that it says.
    unsafe {
        (of.fp().get_pipeline_executable_internal_representations_khr)(
            of.device(),
            &raw const info,
            &raw mut count,
            all.as_mut_ptr(),
        )
    }
    .result()
    .map_err(failed("vkGetPipelineExecutableInternalRepresentationsKHR"))?;
    let assembly = all
        .iter()
        .zip(&buffers)
        .find(|(one, _)| text(one.name_as_c_str()).eq_ignore_ascii_case("assembly"))
        .map(|(_, buffer)| {
            let text = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        })
        .ok_or("the driver shows no assembly")?;
    Ok(Compiled { statistics, assembly })
}
