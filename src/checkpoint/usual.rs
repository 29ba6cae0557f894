//! What the files beside a model say of its texts: which tokens begin and end them, how tokens are
//! usually sampled, and how a conversation is written. The files are those of Hugging Face's
//! transformers.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    base::{
        error::{Error, Result},
        json,
    },
    files::{Source, read_text},
    text::{chat::Template, sampler::Sampling, tokenizer::AroundConfig},
};

/// End token and sampling defaults.
const GENERATION: &str = "generation_config.json";

/// Special tokens by their use, whether they are put around a text, and often a chat template.
const TOKENIZER: &str = "tokenizer_config.json";

/// Special tokens by their use.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// The chat templates in files of their own, the one that counts first.
const TEMPLATES: [&str; 2] = ["chat_template.jinja", "chat_template.json"];

/// The files; each may be missing.
pub(super) const FILES: [&str; 5] =
    [GENERATION, TOKENIZER, SPECIAL_TOKENS, TEMPLATES[0], TEMPLATES[1]];

/// Bytes of the longest of them that is read. Some list every special token and a chat template.
const MAX_BYTES: u64 = 16 << 20;

/// Whether the file of this name is one of them.
pub(super) fn is_usual(name: &str) -> bool {
    FILES.contains(&name)
}

/// What the files say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Usual {
    /// Ids that end a text.
    pub(super) end_ids: Vec<u32>,
    /// Tokens that end a text, as they are spelt.
    pub(super) end_texts: Vec<String>,
    /// How tokens are sampled, where nobody says.
    pub(super) sampling: Sampling,
    /// What is put around each text.
    pub(super) around: AroundConfig,
    /// How conversations are written.
    pub(super) template: Option<Template>,
    /// What was not understood.
    pub(super) warnings: Vec<String>,
}

/// What holds for a model without such files.
impl Default for Usual {
    fn default() -> Self {
        Self {
            end_ids: Vec::new(),
            end_texts: Vec::new(),
            sampling: Sampling::USUAL,
            around: AroundConfig::default(),
            template: None,
            warnings: Vec::new(),
        }
    }
}

impl Usual {
    /// Reads `config`, the text of a `config.json`, and the files beside it. A file that makes no
    /// sense is a warning, as none is needed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be read.
    pub(super) async fn read<S: Source>(config: &str, files: &[S], vocab: u32) -> Result<Self> {
        let mut usual = Self::default();
        if let Ok(fields) = json::parse_object(config) {
            usual.ids("config.json", &fields, vocab);
        }
        // In the order of the list, in which the first to say something of a thing counts.
        let named = |name: &&str| files.iter().find(|file| file.name() == *name);
        for file in FILES.iter().filter_map(named) {
            let name = file.name();
            let text = match read_text(file, MAX_BYTES).await {
                Ok(text) => text,
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => {
                    usual.warnings.push(format!("{error}; it is not used"));
                    continue;
                }
            };
            if name == TEMPLATES[0] {
                usual.template = Some(Template { source: name.to_owned(), text });
                continue;
            }
            match json::parse_object(&text) {
                Ok(fields) if name == GENERATION => {
                    usual.ids(name, &fields, vocab);
                    usual.sampled(&fields);
                }
                Ok(fields) => {
                    usual.text(&fields);
                    if name == TOKENIZER {
                        usual.around.add_bos = fields.get("add_bos_token").and_then(Value::as_bool);
                        usual.around.add_eos = fields.get("add_eos_token").and_then(Value::as_bool);
                    }
                    if usual.around.bos.is_none() {
                        usual.around.bos = token(&fields, "bos_token");
                    }
                    usual.chat(name, &fields);
                }
                Err(what) => usual.warnings.push(format!("{name}: {what}; it is not used")),
            }
        }
        Ok(usual)
    }

    /// Adds `eos_token_id`: a number, a list of numbers, or null.
    fn ids(&mut self, file: &str, fields: &Map<String, Value>, vocab: u32) {
        let ids = match fields.get("eos_token_id") {
            None | Some(Value::Null) => return,
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        for id in ids {
            match id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id < vocab) {
                Some(id) => self.end_ids.push(id),
                None => self.warnings.push(format!(
                    "{file}: eos_token_id is {}, expected ids below {vocab}; it is not used",
                    json::clipped(&id.to_string())
                )),
            }
        }
    }

    /// Adds `eos_token`.
    fn text(&mut self, fields: &Map<String, Value>) {
        self.end_texts.extend(token(fields, "eos_token"));
    }

    /// Takes `chat_template`: a text, or a list of named ones, of which `default` counts. One in a
    /// file of its own counts more than one beside other settings.
    fn chat(&mut self, file: &str, fields: &Map<String, Value>) {
        let of = |named: &&Value| named["name"] == "default";
        let text = match fields.get("chat_template") {
            Some(Value::Array(list)) => {
                list.iter().find(of).or(list.first()).and_then(|named| named["template"].as_str())
            }
            template => template.and_then(Value::as_str),
        };
        let alone = file == TEMPLATES[1];
        let first = self.template.as_ref().is_none_or(|had| alone && had.source == TOKENIZER);
        if let Some(text) = text.filter(|_| first) {
            self.template = Some(Template { source: file.to_owned(), text: text.to_owned() });
        }
    }

    /// Takes the sampling settings that are in range.
    fn sampled(&mut self, fields: &Map<String, Value>) {
        self.take(fields, "temperature", |sampling, value| sampling.temperature = value);
        self.take(fields, "top_k", |sampling, value| sampling.top_k = value);
        self.take(fields, "top_p", |sampling, value| sampling.top_p = value);
        self.take(fields, "min_p", |sampling, value| sampling.min_p = value);
        let penalty = |sampling: &mut Sampling, value| sampling.repetition_penalty = value;
        self.take(fields, "repetition_penalty", penalty);
        if fields.get("do_sample") == Some(&Value::Bool(false)) {
            self.sampling.temperature = 0.0;
        }
    }

