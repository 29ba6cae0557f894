//! Grammars of texts: JSON of a schema, calls of functions, and grammars in Lark's notation. By
//! feature `grammar`, natively.

mod schema;

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use llguidance::{
    Matcher, ParserFactory,
    api::{StopReason, TopLevelGrammar},
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};

use crate::{
    base::{
        error::{Error, Result},
        json::clipped_to,
    },
    text::{
        constraint::{Allowed, Constraint, Follow, Mask},
        tokenizer::Tokenizer,
    },
};

/// Bytes of the longest schema or grammar.
pub const MOST_BYTES: usize = 64 << 10;

/// Characters of what is told of a fault.
const MOST_TOLD: usize = 300;

/// What a call of a function begins with.
pub const CALL: &str = "<tool_call>";

/// What texts may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Any JSON object.
    Object,
    /// JSON that this schema describes.
    Schema(Value),
    /// One call of one of these functions: [`CALL`], then `{"name":"…","arguments":…}`.
    Call(Vec<Function>),
    /// Such a call, or JSON of the schema. Without a schema, any text, after which a call may come.
    MayCall(Vec<Function>, Option<Value>),
    /// What this grammar in Lark's notation describes.
    Lark(String),
}

/// A function that a text may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
}

impl Function {
    /// Whether functions may have this name.
    pub fn is_name(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (1..=64).contains(&name.len()) && name.chars().all(plain)
    }
}

/// Makes grammars over the tokens of a tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    /// How many ids there are. The one after them stands for the end.
    tokens: u32,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Grammars {
    /// Grammars over these tokens. Special ones are in no text.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the bytes of its tokens cannot be told.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let mut words = tokenizer.bytes_of_all()?;
        let count = |words: &[Vec<u8>]| {
            u32::try_from(words.len()).map_err(|_| tokenizer.error("it has too many tokens"))
        };
        let tokens = count(&words)?;
        let mut end = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        end.extend(b"<|end|>");
        words.push(end);
        let trie = TokTrie::from(&TokRxInfo::new(count(&words)?, tokens), &words);
        // Not canonical: a text that is forced may be divided into tokens as the model likes.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let no_jumps = InferenceCapabilities::default();
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, no_jumps, &slices)
            .map_err(|error| tokenizer.error(told(&error)))?;
        factory.quiet();
        // Half of what the crate allows; the time of a compilation and of a mask follow.
        let limits = factory.limits_mut();
        limits.max_items_in_row /= 2;
        limits.initial_lexer_fuel /= 2;
        limits.step_lexer_fuel /= 2;
        limits.step_max_items /= 2;
        limits.max_lexer_states /= 2;
        limits.max_grammar_size /= 2;
        limits.verbose_errors = false;
        Ok(Self { factory, tokens })
    }

    /// A grammar of texts of this form. With `blank`, a blank may come before them, as models write
    /// it at the beginning of an answer.
    ///
    /// JSON has no blanks and line ends but in strings: models may repeat them for ever.
    ///
    /// # Errors
    ///
    /// [`Error::Schema`] if it is too large, or has what cannot be obeyed; it says where.
    pub fn compile(&self, form: &Form, blank: bool) -> Result<Grammar> {
        let lark = match form {
            Form::Object => json_lark(&json!({ "type": "object" }), blank),
            Form::Schema(schema) => json_lark(&checked("the schema", schema)?, blank),
            Form::Call(functions) => call_lark(functions, &Else::Nothing, blank)?,
            Form::MayCall(functions, schema) => {
                let other = match schema {
                    None => Else::Text,
                    Some(schema) => Else::Json(checked("the schema", schema)?),
                };
                call_lark(functions, &other, blank)?
            }
            Form::Lark(lark) => {
                check_size("the grammar", lark)?;
                lark.clone()
            }
        };
        let grammar = TopLevelGrammar::from_lark(lark);
        self.matcher(grammar).map_err(|what| Error::Schema(self.explain(form, &what)))
    }

    fn matcher(&self, grammar: TopLevelGrammar) -> Result<Grammar, String> {
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(error),
            None => Ok(Grammar { matcher, tokens: self.tokens }),
        }
    }

    /// What is wrong with a form: for a schema, with the place in it.
    fn explain(&self, form: &Form, what: &str) -> String {
        let fails =
            |schema: &Value| self.matcher(TopLevelGrammar::from_json_schema(compact(schema))).err();
        let (functions, schema) = match form {
            Form::Schema(schema) => (&[][..], Some(schema)),
            Form::Call(functions) => (&functions[..], None),
            Form::MayCall(functions, schema) => (&functions[..], schema.as_ref()),
            Form::Object | Form::Lark(_) => (&[][..], None),
        };
        let of_functions = || {
            functions.iter().find_map(|function| {
                let name = format!("the parameters of `{}`", function.name);
                schema::explain(&name, &function.parameters, &fails)
            })
        };
        schema
            .and_then(|schema| schema::explain("the schema", schema, &fails))
            .or_else(of_functions)
            .unwrap_or_else(|| format!("the grammar is not possible: {}", first_line(what)))
    }
}

