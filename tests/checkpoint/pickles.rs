//! Writes pickles as `NumPy` 1 does with protocol 4, from a description of the format alone.

use std::{cell::Cell, rc::Rc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::Source,
};

/// Bytes of an array, in a file that may be larger than memory.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Bytes(Rc<[u8]>),
    Zeros(u64),
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(count) => *count,
        }
    }
}

/// A file of parts. Counts how many bytes were read.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
    pub(crate) read: Rc<Cell<u64>>,
}

impl Source for Sparse {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.parts.iter().map(Part::len).sum()
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(Error::io(&self.name, std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.read.set(self.read.get() + into.len() as u64);
        let (mut start, end) = (0, offset + into.len() as u64);
        for part in &self.parts {
            let (from, to) = (offset.max(start), end.min(start + part.len()));
            if from < to {
                let at = |n: u64| usize::try_from(n).expect("in memory");
                let into = &mut into[at(from - offset)..at(to - offset)];
                match part {
                    Part::Bytes(bytes) => {
                        into.copy_from_slice(&bytes[at(from - start)..at(to - start)]);
                    }
                    Part::Zeros(_) => into.fill(0),
                }
            }
            start += part.len();
        }
        Ok(())
    }
}

/// An array to write.
#[derive(Clone)]
pub(crate) struct Array {
    /// `f4`, `f2`, `i1`, or `bfloat16`.
    pub(crate) code: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) data: Part,
}

impl Array {
    pub(crate) fn new(code: &'static str, shape: &[u64], data: Vec<u8>) -> Self {
        Self { code, shape: shape.to_vec(), data: Part::Bytes(data.into()) }
    }

    /// An array whose elements are all zero.
    pub(crate) fn zeros(code: &'static str, shape: &[u64]) -> Self {
        let size = match code {
            "f4" => 4,
            "i1" => 1,
            _ => 2,
        };
        let data = Part::Zeros(shape.iter().product::<u64>() * size);
        Self { code, shape: shape.to_vec(), data }
    }
}

/// The file of an array.
pub(crate) fn plain(array: &Array) -> Vec<Part> {
    let mut pickler = Pickler::default();
    pickler.array(array);
    pickler.end()
}

/// The file of a `QuantizedWeight8bit`.
pub(crate) fn quantized(class: &str, weight: &Array, scales: &Array) -> Vec<Part> {
    let mut pickler = Pickler::default();
    pickler.name(class, "QuantizedWeight8bit");
    pickler.op(b")");
    pickler.kept(b"\x81");
    pickler.kept(b"}");
    pickler.op(b"(");
    pickler.text("weight");
    pickler.array(weight);
    pickler.text("scales");
    pickler.array(scales);
    pickler.op(b"ub");
    pickler.end()
}

/// The bytes of a file that has no zeros.
pub(crate) fn joined(parts: &[Part]) -> Vec<u8> {
    let bytes = |part: &Part| match part {
        Part::Bytes(bytes) => bytes.to_vec(),
        Part::Zeros(count) => vec![0; usize::try_from(*count).expect("small")],
    };
    parts.iter().flat_map(bytes).collect()
}

/// Python's pickler: values that were met before are taken from the memo.
#[derive(Default)]
struct Pickler {
    parts: Vec<Part>,
    /// The frame that is being written.
    frame: Vec<u8>,
    memo: Vec<String>,
}

impl Pickler {
    fn op(&mut self, bytes: &[u8]) {
        self.frame.extend_from_slice(bytes);
    }

    /// An opcode whose value goes into the memo.
    fn kept(&mut self, bytes: &[u8]) {
        self.op(bytes);
        self.op(b"\x94");
        self.memo.push(String::new());
    }

    /// Takes a value from the memo, or writes it and puts it there.
    fn once(&mut self, key: &str, write: impl FnOnce(&mut Self)) {
        if let Some(index) = self.memo.iter().position(|known| known == key) {
            self.op(&[b'h', u8::try_from(index).expect("few values")]);
        } else {
            write(self);
            self.op(b"\x94");
            self.memo.push(key.to_owned());
        }
    }

