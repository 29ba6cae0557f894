//! What clients may not do, in raw bytes.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use grok_wgpu::lab::serve::{Key, Settings, Times};
use serde_json::json;

use crate::harness::{Answer, JSON, Served, chat, rest, settings};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn every_route_but_three_needs_the_key() {
    let keys = vec![Key::new("first-key-of-two"), Key::new("second-key")];
    let server = Served::with(Settings { keys, ..settings() });
    let all = [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/demo"),
        ("GET", "/props"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("POST", CHAT),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/apply-template"),
    ];
    for (method, path) in all {
        for key in ["", "authorization: Bearer third\r\n", "authorization: Basic Zmlyc3Q=\r\n"] {
            let answer = server.ask(method, path, &format!("{key}{JSON}"), "{}");
            assert_eq!(answer.error().1, "invalid_api_key", "{path} {key}");
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("bearer")));
        }
        let with = format!("authorization: Bearer second-key\r\n{JSON}");
        assert_ne!(server.ask(method, path, &with, "{}").status, 401, "{path}");
    }
    for path in ["/", "/health", "/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn other_hosts_and_origins_are_refused() {
    let server =
        Served::with(Settings { origins: vec!["https://fine.example".into()], ..settings() });
    let ask = |headers: &str| {
        Answer::of(&server.raw(
            format!("GET /v1/models HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").as_bytes(),
        ))
    };
    for host in ["evil.example", "127.0.0.1.evil.example", "evil.example:8080", "10.0.0.1", ""] {
        assert_eq!(ask(&format!("host: {host}\r\n")).error().1, "forbidden_host", "{host}");
    }
    assert_eq!(ask("").error().1, "forbidden_host", "none at all");
    assert_eq!(ask("host: localhost\r\nhost: localhost\r\n").error().0, 403, "two of them");
    let absolute = "GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\
        connection: close\r\n\r\n";
    assert_eq!(Answer::of(&server.raw(absolute.as_bytes())).error().1, "forbidden_host");
    for host in ["localhost:1", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(ask(&format!("host: {host}\r\n")).status, 200, "{host}");
    }
    for origin in ["http://evil.example", "null", "https://fine.example.evil", "http://localhost:1"]
    {
        let answer = ask(&format!("host: localhost:2\r\norigin: {origin}\r\n"));
        assert_eq!(answer.error().1, "forbidden_origin", "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let own = ask("host: localhost:2\r\norigin: http://localhost:2\r\n");
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, None));
    let allowed = ask("host: localhost\r\norigin: https://fine.example\r\n");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://fine.example"));
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    let preflight =
        |origin: &str| server.ask("OPTIONS", CHAT, &format!("origin: {origin}\r\n"), "");
    let fine = preflight("https://fine.example");
    assert_eq!((fine.status, fine.body.as_str()), (204, ""));
    assert_eq!(fine.header("access-control-allow-headers"), Some("authorization, *"));
    assert_eq!(preflight("https://evil.example").status, 403);
}

#[test]
fn bodies_must_be_json_of_a_fair_size() {
    let server = Served::new();
    let body = chat("hello", &json!({})).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let headers = format!("content-type: {kind}\r\n");
        let answer = server.ask("POST", CHAT, &headers, &body);
        assert_eq!(answer.error().1, "unsupported_media_type", "{kind}");
    }
    assert_eq!(server.ask("POST", CHAT, "", &body).status, 415, "none");
    let with = "content-type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(server.ask("POST", CHAT, with, &body).status, 200);

    let deep = "[".repeat(100_000);
    let twice = r#"{"messages": [], "messages": []}"#;
    for bad in ["", "{", "[]", "null", "\"x\"", "{\"a\": NaN}", &deep[..60_000], twice] {
        let answer = server.ask("POST", CHAT, JSON, bad);
        assert_eq!(
            (answer.error().0, answer.error().1),
            (400, "invalid_json".to_owned()),
            "{bad:.20}"
        );
    }
    let nested = format!("{{\"messages\": {}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(server.ask("POST", CHAT, JSON, &nested).error().1, "invalid_json");
    let bytes = [
        b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n",
        JSON.as_bytes(),
        b"content-length: 16\r\n\r\n{\"content\":\"\xff\xfe\"}",
    ]
    .concat();
    assert_eq!(
        Answer::of(&String::from_utf8_lossy(&{
            let mut stream = server.connect();
            stream.write_all(&bytes).expect("sent");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        }))
        .error()
        .1,
        "invalid_json"
    );

    // Too long by its word, and too long without one.
    let length = |length: &str, body: &str| {
        Answer::of(
            &server.raw(
                format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{JSON}{length}\r\n\r\n{body}")
                    .as_bytes(),
            ),
        )
    };
    let huge = length("content-length: 1073741824", "{");
    assert_eq!((huge.error().0, huge.error().1), (413, "body_too_large".to_owned()));
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    let chunked = length("transfer-encoding: chunked", &chunk.repeat(3));
    assert_eq!(chunked.error().0, 413);
    assert!(server.asked().len() == 1, "one was right");
}