/// A grammar, compiled for a tokenizer.
pub struct Grammar {
    matcher: Matcher,
    tokens: u32,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Constraint for Grammar {
    fn begin(&self) -> Result<Box<dyn Follow>> {
        // What is known of the grammar's lexer grows with a text and counts against limits, so that
        // texts which share it could end otherwise than alone.
        Ok(Box::new(Followed { matcher: self.matcher.deep_clone(), tokens: self.tokens }))
    }
}

/// A text.
struct Followed {
    matcher: Matcher,
    tokens: u32,
}

impl Follow for Followed {
    fn allowed(&mut self) -> Result<Allowed> {
        match self.matcher.stop_reason() {
            StopReason::NotStopped => {}
            // Nothing may follow.
            StopReason::NoExtension | StopReason::EndOfSentence => {
                return Ok(Allowed { tokens: Mask::default(), end: true });
            }
            _ => return Err(too_complex(&self.matcher.get_error().unwrap_or_default())),
        }
        let mask = match self.matcher.compute_mask() {
            Ok(mask) => mask,
            Err(_) if self.matcher.stop_reason() == StopReason::NoExtensionBias => {
                return Ok(Allowed::default());
            }
            Err(error) => return Err(too_complex(&error.to_string())),
        };
        let mut tokens = Mask::from_words(mask.into());
        let end = tokens.has(self.tokens);
        tokens.truncate(self.tokens as usize);
        Ok(Allowed { tokens, end })
    }

    fn push(&mut self, id: u32) -> Result<()> {
        self.matcher.consume_token(id).map_err(|error| too_complex(&error.to_string()))
    }
}

fn too_complex(what: &str) -> Error {
    let what = first_line(what);
    Error::DeadEnd(format!("what may come next cannot be told: {what}"))
}

/// JSON of a schema as a grammar.
fn json_lark(schema: &Value, blank: bool) -> String {
    format!("start: {}json\njson: %json {}\n", before(blank), compact(schema))
}

fn before(blank: bool) -> &'static str {
    if blank { "\" \"? " } else { "" }
}

/// What may be there in place of a call.
enum Else {
    Nothing,
    Text,
    Json(Value),
}

/// A call as a grammar, or something else.
fn call_lark(functions: &[Function], other: &Else, blank: bool) -> Result<String> {
    let call = Value::from(CALL);
    let blank = before(blank);
    let mut lark = match other {
        Else::Nothing => format!("start: {blank}{call} call\n"),
        Else::Json(schema) => {
            let schema = compact(schema);
            format!("start: {blank}({call} call | json)\njson: %json {schema}\n")
        }
        // A call begins where the text first has what calls begin with.
        Else::Text => format!(
            "start: TEXT | before call\nTEXT: /(?s:.*)/ & ~/(?s:.*{CALL}.*)/\n\
             before[lazy]: /(?s:.*){CALL}/\n"
        ),
    };
    let names: Vec<String> = (0..functions.len()).map(|i| format!("call_{i}")).collect();
    let _ = write!(lark, "call: {}", names.join(" | "));
    for (i, Function { name, parameters }) in functions.iter().enumerate() {
        if !Function::is_name(name) {
            return Err(Error::Schema(format!(
                "the name of a function is {:?}, expected 1 to 64 letters, digits, _ and -",
                clipped_to(name, 80)
            )));
        }
        let parameters = checked(&format!("the parameters of `{name}`"), parameters)?;
        let begin = Value::from(format!("{{\"name\":\"{name}\",\"arguments\":"));
        let _ = write!(
            lark,
            "\ncall_{i}: {begin} arguments_{i} \"}}\"\narguments_{i}: %json {}",
            compact(&parameters)
        );
    }
    lark.push('\n');
    if functions.is_empty() {
        return Err(Error::Schema("there is no function to call".into()));
    }
    Ok(lark)
}

