//! Files whose reads fail after some.

use std::{cell::Cell, rc::Rc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::Source,
};

/// A file whose reads fail once `left`, which several files may share, is at its end.
pub(crate) struct Failing<S> {
    pub(crate) file: S,
    pub(crate) left: Rc<Cell<usize>>,
}

impl<S: Source> Source for Failing<S> {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(Error::io(self.file.name(), std::io::Error::from_raw_os_error(5)));
        };
        self.left.set(left);
        self.file.read(offset, into).await
    }
}
