//! Each field and each endpoint, in whole answers.

use serde_json::{Value, json};

use crate::harness::{CONTEXT, JSON, Served, chat, settings};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[test]
fn an_answer_has_the_shape_that_clients_know() {
    let server = Served::new();
    let answer = server.chat("hello", &json!({ "seed": 7, "odd": 1, "another": {} }));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-ignored-fields"), Some("another, odd"));
    let mut body = answer.json();
    let prompt = server.asked()[0].prompt.len();
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")), "{body}");
    assert!(body["created"].as_u64().is_some_and(|time| time > 1_600_000_000), "{body}");
    body["id"] = Value::Null;
    body["created"] = Value::Null;
    assert_eq!(
        body,
        json!({
            "id": null,
            "object": "chat.completion",
            "created": null,
            "model": "demo",
            "system_fingerprint": "fp_test",
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": "Hi there", "refusal": null },
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": 2,
                "total_tokens": prompt + 2,
                "prompt_tokens_details": { "cached_tokens": 3 },
            },
            "grok_wgpu": { "seed": 7 },
        })
    );
    let text = server.post(TEXT, &json!({ "prompt": "once", "return_token_ids": true })).json();
    assert_eq!(text["object"], "text_completion");
    let choice = &text["choices"][0];
    // A text that is continued keeps its blank.
    assert_eq!((&choice["text"], &choice["token_ids"]), (&json!(" Hi there"), &json!([200, 200])));
    assert!(server.chat("@held", &json!({})).body.contains("Hi there!"));
    let long = server.chat("@long", &json!({})).json();
    assert_eq!(long["choices"][0]["finish_reason"], "length");
}

