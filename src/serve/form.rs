//! What form an answer is to have: `response_format`, `tools` and `tool_choice`.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde_json::{Value, json};

use super::wire::{Fields, Refusal, wrong};
use crate::{
    base::error::Result,
    text::{
        chat::{Message, Role},
        constraint::Constraint,
        grammar::{CALL, Form, Function, Grammars},
        tokenizer::Tokenizer,
    },
};

/// Most functions of a request.
const TOOLS: usize = 128;

/// Forms that are kept compiled.
const KEPT: usize = 32;

/// The forms of answers, compiled.
#[derive(Default)]
pub(super) struct Forms {
    grammars: OnceLock<Grammars>,
    /// Those that were wanted last, with what they were made of as text: schemas are equal whatever
    /// the order of their fields, and their texts are not.
    kept: Mutex<VecDeque<(String, Arc<dyn Constraint>)>>,
}

impl Forms {
    /// Texts of this form, after the blank that models write.
    pub(super) fn of(&self, tokenizer: &Tokenizer, form: &Form) -> Result<Arc<dyn Constraint>> {
        let key = format!("{form:?}");
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = kept();
            if let Some(at) = kept.iter().position(|(other, _)| *other == key) {
                let found = kept.remove(at).expect("it is there");
                let constraint = Arc::clone(&found.1);
                kept.push_front(found);
                return Ok(constraint);
            }
        }
        let grammars = if let Some(grammars) = self.grammars.get() {
            grammars
        } else {
            let new = Grammars::new(tokenizer)?;
            self.grammars.get_or_init(|| new)
        };
        let constraint: Arc<dyn Constraint> = Arc::new(grammars.compile(form, true)?);
        let mut kept = kept();
        kept.push_front((key, Arc::clone(&constraint)));
        kept.truncate(KEPT);
        Ok(constraint)
    }
}

/// A function that an answer may call.
#[derive(Clone, Debug)]
struct Tool {
    function: Function,
    description: Option<String>,
}

/// What is asked of the form of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Prescribed {
    pub(super) form: Option<Form>,
    tools: Vec<Tool>,
}

impl Prescribed {
    /// Takes the fields that say what an answer is to be.
    ///
    /// # Errors
    ///
    /// Status 400 for values that they cannot have, and for choices that this server does not know.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        let json = response_format(fields)?;
        let tools = tools(fields)?;
        let choice = choice(fields, &tools)?;
        let functions = || tools.iter().map(|tool| tool.function.clone());
        let form = match choice {
            Choice::None => return Ok(Self { form: json, tools: Vec::new() }),
            Choice::Auto => {
                let schema = json.map(|json| match json {
                    Form::Schema(schema) => schema,
                    _ => json!({ "type": "object" }),
                });
                Form::MayCall(functions().collect(), schema)
            }
            Choice::Any => Form::Call(functions().collect()),
            Choice::One(name) => {
                Form::Call(functions().filter(|function| function.name == name).collect())
            }
        };
        Ok(Self { form: Some(form), tools })
    }

    /// Whether the answer may be a call.
    pub(super) fn calls(&self) -> bool {
        !self.tools.is_empty()
    }

    /// Tells the model what it may call, at the beginning of the conversation.
    pub(super) fn explain(&self, messages: &mut Vec<Message>) {
        if self.tools.is_empty() {
            return;
        }
        let mut text = format!(
            "You can call functions. To call one, answer {CALL}{{\"name\":NAME,\"arguments\":\
             ARGUMENTS}} and nothing after it. The functions are:"
        );
        for Tool { function: Function { name, parameters }, description } in &self.tools {
            let mut told = json!({ "name": name });
            if let Some(description) = description {
                told["description"] = description.as_str().into();
            }
            told["parameters"] = parameters.clone();
            let _ = write!(text, "\n{told}");
        }
        match messages.first_mut().filter(|first| first.role == Role::System) {
            Some(first) => first.content = format!("{}\n\n{text}", first.content),
            None => messages.insert(0, Message::new(Role::System, text)),
        }
    }
}

/// What of the functions is to be called.
enum Choice {
    None,
    Auto,
    Any,
    One(String),
}

fn response_format(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    const NAME: &str = "response_format";
    let Some(value) = fields.take(NAME) else { return Ok(None) };
    let mut format = Fields::within(NAME, value)?;
    let at = |name: &str| format!("{NAME}.{name}");
    let kind = format.text("type").map_err(|error| error.on(at("type")))?;
    match kind.as_deref() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Form::Object)),
        Some("json_schema") => {
            let inner = format.take("json_schema").unwrap_or_default();
            let mut inner = Fields::within(&at("json_schema"), inner)?;
            match inner.take("schema") {
                Some(schema @ (Value::Object(_) | Value::Bool(true))) => {
                    Ok(Some(Form::Schema(schema)))
                }
                other => {
                    let other = other.unwrap_or_default();
                    Err(wrong(&at("json_schema.schema"), &other, "a JSON schema"))
                }
            }
        }
        _ => {
            let wanted = "expected text, json_object or json_schema";
            Err(Refusal::value(at("type"), format!("`{}`: {wanted}", at("type"))))
        }
    }
}

