//! Endpoints that translate texts and ids, in the shapes of llama.cpp's server.

use serde_json::{Value, json};

use super::{
    chat,
    http::App,
    wire::{Fields, Refusal, whole, wrong},
};

/// `/tokenize`: the ids of a text. What looks like a special token in it stays text.
pub(super) fn tokenize(app: &App, fields: &mut Fields) -> Result<Value, Refusal> {
    let tokenizer = &app.model.tokenizer;
    let Some(text) = fields.text("content")? else {
        return Err(Refusal::value("content", "`content` is missing, expected a string"));
    };
    let special = |value: &Value| value.as_bool() == Some(false);
    fields.refuse_unless("parse_special", special, "special tokens in a text stay text here")?;
    let begins = fields.flag("add_special")?.unwrap_or(false);
    let pieces = fields.flag("with_pieces")?.unwrap_or(false);
    let ids = if begins { tokenizer.encode_prompt(&text)? } else { tokenizer.encode(&text)? };
    if !pieces {
        return Ok(json!({ "tokens": ids }));
    }
    let piece = |id: u32| -> Result<Value, Refusal> {
        let bytes = tokenizer.token_bytes(id)?;
        let text = std::str::from_utf8(&bytes);
        Ok(json!({ "id": id, "piece": text.map_or_else(|_| json!(bytes), Value::from) }))
    };
    let tokens: Vec<Value> = ids.into_iter().map(piece).collect::<Result<_, _>>()?;
    Ok(json!({ "tokens": tokens }))
}

/// `/detokenize`: the text of ids.
pub(super) fn detokenize(app: &App, fields: &mut Fields) -> Result<Value, Refusal> {
    const NAME: &str = "tokens";
    let id = |value: &Value| whole(value).filter(|&id| app.has_token(id));
    let wanted = format!("a list of token ids below {}", app.model.tokenizer.vocab_size());
    let value = fields.take(NAME).unwrap_or_default();
    let ids: Option<Vec<u32>> = value.as_array().and_then(|list| list.iter().map(id).collect());
    let ids = ids.ok_or_else(|| wrong(NAME, &value, wanted))?;
    Ok(json!({ "content": app.model.tokenizer.decode_lossy(&ids)? }))
}

/// `/apply-template`: a conversation as the model sees it.
pub(super) fn apply_template(app: &App, fields: &mut Fields) -> Result<Value, Refusal> {
    let ids = chat::encode(app, &chat::messages(fields)?)?;
    Ok(json!({ "prompt": app.model.tokenizer.decode_lossy(&ids)?, "tokens": ids }))
}
