//! Where in a schema a fault is.

use serde_json::Value;

use super::first_line;

/// Schemas that are tried at most.
const TRIES: usize = 500;

/// Definitions, which each part of a schema may refer to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Keywords whose value is a schema, or a list of them.
const PARTS: [&str; 9] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "prefixItems",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "contains",
];

/// Keywords whose value has a schema for each name.
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// What is wrong with a schema, and with which part of it: the smallest that `fails` in the same
/// way. `None` if it does not fail.
pub(super) fn explain(
    name: &str,
    schema: &Value,
    fails: &dyn Fn(&Value) -> Option<String>,
) -> Option<String> {
    let fault = first_line(&fails(schema)?);
    let (mut at, mut path) = (schema, String::new());
    let mut left = TRIES;
    'deeper: loop {
        for (step, part) in parts(at) {
            left = left.saturating_sub(1);
            if left == 0 {
                break 'deeper;
            }
            if fails(&with_definitions(part, schema))
                .is_some_and(|other| first_line(&other) == fault)
            {
                (at, path) = (part, path + &step);
                continue 'deeper;
            }
        }
        break;
    }
    let place = if path.is_empty() { String::new() } else { format!(" at {path}") };
    Some(format!("{name}{place}: {fault}"))
}

/// The schemas that a schema consists of, with the way to them.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for keyword in PARTS {
        match schema.get(keyword) {
            Some(Value::Array(list)) => {
                let each = list.iter().enumerate();
                found.extend(each.map(|(i, part)| (format!("/{keyword}/{i}"), part)));
            }
            Some(part @ Value::Object(_)) => found.push((format!("/{keyword}"), part)),
            _ => {}
        }
    }
    for keyword in NAMED {
        let Some(Value::Object(named)) = schema.get(keyword) else { continue };
        // As a JSON pointer has them.
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        found.extend(
            named.iter().map(|(name, part)| (format!("/{keyword}/{}", escaped(name)), part)),
        );
    }
    found.retain(|(_, part)| part.is_object());
    found
}

/// A part of a schema, with the definitions of the whole.
fn with_definitions(part: &Value, whole: &Value) -> Value {
    let mut part = part.clone();
    for keyword in DEFINITIONS {
        if let (Some(all), Some(part)) = (whole.get(keyword), part.as_object_mut()) {
            part.entry(keyword).or_insert_with(|| all.clone());
        }
    }
    part
}
