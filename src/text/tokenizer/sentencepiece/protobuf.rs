//! Reads protobuf messages, as far as a SentencePiece model needs: a message is a list of fields,
//! and a field a number with a value.
//!
//! The crates for protobuf generate types from a schema, with tools of their own at build time, for
//! what is fifteen fields here.

/// A field's value by its wire type. Eight bytes at once are skipped: no field here has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// An integer, an enum or a truth value.
    Varint(u64),
    /// Eight bytes.
    Fixed64,
    /// A string, bytes, or another message; and where it begins in the file.
    Bytes(&'a [u8], usize),
    /// Four bytes: a float.
    Fixed32(u32),
}

/// The fields of a message, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the file, for messages.
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message `bytes`, which begins at byte `at` of the file.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { rest: bytes, at }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let short = || {
            format!(
                "a value at byte {} has {len} bytes, but only {} are left; the file is cut short \
                 or no SentencePiece model",
                self.at,
                self.rest.len()
            )
        };
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(short)?;
        self.rest = rest;
        self.at += len;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let from = self.at;
        let mut value = 0;
        // Ten groups of seven bits, the least first; a tenth one has a single bit.
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.take(1)?[0]);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("the number at byte {from} has more than 64 bits"))
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let from = self.at;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(format!("byte {from} begins a field number {number}, which none has"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let start = self.at;
                Value::Bytes(self.take(len)?, start)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(bytes.iter().rev().fold(0, |sum, &b| sum << 8 | u32::from(b)))
            }
            other => {
                return Err(format!("field {number} at byte {from} has wire type {other}"));
            }
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    /// The next field. After an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, String> {
        Fields::new(bytes, 0).collect()
    }

    #[test]
    fn every_wire_type() {
        let bytes = b"\x08\x96\x01\x12\x02hi\x1d\0\0\x80\x3f\x21\0\0\0\0\0\0\0\0\xfa\x01\0";
        let wanted = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi", 5)),
            (3, Value::Fixed32(1f32.to_bits())),
            (4, Value::Fixed64),
            (31, Value::Bytes(b"", 24)),
        ];
        assert_eq!(read(bytes).expect("good"), wanted);
        let least = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(read(least).expect("good"), [(1, Value::Varint(u64::MAX))]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (bytes, told) in [
            (&b"\x08"[..], "value at byte 1 has 1 bytes, but only 0 are left"),
            (b"\x12\x05abc", "value at byte 2 has 5 bytes, but only 3 are left"),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "but only 0 are left"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "at byte 1 has more than 64 bits"),
            (b"\x0b", "field 1 at byte 0 has wire type 3"),
            (b"\x0f", "field 1 at byte 0 has wire type 7"),
            (b"\x00\x00", "a field number 0"),
        ] {
            let error = read(bytes).expect_err("refused");
            assert!(error.contains(told), "{bytes:?}: {error}");
        }
    }
}