/// A schema, with what makes its JSON compact.
fn compact(schema: &Value) -> Value {
    let mut schema = schema.clone();
    schema["x-guidance"] = json!({ "whitespace_flexible": false });
    schema
}

/// A schema of an acceptable size, as an object.
fn checked(what: &str, schema: &Value) -> Result<Value> {
    check_size(what, &schema.to_string())?;
    match schema {
        Value::Bool(true) => Ok(json!({})),
        Value::Object(_) => Ok(schema.clone()),
        _ => Err(Error::Schema(format!("{what} is no JSON object"))),
    }
}

fn check_size(what: &str, text: &str) -> Result<()> {
    if text.len() > MOST_BYTES {
        let got = text.len();
        let what = format!("{what} has {got} bytes, expected {MOST_BYTES} at the most");
        return Err(Error::Schema(what));
    }
    Ok(())
}

fn told(error: &impl fmt::Display) -> String {
    first_line(&error.to_string())
}

/// The first line of a message, without what the crate says of itself.
fn first_line(text: &str) -> String {
    clipped_to(text.lines().next().unwrap_or_default(), MOST_TOLD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::synthetic_tok_json;

    fn tokenizer() -> Tokenizer {
        let json = synthetic_tok_json(700).expect("in range");
        Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
    }

    fn grammar(form: &Form, blank: bool) -> Result<Grammar> {
        Grammars::new(&tokenizer()).expect("grammars").compile(form, blank)
    }

    fn schema(schema: Value) -> Grammar {
        grammar(&Form::Schema(schema), false).expect("it is possible")
    }

    /// How many bytes of a text are allowed, each as a token of its own, and whether it may end
    /// after them.
    fn follow(grammar: &Grammar, text: &str) -> (usize, bool) {
        let mut followed = grammar.begin().expect("it begins");
        for (at, byte) in text.bytes().enumerate() {
            // The tokens of bytes follow 128 special ones.
            let id = 128 + u32::from(byte);
            let allowed = followed.allowed().expect("it is simple");
            if !allowed.tokens.has(id) {
                return (at, allowed.end);
            }
            followed.push(id).expect("it is allowed");
        }
        (text.len(), followed.allowed().expect("it is simple").end)
    }

    fn accepts(grammar: &Grammar, text: &str) -> bool {
        follow(grammar, text) == (text.len(), true)
    }

    #[test]
    fn json_is_that_of_its_schema_and_has_no_blanks() {
        let person = schema(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Person",
            "type": "object",
            "properties": {
                "name": { "type": "string", "maxLength": 3 },
                "age": { "type": "integer", "minimum": 0, "maximum": 120 },
                "pet": { "$ref": "#/$defs/pet" },
            },
            "required": ["name", "age"],
            "additionalProperties": false,
            "$defs": { "pet": { "anyOf": [{ "const": "cat" }, { "type": "null" }] } },
        }));
        for good in [
            "{\"name\":\"Tom\",\"age\":7}",
            "{\"name\":\"\",\"age\":120,\"pet\":\"cat\"}",
            "{\"name\":\"日本é\",\"age\":0,\"pet\":null}",
        ] {
            assert!(accepts(&person, good), "{good}");
        }
        for (bad, at) in [
            (" {", 0),
            ("{ ", 1),
            ("{\"name\":\"Tomy", 12),
            ("{\"name\":7", 8),
            // In the order of the schema.
            ("{\"age", 2),
            ("{\"name\":\"\",\"age\":121", 19),
            ("{\"name\":\"\",\"age\":-1", 17),
            ("{\"name\":\"\",\"age\":1,\"pet\":\"dog", 26),
            ("{\"name\":\"\",\"age\":1,\"x", 20),
            ("{\"name\":\"\",\"age\":1}x", 19),
        ] {
            assert_eq!(follow(&person, bad).0, at, "{bad}");
        }
        assert!(!follow(&person, "{\"name\":\"Tom\",\"age\":7").1);
    }

    #[test]
    fn every_form_has_its_texts() {
        let object = grammar(&Form::Object, true).expect("it is possible");
        for good in ["{}", " {\"a\":[1,{\"b\":null}]}"] {
            assert!(accepts(&object, good), "{good}");
        }
        assert_eq!(follow(&object, "  {").0, 1);
        assert_eq!(follow(&object, "[").0, 0);

        let function = |name: &str, parameters| Function { name: name.into(), parameters };
        let integer = json!({ "$ref": "#/$defs/n", "$defs": { "n": { "type": "integer" } } });
        let none = json!({ "type": "object", "properties": {}, "additionalProperties": false });
        let both = || vec![function("add_1", integer.clone()), function("stop-it", none.clone())];
        let call = grammar(&Form::Call(both()), true).expect("it is possible");
        assert!(accepts(&call, "<tool_call>{\"name\":\"add_1\",\"arguments\":-12}"));
        assert!(accepts(&call, " <tool_call>{\"name\":\"stop-it\",\"arguments\":{}}"));
        assert_eq!(follow(&call, "<tool_call>{\"name\":\"stop-it\",\"arguments\":1").0, 41);
        assert_eq!(follow(&call, "<tool_call>{\"name\":\"add_2").0, 24);
        assert_eq!(follow(&call, "Hi").0, 0);

        let may = grammar(&Form::MayCall(both(), None), true).expect("it is possible");
        for good in ["", "Hi.\n\n1 < 2, <tool>", "<tool_call"] {
            assert!(accepts(&may, good), "{good}");
        }
        let called = "Well:\n<tool_call>{\"name\":\"add_1\",\"arguments\":5";
        assert_eq!(follow(&may, called), (called.len(), false));
        assert!(accepts(&may, &format!("{called}}}")));
        assert_eq!(follow(&may, &format!("{called}}} ")).0, called.len() + 1);
        assert_eq!(follow(&may, "<tool_call>x"), (11, false));

        let flag = json!({ "type": "boolean" });
        let may = grammar(&Form::MayCall(both(), Some(flag)), true).expect("it is possible");
        assert!(accepts(&may, " true"));
        assert!(accepts(&may, "<tool_call>{\"name\":\"stop-it\",\"arguments\":{}}"));
        assert_eq!(follow(&may, "Hi").0, 0);

        let lark = Form::Lark("start: \"a\" /[0-9]+/ \"z\"?".into());
        let lark = grammar(&lark, false).expect("it is possible");
        assert_eq!(follow(&lark, "a12"), (3, true));
        assert_eq!(follow(&lark, "a12zz"), (4, true));
        assert_eq!(follow(&lark, "a"), (1, false));
        assert!(accepts(&schema(json!(true)), "[1,\"\"]"));
    }

    #[test]
    fn long_tokens_are_allowed_where_all_of_their_bytes_are() {
        let tokenizer = tokenizer();
        let word = schema(json!({ "enum": ["the man", "then"] }));
        let mut text = word.begin().expect("it begins");
        text.push(128 + u32::from(b'"')).expect("it is allowed");
        let allowed = text.allowed().expect("it is simple").tokens;
        let mut found = 0;
        for id in 0..700 {
            let bytes = tokenizer.token_bytes(id).expect("a token");
            let fits = ["the man\"", "then\""].iter().any(|all| all.as_bytes().starts_with(&bytes));
            assert_eq!(allowed.has(id), fits && id >= 128, "{id} {bytes:?}");
            found += u32::from(allowed.has(id));
        }
        assert!(found >= 3, "t, th, the");
        // Special tokens are in no text, whatever they are spelt like.
        let any = grammar(&Form::Lark("start: /(.|\\n)*/".into()), false).expect("possible");
        let allowed = any.begin().and_then(|mut text| text.allowed()).expect("it is simple");
        assert!((0..128).all(|id| !allowed.tokens.has(id)) && allowed.end);
        assert!(!allowed.tokens.has(700) && allowed.tokens.has(128 + u32::from(b'<')));
    }

    #[test]
    fn faults_of_schemas_are_told_with_their_place() {
        let of = |schema: Value| {
            let error = grammar(&Form::Schema(schema), false).expect_err("it is not possible");
            assert_eq!((error.code(), error.exit_code()), ("invalid_schema", 2));
            error.to_string()
        };
        let deep = of(json!({ "type": "object", "properties": {
            "a": { "type": "string" },
            "b/c": { "type": "array", "items": { "anyOf": [
                { "type": "null" }, { "type": "string", "if": { "minLength": 2 } },
            ] } },
        } }));
        assert!(deep.contains("the schema at /properties/b~1c/items/anyOf/1: "), "{deep}");
        assert!(deep.contains("\"if\""), "{deep}");
        let root = of(json!({ "type": "array", "uniqueItems": true }));
        assert!(root.starts_with("the schema: ") && root.contains("uniqueItems"), "{root}");
        let defined = of(json!({ "$ref": "#/$defs/x", "$defs": { "x": { "type": "text" } } }));
        assert!(defined.contains(" at /$defs/x: ") && defined.contains("text"), "{defined}");
        let format = of(json!({ "properties": { "at": { "type": "string", "format": "zip" } } }));
        assert!(format.contains(" at /properties/at: ") && format.contains("zip"), "{format}");
        let lost = of(json!({ "items": { "$ref": "https://example.org/schema" } }));
        assert!(lost.contains(" at /items: ") && lost.contains("example.org"), "{lost}");
        assert!(of(json!([])).contains("no JSON object"));
        assert!(of(json!({ "enum": ["x".repeat(MOST_BYTES)] })).contains("65536"));
        let named = Form::Call(vec![Function {
            name: "f".into(),
            parameters: json!({ "properties": { "a": { "not": {} } } }),
        }]);
        let error = grammar(&named, false).expect_err("not possible").to_string();
        assert!(error.contains("the parameters of `f` at /properties/a: "), "{error}");
        for name in ["", "a b", "x\"", &"x".repeat(65)] {
            let call = Form::Call(vec![Function { name: name.into(), parameters: json!({}) }]);
            assert_eq!(grammar(&call, false).expect_err("no name").code(), "invalid_schema");
        }
        let lark = grammar(&Form::Lark("start: x".into()), false).expect_err("no x");
        assert!(lark.to_string().contains("the grammar is not possible"), "{lark}");
        assert!(lark.to_string().contains('x'), "{lark}");
    }

    /// What takes too much work is refused, or is followed as far as it can be.
    #[test]
    fn schemas_cannot_take_all_memory_or_time() {
        let grammars = Grammars::new(&tokenizer()).expect("grammars");
        let mut nested = json!({ "type": "string" });
        for _ in 0..100 {
            nested = json!({ "anyOf": [nested, { "type": "array", "items": { "type": "null" } }] });
        }
        let many: Value = (0..1500).map(|i| (format!("p{i}"), json!({}))).collect();
        for bomb in [
            nested,
            json!({ "type": "string", "pattern": "^(((a{1,99}){1,99}){1,99}){1,99}$" }),
            json!({ "type": "string", "pattern": "^(.*a.{60}){9}$" }),
            json!({ "type": "string", "maxLength": 4_000_000_000_u32 }),
            json!({ "type": "array", "maxItems": 100_000_000, "items": { "type": "integer" } }),
            json!({ "type": "object", "properties": many }),
            json!({ "$ref": "#" }),
            json!({ "type": "object", "patternProperties": { "^(a|b|ab)*c{500}$": {} } }),
        ] {
            let Ok(grammar) = grammars.compile(&Form::Schema(bomb), false) else { continue };
            let mut text = grammar.begin().expect("it begins");
            for _ in 0..20 {
                let Ok(allowed) = text.allowed() else { break };
                let Some(id) = (0..700).rev().find(|&id| allowed.tokens.has(id)) else { break };
                if let Err(error) = text.push(id) {
                    assert_eq!(error.code(), "grammar_dead_end");
                    break;
                }
            }
        }
    }

    #[test]
    fn texts_of_one_grammar_do_not_know_each_other() {
        let grammar = schema(json!({ "type": "array", "items": { "type": "boolean" } }));
        let mut texts = [0, 1].map(|_| grammar.begin().expect("it begins"));
        let push = |text: &mut Box<dyn Follow>, byte: u8| text.push(128 + u32::from(byte));
        push(&mut texts[0], b'[').expect("it is allowed");
        let first = texts[1].allowed().expect("it is simple").tokens;
        assert!(first.has(128 + u32::from(b'[')) && !first.has(128 + u32::from(b']')));
        push(&mut texts[0], b']').expect("it is allowed");
        let over = texts[0].allowed().expect("it is simple");
        assert!(over.end && over.tokens.is_empty());
        let error = push(&mut texts[1], b']').expect_err("it is not allowed");
        assert_eq!(error.code(), "grammar_dead_end");
    }
}
