//! The machine that takes opcodes: a stack, marks and a memo.

use super::{
    PROTO, Pickled,
    objects::{Name, Object, Value, refused},
};

/// Most opcodes of a file. The release's files have about 120.
const MAX_OPCODES: usize = 1000;
/// Bytes of the longest text or name.
pub(super) const MAX_TEXT: usize = 200;
/// Most axes of an array.
pub(super) const MAX_AXES: usize = 8;
/// What an unfinished pickle has made.
#[derive(Debug, Default)]
pub(super) struct Machine {
    opcodes: usize,
    pub(super) stack: Vec<Value>,
    /// Lengths of the stack where marks are.
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    /// How many values were remembered without a number.
    remembered: usize,
    pub(super) objects: Vec<Object>,
}

/// What comes after an opcode.
pub(super) enum Step {
    /// The offset of the next opcode.
    Next(u64),
    /// The end, with what the file holds.
    Stop(Pickled),
}

/// The operand of an opcode, from bytes that may end too early.
struct Operand<'a> {
    rest: &'a [u8],
    used: u64,
}

impl<'a> Operand<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.rest.split_at_checked(bytes).ok_or("the file ends there: it is truncated")?;
        self.rest = rest;
        self.used += bytes as u64;
        Ok(taken)
    }

    /// An unsigned number of some bytes, at most 8.
    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A text after its length, which is a number of `bytes`.
    fn text(&mut self, bytes: usize) -> Result<String, String> {
        let len = self.number(bytes)?;
        let short = usize::try_from(len).ok().filter(|&len| len <= MAX_TEXT);
        let len = short.ok_or_else(|| format!("a text of {len} bytes is no name of an array's"))?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "a text is not UTF-8")?;
        Ok(text.to_owned())
    }

    /// A text that ends with its line.
    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().take(MAX_TEXT + 1).position(|&byte| byte == b'\n');
        let end = end.ok_or("a name does not end")?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "a name is not UTF-8".into())
    }
}

impl Machine {
    /// Takes the opcode at offset `at`, which `rest` begins with, of a file of `len` bytes.
    pub(super) fn step(&mut self, rest: &[u8], at: u64, len: u64) -> Result<Step, String> {
        self.opcodes += 1;
        let located = |what: String| format!("malformed pickle at byte {at}: {what}");
        if self.opcodes > MAX_OPCODES {
            return Err(located(format!("more than {MAX_OPCODES} opcodes for one tensor")));
        }
        let mut operand = Operand { rest, used: 0 };
        let opcode = operand.take(1).map_err(&located)?[0];
        if opcode == b'.' {
            return self.stop(at + 1, len).map(Step::Stop).map_err(located);
        }
        let bytes = self.opcode(opcode, &mut operand, at, len).map_err(located)?;
        Ok(Step::Next(at + operand.used + bytes))
    }

