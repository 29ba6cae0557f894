//! Options for texts of a prescribed form.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::native::read_text,
    text::{
        constraint::Constraint,
        grammar::{Form, Grammars, MOST_BYTES},
        tokenizer::Tokenizer,
    },
};

#[derive(Args, Debug)]
#[group(id = "form", multiple = false)]
pub(super) struct FormOptions {
    /// Make a text that is JSON of the JSON schema in this file, without white space outside of
    /// strings
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Make a text that is a JSON object
    #[arg(long)]
    json_object: bool,
    /// Make a text that the grammar in this file describes, in Lark's notation
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl FormOptions {
    /// What texts must be, if these options say so.
    ///
    /// # Errors
    ///
    /// [`Error::Schema`] with the file and the place in it, errors of reading.
    pub(super) async fn constraint(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Arc<dyn Constraint>>> {
        let (file, form) = if let Some(path) = &self.schema {
            let text = read_text(path, MOST_BYTES as u64).await?;
            let schema = serde_json::from_str(&text)
                .map_err(|error| Error::format(path, format!("not a JSON schema: {error}")))?;
            (Some(path), Form::Schema(schema))
        } else if let Some(path) = &self.grammar {
            (Some(path), Form::Lark(read_text(path, MOST_BYTES as u64).await?))
        } else if self.json_object {
            (None, Form::Object)
        } else {
            return Ok(None);
        };
        // Models write a blank before an answer.
        let grammar = Grammars::new(tokenizer)?.compile(&form, true).map_err(|error| {
            match (error, file) {
                (Error::Schema(what), Some(path)) => {
                    Error::Schema(format!("{}: {what}", path.display()))
                }
                (error, _) => error,
            }
        })?;
        Ok(Some(Arc::new(grammar)))
    }
}
