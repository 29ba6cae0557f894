//! What a model's files put around each text: the token that begins one (BOS), and where they ask
//! for it, one that ends it.

use serde_json::Value;

use super::Tokenizer;
use crate::base::{error::Result, json};

/// Most tokens on either side of a text.
const MAX_AROUND: usize = 64;

/// Tokens that a model's files put around each text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Put before a text.
    pub before: Vec<u32>,
    /// Asked for after a text. They would end it, so they are not put after one that goes on.
    pub after: Vec<u32>,
}

/// What a model's `tokenizer_config.json` says of the tokens around a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AroundConfig {
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `bos_token`, as it is spelt.
    pub bos: Option<String>,
}

impl Around {
    /// What the `post_processor` of a `tokenizer.json` puts around a single text.
    ///
    /// The outer error is of a file that cannot be used, the inner one says why its template is not
    /// followed.
    pub(super) fn of_post_processor(processor: &Value) -> Result<Result<Self, String>, String> {
        let mut around = Self::default();
        // The crate tells the kinds apart by their fields, not by `type`.
        if let Some(processors) = processor.get("processors").and_then(Value::as_array) {
            for processor in processors {
                // Each takes what the one before made.
                let mut outer = match Self::of_post_processor(processor)? {
                    Ok(outer) => outer,
                    not_followed => return Ok(not_followed),
                };
                outer.before.append(&mut around.before);
                around.after.append(&mut outer.after);
                around.before = outer.before;
                around.check_length()?;
            }
        } else if let Some(pieces) = processor.get("single").and_then(Value::as_array) {
            let mut texts = 0;
            for piece in pieces {
                match piece["SpecialToken"]["id"].as_str() {
                    None => texts += 1,
                    Some(name) => {
                        let side = if texts == 0 { &mut around.before } else { &mut around.after };
                        side.extend(ids_of(name, &processor["special_tokens"][name]["ids"])?);
                    }
                }
                around.check_length()?;
            }
            if texts != 1 {
                return Ok(Err(format!(
                    "the template of `post_processor` has the text {texts} times, wanted once; it \
                     is not followed"
                )));
            }
        } else if let (Some(cls), Some(sep)) = (processor.get("cls"), processor.get("sep")) {
            around.before.extend(id_of(&cls[1]));
            around.after.extend(id_of(&sep[1]));
        }
        Ok(Ok(around))
    }

    fn check_length(&self) -> Result<(), String> {
        if self.before.len().max(self.after.len()) > MAX_AROUND {
            return Err(format!("`post_processor` puts more than {MAX_AROUND} tokens on a side"));
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

fn id_of(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The ids of a template's token.
fn ids_of(name: &str, ids: &Value) -> Result<Vec<u32>, String> {
    let ids = ids.as_array().ok_or_else(|| {
        format!(
            "`post_processor`: its template has \"{}\", which its special_tokens lack",
            json::clipped(name)
        )
    })?;
    Ok(ids.iter().filter_map(id_of).collect())
}

impl Tokenizer {
    /// The same tokenizer, which puts these tokens around each text.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::base::error::Error::Tokenizer) if one of them is no token.
    pub fn with_around(mut self, around: Around) -> Result<Self> {
        let mut ids = around.before.iter().chain(&around.after);
        if let Some(&odd) = ids.find(|&&id| self.check_id(id).is_err()) {
            return Err(self.error(format!(
                "token {odd} is put around each text, but there is no such token"
            )));
        }
        self.around = around;
        Ok(self)
    }

    /// The same tokenizer, with what a `tokenizer_config.json` says. Where the file of the
    /// tokenizer itself puts tokens around a text, that decides.
    #[must_use]
    pub fn with_around_config(mut self, config: &AroundConfig) -> Self {
        const FILE: &str = "tokenizer_config.json";
        let silent = self.around.is_empty();
        match config.add_bos {
            Some(true) if silent => {
                let bos = config.bos.as_deref();
                match bos.and_then(|bos| self.special(bos)) {
                    Some(id) => self.around.before.push(id),
                    None => self.warnings.push(format!(
                        "{FILE}: add_bos_token is true, but bos_token is {}; no token is put \
                         before a text",
                        bos.map_or_else(
                            || "missing".to_owned(),
                            |bos| format!("\"{}\", which is no special token", json::clipped(bos))
                        )
                    )),
                }
            }
            Some(false) if !self.around.before.is_empty() => self.warnings.push(format!(
                "{FILE}: add_bos_token is false, but {} puts {} before each text, and that is done",
                self.path.display(),
                self.spelt(&self.around.before)
            )),
            _ => {}
        }
        if config.add_eos == Some(true) && self.around.after.is_empty() {
            self.warnings.push(format!(
                "{FILE} wants an end token after each text (add_eos_token); it is not put there, \
                 as the text goes on"
            ));
        }
        self
    }

    /// The ids that a text for the model begins with. Empty for most tokenizers.
    pub fn begin_ids(&self) -> &[u32] {
        &self.around.before
    }

    /// What of the tokenizer's files is not followed, or contradicts itself.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        if !self.around.after.is_empty() {
            warnings.push(format!(
                "{} wants {} after each text; it is not put there, as the text goes on",
                self.path.display(),
                self.spelt(&self.around.after)
            ));
        }
        warnings
    }

    /// The ids of `text` as the model's files want a text to begin: with
    /// [`Tokenizer::begin_ids`], then those of [`Tokenizer::encode`]. A token that ends a text is
    /// not put after it.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(text).map(|ids| self.begin(ids))
    }

    /// The ids with [`Tokenizer::begin_ids`] before them, unless they begin so.
    pub fn begin(&self, ids: Vec<u32>) -> Vec<u32> {
        let before = self.begin_ids();
        if ids.starts_with(before) { ids } else { [before, &ids].concat() }
    }

    /// Tokens as they are spelt, for messages.
    pub fn spelt(&self, ids: &[u32]) -> String {
        let text = self.decode(ids).unwrap_or_default();
        format!("\"{}\"", json::clipped(&String::from_utf8_lossy(&text)))
    }
}
