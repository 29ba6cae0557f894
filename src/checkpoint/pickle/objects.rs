//! The values of a pickle: names, element types, arrays; and how they are built.

use std::rc::Rc;

use super::{
    Array, Element,
    machine::{MAX_AXES, Machine},
};
use crate::base::json;

/// What is called and built. No other name is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Reconstruct,
    FromBuffer,
    Array,
    DType,
    BFloat16,
    QuantizedWeight,
}

impl Name {
    pub(super) fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            // NumPy 2 renamed its `core`.
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Some(Self::Reconstruct)
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Some(Self::FromBuffer),
            ("numpy", "ndarray") => Some(Self::Array),
            ("numpy", "dtype") => Some(Self::DType),
            ("ml_dtypes", "bfloat16") => Some(Self::BFloat16),
            // The release's own program puts the class into `__main__` before it reads.
            ("__main__" | "model", "QuantizedWeight8bit") => Some(Self::QuantizedWeight),
            _ => None,
        }
    }
}

/// A value on the stack. What Python changes in place is an [`Object`] that several may name.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Bytes { offset: u64, len: u64 },
    Tuple(Vec<Value>),
    Name(Name),
    Object(usize),
}

/// What a [`Value`] may name several times.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Dict(Vec<(Value, Value)>),
    /// An element type, and whether its byte order was told.
    DType(Element, bool),
    /// An array, when its state was told.
    Array(Option<Array>),
    Quantized(Option<(Array, Array)>),
}

impl Machine {
    /// What Python would call: here, one of three constructors.
    pub(super) fn call(&mut self) -> Result<(), String> {
        let [arguments, function] = [self.pop()?, self.pop()?];
        let (Value::Name(name), Value::Tuple(arguments)) = (function, arguments) else {
            return Err("what is called is not a function with its arguments".into());
        };
        let object = match (name, &arguments[..]) {
            (
                Name::Reconstruct,
                [Value::Name(Name::Array), Value::Tuple(_), Value::Bytes { .. }],
            ) => Object::Array(None),
            (
                Name::FromBuffer,
                [Value::Bytes { offset, len }, dtype, Value::Tuple(shape), Value::Text(order)],
            ) => {
                if &**order != "C" {
                    return Err(fortran());
                }
                Object::Array(Some(self.array(shape, dtype, *offset, *len)?))
            }
            (Name::DType, [which, Value::Bool(false), Value::Bool(true)]) => {
                let element = match which {
                    Value::Name(Name::BFloat16) => Element::BF16,
                    Value::Text(code) => element(code)?,
                    _ => return Err("a dtype of an unknown kind".into()),
                };
                Object::DType(element, false)
            }
            _ => return Err(format!("{name:?} is not called as NumPy does")),
        };
        self.object(object);
        Ok(())
    }

    /// An object of a class, without its state.
    pub(super) fn new_object(&mut self) -> Result<(), String> {
        let [arguments, class] = [self.pop()?, self.pop()?];
        match (class, arguments) {
            (Value::Name(Name::QuantizedWeight), Value::Tuple(none)) if none.is_empty() => {
                self.object(Object::Quantized(None));
                Ok(())
            }
            _ => Err("it makes an object that is not a QuantizedWeight8bit".into()),
        }
    }

    /// Gives the object on the stack its state.
    pub(super) fn build(&mut self) -> Result<(), String> {
        let [state, object] = [self.pop()?, self.pop()?];
        let Value::Object(index) = object else {
            return Err("the state is for a value that has none".into());
        };
        let built = match (self.objects.get(index), &state) {
            (Some(Object::DType(element, false)), Value::Tuple(state)) => {
                check_dtype(*element, state)?;
                Object::DType(*element, true)
            }
            (Some(Object::Array(None)), Value::Tuple(state)) => match &state[..] {
                [
                    Value::Int(1),
                    Value::Tuple(shape),
                    dtype,
                    Value::Bool(by_columns),
                    Value::Bytes { offset, len },
                ] => {
                    if *by_columns {
                        return Err(fortran());
                    }
                    Object::Array(Some(self.array(shape, dtype, *offset, *len)?))
                }
                _ => return Err("the state of an array is not NumPy's".into()),
            },
            (Some(Object::Quantized(None)), Value::Object(state)) => {
                Object::Quantized(Some(self.quantized(*state)?))
            }
            _ => return Err("the state does not fit the value".into()),
        };
        self.objects[index] = built;
        self.stack.push(Value::Object(index));
        Ok(())
    }

