//! Parser for the header of a safetensors file, in 64-bit arithmetic and for untrusted input.
//!
//! Pure: takes bytes, does no input or output. The `safetensors` crate counts bits in `usize`, and
//! so on wasm32 refuses tensors of 512 MiB and more.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{magic, names};
use crate::base::{json, tensor::DType};

/// Bytes of the length that comes before the header.
pub const LENGTH_BYTES: u64 = 8;
/// Bytes of the longest header that is read, which is the format's own limit.
pub const MAX_HEADER: u64 = 100_000_000;
/// Most axes of a tensor.
const MAX_RANK: usize = 8;
/// Most tensors of one file. Bounds the memory that a header of many small entries takes.
const MAX_TENSORS: usize = 200_000;
/// Bytes of the longest tensor name.
const MAX_NAME: usize = 1024;

/// Element type of a stored tensor. The engine supports few of the format's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredType {
    name: &'static str,
    bits: u64,
}

impl StoredType {
    const ALL: &[Self] = &[
        Self::new("BF16", 16),
        Self::new("F16", 16),
        Self::new("F32", 32),
        Self::new("BOOL", 8),
        Self::new("F4", 4),
        Self::new("F6_E2M3", 6),
        Self::new("F6_E3M2", 6),
        Self::new("F8_E4M3", 8),
        Self::new("F8_E4M3FNUZ", 8),
        Self::new("F8_E5M2", 8),
        Self::new("F8_E5M2FNUZ", 8),
        Self::new("F8_E8M0", 8),
        Self::new("U8", 8),
        Self::new("I8", 8),
        Self::new("U16", 16),
        Self::new("I16", 16),
        Self::new("U32", 32),
        Self::new("I32", 32),
        Self::new("U64", 64),
        Self::new("I64", 64),
        Self::new("F64", 64),
        Self::new("C64", 64),
    ];

    const fn new(name: &'static str, bits: u64) -> Self {
        Self { name, bits }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.name == name)
    }

    /// The format's name of the type.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The engine's type, if this one is supported.
    pub fn dtype(self) -> Option<DType> {
        match self.name {
            "F32" => Some(DType::F32),
            "F16" => Some(DType::F16),
            "BF16" => Some(DType::BF16),
            _ => None,
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub dtype: StoredType,
    /// Its extents, outermost first.
    pub shape: Vec<u64>,
    /// Its first byte, counted from the start of the file.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
}

/// The length of the header of a file of `file_len` bytes that begins with `start`.
///
/// `start` should hold the first 512 bytes of the file, if it has as many, so that the error can
/// name another format.
///
/// # Errors
///
/// What is wrong with the file.
pub fn header_len(start: &[u8], file_len: u64) -> Result<u64, String> {
    if let Some(what) = magic::recognize(start) {
        return Err(what.into());
    }
    let Some(length) = start.first_chunk::<8>() else {
        return Err(format!("the file is too short for a safetensors header ({file_len} bytes)"));
    };
    let header = u64::from_le_bytes(*length);
    let rest = file_len.saturating_sub(LENGTH_BYTES);
    if header > rest {
        return Err(format!(
            "the header should be {header} bytes long, but the file has only {rest} bytes after \
             its length: it is truncated or not a safetensors file"
        ));
    }
    if header > MAX_HEADER {
        return Err(format!("a header of {header} bytes is too large (at most {MAX_HEADER})"));
    }
    if header < 2 {
        return Err(format!("malformed header at byte 8: it is {header} bytes long"));
    }
    Ok(header)
}

/// Parses the header of a file of `file_len` bytes. Entries are sorted by the offset of their data,
/// which covers the rest of the file exactly, without gaps or overlaps.
///
/// # Errors
///
/// The problem, with the byte of the file or the tensor.
pub fn parse(header: &[u8], file_len: u64) -> Result<Vec<Entry>, String> {
    let text = std::str::from_utf8(header).map_err(|error| {
        format!("malformed header: not UTF-8 at byte {}", LENGTH_BYTES + error.valid_up_to() as u64)
    })?;
    if !text.starts_with('{') {
        return Err("malformed header at byte 8: it does not begin with `{`".into());
    }
    let Header(mut entries) = serde_json::from_str(text).map_err(|error| {
        let at = LENGTH_BYTES + json::offset(header, &error) as u64;
        format!("malformed header at byte {at}: {}", json::clipped_to(&error.to_string(), 400))
    })?;
    names::refuse_duplicates(entries.iter().map(|entry| entry.name.as_str()))?;
    place(&mut entries, LENGTH_BYTES + header.len() as u64, file_len)?;
    Ok(entries)
}

/// Checks shapes against the numbers of bytes, and turns offsets into offsets from the start of the
/// file.
fn place(entries: &mut [Entry], data: u64, file_len: u64) -> Result<(), String> {
    entries.sort_by_key(|entry| (entry.offset, entry.len));
    let available = file_len.saturating_sub(data);
    let mut next = 0_u64;
    for entry in &mut *entries {
        let Entry { name, dtype, shape, offset, len } = entry;
        let name = json::clipped(name);
        let bits = shape
            .iter()
            .try_fold(1_u64, |count, &extent| count.checked_mul(extent))
            .and_then(|count| count.checked_mul(dtype.bits))
            .ok_or_else(|| format!("`{name}`: shape {shape:?} of {} overflows", dtype.name))?;
        if bits % 8 != 0 {
            return Err(format!(
                "`{name}`: shape {shape:?} of {} is not a whole number of bytes",
                dtype.name
            ));
        }
        if *len != bits / 8 {
            return Err(format!(
                "`{name}`: data_offsets hold {len} bytes, but shape {shape:?} of {} needs {}",
                dtype.name,
                bits / 8
            ));
        }
        if *offset != next {
            let kind = if *offset > next { "a hole before it" } else { "an overlap" };
            return Err(format!(
                "`{name}`: data_offsets begin at {offset}, wanted {next}: there is {kind}"
            ));
        }
        next =
            offset.checked_add(*len).ok_or_else(|| format!("`{name}`: data_offsets overflow"))?;
        *offset = data.checked_add(*offset).ok_or_else(|| format!("`{name}`: offset overflows"))?;
    }
    match available.cmp(&next) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(format!(
            "the file is shorter than its header says: it has {available} bytes of data, needs \
             {next} (an interrupted download?)"
        )),
        std::cmp::Ordering::Greater => Err(format!(
            "the file is longer than its header says: it has {available} bytes of data, needs \
             {next}"
        )),
    }
}

