//! Parser for the header of a GGUF file, metadata and tensor infos, in 64-bit arithmetic and for
//! untrusted input.
//!
//! Pure: takes bytes, does no input or output. A header does not say how long it is, so a caller
//! parses the beginning of a file, and more of it if that was too short.

use std::{collections::BTreeMap, ops::Range};

use super::{super::names, blocks::GgmlType};
use crate::base::json;

/// Bytes of the longest header that is read. The largest known one, with a tokenizer, has 30
/// million bytes.
pub const MAX_HEADER: u64 = 256 << 20;
/// Most keys of the metadata.
const MAX_KEYS: u64 = 1 << 16;
/// Most tensors of one file.
const MAX_TENSORS: u64 = 200_000;
/// Bytes of the longest key, by the specification.
const MAX_KEY: u64 = (1 << 16) - 1;
/// Bytes of the longest tensor name; the specification has 64.
const MAX_NAME: u64 = 1024;
/// Most axes of a tensor, by the specification.
const MAX_RANK: u32 = 4;
/// Alignment of the data where `general.alignment` is absent.
const ALIGNMENT: u64 = 32;

/// Why a header cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The bytes given end before the header does; the file is longer.
    Short,
    /// It is invalid, for this reason.
    Bad(String),
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self::Bad(what)
    }
}

/// The contents of a header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Keys and values.
    pub metadata: Metadata,
    /// Tensors, in the order of the file.
    pub tensors: Vec<Info>,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub ty: GgmlType,
    /// Its extents, outermost first. The file has them in the other order.
    pub shape: Vec<u64>,
    /// Its first byte, counted from the start of the file.
    pub offset: u64,
    /// Its bytes; 0 where the type is not known.
    pub len: u64,
}

/// Keys and values. Strings and arrays are kept as ranges of the header's bytes.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    bytes: Vec<u8>,
    values: BTreeMap<String, Value>,
}

/// A value; strings and arrays as ranges of bytes.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    /// As the `f64` that prints like the `f32` in the file.
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array {
        kind: u32,
        count: u64,
        range: Range<usize>,
    },
}

const UINT8: u32 = 0;
const INT8: u32 = 1;
const UINT16: u32 = 2;
const INT16: u32 = 3;
const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const UINT64: u32 = 10;
const INT64: u32 = 11;
const FLOAT64: u32 = 12;

impl Metadata {
    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// An unsigned integer of any width, or a signed one that is not negative. `None` if there is
    /// no such key; so it is with the other getters.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Value::Unsigned(value)) => Ok(Some(value)),
            Some(&Value::Signed(value)) if value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(other) => Err(self.wrong(key, other, "an integer from 0 on")),
        }
    }

    /// A number, integer or float.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Value::Unsigned(value)) => Ok(Some(value as f64)),
            Some(&Value::Signed(value)) => Ok(Some(value as f64)),
            Some(&Value::Float(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, other, "a number")),
        }
    }

    /// A string.
    ///
    /// # Errors
    ///
    /// If the value has another type or is not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => std::str::from_utf8(&self.bytes[range.clone()])
                .map(Some)
                .map_err(|_| format!("{key} is not UTF-8")),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    ///
    /// If the value has another type, or a string is not UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, String> {
        let (range, count) = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Array { kind: STRING, count, range }) => (range.clone(), *count),
            Some(other) => return Err(self.wrong(key, other, "an array of texts")),
        };
        let mut rest = &self.bytes[range];
        let mut texts = Vec::new();
        for i in 0..count {
            let missing = || format!("{key}: text {i} is cut short");
            let (length, after) = rest.split_first_chunk::<8>().ok_or_else(missing)?;
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| missing())?;
            let (text, after) = after.split_at_checked(length).ok_or_else(missing)?;
            rest = after;
            texts.push(
                std::str::from_utf8(text).map_err(|_| format!("{key}: text {i} is not UTF-8"))?,
            );
        }
        Ok(Some(texts))
    }

    /// An array of 32-bit integers.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: kind @ (INT32 | UINT32), range, .. }) => {
                let words = self.bytes[range.clone()].as_chunks::<4>().0;
                let read = |word: &[u8; 4]| match *kind {
                    INT32 => i64::from(i32::from_le_bytes(*word)),
                    _ => i64::from(u32::from_le_bytes(*word)),
                };
                Ok(Some(words.iter().map(read).collect()))
            }
            Some(other) => Err(self.wrong(key, other, "an array of 32-bit integers")),
        }
    }

    /// An array of 32-bit floats.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: FLOAT32, range, .. }) => {
                let words = self.bytes[range.clone()].as_chunks::<4>().0;
                Ok(Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect()))
            }
            Some(other) => Err(self.wrong(key, other, "an array of 32-bit floats")),
        }
    }

    /// An array of bytes.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: UINT8 | INT8, range, .. }) => {
                Ok(Some(self.bytes[range.clone()].to_vec()))
            }
            Some(other) => Err(self.wrong(key, other, "an array of bytes")),
        }
    }

    /// True or false.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    fn wrong(&self, key: &str, got: &Value, wanted: &str) -> String {
        let got = match got {
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(range) => {
                let shown = &self.bytes[range.start..range.end.min(range.start + 400)];
                format!("\"{}\"", json::clipped(&String::from_utf8_lossy(shown)))
            }
            Value::Array { kind, count, .. } => format!("an array of {count} of type {kind}"),
        };
        format!("{key} is {got}, wanted {wanted}")
    }
}