/// Two programs could take such requests apart in different places.
#[test]
fn heads_that_mean_two_things_are_refused() {
    let server = Served::new();
    let inner = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for headers in [
        format!("content-length: {}\r\ntransfer-encoding: chunked", inner.len()),
        "content-length: 5\r\ncontent-length: 6".to_owned(),
        "content-length: +5".to_owned(),
        "content-length: 0x5".to_owned(),
        "transfer-encoding: chunked, identity".to_owned(),
        "content-length : 5".to_owned(),
        " folded: x\r\ncontent-length: 5".to_owned(),
    ] {
        let answer = server.raw(
            format!(
                "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{JSON}{headers}\r\n\r\n0\r\n\r\n{inner}"
            )
            .as_bytes(),
        );
        let status = Answer::of(&answer).status;
        assert!([0, 400].contains(&status), "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 0, "{headers}: {answer}");
    }
    for line in ["GET /health", "GET /health HTTP/9.9", "G\0T / HTTP/1.1", "PRI * HTTP/2.0", ""] {
        let answer = server.raw(format!("{line}\r\nhost: localhost\r\n\r\n").as_bytes());
        assert!(!answer.contains("200 OK"), "{line}: {answer}");
    }
}

#[test]
fn long_heads_are_refused() {
    let server = Served::new();
    let headers = format!("x-long: {}\r\n", "x".repeat(40_000));
    let answer = server.ask("GET", "/health", &headers, "");
    assert!([0, 431].contains(&answer.status), "{answer:?}");
    let many = "x-many: 1\r\n".repeat(200);
    let answer = server.ask("GET", "/health", &many, "");
    assert!([0, 431].contains(&answer.status), "{answer:?}");
    let path = format!("/{}", "x".repeat(9000));
    assert_eq!(server.get(&path).error().0, 404);
}

#[test]
fn clients_that_send_slowly_are_left() {
    let mut times = Times::default();
    times.head = Duration::from_millis(150);
    times.body = Duration::from_millis(150);
    times.idle = Duration::from_millis(400);
    let server = Served::with(Settings { times, ..settings() });
    let begun = Instant::now();
    let mut silent = server.connect();
    let mut half = server.connect();
    half.write_all(b"GET /health HTTP/1.1\r\nhost: local").expect("sent");
    let mut slow = server.connect();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 90\r\n\r\n{{");
    slow.write_all(head.as_bytes()).expect("sent");
    assert_eq!(rest(&mut half), "", "nothing was asked");
    let after = begun.elapsed();
    assert!((150..1500).contains(&after.as_millis()), "{after:?}");
    let answer = Answer::of(&rest(&mut slow));
    assert_eq!((answer.error().0, answer.header("connection")), (408, Some("close")));
    assert_eq!(rest(&mut silent), "");
    assert!(begun.elapsed() >= Duration::from_millis(400));

    // The time of the headers begins with each request.
    let mut client = server.connect();
    for pause in [0, 250, 250] {
        std::thread::sleep(Duration::from_millis(pause));
        client.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        let mut bytes = [0; 512];
        let count = client.read(&mut bytes).expect("an answer");
        assert!(count > 0, "after {pause} ms");
    }
}

#[test]
fn there_are_so_many_connections_and_no_more() {
    let server = Served::with(Settings { connections: 4, ..settings() });
    let mut open: Vec<_> = (0..4).map(|_| server.connect()).collect();
    // The fourth has been taken once it is answered.
    for client in &mut open {
        client.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        let mut bytes = [0; 512];
        assert!(client.read(&mut bytes).expect("an answer") > 0);
    }
    let answer = Answer::of(&rest(&mut server.connect()));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    drop(open);
    server.until("there is room", |server| server.get("/health").status == 200);
}

#[test]
fn a_model_that_is_loaded_is_waited_for() {
    let server = Served::loading(settings(), 8, Duration::from_secs(1));
    for answer in [server.get("/health"), server.get("/ready"), server.chat("hello", &json!({}))] {
        assert_eq!((answer.error().0, answer.error().1), (503, "loading".to_owned()));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(server.post("/tokenize", &json!({ "content": "x" })).status, 200);
    assert_eq!(server.get("/v1/models").json()["data"][0]["max_model_len"], json!(null));
}
