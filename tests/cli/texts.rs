//! How texts begin, what comes after a prompt, and how conversations are written.

use std::{fs, path::Path};

use grok_wgpu::lab::{checkpoint::write::Layout, text::tokenizer::Tokenizer};
use serde_json::{Value, json};

use super::{good, json, model, path, run, text, text_of, with_stdin, write_model};

/// Part of the warning about a model's own chat template.
const TOLD: &str = "brings a chat template";

/// The vocabulary of the small model.
const VOCAB: u32 = 512;

/// A folder with the small model and a vocabulary of words with a blank before them, as
/// `SentencePiece` has it: whatever the model makes, every token is a word.
fn words(post_processor: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    fs::remove_file(dir.path().join("tokenizer.tok.json")).expect("it was written");
    let specials = ["<s>", "</s>"];
    let vocab: serde_json::Map<String, Value> = (0..VOCAB)
        .map(|id| {
            let special = specials.get(id as usize).map(|&name| name.to_owned());
            (special.unwrap_or_else(|| format!("▁w{id}")), id.into())
        })
        .collect();
    let added = [0, 1].map(|id: usize| {
        json!({ "id": id, "content": specials[id], "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false })
    });
    let blanks = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                         "split": true });
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": blanks, "post_processor": post_processor,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "▁w511" },
    });
    write(&dir, "tokenizer.json", &file.to_string());
    dir
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) {
    fs::write(dir.path().join(name), text).expect("written");
}