    fn take<T: DeserializeOwned>(
        &mut self,
        fields: &Map<String, Value>,
        name: &str,
        set: fn(&mut Sampling, T),
    ) {
        let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { return };
        let mut changed = self.sampling;
        let set = serde_json::from_value(value.clone()).map(|value| set(&mut changed, value));
        let problem = match set {
            Err(_) => format!("{name} is {}", json::clipped(&value.to_string())),
            Ok(()) => match changed.validate() {
                Ok(()) => {
                    self.sampling = changed;
                    return;
                }
                Err(error) => error.to_string(),
            },
        };
        self.warnings.push(format!("{GENERATION}: {problem}; it is not used"));
    }
}

/// A special token as it is spelt: a text, or an object with it.
fn token(fields: &Map<String, Value>, name: &str) -> Option<String> {
    let token = fields.get(name);
    let token = token.and_then(|token| token.get("content")).or(token);
    token.and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pollster::block_on;

    use super::*;

    struct Memory(&'static str, String);

    impl Source for Memory {
        fn name(&self) -> &str {
            self.0
        }

        fn path(&self) -> PathBuf {
            format!("model/{}", self.0).into()
        }

        fn len(&self) -> u64 {
            self.1.len() as u64
        }

        async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
            let at = usize::try_from(offset).expect("small");
            into.copy_from_slice(&self.1.as_bytes()[at..at + into.len()]);
            Ok(())
        }
    }

    fn read(config: &str, files: &[(&'static str, &str)]) -> Usual {
        let files: Vec<Memory> =
            files.iter().map(|&(name, text)| Memory(name, text.to_owned())).collect();
        block_on(Usual::read(config, &files, 100)).expect("readable")
    }

    #[test]
    fn ends_are_those_of_all_files() {
        let usual = read(
            r#"{"eos_token_id": 2}"#,
            &[
                (GENERATION, r#"{"eos_token_id": [7, 2, 9]}"#),
                ("tokenizer_config.json", r#"{"eos_token": {"content": "[EOS]"}}"#),
                ("special_tokens_map.json", r#"{"eos_token": "<stop>"}"#),
                ("other.json", r#"{"eos_token_id": 1}"#),
            ],
        );
        assert_eq!(usual.end_ids, [2, 7, 2, 9]);
        assert_eq!(usual.end_texts, ["[EOS]", "<stop>"]);
        assert_eq!((usual.sampling, usual.warnings), (Sampling::USUAL, Vec::new()));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let usual = read(
            r#"{"eos_token_id": null}"#,
            &[
                (
                    GENERATION,
                    r#"{"eos_token_id": [100, -1, "x", 3], "temperature": 7, "top_p": "a"}"#,
                ),
                ("tokenizer_config.json", "{"),
                ("special_tokens_map.json", r#"{"eos_token": 5}"#),
            ],
        );
        assert_eq!((usual.end_ids, usual.sampling), (vec![3], Sampling::USUAL));
        let told = usual.warnings.join("\n");
        for part in [
            "eos_token_id is 100, expected ids below 100",
            "eos_token_id is -1",
            "eos_token_id is \"x\"",
            "temperature is 7, expected 0 to 2",
            "top_p is \"a\"; it is not used",
            "tokenizer_config.json: not the expected JSON",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn beginnings_and_templates_are_those_of_the_files_that_count() {
        let map = ("special_tokens_map.json", r#"{"bos_token": "<other>"}"#);
        let beside = (
            "tokenizer_config.json",
            r#"{"add_bos_token": true, "add_eos_token": false, "bos_token": {"content": "<s>"},
                "chat_template": "beside"}"#,
        );
        // Whatever the order in which they are listed.
        for files in [[map, beside], [beside, map]] {
            let usual = read("{}", &files);
            let bos = Some("<s>".to_owned());
            let around = AroundConfig { add_bos: Some(true), add_eos: Some(false), bos };
            assert_eq!((usual.around, usual.warnings), (around, Vec::new()));
        }
        assert_eq!(read("{}", &[map]).around.bos.as_deref(), Some("<other>"));

        let list = r#"{"chat_template": [{"name": "a", "template": "first"}, 7]}"#;
        let alone = ("chat_template.json", r#"{"chat_template": "alone"}"#);
        let own = ("chat_template.jinja", "own");
        for (files, wanted) in [
            (&[][..], None),
            (&[beside], Some("beside")),
            (&[("tokenizer_config.json", list)], Some("first")),
            (&[beside, alone], Some("alone")),
            (&[own, beside, alone], Some("own")),
        ] {
            let found = read("{}", files).template.map(|template| template.text);
            assert_eq!(found.as_deref(), wanted);
        }
    }

    #[test]
    fn sampling_is_what_the_model_asks_for() {
        let given = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9,
            "min_p": 0.05, "repetition_penalty": 1.1, "max_new_tokens": 5}"#;
        let wanted = Sampling {
            temperature: 0.6,
            top_k: 20,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.1,
            seed: 0,
        };
        assert_eq!(read("{}", &[(GENERATION, given)]).sampling, wanted);
        let greedy = read("{}", &[(GENERATION, r#"{"do_sample": false, "top_k": null}"#)]);
        assert_eq!(greedy.sampling, Sampling { temperature: 0.0, ..Sampling::USUAL });
    }
}