/// Fields that are taken, and what the engine is asked for.
#[test]
fn fields_reach_the_engine() {
    let server = Served::new();
    let more = json!({
        "model": "demo", "temperature": 0.5, "top_p": 0.25, "top_k": 5, "min_p": 0.125,
        "repetition_penalty": 1.5, "seed": -1, "stop": ["a", "b"], "max_completion_tokens": 7,
        "max_tokens": 7, "cache_prompt": false, "ignore_eos": true,
        // Accepted, and without effect.
        "user": "x", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
        "parallel_tool_calls": true, "tools": [], "tool_choice": "none", "functions": null,
        "response_format": {"type": "text"}, "modalities": ["text"], "reasoning_effort": "none",
        "logit_bias": {"201": -100, "5": 1.5}, "frequency_penalty": 0.5, "presence_penalty": -2,
        "n": 1, "stream": false, "logprobs": false, "top_logprobs": 0, "audio": null,
    });
    let answer = server.chat("hello", &more);
    assert_eq!((answer.status, answer.header("x-ignored-fields")), (200, None), "{answer:?}");
    let begun = &server.asked()[0];
    let sampling = begun.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p),
        (0.5, 0.25, 5, 0.125)
    );
    assert_eq!((sampling.repetition_penalty, sampling.seed), (1.5, u64::MAX));
    assert_eq!((begun.max_tokens, begun.reuse, begun.stop_ids), (7, false, 0));
    assert_eq!(begun.stops, ["a", "b"]);
    let shaping = &begun.shaping;
    assert_eq!((shaping.frequency_penalty, shaping.presence_penalty), (0.5, -2.0));
    assert!(shaping.logit_bias.iter().eq([(&5, &1.5), (&201, &-100.0)]), "{shaping:?}");

    // What is absent: the server's own, and a seed of each request's own.
    for _ in 0..2 {
        assert_eq!(server.post(TEXT, &json!({ "prompt": "x", "stop": "z" })).status, 200);
    }
    let asked = server.asked();
    let [.., one, two] = &asked[..] else { panic!("two more") };
    assert_eq!((one.sampling.temperature, one.max_tokens, one.reuse), (1.0, 100, true));
    assert_eq!(one.stops, ["z"]);
    assert!(one.stop_ids > 0);
    assert_ne!(one.sampling.seed, two.sampling.seed);
    // As many as fit.
    let ids = vec![200; CONTEXT - 3];
    assert_eq!(server.post(TEXT, &json!({ "prompt": ids })).status, 200);
    assert_eq!(server.asked().last().map(|begun| begun.max_tokens), Some(3));
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let server = Served::new();
    let value = "invalid_value";
    let missing = "unsupported_parameter";
    let tool = json!([{ "type": "function", "function": { "name": "f" } }]);
    let twice = json!([tool[0], tool[0]]);
    for (name, bad, code) in [
        ("temperature", json!(-1), value),
        ("temperature", json!(2.5), value),
        ("temperature", json!("1"), value),
        ("top_p", json!(7), value),
        ("top_k", json!(-1), value),
        ("top_k", json!(1.5), value),
        ("min_p", json!(2), value),
        ("repetition_penalty", json!(0), value),
        ("max_tokens", json!(0), value),
        ("max_completion_tokens", json!(-3), value),
        ("n", json!(0), value),
        ("n", json!(9), value),
        ("seed", json!(1.5), value),
        ("stop", json!([""]), value),
        ("stop", json!(vec!["x"; 17]), value),
        ("stop", json!("x".repeat(1025)), value),
        ("stop", json!([1]), value),
        ("stream", json!("yes"), value),
        ("stream_options", json!({ "include_usage": true }), value),
        ("logprobs", json!(3), value),
        ("top_logprobs", json!(5), value),
        ("top_logprobs", json!(21), value),
        ("messages", json!([]), value),
        ("messages", json!("hello"), value),
        ("messages", json!(null), value),
        ("frequency_penalty", json!(2.5), value),
        ("presence_penalty", json!(-3), value),
        ("logit_bias", json!({ "5": 101 }), value),
        ("logit_bias", json!({ "99999": 1 }), value),
        ("logit_bias", json!({ "x": 1 }), value),
        ("logit_bias", json!([5]), value),
        ("tools", json!("f"), value),
        ("tools", twice, value),
        ("tool_choice", json!("required"), value),
        ("tool_choice", json!("sometimes"), value),
        ("tool_choice", json!({ "type": "function", "function": { "name": "f" } }), value),
        ("response_format", json!("json"), value),
        ("functions", tool.clone(), missing),
        ("function_call", json!("auto"), missing),
        ("modalities", json!(["text", "audio"]), missing),
        ("audio", json!({ "voice": "x" }), missing),
        ("prediction", json!({}), missing),
        ("web_search_options", json!({}), missing),
        ("store", json!(true), missing),
        ("reasoning_effort", json!("high"), missing),
    ] {
        let error = server.chat("hello", &json!({ name: bad })).error();
        assert_eq!(error, (400, code.to_owned(), Some(name.to_owned())), "{name} = {bad}");
    }
    let both = server.chat("hello", &json!({ "max_tokens": 3, "max_completion_tokens": 4 }));
    assert_eq!(both.error().2.as_deref(), Some("max_tokens"));
    for (name, bad, code) in [
        ("prompt", json!(null), value),
        ("prompt", json!([]), value),
        ("prompt", json!(vec!["x"; 9]), value),
        ("prompt", json!([1, "x"]), value),
        ("prompt", json!([99_999]), value),
        ("prompt", json!([[1], [-1]]), value),
        ("logprobs", json!(6), value),
        ("echo", json!("yes"), value),
        ("max_tokens", json!(0), value),
        ("suffix", json!("end"), missing),
        ("best_of", json!(3), missing),
    ] {
        let mut body = json!({ "prompt": "x" });
        body[name] = bad.clone();
        let error = server.post(TEXT, &body).error();
        assert_eq!(error, (400, code.to_owned(), Some(name.to_owned())), "{name} = {bad}");
    }
    assert!(server.asked().is_empty(), "nothing of it reached the engine");
}

