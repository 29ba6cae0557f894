//! Texts of a prescribed form, made by the shipped model at temperature 1: all of them are of that
//! form, and what is cut off could have become so.

mod common;
#[path = "common/full.rs"]
mod full;

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::{
        Checkpoint,
        folder::{open_config, open_folder},
    },
    engine::{
        Engine, SessionOptions,
        options::{FinishReason, Generated, Options},
        schedule::Id,
        texts::{Claim, News, Sharing, Texts},
    },
    files::native::FileSource,
    machine::gpu::{Gpu, LimitProfile},
    text::{
        constraint::Constraint,
        grammar::{Form, Function, Grammars},
        sampler::{Sampler, Sampling},
        tokenizer::Tokenizer,
    },
};
use pollster::block_on;
use serde::Deserialize;
use serde_json::{Value, json};

/// Texts of which all must be as they should.
const ALL: usize = 1000;

/// Tokens that no text below needs: each byte of the longest could be one.
const ENOUGH: usize = 600;

/// Tokens in which no text below has an end.
const TOO_FEW: usize = 3;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn tokenizer() -> Tokenizer {
    let path = folder().join("tokenizer.tok.json");
    let bytes = std::fs::read(&path).expect("the model is there");
    Tokenizer::from_tok_json(path, &bytes).expect("valid")
}

fn engine() -> Engine<Gpu> {
    let (config, _) = block_on(open_config(&folder())).expect("a model");
    let sources: Vec<FileSource> = open_folder(&folder()).expect("its files");
    let weights =
        Arc::new(block_on(Checkpoint::open(&folder(), sources, &config)).expect("its weights"));
    let sizes = SessionOptions::new(1024, 64, DType::F32).with_rows(20);
    let sizes = sizes.with_cache_positions(16 * 1024);
    let gpu = common::open(LimitProfile::Baseline);
    block_on(Engine::load(gpu, &config, &weights, sizes, &mut |_| Ok(()))).expect("an engine")
}

