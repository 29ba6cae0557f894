//! How much memory a device has, where the driver tells. One of the few modules with `unsafe`.

/// Bytes of a device's own memory that this program may still take. `None` where nobody tells, as
/// in browsers.
#[cfg(not(any(target_os = "macos", windows)))]
pub(super) fn free(adapter: &wgpu::Adapter) -> Option<u64> {
    vulkan(adapter)
}

/// Bytes of a device's own memory that this program may still take: by Direct3D, or by Vulkan if
/// that has the device. `None` where neither tells.
#[cfg(windows)]
#[expect(unsafe_code, reason = "wgpu has no safe way to ask for the memory that there is")]
pub(super) fn free(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: nothing of what wgpu lends is destroyed, and it is given back at the end of this
    // function.
    let Some(direct3d) = (unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }) else {
        return vulkan(adapter);
    };
    // Of the two groups of memory, number 0 is the device's own.
    let told = direct3d.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    (told.Budget > 0).then(|| told.Budget.saturating_sub(told.CurrentUsage))
}

/// Bytes that this program may still take of what Metal recommends to use at the most. `None` where
/// Metal does not tell.
#[cfg(target_os = "macos")]
#[expect(unsafe_code, reason = "wgpu has no safe way to ask for the memory that there is")]
pub(super) fn free(adapter: &wgpu::Adapter) -> Option<u64> {
    use objc2_metal::MTLDevice as _;

    // SAFETY: nothing of what wgpu lends is destroyed, and it is given back at the end of this
    // function.
    let metal = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = metal.raw_device();
    let (most, used) = (device.recommendedMaxWorkingSetSize(), device.currentAllocatedSize());
    // It is 0 where it is not known.
    (most > 0).then(|| most.saturating_sub(used as u64))
}

/// Nobody tells.
#[cfg(any(target_arch = "wasm32", all(target_vendor = "apple", not(target_os = "macos"))))]
const fn vulkan(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Bytes of the largest heap of an adapter's own memory that the driver would give this program, by
/// Vulkan's `VK_EXT_memory_budget`. `None` where the driver does not tell.
#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
#[expect(unsafe_code, reason = "wgpu has no safe way to ask for the memory that there is")]
fn vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    use ash::{ext::memory_budget, vk};

    // SAFETY: nothing of what wgpu lends is destroyed, and it is given back at the end of this
    // function. The query wants a physical device of this instance, which the adapter's is; a
    // version of the instance that has the query, and a device that has the extension of which a
    // structure is chained, which both are checked before. Both structures live until the call
    // returns, and `push_next` links them.
    unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let device = adapter.raw_physical_device();
        let shared = adapter.shared_instance();
        let known = adapter.physical_device_capabilities();
        if shared.instance_api_version() < vk::API_VERSION_1_1
            || known.properties().api_version < vk::API_VERSION_1_1
            || !known.supports_extension(memory_budget::NAME)
        {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        shared.raw_instance().get_physical_device_memory_properties2(device, &mut all);
        let heaps = all.memory_properties;
        let heaps = heaps.memory_heaps_as_slice().iter();
        let free = budget.heap_budget.iter().zip(&budget.heap_usage);
        heaps
            .zip(free)
            .filter(|(heap, _)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
            .max_by_key(|(heap, _)| heap.size)
            .map(|(_, (budget, usage))| budget.saturating_sub(*usage))
    }
}
