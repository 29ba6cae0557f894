//! How conversations are written for a model: a table of scaffolds, and whether the chat template
//! that a model brings is one of them.
//!
//! There is no interpreter of templates, which are programs. One is taken for a scaffold's if both
//! write the same texts: each quoted text of the template is made of the scaffold's own, and each
//! of the scaffold's own is in a quoted text. Blanks are not compared, nor the names of roles and
//! fields, comments, and what is only said in an error. So a template with another label, another
//! special token or a system text of its own is another one.

use super::{chat::Role, tokenizer::Tokenizer};
use crate::base::error::{Error, Result};

/// How the turns of a conversation are written. Texts may have the special tokens that `specials`
/// lists.
#[derive(Debug, PartialEq, Eq)]
pub struct Scaffold {
    /// Its name, as options take it.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Before a turn of the system, the user and the assistant.
    labels: [&'static str; 3],
    /// After a turn.
    pub(super) end: &'static str,
    /// Before the answer.
    pub(super) answer: &'static str,
    /// The special tokens in these texts.
    pub(super) specials: &'static [&'static str],
    /// Whether blanks around messages of the system and the user are left out.
    pub(super) trims: bool,
}

impl Scaffold {
    /// Grok-2's.
    pub const GROK_2: Self = Self {
        name: "grok-2",
        about: "Grok-2's: the turns have labels and end with <|separator|>",
        labels: ["System: ", "Human: ", "Assistant: "],
        end: "<|separator|>\n\n",
        // Without a space at the end: the answer starts with one.
        answer: "Assistant:",
        specials: &["<|separator|>"],
        trims: true,
    };

    /// For models that were trained on texts alone, such as Grok-1.
    pub const PLAIN: Self = Self {
        name: "plain",
        about: "the messages as they are, with an empty line after each",
        labels: [""; 3],
        end: "\n\n",
        answer: "",
        specials: &[],
        trims: false,
    };

    /// All of them; the first is used where nothing says which.
    pub const ALL: [&'static Self; 2] = [&Self::GROK_2, &Self::PLAIN];

    /// The scaffold of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is none.
    pub fn named(name: &str) -> Result<&'static Self> {
        Self::ALL.into_iter().find(|scaffold| scaffold.name == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|scaffold| scaffold.name).collect();
            let name: String = name.chars().take(40).collect();
            Error::Usage(format!("template is {name:?}, expected {}", names.join(" or ")))
        })
    }

    pub(super) fn label(&self, role: Role) -> &'static str {
        match role {
            Role::System => self.labels[0],
            Role::User => self.labels[1],
            Role::Assistant => self.labels[2],
        }
    }

    /// What it writes, without blanks around, and its special tokens apart from other text.
    fn texts(&self) -> Vec<&'static str> {
        let mut texts: Vec<&'static str> = self.specials.to_vec();
        for text in self.labels.into_iter().chain([self.end, self.answer]) {
            let mut parts = vec![text];
            for special in self.specials {
                parts = parts.into_iter().flat_map(|part| part.split(special)).collect();
            }
            texts.extend(parts.into_iter().map(str::trim).filter(|part| !part.is_empty()));
        }
        // The longest first, as one may begin with another.
        texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        texts
    }

    /// Whether a template writes what this scaffold does; one without texts of its own is never
    /// recognized.
    fn is(&self, template: &str, begins: bool) -> bool {
        let texts = self.texts();
        let Some(found) = read(template) else { return false };
        let known = |text: &str| {
            let mut rest = text.to_owned();
            for own in &texts {
                rest = rest.replace(own, " ");
            }
            rest.trim().is_empty() || WORDS.contains(&rest.trim())
        };
        let says = |own: &&str| found.texts.iter().any(|text| text.contains(*own));
        !texts.is_empty()
            && found.texts.iter().all(|text| known(text))
            && texts.iter().all(says)
            && (begins || !found.names.contains(&"bos_token"))
            && !found.names.contains(&"eos_token")
    }
}

/// A chat template that a model brings: a program in Jinja.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The file or key that has it.
    pub source: String,
    /// The program.
    pub text: String,
}

/// The scaffold for a model.
#[derive(Debug)]
pub struct Choice {
    /// The scaffold.
    pub scaffold: &'static Scaffold,
    /// What to tell of it: the model's own template is another one.
    pub warning: Option<String>,
}

/// The scaffold for a model that brings this template: the one that was `asked` for, else the one
/// that the template is, else the first.
pub fn choose(
    tokenizer: &Tokenizer,
    template: Option<&Template>,
    asked: Option<&'static Scaffold>,
) -> Choice {
    let begins = !tokenizer.begin_ids().is_empty();
    let first = Scaffold::ALL[0];
    let (scaffold, warning) = match (asked, template) {
        (Some(asked), _) => (asked, None),
        (None, None) => (first, None),
        (None, Some(Template { source, text })) => {
            match Scaffold::ALL.into_iter().find(|scaffold| scaffold.is(text, begins)) {
                Some(scaffold) => (scaffold, None),
                None => (first, Some(another(source, first))),
            }
        }
    };
    Choice { scaffold, warning }
}

fn another(source: &str, used: &Scaffold) -> String {
    let others = Scaffold::ALL.iter().filter(|scaffold| **scaffold != used);
    let others: Vec<String> =
        others.map(|scaffold| format!("\"{}\" ({})", scaffold.name, scaffold.about)).collect();
    format!(
        "the model brings a chat template ({source}) that is none of those built in, and templates \
         are not run: conversations are written with \"{}\", which may make answers worse; the \
         option `template` chooses another: {}",
        used.name,
        others.join(", ")
    )
}