/// Parses the header of a file of `file_len` bytes that begins with `bytes`.
///
/// # Errors
///
/// [`Problem::Short`] if more of the file is needed, else [`Problem::Bad`] with what is wrong and
/// where.
pub fn parse(bytes: &[u8], file_len: u64) -> Result<Header, Problem> {
    let mut reader = Reader { bytes, at: 0, file_len };
    let (tensor_count, key_count) = reader.counts()?;
    let mut values = BTreeMap::new();
    for i in 0..key_count {
        let (key, value) = reader.pair(i)?;
        if values.insert(key.clone(), value).is_some() {
            return Err(Problem::Bad(format!("duplicate key `{}`", json::clipped(&key))));
        }
    }
    let alignment = alignment(&values)?;
    let mut tensors = Vec::new();
    for i in 0..tensor_count {
        tensors.push(reader.info(i, alignment)?);
    }
    let end = reader.at;
    names::refuse_duplicates(tensors.iter().map(|info| info.name.as_str()))?;
    // A file without tensors needs no padding.
    let data =
        if tensors.is_empty() { end as u64 } else { (end as u64).next_multiple_of(alignment) };
    place(&mut tensors, data, file_len)?;
    Ok(Header { metadata: Metadata { bytes: bytes[..end].to_vec(), values }, tensors })
}

fn alignment(values: &BTreeMap<String, Value>) -> Result<u64, String> {
    match values.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(&Value::Unsigned(value)) if value.is_power_of_two() && value <= 1 << 30 => Ok(value),
        Some(&Value::Unsigned(value)) => {
            Err(format!("general.alignment is {value}, wanted a power of two"))
        }
        Some(_) => Err("general.alignment is no unsigned integer, wanted a power of two".into()),
    }
}