    fn text(&mut self, text: &str) {
        self.once(&format!("text {text}"), |pickler| {
            pickler.op(&[0x8c, u8::try_from(text.len()).expect("short")]);
            pickler.op(text.as_bytes());
        });
    }

    fn name(&mut self, module: &str, name: &str) {
        self.once(&format!("name {module} {name}"), |pickler| {
            pickler.text(module);
            pickler.text(name);
            pickler.op(b"\x93");
        });
    }

    fn int(&mut self, number: u64) {
        let bytes = number.to_le_bytes();
        match number {
            0..0x100 => self.op(&[b'K', bytes[0]]),
            0x100..0x1_0000 => self.op(&[b'M', bytes[0], bytes[1]]),
            _ => {
                self.op(b"J");
                self.op(&bytes[..4]);
            }
        }
    }

    fn dtype(&mut self, code: &str) {
        self.once(&format!("dtype {code}"), |pickler| {
            pickler.name("numpy", "dtype");
            if code == "bfloat16" {
                pickler.name("ml_dtypes", "bfloat16");
            } else {
                pickler.text(code);
            }
            pickler.op(b"\x89\x88");
            pickler.kept(b"\x87");
            pickler.op(b"R");
        });
        // The state comes when the type is met first.
        if self.frame.ends_with(b"R\x94") {
            self.op(b"(K\x03");
            self.text(if code == "i1" { "|" } else { "<" });
            self.op(b"NNN");
            match code {
                "bfloat16" => self.op(b"K\x02K\x02K\x40"),
                _ => self.op(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0"),
            }
            self.kept(b"t");
            self.op(b"b");
        }
    }

    fn array(&mut self, array: &Array) {
        self.name("numpy.core.multiarray", "_reconstruct");
        self.name("numpy", "ndarray");
        self.op(b"K\0");
        self.kept(b"\x85");
        self.once("bytes b", |pickler| pickler.op(b"C\x01b"));
        self.kept(b"\x87");
        self.kept(b"R");
        self.op(b"(K\x01");
        if array.shape.len() > 3 {
            self.op(b"(");
        }
        array.shape.iter().for_each(|&extent| self.int(extent));
        let tuple = match array.shape.len() {
            0 => b')',
            1 => b'\x85',
            2 => b'\x86',
            3 => b'\x87',
            _ => b't',
        };
        // The empty tuple is not remembered.
        if tuple == b')' {
            self.op(b")");
        } else {
            self.kept(&[tuple]);
        }
        self.dtype(array.code);
        self.op(b"\x89");
        let count = array.data.len();
        // Large data is no part of a frame.
        if count >= 64 << 10 {
            self.close();
            let mut head = vec![b'B'];
            head.extend_from_slice(&u32::try_from(count).expect("below 4 GiB").to_le_bytes());
            self.parts.extend([Part::Bytes(head.into()), array.data.clone()]);
        } else {
            if let Ok(count) = u8::try_from(count) {
                self.op(&[b'C', count]);
            } else {
                self.op(b"B");
                self.op(&u32::try_from(count).expect("small").to_le_bytes());
            }
            self.op(&joined(std::slice::from_ref(&array.data)));
        }
        self.op(b"\x94");
        self.memo.push(String::new());
        self.kept(b"t");
        self.op(b"b");
    }

    fn close(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        let mut head = Vec::new();
        if self.parts.is_empty() {
            head.extend_from_slice(b"\x80\x04");
        }
        head.push(0x95);
        head.extend_from_slice(&(frame.len() as u64).to_le_bytes());
        head.extend(frame);
        self.parts.push(Part::Bytes(head.into()));
    }

    fn end(mut self) -> Vec<Part> {
        self.op(b".");
        self.close();
        self.parts
    }
}
