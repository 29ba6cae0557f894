//! Streamed answers, byte by byte; clients that leave, or do not read; the end of the server.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use grok_wgpu::lab::serve::{Settings, Times};
use serde_json::{Value, json};

use crate::harness::{Answer, JSON, Served, chat, rest, settings};

/// The body of a streamed answer, with what differs from run to run replaced.
fn frames(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.body.ends_with("\n\n"), "{answer:?}");
    let frames = answer.body.split_terminator("\n\n").map(|frame| {
        let Some(text) = frame.strip_prefix("data: ").filter(|text| text.starts_with('{')) else {
            return frame.to_owned();
        };
        let mut value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(format!("data: {value}"), frame, "one line, as it is");
        for name in ["id", "created"] {
            if value.get(name).is_some() {
                value[name] = name.into();
            }
        }
        format!("data: {value}")
    });
    frames.collect()
}

/// A chunk with these choices and other fields.
fn chunk(kind: &str, choices: &Value, more: &Value) -> String {
    let mut value = json!({
        "id": "id", "object": kind, "created": "created", "model": "demo",
        "system_fingerprint": "fp_test", "choices": choices,
    });
    for (name, field) in more.as_object().expect("fields") {
        value[name] = field.clone();
    }
    format!("data: {value}")
}

#[test]
fn a_streamed_conversation_is_this() {
    let server = Served::new();
    let kind = "chat.completion.chunk";
    let delta = |delta: Value, finish: Value| {
        json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish,
        }])
    };
    let first = json!({ "role": "assistant", "content": "", "refusal": null });
    let seed = json!({ "grok_wgpu": { "seed": 4 } });
    let none = || json!({});
    let answer = server.chat("hello", &json!({ "stream": true, "seed": 4 }));
    let wanted = [
        chunk(kind, &delta(first.clone(), Value::Null), &seed),
        chunk(kind, &delta(json!({ "content": "Hi" }), Value::Null), &none()),
        chunk(kind, &delta(json!({ "content": " there" }), Value::Null), &none()),
        chunk(kind, &delta(json!({}), "stop".into()), &none()),
        "data: [DONE]".to_owned(),
    ];
    assert_eq!(frames(&answer), wanted);

    let usage = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let frames = frames(&server.chat("hello", &usage));
    let prompt = server.asked()[1].prompt.len();
    let counts = json!({ "usage": {
        "prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2,
        "prompt_tokens_details": { "cached_tokens": 3 },
    } });
    let [before @ .., last, done] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((last, &done[..]), (&chunk(kind, &json!([]), &counts), "data: [DONE]"));
    assert!(before.iter().all(|frame| frame.contains("\"usage\":null")), "{before:?}");
}

#[test]
fn a_streamed_text_is_this() {
    let server = Served::new();
    let kind = "text_completion";
    let choice = |text: &str, finish: Value| {
        json!([{
            "index": 0, "text": text, "logprobs": null, "finish_reason": finish,
        }])
    };
    let body = json!({ "prompt": "@blank", "stream": true, "seed": 4 });
    let seed = json!({ "grok_wgpu": { "seed": 4 } });
    let wanted = [
        // A token inside of a character shows nothing.
        chunk(kind, &choice("é", Value::Null), &json!({})),
        chunk(kind, &choice("", "stop".into()), &seed),
        "data: [DONE]".to_owned(),
    ];
    assert_eq!(frames(&server.post("/v1/completions", &body)), wanted);
}

#[test]
fn several_texts_are_streamed_with_their_indices() {
    let server = Served::new();
    let body = json!({ "prompt": ["a", "@long"], "stream": true, "logprobs": 1 });
    let frames = frames(&server.post("/v1/completions", &body));
    let mut texts = [String::new(), String::new()];
    for frame in &frames[..frames.len() - 1] {
        let value: Value = serde_json::from_str(&frame["data: ".len()..]).expect("JSON");
        let choice = &value["choices"][0];
        let index = usize::try_from(choice["index"].as_u64().expect("an index")).expect("small");
        texts[index] += choice["text"].as_str().expect("text");
        assert_eq!(choice["logprobs"].is_null(), !choice["finish_reason"].is_null(), "{choice}");
    }
    assert_eq!(texts, [" Hi there", " one two three"]);
}