/// Puts `<s>` before a text, and `</s>` after it.
fn around() -> Value {
    json!({ "type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1] })
}

fn spelt(ids: &Value) -> String {
    let ids = ids.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id"));
    ids.map(|id| match id {
        0 => "<s>".to_owned(),
        1 => "</s>".to_owned(),
        id => format!(" w{id}"),
    })
    .collect()
}

#[test]
fn the_first_word_after_a_prompt_has_its_blank() {
    let dir = words(&Value::Null);
    let args = ["generate", path(dir.path()), "w7 w9", "-n", "8", "--temperature", "0"];
    let args = [&args[..], &["--ignore-eos"]].concat();
    let made = json(&[&args[..], &["--json", "--logprobs", "2"]].concat());
    let after = spelt(&made["ids"]);
    assert!(after.starts_with(" w") && made["text"] == json!(after), "{made}");
    assert_eq!(good(&[&args[..], &["--echo"]].concat()), format!("w7 w9{after}\n"));
    // The text of each token is what it adds where it stands.
    for token in made["logprobs"].as_array().expect("a list") {
        for one in token["top"].as_array().expect("a list").iter().chain([token]) {
            assert_eq!(one["text"], json!(spelt(&json!([one["id"]]))), "{token}");
        }
    }
    let shown = good(&["logits", path(dir.path()), "--text", "w7 w9"]);
    assert!(shown.starts_with("after position 1, token 9 \" w9\"\n"), "{shown}");
    assert_eq!(shown.matches("% \" w").count(), 10, "{shown}");

    // An answer in a conversation is shown without the blank before it.
    let save = dir.path().join("saved.json");
    let input = format!("w7\nw8\n/save {}\n", save.display());
    let args = ["chat", path(dir.path()), "--template", "plain", "-n", "3", "--temperature", "0"];
    let said = text(&with_stdin(&args, &input), &args);
    let saved: Value = serde_json::from_slice(&fs::read(save).expect("a file")).expect("JSON");
    let answers = [1, 3].map(|at| saved["messages"][at]["content"].as_str().expect("text"));
    for answer in answers {
        assert!(answer.starts_with('w') && answer.contains(" w"), "{answer:?}");
    }
    assert_eq!(said, answers.map(|answer| format!("{answer}\n")).concat());
}

#[test]
fn a_text_begins_as_the_files_say() {
    let [plain, begun] = [words(&Value::Null), words(&around())];
    let of = |dir: &tempfile::TempDir, command: &str, more: &[&str]| {
        let output = run(&[&[command, path(dir.path())], more, &["--json"]].concat());
        let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        (value, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let prompt = ["w7 w9", "-n", "1", "--temperature", "0"];
    assert_eq!(of(&plain, "generate", &prompt).0["prompt_tokens"], 2);
    let (made, told) = of(&begun, "generate", &prompt);
    assert_eq!(made["prompt_tokens"], 3);
    assert_eq!(told.matches("wants \"</s>\" after each text").count(), 1, "{told}");
    // Without a word, the text has its beginning only.
    assert_eq!(of(&begun, "generate", &["", "-n", "1"]).0["prompt_tokens"], 1);
    assert_eq!(of(&begun, "logits", &["--text", "w7 w9"]).0["ids"], json!([0, 7, 9]));
    // Ids are taken as they are.
    assert_eq!(of(&begun, "logits", &["--ids", "7,9"]).0["ids"], json!([7, 9]));
    let known = of(&begun, "inspect", &["--no-device"]).0;
    assert_eq!(known["begin_ids"], json!([0]));
    let tokenizer = known["tokenizer"].as_str().expect("a sentence");
    assert!(tokenizer.contains("a text begins with \"<s>\" [0]"), "{tokenizer}");

    // Its windows begin so too, and then all of a text is scored.
    write(&begun, "text", "w7 w9 w11 w13 w15");
    let file = begun.path().join("text");
    let scored = |dir: &tempfile::TempDir| {
        let report = of(dir, "perplexity", &[path(&file), "--window", "3"]).0;
        [&report["tokens"], &report["scored"]].map(|value| value.as_u64().expect("a number"))
    };
    assert_eq!((scored(&plain), scored(&begun)), ([5, 3], [5, 5]));

    // Another file may ask for it where the tokenizer's own does not.
    write(&plain, "tokenizer_config.json", r#"{"add_bos_token": true, "bos_token": "<s>"}"#);
    let (made, told) = of(&plain, "generate", &prompt);
    assert!(made["prompt_tokens"] == 3 && !told.contains("warning"), "{made} {told}");
    write(&begun, "tokenizer_config.json", r#"{"add_bos_token": false}"#);
    let (made, told) = of(&begun, "generate", &prompt);
    assert_eq!(made["prompt_tokens"], 3);
    assert!(told.contains("add_bos_token is false, but"), "{told}");
}

/// SentencePiece's file says nothing of it, and its words have blanks before them too.
#[test]
fn a_text_of_pieces_begins_as_another_file_says() {
    let dir = words(&Value::Null);
    fs::remove_file(dir.path().join("tokenizer.json")).expect("it was written");
    let model = include_bytes!("../data/sentencepiece/unigram_bytes.model");
    fs::write(dir.path().join("tokenizer.model"), model).expect("written");
    let ids =
        || json(&["logits", path(dir.path()), "--text", "the weather", "--json"])["ids"].take();
    let tokenizer = Tokenizer::from_sentence_piece("tokenizer.model", model).expect("valid");
    let bare = tokenizer.encode("the weather").expect("text");
    assert_eq!(ids(), json!(bare));
    write(&dir, "tokenizer_config.json", r#"{"add_bos_token": true, "bos_token": "<s>"}"#);
    let prompt = [&[1], &bare[..]].concat();
    assert_eq!(ids(), json!(prompt));
    let args = ["generate", path(dir.path()), "the weather", "-n", "8", "--temperature", "0"];
    let args = [&args[..], &["--ignore-eos"]].concat();
    let made = json(&[&args[..], &["--json"]].concat());
    let more = made["ids"].as_array().expect("ids").iter();
    let more = more.map(|id| u32::try_from(id.as_u64().expect("an id")).expect("small"));
    let text = |ids: &[u32]| tokenizer.decode_lossy(ids).expect("ids");
    let all = text(&[&prompt[..], &more.collect::<Vec<u32>>()].concat());
    assert_eq!(made["text"], json!(all.strip_prefix(&text(&prompt)).expect("a prompt")), "{made}");
}

#[test]
fn another_chat_template_is_told_once() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    let chat = |more: &[&str]| {
        let output = with_stdin(&[&["chat", path(dir.path()), "-n", "1"], more].concat(), "a\nb\n");
        assert!(output.status.success(), "{}", text_of(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let inspected = |folder: &Path| {
        let known = json(&["inspect", path(folder), "--no-device", "--json"]);
        known["template"].as_str().expect("a sentence").to_owned()
    };
    assert!(!chat(&[]).contains(TOLD));
    assert_eq!(inspected(dir.path()), "grok-2, the model brings no template");

    let own = "{% for m in messages %}{{ '[INST]' + m.content + '[/INST]' }}{% endfor %}";
    let named = json!([{ "name": "tool", "template": "" }, { "name": "default", "template": own }]);
    for template in [json!(own), named] {
        write(&dir, "tokenizer_config.json", &json!({ "chat_template": template }).to_string());
        let told = chat(&[]);
        assert_eq!(told.matches(TOLD).count(), 1, "{told}");
        assert!(told.contains("tokenizer_config.json") && told.contains("\"plain\""), "{told}");
        assert!(inspected(dir.path()).contains("another template in tokenizer_config.json"));
    }
    for name in ["plain", "grok-2"] {
        assert!(!chat(&["--template", name]).contains(TOLD), "{name}");
    }
    // A file of its own counts more.
    let ours = "{% for m in messages %}{% if m.role == 'user' %}{{ 'Human: ' }}\
        {% elif m.role == 'system' %}{{ 'System: ' }}{% else %}{{ 'Assistant: ' }}{% endif %}\
        {{ m.content + '<|separator|>\\n\\n' }}{% endfor %}{{ 'Assistant:' }}";
    write(&dir, "chat_template.jinja", ours);
    assert!(!chat(&[]).contains(TOLD));
    assert_eq!(inspected(dir.path()), "grok-2, as in the model's chat_template.jinja");

    let unknown = run(&["chat", path(model()), "--template", "chatml"]);
    let told = text_of(&unknown);
    assert!(told.contains("grok-2") && told.contains("plain"), "{told}");
}

#[test]
fn a_conversation_needs_the_special_tokens_of_its_template() {
    let dir = words(&Value::Null);
    let refused = text_of(&run(&["chat", path(dir.path())]));
    assert!(refused.contains("error[tokenizer]: "), "{refused}");
    assert!(refused.contains("<|separator|>") && refused.contains("\"plain\" needs none"));
}

/// The file is sparse: it takes no room on a disk.
#[test]
fn a_tokenizer_larger_than_any_is_refused_unread() {
    let dir = words(&Value::Null);
    let file = fs::File::create(dir.path().join("tokenizer.json")).expect("a file");
    file.set_len(1 << 40).expect("sparse");
    let told = text_of(&run(&["generate", path(dir.path()), "w7"]));
    assert!(told.contains("error[tokenizer]: "), "{told}");
    assert!(told.contains("1099511627776 bytes, more than the 67108864 allowed"), "{told}");
}

/// Many texts at once are those that are made one by one.
#[test]
fn prompts_of_a_file_are_continued_together() {
    let dir = tempfile::tempdir().expect("a folder");
    let prompts: Vec<String> =
        (0..7).map(|at| format!("The other day she said {}", "no ".repeat(at * 6))).collect();
    let line = |(at, prompt): (usize, &String)| {
        let (id, most) = (format!("t{at}"), 5 + at);
        json!({ "prompt": prompt, "id": id, "seed": at, "max_tokens": most })
    };
    let lines: Vec<String> = prompts.iter().enumerate().map(|of| line(of).to_string()).collect();
    write(&dir, "prompts.jsonl", &(lines.join("\n") + "\n\n"));
    let [file, out] = ["prompts.jsonl", "texts.jsonl"].map(|name| dir.path().join(name));
    let model = path(model());
    let many = ["generate", model, "--file", path(&file), "--out", path(&out), "--rows", "3"];
    good(&many);
    let made = fs::read_to_string(&out).expect("it was written");
    let made: Vec<Value> =
        made.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(made.len(), prompts.len());
    for (at, (made, prompt)) in made.iter().zip(&prompts).enumerate() {
        let (seed, most) = (at.to_string(), (5 + at).to_string());
        let alone = json(&["generate", model, prompt, "--seed", &seed, "-n", &most, "--json"]);
        for name in ["text", "ids", "finish_reason", "seed"] {
            assert_eq!(made[name], alone[name], "{at}: {made}");
        }
        assert_eq!(made["id"], json!(format!("t{at}")));
        assert_eq!(made["usage"]["prompt_tokens"], alone["prompt_tokens"]);
    }
    for (wrong, what) in [("{}", "missing field `prompt`"), ("\n7", "line 2"), ("", "no prompts")] {
        write(&dir, "prompts.jsonl", wrong);
        let output = run(&many);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(what), "{told}");
    }
    assert_eq!(fs::read_to_string(&out).expect("as before").lines().count(), prompts.len());
}

/// Whatever a model would say, its text has the form that is asked for.
#[test]
fn texts_have_the_form_that_is_asked_for() {
    let dir = words(&Value::Null);
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "enum": [1, 22, 333] }, "b": { "type": "boolean" } },
    });
    write(&dir, "schema.json", &schema.to_string());
    write(&dir, "bad.json", "{\"properties\":{\"a\":{\"type\":\"string\",\"if\":{}}}}");
    write(&dir, "grammar.lark", "start: \" w3\" /[0-9]/ \" w4\" /[0-9]/ \" w5\"\n");
    write(&dir, "prompts.jsonl", "{\"prompt\":\"x\"}\n{\"prompt\":\"y\",\"seed\":9}\n");
    let [schema, bad, grammar, file, out] =
        ["schema.json", "bad.json", "grammar.lark", "prompts.jsonl", "texts.jsonl"]
            .map(|name| dir.path().join(name));
    let object = |text: &str| {
        let object: Value = serde_json::from_str(text).expect("JSON");
        let number = object["a"].as_u64().is_some_and(|a| [1, 22, 333].contains(&a));
        let known = object.as_object().expect("an object").keys().all(|key| "ab".contains(key));
        assert!(number && known && !text.trim_start().contains(' '), "{text}");
    };
    let hot = ["--temperature", "2", "--seed", "4", "--top-k", "0", "--top-p", "1"];
    let base = ["generate", path(model()), "A number:", "--schema", path(&schema)];
    for more in [&hot[..], &["--temperature", "0"], &["--temperature", "0", "--logprobs", "2"]] {
        let made = json(&[&base[..], more, &["--json"]].concat());
        assert_eq!(made["finish_reason"], "stop", "{made}");
        object(made["text"].as_str().expect("text"));
    }
    let cut = json(&[&base[..], &["-n", "3", "--json"]].concat());
    assert_eq!(cut["finish_reason"], "length");
    let many = ["generate", path(model()), "--file", path(&file), "--out", path(&out)];
    good(&[&many[..], &["--schema", path(&schema)]].concat());
    let made = fs::read_to_string(&out).expect("it was written");
    assert_eq!(made.lines().count(), 2);
    for line in made.lines() {
        let made: Value = serde_json::from_str(line).expect("JSON");
        object(made["text"].as_str().expect("text"));
    }
    let any = ["generate", path(model()), "x", "--json-object", "-n", "2", "-q", "--seed", "1"];
    assert!(good(&any).trim_start().starts_with('{'));

    // Tokens that depend on their neighbours have the bytes that they have within a text.
    let words = ["generate", path(dir.path()), "w7", "--grammar", path(&grammar), "--json"];
    let made = json(&[&words[..], &hot].concat());
    let said = made["text"].as_str().expect("text");
    assert!(said.len() == 11 && said.starts_with(" w3") && said.contains(" w4"), "{said}");
    assert_eq!(
        (&made["finish_reason"], made["ids"].as_array().map(Vec::len)),
        (&json!("stop"), Some(3))
    );

    let wrong = ["generate", path(model()), "x", "--schema", path(&bad)];
    assert_eq!(super::code(&wrong, "invalid_schema"), 2);
    let told = String::from_utf8_lossy(&run(&wrong).stderr).into_owned();
    assert!(told.contains("bad.json") && told.contains(" at /properties/a: "), "{told}");
    // No word of this model has a brace.
    let dead = ["generate", path(dir.path()), "w7", "--json-object"];
    assert_eq!(super::code(&dead, "grammar_dead_end"), 1);
    let both = [&base[..], &["--json-object"]].concat();
    assert_eq!(run(&both).status.code(), Some(2));
}
