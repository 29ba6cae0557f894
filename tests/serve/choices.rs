//! What requests say of tokens: the program with the demo model gives prompts back with their
//! log-probabilities, and follows biases and penalties.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::program::{Program, STORY};

/// They are those that a text has where it is generated, but for rounding, as prompts have other
/// products. What follows a prompt that is given back has the same bits as without.
#[test]
fn prompts_are_given_back_with_their_log_probabilities() {
    let server = Program::start(&[]);
    let ask = |body: Value| server.post("/v1/completions", &body).json()["choices"][0].clone();
    let made = ask(json!({
        "prompt": STORY, "max_tokens": 40, "temperature": 0, "logprobs": 2,
        "return_token_ids": true, "ignore_eos": true,
    }));
    let echoed = ask(json!({
        "prompt": STORY, "max_tokens": 40, "temperature": 0, "logprobs": 2, "echo": true,
        "ignore_eos": true,
    }));
    let list = |choice: &Value, name: &str| -> Vec<Value> {
        choice["logprobs"][name].as_array().expect("a list").clone()
    };
    let text = made["text"].as_str().expect("text");
    assert_eq!(echoed["text"], format!("{STORY}{text}"));
    let before = list(&echoed, "tokens").len() - 40;
    for name in ["tokens", "token_logprobs", "top_logprobs"] {
        assert_eq!(list(&echoed, name)[before..], list(&made, name), "{name}");
    }
    assert_eq!((list(&echoed, "token_logprobs")[0].clone(), before), (Value::Null, 4));
    let story = server.post("/tokenize", &json!({ "content": STORY })).json();
    let mut ids = story["tokens"].as_array().expect("ids").clone();
    ids.extend(made["token_ids"].as_array().expect("ids").iter().cloned());
    let scored =
        ask(json!({ "prompt": ids, "max_tokens": 0, "logprobs": 2, "echo": true, "n": 2 }));
    assert_eq!((&scored["text"], &scored["finish_reason"]), (&echoed["text"], &json!("length")));
    let [there, here] = [&echoed, &scored].map(|choice| list(choice, "token_logprobs"));
    assert_eq!(here[..4], there[..4]);
    let close = |(one, other): (&Value, &Value)| {
        let [one, other] = [one, other].map(|number| number.as_f64().expect("a number"));
        (one - other).abs() < 1e-3
    };
    assert!(there.len() == here.len() && there[1..].iter().zip(&here[1..]).all(close), "{here:?}");
}

/// The first token is ruled out; one that is biased enough comes always; penalties make other
/// tokens likelier, and negative ones the same.
#[test]
fn biases_and_penalties_change_what_is_chosen() {
    let server = Program::start(&[]);
    let with = |name: &str, value: Value| {
        let mut body = json!({
            "prompt": STORY, "max_tokens": 8, "temperature": 0, "return_token_ids": true,
        });
        body[name] = value;
        let answer = server.post("/v1/completions", &body).json();
        answer["choices"][0]["token_ids"].as_array().expect("ids").clone()
    };
    let plain = with("seed", json!(1));
    let id = plain[0].to_string();
    let ruled_out = with("logit_bias", json!({ id.as_str(): -100 }));
    assert!(!ruled_out.contains(&plain[0]), "{ruled_out:?}");
    let forced = with("logit_bias", json!({ id.as_str(): 100 }));
    assert!(forced.iter().all(|other| *other == plain[0]), "{forced:?}");
    let repeated = with("frequency_penalty", json!(-2));
    let fresh = with("presence_penalty", json!(2));
    let kinds = |ids: &[Value]| ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len();
    assert!(kinds(&repeated) <= kinds(&plain) && kinds(&plain) <= kinds(&fresh), "{fresh:?}");
}
