//! Shader modules without the counters that end endless loops. One of the few modules with
//! `unsafe`.

/// Creates a module whose loops end by themselves. In a browser, which trusts nobody, it has the
/// counters all the same.
pub(super) fn module(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    let mut checks = wgpu::ShaderRuntimeChecks::checked();
    checks.force_loop_bounding = false;
    // SAFETY: no loop of the shader may be endless: a compiler may take one for unreachable. All
    // shaders are files of this program, which `Maker::module` links. A test parses every program
    // that can be linked of them, and wants of each loop that it begins with a test of a counter,
    // which only the loop's end changes (`loops_are_bounded` in `tests/shaders`). All other checks
    // are kept.
    #[expect(unsafe_code, reason = "wgpu cannot know that loops end")]
    unsafe {
        device.create_shader_module_trusted(descriptor, checks)
    }
}