    /// Takes an opcode. Returns how many bytes of an array come after the operand.
    fn opcode(
        &mut self,
        opcode: u8,
        operand: &mut Operand<'_>,
        at: u64,
        len: u64,
    ) -> Result<u64, String> {
        match opcode {
            PROTO => {
                let protocol = operand.number(1)?;
                if at != 0 || !(2..=5).contains(&protocol) {
                    return Err(format!("protocol {protocol} begins there"));
                }
            }
            // The length of a frame only helps readers of streams.
            0x95 => {
                let frame = operand.number(8)?;
                room(frame, at + 1 + 8, len)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool(opcode == 0x88)),
            b'K' => self.int(operand, 1)?,
            b'M' => self.int(operand, 2)?,
            b'J' => {
                let bytes = operand.take(4)?.first_chunk().copied().unwrap_or_default();
                self.stack.push(Value::Int(i32::from_le_bytes(bytes).into()));
            }
            b'X' => self.text(operand, 4)?,
            0x8c => self.text(operand, 1)?,
            0x8d => self.text(operand, 8)?,
            b'C' | b'B' | 0x8e | 0x96 => {
                let width = match opcode {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                };
                let bytes = operand.number(width)?;
                let offset = at + operand.used;
                room(bytes, offset, len)?;
                self.stack.push(Value::Bytes { offset, len: bytes });
                return Ok(bytes);
            }
            b')' => self.stack.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
                let from = from.ok_or("a tuple needs more values than there are")?;
                self.tuple(from)?;
            }
            b't' => {
                let from = self.mark()?;
                self.tuple(from)?;
            }
            b'}' => self.object(Object::Dict(Vec::new())),
            b's' => {
                let [value, key] = [self.pop()?, self.pop()?];
                self.insert(&[key, value])?;
            }
            b'u' => {
                let from = self.mark()?;
                let items = self.stack.split_off(from);
                self.insert(&items)?;
            }
            b'q' => self.remember(operand, Some(1))?,
            b'r' => self.remember(operand, Some(4))?,
            0x94 => self.remember(operand, None)?,
            b'h' => self.recall(operand, 1)?,
            b'j' => self.recall(operand, 4)?,
            b'c' => {
                let module = operand.line()?;
                let name = operand.line()?;
                self.name(module, name)?;
            }
            0x93 => {
                let [name, module] = [self.pop()?, self.pop()?];
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a name is not text".into());
                };
                self.name(&module, &name)?;
            }
            b'R' => self.call()?,
            0x81 => self.new_object()?,
            b'b' => self.build()?,
            _ => return Err(unknown(opcode)),
        }
        Ok(0)
    }

    /// The length of the stack below which the values belong to something outside a mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Takes the last value that is not below a mark.
    pub(super) fn pop(&mut self) -> Result<Value, String> {
        let value = if self.stack.len() > self.floor() { self.stack.pop() } else { None };
        value.ok_or_else(|| "it needs a value, and there is none".into())
    }

    fn mark(&mut self) -> Result<usize, String> {
        self.marks.pop().ok_or_else(|| "it needs a mark, and there is none".into())
    }

    fn int(&mut self, operand: &mut Operand<'_>, bytes: usize) -> Result<(), String> {
        let number = operand.number(bytes)?;
        self.stack.push(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        Ok(())
    }

    fn text(&mut self, operand: &mut Operand<'_>, bytes: usize) -> Result<(), String> {
        let text = operand.text(bytes)?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    /// Makes a tuple of the values from the `from`-th on. Tuples of tuples would grow without end,
    /// if they were allowed: the only ones in such a file hold plain values.
    fn tuple(&mut self, from: usize) -> Result<(), String> {
        let items = self.stack.split_off(from);
        let nested = |item: &Value| matches!(item, Value::Tuple(items) if items.len() > MAX_AXES);
        let deep = |item: &Value| {
            matches!(item, Value::Tuple(items)
                if items.iter().any(|item| matches!(item, Value::Tuple(_))))
        };
        if items.len() > 2 * MAX_AXES || items.iter().any(|item| nested(item) || deep(item)) {
            return Err("a tuple has more values, or deeper ones, than those of an array".into());
        }
        self.stack.push(Value::Tuple(items));
        Ok(())
    }

    pub(super) fn object(&mut self, object: Object) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    /// Adds keys and values to the dictionary on the stack.
    fn insert(&mut self, items: &[Value]) -> Result<(), String> {
        let Some(Value::Object(index)) =
            self.stack.last().filter(|_| self.stack.len() > self.floor())
        else {
            return Err("there is no dictionary to add to".into());
        };
        let Some(Object::Dict(entries)) = self.objects.get_mut(*index) else {
            return Err("there is no dictionary to add to".into());
        };
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a key has no value".into());
        };
        entries.extend(pairs.iter().map(|[key, value]| (key.clone(), value.clone())));
        Ok(())
    }

    /// Keeps the last value in the memo: at a number of some bytes, or at the next one.
    fn remember(&mut self, operand: &mut Operand<'_>, bytes: Option<usize>) -> Result<(), String> {
        let number = match bytes {
            Some(bytes) => operand.number(bytes)?,
            None => self.remembered as u64,
        };
        let index = usize::try_from(number).ok().filter(|&index| index < MAX_OPCODES);
        let index = index.ok_or_else(|| format!("number {number} of the memo is too large"))?;
        let value = self.pop()?;
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(value.clone());
        self.remembered += 1;
        self.stack.push(value);
        Ok(())
    }

    fn recall(&mut self, operand: &mut Operand<'_>, bytes: usize) -> Result<(), String> {
        let number = operand.number(bytes)?;
        let value = usize::try_from(number).ok().and_then(|index| self.memo.get(index)?.clone());
        let value = value.ok_or_else(|| format!("the memo has no number {number}"))?;
        self.stack.push(value);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = Name::of(module, name).ok_or_else(|| refused(module, name))?;
        self.stack.push(Value::Name(known));
        Ok(())
    }

    /// The result, when the file ends where its pickle does.
    fn stop(&mut self, end: u64, len: u64) -> Result<Pickled, String> {
        let value = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err("values are left over at the end".into());
        }
        if end != len {
            return Err(format!("the pickle ends there, but {} more bytes follow", len - end));
        }
        let object = match value {
            Value::Object(index) => self.objects.get(index),
            _ => None,
        };
        match object {
            Some(Object::Array(Some(array))) => Ok(Pickled::Array(array.clone())),
            Some(Object::Quantized(Some((weight, scales)))) => {
                Ok(Pickled::Quantized { weight: weight.clone(), scales: scales.clone() })
            }
            _ => Err("the file holds neither an array nor a QuantizedWeight8bit".into()),
        }
    }
}

/// Checks that `bytes` at `offset` are in the file.
fn room(bytes: u64, offset: u64, len: u64) -> Result<(), String> {
    let rest = len.saturating_sub(offset);
    if bytes > rest {
        return Err(format!(
            "{bytes} bytes are to follow, but the file has only {rest} more: it is truncated \
             (an interrupted download?)"
        ));
    }
    Ok(())
}

/// The error for an opcode that is not read.
fn unknown(opcode: u8) -> String {
    const NAMES: &[(u8, &str)] = &[
        (b'i', "INST"),
        (b'o', "OBJ"),
        (b'P', "PERSID"),
        (b'Q', "BINPERSID"),
        (b']', "EMPTY_LIST"),
        (b'l', "LIST"),
        (b'a', "APPEND"),
        (b'e', "APPENDS"),
        (b'd', "DICT"),
        (b'G', "BINFLOAT"),
        (b'I', "INT"),
        (b'S', "STRING"),
        (b'T', "BINSTRING"),
        (b'U', "SHORT_BINSTRING"),
        (b'V', "UNICODE"),
        (0x82, "EXT1"),
        (0x83, "EXT2"),
        (0x84, "EXT4"),
        (0x8a, "LONG1"),
        (0x8b, "LONG4"),
        (0x92, "NEWOBJ_EX"),
        (0x97, "NEXT_BUFFER"),
        (0x98, "READONLY_BUFFER"),
    ];
    let name = NAMES.iter().find(|(known, _)| *known == opcode);
    let name = name.map_or(String::new(), |(_, name)| format!(" ({name})"));
    format!(
        "opcode {opcode:#04x}{name} is refused: a tensor of NumPy has none; nothing of the file \
         was run"
    )
}
