//! Creates objects on the device. A test may have some of them refused.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{
    failure::{Failure, no_memory},
    trusted,
};
use crate::machine::{gpu::wait, shader::Shader};

/// What a device refuses to create, to test what follows. The number is that of objects of the
/// kind which it creates before.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// A buffer: its memory is out.
    Buffer(u64),
    /// A buffer, and the device is lost for want of memory.
    BufferAndDevice(u64),
    /// A shader module, and later modules of the same program: it does not compile.
    Module(u64),
    /// A pipeline, and later ones of the same program and constants.
    Pipeline(u64),
    /// Every module of a program for which this holds.
    Programs(fn(&Shader) -> bool),
}

/// Creates objects on a device. Clones share the device and what it refuses.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    device: wgpu::Device,
    failure: Failure,
    refusal: Option<Refusal>,
    /// Buffers, modules and pipelines since the refusal was set.
    made: Arc<[AtomicU64; 3]>,
    /// The module or pipeline that was refused.
    refused: Arc<OnceLock<String>>,
}

impl Maker {
    pub(super) fn new(device: wgpu::Device, failure: Failure) -> Self {
        Self { device, failure, refusal: None, made: Arc::default(), refused: Arc::default() }
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Sets what is refused from now on.
    pub(super) fn refuse(&mut self, refusal: Option<Refusal>) {
        (self.refusal, self.made, self.refused) = (refusal, Arc::default(), Arc::default());
    }

    /// Buffers, modules and pipelines since [`Maker::refuse`].
    pub(super) fn made(&self) -> [u64; 3] {
        [0, 1, 2].map(|kind: usize| self.made[kind].load(Ordering::Relaxed))
    }

    /// How many objects of a kind came before this one.
    fn count(&self, kind: usize) -> u64 {
        self.made[kind].fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a module or pipeline is refused: the one with this number, and others like it.
    fn is_refused(&self, is_it: bool, like: impl FnOnce() -> String) -> bool {
        if self.refusal.is_none() {
            return false;
        }
        let like = like();
        if is_it {
            return *self.refused.get_or_init(|| like.clone()) == like;
        }
        self.refused.get() == Some(&like)
    }

    pub(super) fn buffer(&self, descriptor: &wgpu::BufferDescriptor<'_>) -> wgpu::Buffer {
        let before = self.count(0);
        let refused = match self.refusal {
            Some(Refusal::Buffer(n)) if n == before => true,
            Some(Refusal::BufferAndDevice(n)) if n == before => {
                self.failure.lose("Out of memory, as a test wants it".into());
                self.device.destroy();
                true
            }
            _ => false,
        };
        if refused {
            self.failure.set(no_memory("a buffer", "a test refuses it".into()));
            // As after a real shortage, the buffer is one that cannot be used.
            let usage = wgpu::BufferUsages::empty();
            return self.device.create_buffer(&wgpu::BufferDescriptor { usage, ..*descriptor });
        }
        self.device.create_buffer(descriptor)
    }

    pub(super) fn module(&self, shader: Shader) -> wgpu::ShaderModule {
        let before = self.count(1);
        let refused = match self.refusal {
            Some(Refusal::Module(n)) => self.is_refused(n == before, || shader.label()),
            Some(Refusal::Programs(refuses)) => refuses(&shader),
            _ => false,
        };
        let source = if refused {
            "a test refuses it".to_owned()
        } else {
            let enables = if wait::SHADERS_ENABLE { shader.enables() } else { String::new() };
            enables + &shader.source()
        };
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&shader.label()),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        trusted::module(&self.device, descriptor)
    }

    pub(super) fn pipeline(
        &self,
        descriptor: &wgpu::ComputePipelineDescriptor<'_>,
    ) -> wgpu::ComputePipeline {
        let before = self.count(2);
        let refused = match self.refusal {
            Some(Refusal::Pipeline(n)) => self.is_refused(n == before, || {
                let constants = descriptor.compilation_options.constants;
                format!("{:?} {constants:?}", descriptor.label)
            }),
            _ => false,
        };
        let entry_point = if refused { Some("a test refuses it") } else { descriptor.entry_point };
        let descriptor = wgpu::ComputePipelineDescriptor { entry_point, ..descriptor.clone() };
        self.device.create_compute_pipeline(&descriptor)
    }
}