    fn array(
        &self,
        shape: &[Value],
        dtype: &Value,
        offset: u64,
        len: u64,
    ) -> Result<Array, String> {
        let object = |value: &Value| match value {
            Value::Object(index) => self.objects.get(*index),
            _ => None,
        };
        let element = match object(dtype) {
            Some(Object::DType(element, true)) => *element,
            _ => return Err("the element type of an array is unknown".into()),
        };
        let extent = |value: &Value| match value {
            Value::Int(extent) => u64::try_from(*extent).ok(),
            _ => None,
        };
        let shape: Option<Vec<u64>> = shape.iter().map(extent).collect();
        let shape = shape
            .filter(|shape| shape.len() <= MAX_AXES)
            .ok_or("the shape of an array is not a few numbers")?;
        let needed = shape.iter().try_fold(element.bytes(), |all, &extent| all.checked_mul(extent));
        if needed != Some(len) {
            return Err(format!(
                "an array of shape {shape:?} in {element} has {len} bytes, wanted {}",
                needed.map_or("far more".into(), |needed| needed.to_string())
            ));
        }
        Ok(Array { element, shape, offset, len })
    }

    /// The two arrays of the dictionary that a `QuantizedWeight8bit` gets as its state.
    fn quantized(&self, state: usize) -> Result<(Array, Array), String> {
        let Some(Object::Dict(entries)) = self.objects.get(state) else {
            return Err("the state of a QuantizedWeight8bit is not a dictionary".into());
        };
        let field = |name: &str| {
            let mut found =
                entries.iter().filter(|(key, _)| matches!(key, Value::Text(key) if **key == *name));
            match (found.next(), found.next()) {
                (Some((_, Value::Object(index))), None) => match self.objects.get(*index) {
                    Some(Object::Array(Some(array))) => Some(array.clone()),
                    _ => None,
                },
                _ => None,
            }
        };
        match (field("weight"), field("scales"), entries.len()) {
            (Some(weight), Some(scales), 2) => Ok((weight, scales)),
            _ => Err("a QuantizedWeight8bit has other fields than the arrays `weight` and \
                      `scales`"
                .into()),
        }
    }
}

/// Checks the state of an element type: version, byte order, and no fields.
fn check_dtype(element: Element, state: &[Value]) -> Result<(), String> {
    match state {
        [
            Value::Int(3),
            Value::Text(order),
            Value::None,
            Value::None,
            Value::None,
            Value::Int(_),
            Value::Int(_),
            Value::Int(_),
        ] => match &**order {
            "<" => Ok(()),
            "|" if element.bytes() == 1 => Ok(()),
            ">" => Err(format!("{element} is stored big-endian, wanted little-endian")),
            _ => Err("the byte order of an array is unknown".into()),
        },
        _ => Err("the state of a dtype is not NumPy's, or it has fields".into()),
    }
}

/// The element type of a `NumPy` code.
fn element(code: &str) -> Result<Element, String> {
    match code {
        "f4" => Ok(Element::F32),
        "f2" => Ok(Element::F16),
        "i1" => Ok(Element::I8),
        _ if code.starts_with('O') => Err("an array of Python objects is not read".into()),
        _ => Err(format!(
            "dtype `{}` is not read: float32, float16, bfloat16 and int8 are",
            json::clipped(code)
        )),
    }
}

fn fortran() -> String {
    "an array is stored by columns (Fortran order); write it again with numpy.ascontiguousarray"
        .into()
}

/// The error for a name that is not read.
pub(super) fn refused(module: &str, name: &str) -> String {
    let (module, name) = (json::clipped(module), json::clipped(name));
    let hint = if module.starts_with("jax") {
        "; a JAX array is read if it is stored with numpy.asarray"
    } else if module.starts_with("torch") {
        "; this is a PyTorch file: convert it to safetensors"
    } else if module == "_codecs" {
        "; protocol 2 has no bytes: write it again with protocol 4"
    } else {
        ""
    };
    format!(
        "it names `{module}.{name}`, which is refused; only arrays of NumPy and \
         QuantizedWeight8bit are read, and nothing of the file was run{hint}"
    )
}
