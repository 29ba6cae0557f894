//! `/v1/chat/completions`: the fields of a conversation.

use serde_json::Value;

use super::{
    ask::{Asked, is_empty, is_false},
    form::{Prescribed, call_of},
    http::App,
    wire::{Fields, Refusal, wrong},
};
use crate::text::{
    chat::{Message, Role, encode_chat},
    grammar::Form,
};

/// Most messages of a conversation.
const MESSAGES: usize = 4096;

/// A conversation, and what is asked of its next message.
pub(super) struct Chat {
    pub(super) messages: Vec<Message>,
    pub(super) asked: Asked,
}

impl Chat {
    /// Takes all fields that this endpoint knows.
    ///
    /// # Errors
    ///
    /// Status 400 for a value that a field cannot have, and for what this server does not do.
    pub(super) fn read(app: &App, fields: &mut Fields) -> Result<Self, Refusal> {
        refuse_what_is_missing(fields)?;
        let mut asked = Asked::read(app, fields, 1)?;
        let wanted = fields.flag("logprobs")?.unwrap_or(false);
        let top = fields.whole("top_logprobs", 0, 20)?;
        if !wanted && top.is_some_and(|top| top > 0) {
            let what = "`top_logprobs` needs `logprobs` to be true";
            return Err(Refusal::value("top_logprobs", what));
        }
        asked.logprobs = wanted.then(|| top.unwrap_or(0));
        let mut messages = messages(fields)?;
        let (prescribed, param) = (Prescribed::read(fields)?, "response_format");
        prescribed.explain(&mut messages);
        asked.calls = prescribed.calls();
        asked.forced = matches!(prescribed.form, Some(Form::Call(_)));
        let param = if asked.calls { "tools" } else { param };
        asked.constraint = prescribed
            .form
            .map(|form| app.forms.of(&app.model.tokenizer, &form))
            .transpose()
            .map_err(|error| Refusal::from(error).on(param))?;
        Ok(Self { messages, asked })
    }
}

/// Refuses fields that ask for what this server does not do; takes them if they do not.
fn refuse_what_is_missing(fields: &mut Fields) -> Result<(), Refusal> {
    let no_calls = |value: &Value| value.as_str() == Some("none");
    fields.refuse_unless("functions", is_empty, "it is the old form of `tools`: use that")?;
    let old = "it is the old form of `tool_choice`: use that";
    fields.refuse_unless("function_call", no_calls, old)?;
    let only_text = |value: &Value| {
        value.as_array().is_some_and(|list| list.iter().all(|one| one.as_str() == Some("text")))
    };
    fields.refuse_unless("modalities", only_text, "this server has text alone")?;
    for name in ["audio", "prediction", "web_search_options"] {
        fields.refuse_unless(name, |_| false, "this server does not do that")?;
    }
    fields.refuse_unless("store", is_false, "this server stores no answers")?;
    let none = |value: &Value| value.as_str() == Some("none");
    fields.refuse_unless("reasoning_effort", none, "the model has no such setting")
}

/// The messages of a conversation.
///
/// # Errors
///
/// Status 400 if there are none or too many, or one has a role or a content that the model cannot
/// have.
pub(super) fn messages(fields: &mut Fields) -> Result<Vec<Message>, Refusal> {
    const NAME: &str = "messages";
    let wanted = format!("a list of 1 to {MESSAGES} messages");
    match fields.take(NAME) {
        Some(Value::Array(list)) if (1..=MESSAGES).contains(&list.len()) => {
            let mut messages: Vec<Message> = Vec::new();
            let mut after_result = false;
            for (i, value) in list.into_iter().enumerate() {
                let (message, is_result) = message(i, value)?;
                match messages.last_mut().filter(|_| is_result && after_result) {
                    // Results of several calls are one message.
                    Some(last) => last.content = format!("{}\n{}", last.content, message.content),
                    None => messages.push(message),
                }
                after_result = is_result;
            }
            Ok(messages)
        }
        Some(Value::Array(list)) => {
            let what = format!("`{NAME}` has {} messages, expected {wanted}", list.len());
            Err(Refusal::value(NAME, what))
        }
        Some(other) => Err(wrong(NAME, &other, wanted)),
        None => Err(Refusal::value(NAME, format!("`{NAME}` is missing, expected {wanted}"))),
    }
}

/// A message, and whether it is the result of a call.
fn message(i: usize, value: Value) -> Result<(Message, bool), Refusal> {
    let at = |name: &str| format!("messages[{i}].{name}");
    let mut fields = Fields::within(&format!("messages[{i}]"), value)?;
    let name = fields.text("role").map_err(|error| error.on(at("role")))?;
    let (role, is_result) = match name.as_deref() {
        // What newer models call the role of the system.
        Some("system" | "developer") => (Role::System, false),
        Some("user") => (Role::User, false),
        Some("assistant") => (Role::Assistant, false),
        // Templates have no role for it.
        Some("tool") => (Role::User, true),
        Some("function") => {
            let what = format!("`{}` is function: results of calls have the role tool", at("role"));
            return Err(Refusal::unsupported(at("role"), what));
        }
        _ => {
            let wanted = "expected system, developer, user, assistant or tool";
            return Err(Refusal::value(at("role"), format!("`{}`: {wanted}", at("role"))));
        }
    };
    let call = match fields.take("tool_calls") {
        Some(calls) if role == Role::Assistant && !is_empty(&calls) => {
            Some(call_of(&at("tool_calls"), calls)?)
        }
        Some(calls) if !is_empty(&calls) => {
            return Err(wrong(&at("tool_calls"), &calls, "nothing: the role is not assistant"));
        }
        _ => None,
    };
    let mut content = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (j, part) in parts.into_iter().enumerate() {
                text.push_str(&text_of_part(&at(&format!("content[{j}]")), part)?);
            }
            text
        }
        None if call.is_some() => String::new(),
        other => {
            let other = other.unwrap_or_default();
            return Err(wrong(&at("content"), &other, "a string, or a list of parts"));
        }
    };
    if is_result {
        fields.text_of(&format!("messages[{i}]"), "tool_call_id", "the id of a call")?;
    }
    if let Some(call) = call {
        content.push_str(&call);
    } else if is_result {
        content = format!("<tool_response>{content}</tool_response>");
    }
    Ok((Message::new(role, content), is_result))
}

fn text_of_part(at: &str, value: Value) -> Result<String, Refusal> {
    let mut part = Fields::within(at, value)?;
    let kind = part.text("type").map_err(|error| error.on(format!("{at}.type")))?;
    match (kind.as_deref(), part.take("text")) {
        (Some("text"), Some(Value::String(text))) => Ok(text),
        (Some("text"), _) => {
            Err(Refusal::value(format!("{at}.text"), format!("`{at}.text` is no string")))
        }
        _ => {
            let what = format!("`{at}` is not of type text, and the model reads text alone");
            Err(Refusal::new(400, "unsupported_content", what).on(format!("{at}.type")))
        }
    }
}

/// The ids of a conversation, up to where the model answers.
pub(super) fn encode(app: &App, messages: &[Message]) -> Result<Vec<u32>, Refusal> {
    let model = &app.model;
    encode_chat(&model.tokenizer, model.scaffold, messages).map_err(Refusal::from)
}
