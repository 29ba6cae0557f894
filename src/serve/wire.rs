//! The fields of a request, and errors as OpenAI's clients expect them.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use super::engine::{Failure, Refused, Why};
use crate::base::{
    error::Error,
    json::{clipped, parse_object},
};

/// Most names that are told as ignored, and bytes of them.
const IGNORED: (usize, usize) = (32, 1024);

/// Why a request is refused, or fails.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    /// The field that is wrong.
    pub(super) param: Option<String>,
    pub(super) message: String,
    /// Seconds after which it may be tried again.
    pub(super) retry_after: Option<u32>,
    /// Whether clients should not repeat it although its status says so.
    pub(super) is_final: bool,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, code, param: None, message, retry_after: None, is_final: false }
    }

    /// A field with a value that it cannot have.
    pub(super) fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_value", message).on(param)
    }

    /// Something that this server does not do.
    pub(super) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(400, "unsupported_parameter", message).on(param)
    }

    pub(super) fn on(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn finally(mut self) -> Self {
        self.is_final = true;
        self
    }

    /// The kind of error, by which clients choose their exception where there is no status.
    fn kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        } })
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::new(
                429,
                "queue_full",
                "as many requests wait as may; try again, or start the server with more --queue",
            )
            .retry_after(1),
            Refused::Stopping => Failure::Stopping.into(),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Stopping => {
                Self::new(503, "stopping", "the server is being shut down").retry_after(5)
            }
            Failure::DeviceLost(why) => {
                let what = format!("the GPU device was lost and could not be replaced: {why}");
                Self::new(503, "device_lost", what).retry_after(5)
            }
            Failure::NonFinite(what) => Self::new(500, "non_finite", what).finally(),
            Failure::Other(code @ ("context_length_exceeded" | "usage" | "tokenizer"), what) => {
                Self::new(400, code, what)
            }
            Failure::Other(code, what) => Self::new(500, code, what).finally(),
            Failure::Cancelled(Why::Late) => {
                Self::new(408, "timeout", "the request took longer than the server allows")
                    .finally()
            }
            Failure::Cancelled(Why::Slow) => {
                Self::new(408, "slow_reader", "the answer was not read in time").finally()
            }
            Failure::Cancelled(Why::Left) => {
                Self::new(499, "client_left", "the connection was closed")
            }
        }
    }
}

/// Errors of texts that cannot be encoded.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = if error.exit_code() == 3 || error.exit_code() == 2 { 400 } else { 500 };
        Self::new(status, error.code(), error.to_string())
    }
}

/// The fields of a JSON object that were not asked for yet.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a request's body.
    ///
    /// # Errors
    ///
    /// Status 400 if it is no JSON object, is nested more than 128 deep, or has a field twice.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |what: String| Refusal::new(400, "invalid_json", what);
        let text = std::str::from_utf8(body)
            .map_err(|error| bad(format!("the body is not UTF-8 text: {error}")))?;
        parse_object(text).map(Self).map_err(|what| bad(format!("the body is {what}")))
    }

    /// The fields of an object inside of another one; `param` is its name.
    pub(super) fn within(param: &str, value: Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(wrong(param, &other, "an object")),
        }
    }

    /// Takes a field; null is as good as none.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a number from `least` to `most`.
    pub(super) fn number(
        &mut self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, Refusal> {
        let wanted = || format!("a number from {least} to {most}");
        self.of(name, wanted, |value| {
            value.as_f64().filter(|number| (least..=most).contains(number))
        })
    }

    /// Takes a whole number from `least` to `most`.
    pub(super) fn whole(
        &mut self,
        name: &str,
        least: u32,
        most: u32,
    ) -> Result<Option<u32>, Refusal> {
        let wanted = || format!("a whole number from {least} to {most}");
        self.of(name, wanted, |value| {
            let number = whole(value)?;
            (least..=most).contains(&number).then_some(number)
        })
    }

    /// Takes true or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        self.of(name, || "true or false".to_owned(), Value::as_bool)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.of(name, || "a string".to_owned(), |value| value.as_str().map(str::to_owned))
    }

    /// Takes a text that must be there, of the object that is at this place in a request.
    pub(super) fn text_of(
        &mut self,
        at: &str,
        name: &str,
        wanted: &str,
    ) -> Result<String, Refusal> {
        let at = format!("{at}.{name}");
        let text = self.text(name).map_err(|error| error.on(at.as_str()))?;
        text.ok_or_else(|| wrong(&at, &Value::Null, wanted))
    }

    /// Takes a value of some kind.
    pub(super) fn of<T>(
        &mut self,
        name: &str,
        wanted: impl FnOnce() -> String,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| wrong(name, &value, wanted()))
    }

    /// Takes a field that has no effect.
    pub(super) fn accept(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Takes a field that may have only values that change nothing.
    pub(super) fn refuse_unless(
        &mut self,
        name: &str,
        harmless: impl FnOnce(&Value) -> bool,
        hint: &str,
    ) -> Result<(), Refusal> {
        match self.take(name) {
            Some(value) if !harmless(&value) => {
                let value = shown(&value);
                Err(Refusal::unsupported(name, format!("`{name}` is {value}: {hint}")))
            }
            _ => Ok(()),
        }
    }

    /// The names of fields that nobody asked for, as a header can have them.
    pub(super) fn ignored(&self) -> Option<String> {
        let mut names = String::new();
        let mut sorted: Vec<&String> = self.0.keys().collect();
        sorted.sort_unstable();
        for name in sorted.into_iter().take(IGNORED.0) {
            let plain = |c: char| c.is_ascii_graphic() && c != ',' && c != '"' && c != '\\';
            let name: String =
                name.chars().take(64).map(|c| if plain(c) { c } else { '?' }).collect();
            if names.len() + name.len() > IGNORED.1 {
                break;
            }
            if !names.is_empty() {
                names.push_str(", ");
            }
            names.push_str(&name);
        }
        (!self.0.is_empty()).then_some(names)
    }
}

/// A value that is not of the kind that a field wants.
pub(super) fn wrong(param: &str, value: &Value, wanted: impl Display) -> Refusal {
    let value = shown(value);
    Refusal::value(param, format!("`{param}` is {value}, expected {wanted}"))
}

/// A value in a message: texts, lists and objects by their kind alone, as they may be what nobody
/// else should read.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => clipped(&other.to_string()),
    }
}

/// A whole number that is not negative. JSON has one kind of numbers: 1.0 is whole, too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
pub(super) fn whole(value: &Value) -> Option<u32> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    (0.0..=f64::from(u32::MAX)).contains(&number).then_some(number as u32)
}
