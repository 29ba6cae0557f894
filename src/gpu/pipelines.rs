//! Links WGSL and builds pipelines, each once, with the layout the Rust side declares.

use std::collections::HashMap;

use crate::{
    kernel::{Access, Dispatch},
    platform,
};

/// Pipelines by program and constants.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<Key, Built>);

type Key = (String, Vec<(&'static str, u32)>);

/// A pipeline and the layout of its bind group.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Cache {
    pub(super) fn get(&mut self, device: &wgpu::Device, dispatch: &Dispatch) -> Built {
        self.0
            .entry((dispatch.shader.label(), dispatch.constants.clone()))
            .or_insert_with(|| build(device, dispatch))
            .clone()
    }
}

/// The layout comes from the Rust side, so that a driver rejects a WGSL file that disagrees.
fn build(device: &wgpu::Device, dispatch: &Dispatch) -> Built {
    let label = dispatch.shader.label();
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let kinds = dispatch.operands.iter().map(|operand| match operand.access {
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
        Access::Uniform => wgpu::BufferBindingType::Uniform,
    });
    let entries: Vec<_> = (0..)
        .zip(std::iter::once(wgpu::BufferBindingType::Uniform).chain(kinds))
        .map(|(binding, ty)| entry(binding, ty))
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(&label),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&label),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let enable = if dispatch.shader.subgroups { platform::ENABLE_SUBGROUPS } else { "" };
    let source = enable.to_owned() + &dispatch.shader.source();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(&label),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let constants: Vec<(&str, f64)> =
        dispatch.constants.iter().map(|&(name, value)| (name, f64::from(value))).collect();
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &constants,
            ..Default::default()
        },
        cache: None,
    });
    Built { pipeline, layout }
}
