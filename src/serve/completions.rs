//! `/v1/completions`: the fields of a text that is continued.

use serde_json::Value;

use super::{
    ask::{Asked, is_empty},
    echo::Echo,
    http::App,
    wire::{Fields, Refusal, whole, wrong},
};

/// Most prompts of a request.
const PROMPTS: usize = 8;

/// A prompt.
#[derive(Debug, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// Prompts, and what is asked to follow them.
pub(super) struct Completion {
    pub(super) prompts: Vec<Prompt>,
    pub(super) asked: Asked,
}

impl Completion {
    /// Takes all fields that this endpoint knows.
    ///
    /// # Errors
    ///
    /// Status 400 for a value that a field cannot have, and for what this server does not do.
    pub(super) fn read(app: &App, fields: &mut Fields) -> Result<Self, Refusal> {
        let echo = fields.flag("echo")?.unwrap_or(false);
        // The prompt alone may be what is wanted.
        let mut asked = Asked::read(app, fields, u32::from(!echo))?;
        asked.logprobs = fields.whole("logprobs", 0, 5)?;
        asked.echo = echo;
        fields.refuse_unless("suffix", is_empty, "the model was not made to fill gaps")?;
        let best = u64::from(asked.count);
        let same = |value: &Value| value.as_u64() == Some(best);
        fields.refuse_unless("best_of", same, "this server gives all texts that it makes")?;
        Ok(Self { prompts: prompts(app, fields)?, asked })
    }
}

fn prompts(app: &App, fields: &mut Fields) -> Result<Vec<Prompt>, Refusal> {
    const NAME: &str = "prompt";
    let wanted = format!(
        "a string, a list of token ids, or a list of 1 to {PROMPTS} of these; ids are below {}",
        app.model.tokenizer.vocab_size()
    );
    let Some(value) = fields.take(NAME) else {
        return Err(Refusal::value(NAME, format!("`{NAME}` is missing, expected {wanted}")));
    };
    let ids = |list: &[Value]| -> Option<Vec<u32>> {
        list.iter().map(|value| whole(value).filter(|&id| app.has_token(id))).collect()
    };
    let one = |value: &Value| match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(list) if !list.is_empty() => ids(list).map(Prompt::Ids),
        _ => None,
    };
    let many = |list: &[Value]| -> Option<Vec<Prompt>> {
        (1..=PROMPTS).contains(&list.len()).then(|| list.iter().map(one).collect())?
    };
    let prompts = match &value {
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            ids(list).map(|ids| vec![Prompt::Ids(ids)])
        }
        Value::Array(list) => many(list),
        text => one(text).map(|prompt| vec![prompt]),
    };
    prompts.ok_or_else(|| wrong(NAME, &value, wanted))
}

/// A prompt as text and as ids.
pub(super) fn encode(app: &App, prompt: Prompt) -> Result<Echo, Refusal> {
    let tokenizer = &app.model.tokenizer;
    Ok(match prompt {
        Prompt::Text(text) => Echo { ids: tokenizer.encode_prompt(&text)?, text },
        Prompt::Ids(ids) => Echo { text: tokenizer.decode_lossy(&ids)?, ids },
    })
}
