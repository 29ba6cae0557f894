//! Questions that a story answers, to the shipped model and to its copy with 4-bit weights: the
//! stories and questions are the generator's, from a held-out seed (`scripts/train_demo/evaluate.py
//! --write`).

mod common;
#[path = "common/full.rs"]
mod full;

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use fancy_regex::Regex;
use grok_wgpu::lab::{
    checkpoint::folder::open,
    engine::{Engine, SessionOptions, options::Options, sequence::Sequence},
    machine::gpu::LimitProfile,
    text::{
        chat::{Message, Role, Scaffold, choose, encode_chat},
        sampler::{Sampler, Sampling},
    },
};
use pollster::block_on;
use serde::Deserialize;

/// Right answers that are wanted, in percent.
const LEAST: usize = 85;
/// How many of them may be lost with 4-bit weights, in percent.
const LOST: usize = 2;
/// Tokens of the longest answer.
const LONGEST: usize = 40;

#[derive(Deserialize)]
struct Questions {
    /// Words of each kind of fact.
    rivals: BTreeMap<String, Vec<String>>,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    kind: String,
    request: String,
    story: String,
    ask: String,
    /// A right answer.
    answer: String,
    /// An answer needs one of them.
    facts: Vec<String>,
    /// Who is in the story.
    names: Vec<String>,
}

/// Whether these words are in a text, whatever their case, and are no part of a word.
fn stated(words: &str, text: &str) -> bool {
    let pattern = format!(r"(?i)(?<!\w){}(?!\w)", fancy_regex::escape(words));
    Regex::new(&pattern).expect("valid").is_match(text).expect("a short text")
}

impl Question {
    fn is_right(&self, answer: &str, all: &Questions) -> bool {
        let known = format!("{} {} {}", self.ask, self.answer, self.facts.join(" "));
        let names = if self.kind == "name" { &self.names[..] } else { &[] };
        let rivals = all.rivals[&self.kind].iter().chain(names);
        self.facts.iter().any(|fact| stated(fact, answer))
            && !rivals.into_iter().any(|rival| stated(rival, answer) && !stated(rival, &known))
    }
}

fn questions() -> Questions {
    let text = include_str!("data/questions.json");
    serde_json::from_str(text).expect("questions")
}

/// How many answers are right, of all and of those of each kind, sampled as by default.
fn right(model: &str, all: &Questions, every: usize) -> (usize, BTreeMap<String, [usize; 2]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(model);
    let opened = block_on(open(&folder)).expect("a model");
    let tokenizer = block_on(opened.tokenizer()).expect("a tokenizer");
    let scaffold: &Scaffold = choose(&tokenizer, opened.template(), None).scaffold;
    let sizes = SessionOptions::of(&opened.config);
    let gpu = common::open(LimitProfile::Baseline);
    let mut progress = |_| Ok(());
    let engine = Engine::load(gpu, &opened.config, &opened.weights, sizes, &mut progress);
    let mut engine = block_on(engine).expect("loaded");
    let mut options = Options::until_end(&tokenizer);
    options.max_tokens = LONGEST;
    let (mut total, mut kinds) = (0, BTreeMap::<String, [usize; 2]>::new());
    let mut sequence = Sequence::new();
    for (at, question) in all.questions.iter().enumerate().filter(|(at, _)| at / 4 % every == 0) {
        let messages = [
            Message::new(Role::User, &*question.request),
            Message::new(Role::Assistant, &*question.story),
            Message::new(Role::User, &*question.ask),
        ];
        let ids = encode_chat(&tokenizer, scaffold, &messages).expect("encoded");
        let mut sampler =
            Sampler::new(Sampling { seed: at as u64, ..opened.sampling }).expect("good sampling");
        let go_on = |_: grok_wgpu::Event<'_>| ControlFlow::Continue(());
        let made = engine.generate(&mut sequence, &tokenizer, &mut sampler, &ids, &options, go_on);
        let made = block_on(made).expect("an answer");
        let good = question.is_right(&made.text, all);
        if !good {
            eprintln!("{} -> {} (wanted: {})", question.ask, made.text.trim(), question.answer);
        }
        total += usize::from(good);
        let counts = kinds.entry(question.kind.clone()).or_default();
        counts[0] += usize::from(good);
        counts[1] += 1;
    }
    eprintln!("{model}: {total} right; {kinds:?}");
    (total, kinds)
}

#[test]
fn the_shipped_model_answers_what_its_stories_say() {
    let all = questions();
    assert_eq!(all.questions.len(), 200);
    let full = full::is_full();
    // Four kinds take turns.
    let every = if full { 1 } else { 10 };
    let asked = all.questions.len() / every;
    let (bf16, kinds) = right("demo", &all, every);
    assert_eq!(kinds.values().map(|counts| counts[1]).collect::<Vec<_>>(), [asked / 4; 4]);
    assert!(bf16 * 100 >= asked * LEAST, "{bf16} of {asked}");
    let (q4, _) = right("demo-q4", &all, every);
    assert!(q4 * 100 + asked * LOST >= bf16 * 100, "{q4} of {asked} with 4 bits, {bf16} without");
}