fn tools(fields: &mut Fields) -> Result<Vec<Tool>, Refusal> {
    const NAME: &str = "tools";
    match fields.take(NAME) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= TOOLS => {
            let tools = list.into_iter().enumerate();
            let tools = tools.map(|(i, value)| tool(&format!("{NAME}[{i}]"), value));
            let tools = tools.collect::<Result<Vec<Tool>, _>>()?;
            let name = |tool: &Tool| tool.function.name.clone();
            let mut names: Vec<String> = tools.iter().map(name).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Refusal::value(NAME, "two of `tools` have the same name"));
            }
            Ok(tools)
        }
        Some(other) => Err(wrong(NAME, &other, format!("a list of up to {TOOLS} functions"))),
    }
}

fn tool(at: &str, value: Value) -> Result<Tool, Refusal> {
    let mut fields = Fields::within(at, value)?;
    let kind = fields.text("type").map_err(|error| error.on(format!("{at}.type")))?;
    if kind.as_deref() != Some("function") {
        let what = format!("`{at}.type` is not function, and this server knows no other tools");
        return Err(Refusal::unsupported(format!("{at}.type"), what));
    }
    let at = format!("{at}.function");
    let mut function = Fields::within(&at, fields.take("function").unwrap_or_default())?;
    let name = function.text("name").map_err(|error| error.on(format!("{at}.name")))?;
    let Some(name) = name.filter(|name| Function::is_name(name)) else {
        let what = format!("`{at}.name`: expected 1 to 64 letters, digits, _ and -");
        return Err(Refusal::value(format!("{at}.name"), what));
    };
    let description = function.text("description");
    let description = description.map_err(|error| error.on(format!("{at}.description")))?;
    let none = || json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let parameters = function.take("parameters").unwrap_or_else(none);
    if !parameters.is_object() {
        return Err(wrong(&format!("{at}.parameters"), &parameters, "a JSON schema"));
    }
    Ok(Tool { function: Function { name, parameters }, description })
}

fn choice(fields: &mut Fields, tools: &[Tool]) -> Result<Choice, Refusal> {
    const NAME: &str = "tool_choice";
    let usual = if tools.is_empty() { Choice::None } else { Choice::Auto };
    let Some(value) = fields.take(NAME) else { return Ok(usual) };
    let wanted = "none, auto, required, or a function by its name";
    let chosen = match value.as_str() {
        Some("none") => return Ok(Choice::None),
        Some("auto") => return Ok(usual),
        Some("required") => Choice::Any,
        Some(_) => return Err(wrong(NAME, &value, wanted)),
        None => {
            let named = value.pointer("/function/name").and_then(Value::as_str);
            let is_function = value.get("type").and_then(Value::as_str) == Some("function");
            match named.filter(|_| is_function) {
                Some(name) => Choice::One(name.to_owned()),
                None => return Err(wrong(NAME, &value, wanted)),
            }
        }
    };
    let there = match &chosen {
        Choice::One(name) => tools.iter().any(|tool| tool.function.name == *name),
        _ => !tools.is_empty(),
    };
    if !there {
        let what = format!("`{NAME}` asks for a call of what is not among `tools`");
        return Err(Refusal::value(NAME, what));
    }
    Ok(chosen)
}

/// Calls of an earlier answer, as the model has written them.
///
/// # Errors
///
/// Status 400 if they are no calls of functions.
pub(super) fn call_of(at: &str, calls: Value) -> Result<String, Refusal> {
    let Value::Array(calls) = calls else { return Err(wrong(at, &calls, "a list of calls")) };
    let mut text = String::new();
    for (i, value) in calls.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        let mut call = Fields::within(&at, value)?;
        call.text_of(&at, "id", "a string")?;
        let kind = call.text_of(&at, "type", "a string")?;
        if kind != "function" {
            return Err(wrong(&format!("{at}.type"), &kind.into(), "function"));
        }
        let at = format!("{at}.function");
        let mut function = Fields::within(&at, call.take("function").unwrap_or_default())?;
        let mut part = |name: &str| function.text_of(&at, name, "a string");
        let (name, arguments) = (Value::from(part("name")?), part("arguments")?);
        // What a model wrote before may be no JSON: then it is a text.
        let arguments = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
        let _ = write!(text, "{CALL}{{\"name\":{name},\"arguments\":{arguments}}}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::synthetic_tok_json;

    /// Members come in the order of the schema, so the order of its fields matters.
    #[test]
    fn forms_are_kept_by_all_that_they_say() {
        let json = synthetic_tok_json(700).expect("in range");
        let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid");
        let forms = Forms::default();
        let of = |text: &str| {
            let schema = serde_json::from_str(text).expect("JSON");
            forms.of(&tokenizer, &Form::Schema(schema)).expect("a grammar")
        };
        let schema = |first: &str, second: &str| {
            format!(
                "{{\"type\":\"object\",\"required\":[\"a\",\"b\"],\"properties\":\
                 {{\"{first}\":{{\"type\":\"null\"}},\"{second}\":{{\"type\":\"null\"}}}}}}"
            )
        };
        let [one, other] = [schema("a", "b"), schema("b", "a")];
        let first = of(&one);
        assert!(Arc::ptr_eq(&first, &of(&one)));
        assert!(!Arc::ptr_eq(&first, &of(&other)));
    }
}
