//! Kernels with an edited shader, to test what a bug does.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use grok_wgpu::lab::{
    base::error::Result,
    machine::{
        binder::{Binder, Dispatch},
        host::Host,
        kernel::Kernel,
        shader::Shader,
    },
    variants::{ShaderFile, Source, Tuning},
};

/// An edit of a file in `shaders/`.
#[derive(Debug)]
pub struct Edit {
    /// Distinguishes its programs from those of other edits, because pipelines are cached by name.
    pub name: String,
    /// The text to replace: the whole file, or a part that no other file has.
    pub find: String,
    /// The new text.
    pub replace: String,
    linked: Mutex<HashMap<String, Shader>>,
}

impl Edit {
    /// Replaces `find` by `replace`.
    pub fn new(name: String, find: String, replace: String) -> Self {
        Self { name, find, replace, linked: Mutex::default() }
    }

    /// The program with the edited file. Names and texts of shaders are `'static`, so each program
    /// is leaked, once.
    fn link(&self, shader: Shader) -> Shader {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        *linked.entry(shader.label()).or_insert_with(|| {
            let kernel = format!("{} {}", shader.label(), self.name).leak();
            let mut files: Vec<ShaderFile> = shader.linked().collect();
            if let Some(file) = files.iter_mut().find(|file| file.text.contains(&self.find)) {
                file.text = file.text.replacen(&self.find, &self.replace, 1).leak();
            }
            // Keep the boundary between the kernel's own files and the added ones.
            let added = files.split_off(shader.own.files.len());
            let own = Source { kernel, files: files.leak() };
            Shader { own, added: added.leak(), weight: None, ..shader }
        })
    }
}

/// A kernel that dispatches an edited program; its oracle is unchanged.
pub struct Edited {
    kernel: Box<dyn Kernel>,
    edit: std::sync::Arc<Edit>,
}

impl Edited {
    /// Applies the edit to the kernel.
    pub fn new(kernel: Box<dyn Kernel>, edit: std::sync::Arc<Edit>) -> Self {
        Self { kernel, edit }
    }
}

impl Kernel for Edited {
    /// The unedited shader: operands are checked against its weight type.
    fn shader(&self, tuning: &Tuning) -> Shader {
        self.kernel.shader(tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let dispatch = self.kernel.dispatch(binder)?;
        Ok(Dispatch { shader: self.edit.link(dispatch.shader), ..dispatch })
    }

    fn oracle(&self, host: &mut Host) {
        self.kernel.oracle(host);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(Self { kernel: self.kernel.boxed(), edit: self.edit.clone() })
    }
}