#[test]
fn messages_are_read_part_by_part() {
    let server = Served::new();
    let ask = |messages: Value| server.post(CHAT, &json!({ "messages": messages }));
    let parts = json!([{ "type": "text", "text": "he" }, { "type": "text", "text": "llo" }]);
    for (role, content) in [("user", json!("hello")), ("user", parts)] {
        assert_eq!(ask(json!([{ "role": role, "content": content, "name": "x" }])).status, 200);
    }
    let developer = json!([
        { "role": "developer", "content": "Be brief." },
        { "role": "user", "content": "hello" },
        { "role": "assistant", "content": "Hi.", "refusal": null },
        { "role": "user", "content": "again" },
    ]);
    assert_eq!(ask(developer).status, 200);
    let asked = server.asked();
    assert_eq!(asked[0].prompt, asked[1].prompt, "parts are one text");
    for (message, code, param) in [
        (json!({ "role": "robot", "content": "x" }), "invalid_value", "messages[0].role"),
        (json!({ "content": "x" }), "invalid_value", "messages[0].role"),
        (json!({ "role": "user" }), "invalid_value", "messages[0].content"),
        (json!({ "role": "user", "content": 3 }), "invalid_value", "messages[0].content"),
        (json!("hello"), "invalid_value", "messages[0]"),
        (
            json!({ "role": "function", "content": "x" }),
            "unsupported_parameter",
            "messages[0].role",
        ),
        (
            json!({ "role": "assistant", "content": null, "tool_calls": [{}] }),
            "invalid_value",
            "messages[0].tool_calls[0].id",
        ),
        (
            json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": 7 }] }),
            "invalid_value",
            "messages[0].tool_calls[0].id",
        ),
        (
            json!({
                "role": "assistant", "content": null,
                "tool_calls": [{ "id": "x", "type": "custom" }],
            }),
            "invalid_value",
            "messages[0].tool_calls[0].type",
        ),
        (
            json!({
                "role": "assistant", "content": null,
                "tool_calls": [{ "id": "x", "type": "function" }],
            }),
            "invalid_value",
            "messages[0].tool_calls[0].function",
        ),
        (json!({ "role": "tool", "content": "x" }), "invalid_value", "messages[0].tool_call_id"),
        (
            json!({ "role": "tool", "content": "x", "tool_call_id": {} }),
            "invalid_value",
            "messages[0].tool_call_id",
        ),
        (
            json!({ "role": "user", "content": "x", "tool_calls": [{}] }),
            "invalid_value",
            "messages[0].tool_calls",
        ),
        (json!({ "role": "assistant", "content": null }), "invalid_value", "messages[0].content"),
        (
            json!({ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }),
            "unsupported_content",
            "messages[0].content[0].type",
        ),
        (
            json!({ "role": "user", "content": [{ "type": "text" }] }),
            "invalid_value",
            "messages[0].content[0].text",
        ),
    ] {
        let error = ask(json!([message])).error();
        assert_eq!(error, (400, code.to_owned(), Some(param.to_owned())), "{message}");
    }
}

#[test]
fn several_texts_have_their_indices() {
    let server = Served::new();
    let body = json!({ "prompt": ["a", "@long"], "n": 2, "seed": 3 });
    let answer = server.post(TEXT, &body).json();
    let of = |name: &str| -> Vec<Value> {
        let choices = answer["choices"].as_array().expect("choices");
        choices.iter().map(|choice| choice[name].clone()).collect()
    };
    assert_eq!(of("index"), [0, 1, 2, 3]);
    assert_eq!(of("finish_reason"), ["stop", "stop", "length", "length"]);
    let asked = server.asked();
    let streams: Vec<_> = asked.iter().map(|begun| (begun.sampling.seed, begun.stream)).collect();
    assert_eq!(streams, [(3, 0), (3, 1), (3, 0), (3, 1)]);
    // Each prompt counts once.
    let prompts = asked[0].prompt.len() + asked[2].prompt.len();
    assert_eq!(answer["usage"]["prompt_tokens"], prompts);
    assert_eq!(answer["usage"]["completion_tokens"], 2 + 2 + 3 + 3);
}

