//! Parsing of untrusted JSON: no duplicate keys, bounded depth, errors with a position.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

/// Most characters of a name or value that an error message quotes.
const MAX_SHOWN: usize = 80;

/// Parses `text` as a JSON object. Refuses other values, and objects with duplicate fields.
pub(crate) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str::<Object>(text)
        .map(|object| object.0)
        .map_err(|error| explain(text.as_bytes(), &error))
}

/// The parser's message, with the likely cause where it is easy to tell.
fn explain(text: &[u8], error: &serde_json::Error) -> String {
    let mut what = format!("not the expected JSON: {error}");
    let at = offset(text, error);
    let near = &text[at.saturating_sub(2).min(text.len())..(at + 10).min(text.len())];
    if ["NaN", "nfinit"].iter().any(|word| near.windows(word.len()).any(|w| w == word.as_bytes())) {
        what += " (NaN and Infinity are not JSON, though Python writes them)";
    }
    what
}

/// The byte at which the parser stopped.
pub(crate) fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let line_start = text
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .nth(error.line().wrapping_sub(2))
        .unwrap_or(0);
    (line_start + error.column().saturating_sub(1)).min(text.len())
}

/// A name or value, cut to fit into a message, with control characters escaped.
pub(crate) fn clipped(text: &str) -> String {
    clipped_to(text, MAX_SHOWN)
}

/// As [`clipped`], with at most `most` characters.
pub(crate) fn clipped_to(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).flat_map(printable).collect();
    if text.chars().nth(most).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Escapes control characters, so that text of a file cannot send escape sequences to a terminal.
fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = if escaped.is_some() { None } else { Some(c) };
    escaped.into_iter().flatten().chain(plain)
}

/// A JSON value without duplicate fields.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        fields(map).map(Value::Object)
    }
}

fn fields<'de, A: MapAccess<'de>>(mut map: A) -> Result<Map<String, Value>, A::Error> {
    let mut fields = Map::new();
    while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
        match fields.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(entry) => {
                let name = clipped(entry.key());
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
        }
    }
    Ok(fields)
}

struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                fields(map).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}
