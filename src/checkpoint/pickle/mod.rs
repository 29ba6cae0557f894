//! Reads a Python pickle of one `NumPy` array, or of a `QuantizedWeight8bit`: int8 weights with
//! scales, as Grok-1 was first released.
//!
//! A pickle is a program. This is no interpreter of such programs: it knows the opcodes and the
//! names that `NumPy` writes for arrays of four element types, and refuses all others, so nothing
//! of the file is run. The bytes of an array are located, not read. Protocol 2 spells them as text,
//! so in practice files have protocol 3 to 5; the release has 4, and classes of `__main__`.

mod machine;
mod objects;

use std::fmt;

use self::machine::{MAX_TEXT, Machine, Step};
use super::magic;
use crate::{base::error::Result, files::Source};

/// Bytes that hold the longest opcode with its operand, the bytes of an array apart.
const LONGEST: usize = 1 + 8 + 2 * (MAX_TEXT + 1);
/// Bytes that are read at a time.
const WINDOW: u64 = 1024;

/// Element type of a stored array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `float32`
    F32,
    /// `float16`
    F16,
    /// `bfloat16` of the package `ml_dtypes`
    BF16,
    /// `int8`
    I8,
}

impl Element {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 => 1,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::I8 => "int8",
        })
    }
}

/// An array: row-major, little-endian, contiguous in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Element type.
    pub element: Element,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// First byte of the elements, from the start of the file.
    pub offset: u64,
    /// Bytes of the elements.
    pub len: u64,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pickled {
    /// One array.
    Array(Array),
    /// The two arrays of a `QuantizedWeight8bit`.
    Quantized {
        /// The weights.
        weight: Array,
        /// Their scales.
        scales: Array,
    },
}

/// Reads a file, but not the elements of its arrays. The outer error is of reading, the inner one
/// says what is wrong with the file, and where.
///
/// # Errors
///
/// Those of `source`.
pub async fn read<S: Source>(source: &S) -> Result<Result<Pickled, String>> {
    let len = source.len();
    let (mut at, mut start) = (0, 0);
    let mut window: Vec<u8> = Vec::new();
    let mut machine = Machine::default();
    loop {
        let end = start + window.len() as u64;
        if at + LONGEST as u64 > end && end < len {
            let bytes = WINDOW.min(len - at);
            window.resize(usize::try_from(bytes).unwrap_or_default(), 0);
            source.read(at, &mut window).await?;
            start = at;
        }
        let rest = usize::try_from(at - start).ok().and_then(|skip| window.get(skip..));
        let rest = rest.unwrap_or_default();
        if at == 0
            && let Some(what) = not_a_pickle(rest)
        {
            return Ok(Err(what));
        }
        match machine.step(rest, at, len) {
            Ok(Step::Next(next)) => at = next,
            Ok(Step::Stop(pickled)) => return Ok(Ok(pickled)),
            Err(what) => return Ok(Err(what)),
        }
    }
}

/// What a file is that does not begin as a pickle.
fn not_a_pickle(start: &[u8]) -> Option<String> {
    match start {
        [PROTO, 2..=5, ..] => None,
        [] => Some("the file is empty".into()),
        _ => Some(magic::recognize(start).map_or_else(
            || "the file does not begin as a pickle of protocol 2 to 5".into(),
            str::to_owned,
        )),
    }
}

const PROTO: u8 = 0x80;