/// The entries as stored; offsets count from the start of the data.
struct Header(Vec<Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = Vec::new();
        let mut metadata = false;
        while let Some(Name(name)) = map.next_key()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata, true) {
                    return Err(A::Error::custom("duplicate `__metadata__`"));
                }
                // The safetensors library takes null for no metadata.
                map.next_value::<Option<StringMap>>()?;
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            let info: Info<'_> = map.next_value().map_err(|error| {
                A::Error::custom(format!("`{}`: {error}", json::clipped(&name)))
            })?;
            entries.push(info.entry(name).map_err(A::Error::custom)?);
        }
        Ok(Header(entries))
    }
}

/// A tensor's name, copied only after its length is checked.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tensor's name")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name, E> {
                if name.len() > MAX_NAME {
                    return Err(E::custom(format!(
                        "a tensor's name of {} bytes is too long (at most {MAX_NAME})",
                        name.len()
                    )));
                }
                Ok(Name(name.to_owned()))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Extents,
    data_offsets: (u64, u64),
}

impl Info<'_> {
    fn entry(self, name: String) -> Result<Entry, String> {
        let dtype = StoredType::named(&self.dtype).ok_or_else(|| {
            format!(
                "unsupported dtype {} for `{}`",
                json::clipped(&self.dtype),
                json::clipped(&name)
            )
        })?;
        let (begin, end) = self.data_offsets;
        let len = end.checked_sub(begin).ok_or_else(|| {
            format!("`{}`: data_offsets end at {end}, before {begin}", json::clipped(&name))
        })?;
        Ok(Entry { name, dtype, shape: self.shape.0, offset: begin, len })
    }
}

/// A shape. Shapes with too many axes are refused while they are parsed.
struct Extents(Vec<u64>);

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ExtentsVisitor;
        impl<'de> Visitor<'de> for ExtentsVisitor {
            type Value = Extents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Extents, A::Error> {
                let mut extents = Vec::new();
                while let Some(extent) = seq.next_element()? {
                    if extents.len() == MAX_RANK {
                        return Err(A::Error::custom(format!("more than {MAX_RANK} axes")));
                    }
                    extents.push(extent);
                }
                extents.shrink_to_fit();
                Ok(Extents(extents))
            }
        }
        deserializer.deserialize_seq(ExtentsVisitor)
    }
}

/// `__metadata__`: a map of strings to strings, checked and dropped.
struct StringMap;

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringMapVisitor;
        impl<'de> Visitor<'de> for StringMapVisitor {
            type Value = StringMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings in `__metadata__`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
                while map.next_entry::<AnyString, AnyString>()?.is_some() {}
                Ok(StringMap)
            }
        }
        deserializer.deserialize_map(StringMapVisitor)
    }
}

/// A string that is checked and dropped.
struct AnyString;

impl<'de> Deserialize<'de> for AnyString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyStringVisitor;
        impl Visitor<'_> for AnyStringVisitor {
            type Value = AnyString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<AnyString, E> {
                Ok(AnyString)
            }
        }
        deserializer.deserialize_str(AnyStringVisitor)
    }
}