#[test]
fn log_probabilities_have_both_shapes() {
    let server = Served::new();
    let more = json!({ "logprobs": true, "top_logprobs": 3 });
    let choice = server.chat("hello", &more).json()["choices"][0].clone();
    let content = choice["logprobs"]["content"].as_array().expect("a list");
    assert_eq!(content.len(), 2);
    let token = &content[0];
    let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).expect("bytes");
    assert_eq!(token["token"], String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(token["logprob"], -0.5);
    let top: Vec<&Value> =
        token["top_logprobs"].as_array().expect("a list").iter().map(|t| &t["logprob"]).collect();
    assert_eq!(top, [-0.5, -1.25, -9999.0], "no infinity in JSON");
    let none = server.chat("hello", &json!({ "logprobs": true })).json();
    assert_eq!(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));

    let old = server.post(TEXT, &json!({ "prompt": "x", "logprobs": 2 })).json();
    let logprobs = &old["choices"][0]["logprobs"];
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5]));
    assert_eq!(logprobs["text_offset"], json!([0, 3]));
    assert_eq!(logprobs["top_logprobs"][0].as_object().map(serde_json::Map::len), Some(2));
}

#[test]
fn a_prompt_that_is_too_long_is_told_in_the_usual_words() {
    let server = Served::new();
    for (ids, more) in [(CONTEXT, json!({})), (CONTEXT - 5, json!({ "max_tokens": 6 }))] {
        let mut body = json!({ "prompt": vec![200; ids] });
        for (name, value) in more.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let answer = server.post(TEXT, &body);
        assert_eq!(answer.error().1, "context_length_exceeded");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("This model's maximum context length is 1000 tokens. However, "));
    }
}

#[test]
fn the_model_has_one_name() {
    let server = Served::new();
    let list = server.get("/v1/models").json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("demo")));
    assert_eq!(list["data"][0]["max_model_len"], CONTEXT);
    assert_eq!(server.get("/v1/models/demo").json(), list["data"][0]);
    assert_eq!(server.get("/v1/models/gpt-4").error().1, "model_not_found");
    let other = server.chat("hello", &json!({ "model": "gpt-4" })).error();
    assert_eq!(other, (404, "model_not_found".to_owned(), Some("model".to_owned())));
    let any = Served::with(grok_wgpu::lab::serve::Settings { any_model: true, ..settings() });
    let answer = any.chat("hello", &json!({ "model": "gpt-4" }));
    assert_eq!(answer.json()["model"], "demo");
}

#[test]
fn texts_and_ids_are_translated() {
    let server = Served::new();
    // What looks like a special token in a text is text.
    let text = "Hi <|separator|> é";
    let ids = server.post("/tokenize", &json!({ "content": text })).json()["tokens"].clone();
    assert!(!ids.as_array().expect("ids").contains(&json!(1)), "{ids}");
    let back = server.post("/detokenize", &json!({ "tokens": ids })).json();
    assert_eq!(back, json!({ "content": text }));
    let pieces = server.post("/tokenize", &json!({ "content": "é", "with_pieces": true })).json();
    assert!(pieces["tokens"][0]["piece"] == json!([195]) || pieces["tokens"][0]["piece"] == "é");
    let made = server.post("/apply-template", &chat("Hello", &json!({}))).json();
    assert_eq!(made["prompt"], "Human: Hello<|separator|>\n\nAssistant:");
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/tokenize", json!({ "content": 3 })),
        ("/tokenize", json!({ "content": "x", "parse_special": true })),
        ("/detokenize", json!({ "tokens": [99_999] })),
        ("/detokenize", json!({ "tokens": "x" })),
        ("/apply-template", json!({})),
    ] {
        assert_eq!(server.post(path, &body).error().0, 400, "{path} {body}");
    }
}