/// A form, and what says whether a text has it: types of serde, which know nothing of schemas.
struct Wanted {
    form: Form,
    prompt: &'static str,
    is_good: fn(&str) -> bool,
    /// How each of its texts begins.
    begins: &'static str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: u8,
    friends: Vec<Friend>,
    pet: Option<Pet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Friend {
    name: String,
    is_old: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pet {
    Cat,
    Dog,
}

fn person(text: &str) -> bool {
    let Ok(person) = serde_json::from_str::<Person>(text) else { return false };
    let short = |name: &str| name.chars().count() <= 8;
    let old = person.friends.iter().filter(|friend| friend.is_old).count();
    let pet = person.pet.as_ref().is_none_or(|pet| matches!(pet, Pet::Cat | Pet::Dog));
    let friends = person.friends.iter().all(|friend| short(&friend.name));
    short(&person.name) && person.age <= 120 && person.friends.len() <= 2 && friends && pet
        && old <= 2
        // In the order of the schema, and without blanks.
        && text.starts_with("{\"name\":\"") && text.contains("\",\"age\":")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    arguments: Value,
}

/// Minus zero is a whole number of JSON, too.
fn is_step(number: f64) -> bool {
    (-5.0..=5.0).contains(&number) && number.fract() == 0.0
}

fn call(text: &str) -> bool {
    let Some(text) = text.strip_prefix("<tool_call>") else { return false };
    let Ok(Call { name, arguments }) = serde_json::from_str(text) else { return false };
    let Some(arguments) = arguments.as_object() else { return false };
    let one = |key: &str| arguments.get(key).filter(|_| arguments.len() == 1);
    match name.as_str() {
        "play" => one("game").and_then(Value::as_str).is_some_and(|game| game.len() <= 4 * 6),
        "walk" => one("steps").and_then(Value::as_f64).is_some_and(is_step),
        _ => false,
    }
}

fn list(text: &str) -> bool {
    let Ok(list) = serde_json::from_str::<Vec<(f64, String)>>(text) else { return false };
    let good = |(number, word): &(f64, String)| {
        (0.0..=1.0).contains(number) && ["red", "blue", "green"].contains(&word.as_str())
    };
    list.len() == 2 && list.iter().all(good)
}

fn verse(text: &str) -> bool {
    let Some(text) = text.strip_prefix("One day, ") else { return false };
    let Some(words) = text.strip_suffix(" The end.") else { return false };
    words.len() <= 20 && words.chars().all(|c| c.is_ascii_lowercase() || c == ' ')
}

fn wanted() -> [Wanted; 4] {
    let name = json!({ "type": "string", "maxLength": 8 });
    let person_schema = json!({
        "type": "object",
        "properties": {
            "name": name,
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "friends": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/friend" } },
            "pet": { "enum": ["cat", "dog", null] },
        },
        "required": ["name", "age", "friends"],
        "additionalProperties": false,
        "$defs": { "friend": {
            "type": "object",
            "properties": { "name": name, "is_old": { "type": "boolean" } },
            "required": ["name", "is_old"],
            "additionalProperties": false,
        } },
    });
    let one = |key: &str, schema: Value| {
        json!({
            "type": "object",
            "properties": { key: schema },
            "required": [key],
            "additionalProperties": false,
        })
    };
    let function = |name: &str, parameters| Function { name: name.into(), parameters };
    let number = json!({ "type": "string", "pattern": "^(red|blue|green)$" });
    let pair = json!({
        "type": "array",
        // No fraction has more digits.
        "prefixItems": [{ "enum": [0, 0.25, 0.5, 1] }, number],
        "items": false,
        "minItems": 2,
    });
    let verse_lark = "start: \"One day, \" /[a-z ]{1,20}/ \" The end.\"";
    [
        Wanted {
            form: Form::Schema(person_schema),
            prompt: "Once upon a time there was a girl. In JSON:",
            is_good: person,
            begins: "{\"name\":\"",
        },
        Wanted {
            form: Form::Call(vec![
                function("play", one("game", json!({ "type": "string", "maxLength": 6 }))),
                function(
                    "walk",
                    one("steps", json!({ "type": "integer", "minimum": -5, "maximum": 5 })),
                ),
            ]),
            prompt: "Tom wants to go out.",
            is_good: call,
            begins: "<tool_call>{\"name\":\"",
        },
        Wanted {
            form: Form::Schema(json!({
                "type": "array", "items": pair, "minItems": 2, "maxItems": 2,
            })),
            prompt: "Colors:",
            is_good: list,
            begins: "[[",
        },
        Wanted {
            form: Form::Lark(verse_lark.into()),
            prompt: "Tom and Mia went to the park.",
            is_good: verse,
            begins: "One day, ",
        },
    ]
}

/// Makes texts of these forms in turn, with so many tokens at the most.
fn make(
    engine: Engine<Gpu>,
    tokenizer: &Tokenizer,
    forms: &[(Wanted, Arc<dyn Constraint>)],
    (count, most): (usize, usize),
) -> Vec<Generated> {
    let mut texts = Texts::new(engine, tokenizer, Sharing::default()).expect("texts");
    let mut numbers: BTreeMap<Id, usize> = BTreeMap::new();
    let mut made: Vec<Option<Generated>> = (0..count).map(|_| None).collect();
    let (mut next, mut now) = (0, 0);
    while next < count || !numbers.is_empty() {
        while next < count && numbers.len() < 32 {
            let (wanted, constraint) = &forms[next % forms.len()];
            let mut options = Options::until_end(tokenizer);
            options.max_tokens = most;
            options.constraint = Some(Arc::clone(constraint));
            let sampling = Sampling { temperature: 1.0, seed: next as u64, ..Sampling::GREEDY };
            let sampler = Sampler::new(sampling).expect("in range");
            let prompt = tokenizer.encode_prompt(wanted.prompt).expect("a prompt");
            let claim = Claim::default();
            let ids = texts.submit(&prompt, vec![sampler], &options, claim).expect("room");
            numbers.insert(ids[0], next);
            next += 1;
        }
        let mut clock = || {
            now += 1000;
            now
        };
        let mut on_event = |_: Id, _: News<'_>| ControlFlow::Continue(());
        block_on(texts.step(&mut clock, &mut on_event)).expect("it runs");
        for (id, text) in texts.ended() {
            let number = numbers.remove(&id).expect("it was asked for");
            made[number] = Some(text.expect("no text fails"));
        }
    }
    made.into_iter().map(|text| text.expect("all have ended")).collect()
}

#[test]
fn all_texts_are_of_their_form() {
    let tokenizer = tokenizer();
    let grammars = Grammars::new(&tokenizer).expect("grammars");
    let forms = wanted().map(|wanted| {
        let grammar = grammars.compile(&wanted.form, false).expect("it is possible");
        let grammar: Arc<dyn Constraint> = Arc::new(grammar);
        (wanted, grammar)
    });
    let count = if full::is_full() { ALL } else { ALL / 20 };

    let mut different = 0;
    let whole = make(engine(), &tokenizer, &forms, (count, ENOUGH));
    for (number, text) in whole.iter().enumerate() {
        let (wanted, _) = &forms[number % forms.len()];
        assert_eq!(text.finish, FinishReason::Stop, "{number}: {}", text.text);
        assert!((wanted.is_good)(&text.text), "{number}: {}", text.text);
        let before = number.checked_sub(forms.len()).map(|at| &whole[at].text);
        different += usize::from(before != Some(&text.text));
    }
    // The model has something to say.
    assert!(different * 2 > count, "{different} of {count}");

    let cut = make(engine(), &tokenizer, &forms, (count, TOO_FEW));
    for (number, (text, whole)) in cut.iter().zip(&whole).enumerate() {
        let (wanted, grammar) = &forms[number % forms.len()];
        assert_eq!((text.finish, text.tokens.len()), (FinishReason::Length, TOO_FEW));
        // The same draws give the same tokens.
        assert!(whole.text.starts_with(&text.text), "{number}: {}", text.text);
        let begins = wanted.begins;
        assert!(begins.starts_with(&text.text) || text.text.starts_with(begins), "{}", text.text);
        let mut followed = grammar.begin().expect("it begins");
        for token in &text.tokens {
            assert!(followed.allowed().expect("it is simple").tokens.has(token.id));
            followed.push(token.id).expect("it is allowed");
        }
    }
}