/// Turns offsets into offsets from the start of the file, and checks that tensors lie within it and
/// do not overlap.
fn place(tensors: &mut [Info], data: u64, file_len: u64) -> Result<(), String> {
    for info in &mut *tensors {
        let name = json::clipped(&info.name);
        info.offset =
            data.checked_add(info.offset).ok_or_else(|| format!("`{name}`: offset overflows"))?;
        let end =
            info.offset.checked_add(info.len).ok_or_else(|| format!("`{name}`: size overflows"))?;
        if end > file_len {
            return Err(format!(
                "`{name}` should end at byte {end}, but the file has {file_len}: it is truncated \
                 (an interrupted download?)"
            ));
        }
    }
    let mut order: Vec<&Info> = tensors.iter().filter(|info| info.len > 0).collect();
    order.sort_by_key(|info| info.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].len > pair[1].offset {
            return Err(format!(
                "`{}` and `{}` overlap: the first ends at byte {}, the second begins at {}",
                json::clipped(&pair[0].name),
                json::clipped(&pair[1].name),
                pair[0].offset + pair[0].len,
                pair[1].offset
            ));
        }
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl Reader<'_> {
    /// The numbers of tensors and of keys.
    fn counts(&mut self) -> Result<(u64, u64), Problem> {
        let magic = self.array::<4>("the magic number")?;
        if magic != super::MAGIC {
            return Err(Problem::Bad("this is no GGUF file: it does not begin with `GGUF`".into()));
        }
        let version = self.u32("the version")?;
        if version.trailing_zeros() >= 16 {
            return Err(Problem::Bad(
                "this is a big-endian GGUF file; little-endian ones are wanted".into(),
            ));
        }
        if !(2..=3).contains(&version) {
            return Err(Problem::Bad(format!("GGUF version {version}, wanted 2 or 3")));
        }
        let tensors = self.u64("the number of tensors")?;
        let keys = self.u64("the number of keys")?;
        for (what, got, most) in [("tensors", tensors, MAX_TENSORS), ("keys", keys, MAX_KEYS)] {
            if got > most {
                return Err(Problem::Bad(format!("{got} {what} are too many (at most {most})")));
            }
        }
        Ok((tensors, keys))
    }

    fn pair(&mut self, i: u64) -> Result<(String, Value), Problem> {
        let key = self.name(MAX_KEY, || format!("key {i}"))?;
        let kind = self.u32(&key)?;
        let value = self.value(&key, kind)?;
        Ok((key, value))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, Problem> {
        Ok(match kind {
            UINT8 => Value::Unsigned(u8::from_le_bytes(self.array(key)?).into()),
            INT8 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            UINT16 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            INT16 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            UINT32 => Value::Unsigned(self.u32(key)?.into()),
            INT32 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            FLOAT32 => Value::Float(shortest(f32::from_le_bytes(self.array(key)?))),
            BOOL => match self.array::<1>(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    return Err(self.bad(key, &format!("a truth value is {other}, wanted 0 or 1")));
                }
            },
            STRING => {
                let length = self.u64(key)?;
                Value::Text(self.skip(length, key)?)
            }
            ARRAY => self.list(key)?,
            UINT64 => Value::Unsigned(self.u64(key)?),
            INT64 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            FLOAT64 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            other => return Err(self.bad(key, &format!("value type {other} is not known"))),
        })
    }

    fn list(&mut self, key: &str) -> Result<Value, Problem> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let width = match kind {
            UINT8 | INT8 | BOOL => 1,
            UINT16 | INT16 => 2,
            UINT32 | INT32 | FLOAT32 => 4,
            // A string takes at least the eight bytes of its length.
            UINT64 | INT64 | FLOAT64 | STRING => 8,
            ARRAY => return Err(self.bad(key, "an array of arrays is not supported")),
            other => return Err(self.bad(key, &format!("element type {other} is not known"))),
        };
        let start = self.at;
        let least = count
            .checked_mul(width)
            .ok_or_else(|| self.bad(key, &format!("{count} elements overflow")))?;
        if kind == STRING {
            self.must_have(least, key)?;
            for _ in 0..count {
                let length = self.u64(key)?;
                self.skip(length, key)?;
            }
        } else {
            self.skip(least, key)?;
        }
        Ok(Value::Array { kind, count, range: start..self.at })
    }

    fn info(&mut self, i: u64, alignment: u64) -> Result<Info, Problem> {
        let name = self.name(MAX_NAME, || format!("tensor {i}"))?;
        let rank = self.u32(&name)?;
        if rank > MAX_RANK {
            return Err(self.bad(&name, &format!("{rank} axes, wanted at most {MAX_RANK}")));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(self.u64(&name)?);
        }
        let ty = GgmlType::of(self.u32(&name)?);
        let offset = self.u64(&name)?;
        if !offset.is_multiple_of(alignment) {
            let what = format!("offset {offset} is no multiple of the alignment, {alignment}");
            return Err(self.bad(&name, &what));
        }
        let cols = shape.first().copied().unwrap_or(1);
        shape.reverse();
        if shape.contains(&0) {
            return Err(self.bad(&name, &format!("shape {shape:?} has no elements")));
        }
        if ty.block > 0 && !cols.is_multiple_of(ty.block) {
            let what = format!("rows of {cols} are not made of {}'s blocks of {}", ty, ty.block);
            return Err(self.bad(&name, &what));
        }
        let len = shape
            .iter()
            .try_fold(1_u64, |count, &extent| count.checked_mul(extent))
            .and_then(|count| (count / ty.block.max(1)).checked_mul(ty.bytes))
            .ok_or_else(|| self.bad(&name, &format!("shape {shape:?} overflows")))?;
        Ok(Info { name, ty, shape, offset, len })
    }

    fn name(&mut self, most: u64, which: impl Fn() -> String) -> Result<String, Problem> {
        let length = self.u64(&which())?;
        if length > most {
            let what = format!("a name of {length} bytes is too long (at most {most})");
            return Err(self.bad(&which(), &what));
        }
        let range = self.skip(length, &which())?;
        match std::str::from_utf8(&self.bytes[range]) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(self.bad(&which(), "its name is not UTF-8")),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Problem> {
        let range = self.skip(N as u64, what)?;
        self.bytes[range].first_chunk().copied().ok_or(Problem::Short)
    }

    /// Skips the bytes of `what` and returns their range.
    fn skip(&mut self, count: u64, what: &str) -> Result<Range<usize>, Problem> {
        self.must_have(count, what)?;
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        match end.filter(|&end| end <= self.bytes.len()) {
            None => Err(Problem::Short),
            Some(end) => Ok(std::mem::replace(&mut self.at, end)..end),
        }
    }

    /// Refuses a length that goes beyond the end of the file.
    fn must_have(&self, count: u64, what: &str) -> Result<(), Problem> {
        let rest = self.file_len.saturating_sub(self.at as u64);
        if count > rest {
            return Err(self.bad(
                what,
                &format!("{count} bytes are needed, but the file has only {rest} more: truncated?"),
            ));
        }
        Ok(())
    }

    fn bad(&self, what: &str, why: &str) -> Problem {
        let what = json::clipped(what);
        Problem::Bad(format!("malformed header at byte {}, `{what}`: {why}", self.at))
    }
}

/// The shortest decimal for `value`: 1e-5 and not 9.99999974737875e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}