/// Words that templates compare and look up, and do not write.
const WORDS: [&str; 12] = [
    "role",
    "content",
    "system",
    "user",
    "assistant",
    "message",
    "messages",
    "text",
    "type",
    "name",
    "default",
    "string",
];

/// What a template has of texts and names.
struct Found<'t> {
    /// Its quoted texts, and what stands outside of its statements.
    texts: Vec<String>,
    names: Vec<&'t str>,
}

/// Reads the texts and names of a template; `None` if a statement or a text has no end.
fn read(template: &str) -> Option<Found<'_>> {
    let mut found = Found { texts: Vec::new(), names: Vec::new() };
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (outside, from) = rest.split_at(at);
        let end = match from.as_bytes().get(1) {
            Some(b'#') => {
                found.texts.push(outside.to_owned());
                rest = &from[from.find("#}")? + 2..];
                continue;
            }
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            _ => {
                found.texts.push(rest[..=at].to_owned());
                rest = &rest[at + 1..];
                continue;
            }
        };
        found.texts.push(outside.to_owned());
        rest = statement(&from[2..], end, &mut found)?;
    }
    found.texts.push(rest.to_owned());
    Some(found)
}

/// Reads a statement up to its `end`, and returns what follows.
fn statement<'t>(text: &'t str, end: &str, found: &mut Found<'t>) -> Option<&'t str> {
    let mut rest = text;
    let mut error = false;
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return Some(after);
        }
        let first = rest.chars().next()?;
        if first == '"' || first == '\'' {
            let (text, after) = quoted(rest, first)?;
            if !error {
                found.texts.push(text);
            }
            rest = after;
        } else if first.is_alphabetic() || first == '_' {
            let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(len);
            error |= name == "raise_exception";
            found.names.push(name);
            rest = after;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
}

/// The text in quotes at the beginning, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut said = String::new();
    let mut chars = text[1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => said.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            c if c == quote => return Some((said, &text[1 + at + 1..])),
            c => said.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::{Around, synthetic_tok_json};

    /// The template of the program that Grok-2 was released for.
    const RELEASED: &str = "{% for message in messages %}{% if message['role'] == 'user' %}\
        {{ 'Human: ' + message['content'].strip() + '<|separator|>\\n\\n' }}\
        {% elif message['role'] == 'system' %}\
        {{ 'System: ' + message['content'].strip() + '<|separator|>\\n\\n' }}\
        {% elif message['role'] == 'assistant' %}\
        {{ 'Assistant: '  + message['content'] + '<|separator|>\\n\\n' }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

    fn tokenizer() -> Tokenizer {
        let json = synthetic_tok_json(300).expect("in range");
        Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
    }

    fn chosen(tokenizer: &Tokenizer, text: &str) -> Choice {
        let template = Template { source: "chat_template.jinja".into(), text: text.into() };
        choose(tokenizer, Some(&template), None)
    }

    #[test]
    fn the_released_template_is_known_in_other_words() {
        let tokenizer = tokenizer();
        let commented = format!(
            "{{# Fixed. #}}\n{RELEASED}\n{{%- if 0 %}}{{{{ raise_exception('no!') }}}}{{% endif %}}"
        );
        let double = RELEASED.replace('\'', "\"");
        let plain = RELEASED.replace("'<|separator|>\\n\\n'", "'<|separator|>' + '\\n\\n'");
        for text in [RELEASED, &commented, &double, &plain] {
            let choice = chosen(&tokenizer, text);
            assert_eq!((choice.scaffold.name, choice.warning), ("grok-2", None), "{text}");
        }
        assert_eq!(choose(&tokenizer, None, None).warning, None);
    }

    #[test]
    fn another_template_is_told() {
        let tokenizer = tokenizer();
        let instructed =
            "{% for m in messages %}{{ '[INST]' + m.content + '[/INST]' }}{% endfor %}";
        for text in [
            instructed,
            "",
            "{{ 'Human: ",
            "{% for m in messages %}{{ m.content + '\\n\\n' }}{% endfor %}",
            &RELEASED.replace("Human", "User"),
            &RELEASED.replace("'System: '", "'System: You are Grok. '"),
            &RELEASED.replace("{{ 'Assistant:' }}", "{{ 'Assistant:<|eos|>' }}"),
            &RELEASED.replace("'<|separator|>\\n\\n'", "eos_token"),
            &format!("{{{{ bos_token }}}}{RELEASED}"),
            &format!("Be brief.{RELEASED}"),
        ] {
            let choice = chosen(&tokenizer, text);
            let told = choice.warning.unwrap_or_else(|| panic!("{text} is taken for known"));
            assert_eq!(choice.scaffold.name, "grok-2");
            assert!(told.contains("chat_template.jinja") && told.contains("\"plain\""), "{told}");
            // What a person chooses needs no warning.
            let template = Template { source: "x".into(), text: text.into() };
            let asked = choose(&tokenizer, Some(&template), Some(&Scaffold::PLAIN));
            assert_eq!((asked.scaffold.name, asked.warning), ("plain", None));
        }
        // A token before the text is put there by the tokenizer.
        let around = Around { before: vec![2], after: Vec::new() };
        let tokenizer = tokenizer.with_around(around).expect("a token");
        assert_eq!(chosen(&tokenizer, &format!("{{{{ bos_token }}}}{RELEASED}")).warning, None);
    }

    #[test]
    fn names_of_scaffolds() {
        for scaffold in Scaffold::ALL {
            assert_eq!(Scaffold::named(scaffold.name).expect("its name"), scaffold);
        }
        let error = Scaffold::named("chatml").expect_err("not built in");
        assert_eq!(error.to_string(), "template is \"chatml\", expected grok-2 or plain");
    }
}