#[test]
fn an_error_in_the_middle_is_seen_and_the_end_is_missing() {
    let server = Served::new();
    let answer = server.chat("@break", &json!({ "stream": true }));
    let all = frames(&answer);
    let last: Value = serde_json::from_str(&all[all.len() - 1]["data: ".len()..]).expect("JSON");
    assert_eq!(last["error"]["code"], "non_finite");
    assert!(!answer.body.contains("[DONE]"));
    // The connection ends in order: the body is complete.
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));

    // Before the first text there is still a status.
    for stream in [true, false] {
        let answer = server.chat("@lost", &json!({ "stream": stream }));
        assert_eq!((answer.error().0, answer.error().1), (503, "device_lost".to_owned()));
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    let answer = server.chat("@nan", &json!({}));
    assert_eq!((answer.error().0, answer.header("x-should-retry")), (500, Some("false")));
    assert_eq!(server.chat("hello", &json!({})).status, 200, "others are answered");
}

#[test]
fn a_stream_shows_that_it_lives() {
    let mut times = Times::default();
    times.ping = Duration::from_millis(40);
    let server = Served::with(Settings { times, ..settings() });
    let answer = server.chat("@wait:300", &json!({ "stream": true }));
    let pings = answer.body.matches(": ping\n\n").count();
    assert!((2..=8).contains(&pings), "{pings}");
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
}

/// Sends a conversation without reading the answer.
fn send(server: &Served, message: &str, more: &Value) -> TcpStream {
    let body = chat(message, more).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\n{JSON}content-length: {}\r\n\r\n",
        server.address,
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all((head + &body).as_bytes()).expect("sent");
    stream
}

fn ended(server: &Served, at: usize) -> Option<String> {
    server.asked().get(at).and_then(|begun| begun.ended.clone())
}

#[test]
fn a_client_that_leaves_ends_its_text() {
    let server = Served::new();
    for (at, stream) in [false, true].into_iter().enumerate() {
        let client = send(&server, "@endless", &json!({ "stream": stream }));
        server.until("it runs", |server| server.asked().len() == at + 1);
        drop(client);
        let begun = Instant::now();
        server.until("it ends", |server| ended(server, at).is_some());
        assert_eq!(ended(&server, at).as_deref(), Some("client_left"), "stream: {stream}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    server.until("both are counted", |server| {
        server.get("/metrics").body.contains("cancelled_total{reason=\"client_left\"} 2")
    });
    let log = server.log();
    let left = |status: u16| {
        let line = log.iter().find(|line| line["status"] == status && line["outcome"].is_string());
        line.unwrap_or_else(|| panic!("{log:?}")).clone()
    };
    // Tokens that were made for nobody count as well.
    assert_eq!(left(499)["outcome"], "client_left");
    assert!(left(200)["completion_tokens"].as_u64().is_some_and(|made| made > 0), "{log:?}");
}