#[test]
fn what_the_server_is_can_be_asked() {
    let server = Served::new();
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    assert_eq!(server.get("/ready").json(), json!({ "status": "ready" }));
    let props = server.get("/props").json();
    assert_eq!((&props["context"], &props["limits"]["queue"]), (&json!(CONTEXT), &json!(8)));
    let document = server.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    // The largest id is the model's. Some programs write whole numbers with a point.
    let most = document["components"]["schemas"]["TokenId"]["maximum"].as_u64().expect("a number");
    for (id, status) in [(json!(most), 200), (json!(65.0), 200), (json!(most + 1), 400)] {
        assert_eq!(server.post("/detokenize", &json!({ "tokens": [id] })).status, status, "{id}");
    }
    for id in [json!(65.5), json!(-1), json!(-0.5), json!(1e300), json!("65")] {
        assert_eq!(server.post("/detokenize", &json!({ "tokens": [id] })).status, 400, "{id}");
    }
    for path in document["paths"].as_object().expect("paths").keys() {
        let method = if document["paths"][path].get("post").is_some() { "POST" } else { "GET" };
        let answer = server.ask(method, &path.replace("{id}", "demo"), JSON, "{}");
        assert_ne!(answer.status, 404, "{path}");
        let other = if method == "GET" { "POST" } else { "GET" };
        let wrong = server.ask(other, path, JSON, "{}");
        assert_eq!(wrong.error().1, "method_not_allowed", "{path}");
        assert_eq!(wrong.header("allow"), Some(method.to_lowercase().as_str()));
    }
    let page = server.get("/");
    assert!(page.body.contains("<title>grok-wgpu</title>"));
    assert!(
        page.header("content-security-policy").is_some_and(|p| p.contains("default-src 'none'"))
    );
    for address in page.body.split("http").skip(1) {
        let name = address.trim_start_matches("s://").trim_start_matches("://");
        assert!(name.starts_with("www.w3.org/2000/svg"), "the page asks elsewhere: {address:.60}");
    }
    for path in ["/v1/embeddings", "/v1/responses", "/api/chat", "/completion", "/nothing"] {
        assert_eq!(server.post(path, &json!({})).error().0, 404, "{path}");
    }
}

#[test]
fn what_is_counted_is_what_was_asked() {
    let server = Served::new();
    server.chat("hello", &json!({}));
    server.chat("hello", &json!({ "n": 0 }));
    server.get("/nothing");
    server.until("three are counted", |server| server.log().len() == 3);
    let text = server.get("/metrics").body;
    let prompt = server.asked()[0].prompt.len();
    for line in [
        r#"requests_total{endpoint="/v1/chat/completions",code="200"} 1"#,
        r#"requests_total{endpoint="/v1/chat/completions",code="400"} 1"#,
        r#"requests_total{endpoint="other",code="404"} 1"#,
        &format!("prompt_tokens_total {prompt}"),
        "prompt_tokens_cached_total 3",
        "generated_tokens_total 2",
        "requests_running 0",
        "requests_waiting 0",
        "time_to_first_token_seconds_count 1",
        "inter_token_seconds_count 1",
        "request_seconds_count 3",
    ] {
        assert!(text.lines().any(|one| one == format!("grok_wgpu_{line}")), "{line}: {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

/// Nothing of what people ask or are answered is in the log.
#[test]
fn the_log_has_numbers_and_no_text() {
    let server = Served::new();
    server.chat("my secret", &json!({ "user": "alice-secret" }));
    server.post("/secret", &json!({ "secret": 1 }));
    server.ask("POST", CHAT, "x-request-id: mine-1\r\nauthorization: Bearer secret\r\n", "{}");
    server.until("three lines", |server| server.log().len() == 3);
    let log = server.log();
    for line in &log {
        let text = line.to_string();
        assert!(!text.contains("secret") && !text.contains("Hi there"), "{text}");
    }
    assert_eq!((&log[0]["status"], &log[0]["completion_tokens"]), (&json!(200), &json!(2)));
    assert_eq!((&log[2]["request"], &log[2]["status"]), (&json!("mine-1"), &json!(415)));
}