#[test]
fn clients_that_leave_the_queue_make_room() {
    let server = Served::queueing(settings(), 2, Duration::from_secs(10));
    let first = send(&server, "@endless", &json!({ "stream": true }));
    server.until("it runs", |server| server.asked().len() == 1);
    let waiting: Vec<_> = (0..2).map(|_| send(&server, "hello", &json!({}))).collect();
    server.until("two wait", |server| server.get("/props").json()["load"]["waiting"] == 2);
    let answer = server.chat("hello", &json!({}));
    assert_eq!((answer.error().0, answer.error().1), (429, "queue_full".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(server.get("/ready").error().1, "queue_full");
    assert_eq!(server.get("/health").status, 200);
    drop(waiting);
    drop(first);
    server.until("it is empty", |server| server.get("/ready").status == 200);
    assert_eq!(server.chat("hello", &json!({})).status, 200);
}

#[test]
fn a_slow_reader_does_not_stall_others_for_ever() {
    let server = Served::queueing(settings(), 8, Duration::from_millis(300));
    let slow = send(&server, "@flood", &json!({ "stream": true, "max_tokens": 9 }));
    server.until("it runs", |server| server.asked().len() == 1);
    assert_eq!(server.chat("hello", &json!({})).status, 200, "the next one is answered");
    assert_eq!(ended(&server, 0).as_deref(), Some("slow_reader"));
    drop(slow);
}

#[test]
fn a_connection_that_is_not_read_is_closed() {
    let mut times = Times::default();
    times.write = Duration::from_millis(200);
    let server = Served::with(Settings { times, ..settings() });
    let slow = send(&server, "@flood", &json!({ "stream": true }));
    server.until("it ends", |server| ended(server, 0).is_some());
    assert_eq!(ended(&server, 0).as_deref(), Some("client_left"));
    drop(slow);
}

#[test]
fn a_request_has_a_deadline() {
    let mut times = Times::default();
    times.request = Duration::from_millis(150);
    let server = Served::with(Settings { times, ..settings() });
    let answer = server.chat("@endless", &json!({}));
    assert_eq!((answer.error().0, answer.error().1), (408, "timeout".to_owned()));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let answer = server.chat("@endless", &json!({ "stream": true }));
    let all = frames(&answer);
    assert!(all[all.len() - 1].contains("\"code\":\"timeout\""), "{all:?}");
    server.until("both end", |server| ended(server, 1).is_some());
}

#[test]
fn a_server_that_ends_lets_texts_end() {
    let mut server = Served::new();
    let mut running = send(&server, "@wait:300", &json!({}));
    server.until("it runs", |server| server.asked().len() == 1);
    let mut waiting = send(&server, "hello", &json!({}));
    let mut idle = server.connect();
    server.until("one waits", |server| server.get("/props").json()["load"]["waiting"] == 1);
    server.stop();
    // An answer says that the connection ends, and it does.
    let answer = Answer::of(&rest(&mut running));
    assert!(answer.status == 200 && answer.body.contains("Hi there"), "{answer:?}");
    let answer = Answer::of(&rest(&mut waiting));
    assert_eq!((answer.error().0, answer.error().1), (503, "stopping".to_owned()));
    assert_eq!(rest(&mut idle), "");
    let begun = Instant::now();
    server.join();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens");
}

#[test]
fn a_text_that_takes_too_long_to_end_is_ended() {
    let mut times = Times::default();
    times.grace = Duration::from_millis(100);
    let mut server = Served::with(Settings { times, ..settings() });
    let mut streamed = send(&server, "@endless", &json!({ "stream": true }));
    server.until("it runs", |server| server.asked().len() == 1);
    server.stop();
    let answer = Answer::of(&rest(&mut streamed));
    assert!(answer.body.contains("\"code\":\"stopping\""), "{}", answer.body);
    assert!(!answer.body.contains("[DONE]"));
    server.join();
}

#[test]
fn many_connections_come_and_go() {
    let server = Served::with(Settings { connections: 256, ..settings() });
    for _ in 0..100 {
        drop(server.connect());
    }
    let clients: Vec<_> = (0..8)
        .map(|i| {
            let stream = i % 2 == 0;
            (stream, send(&server, "hello", &json!({ "stream": stream })))
        })
        .collect();
    for (stream, mut client) in clients {
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let mut text = String::new();
        let mut bytes = [0; 1024];
        let end = if stream { "[DONE]" } else { "total_tokens" };
        while !text.contains(end) {
            let count = client.read(&mut bytes).expect("bytes");
            assert!(count > 0, "{text}");
            text += &String::from_utf8_lossy(&bytes[..count]);
        }
    }
    // A connection is used for several requests.
    let mut client = server.connect();
    for _ in 0..3 {
        let request = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
        client.write_all(request.as_bytes()).expect("sent");
        let mut bytes = [0; 1024];
        let count = client.read(&mut bytes).expect("bytes");
        assert!(String::from_utf8_lossy(&bytes[..count]).ends_with(r#"{"status":"ok"}"#));
        thread::sleep(Duration::from_millis(5));
    }
}
