//! The program with the demo model, on the adapter under test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Answer, JSON, chat, rest};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
pub(crate) const STORY: &str = "Once upon a time";

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grok-wgpu"));
    command.env("GROK_WGPU_TUNING", "none").env_remove("GROK_WGPU_API_KEY");
    command.stdin(Stdio::null());
    command
}

/// The program as a server. It is killed when dropped.
pub(crate) struct Program {
    child: Child,
    address: String,
    stderr: Option<ChildStderr>,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = command()
            .args(["serve", MODEL, "--port", "0", "--json", "--no-warmup"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let mut stderr = child.stderr.take();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            let mut text = String::new();
            let _ = stderr.as_mut().map(|stderr| stderr.read_to_string(&mut text));
            panic!("{error}: {line:?}, {text}")
        });
        assert_eq!(said["model"], "demo");
        let url = said["url"].as_str().expect("an address");
        let address = url.strip_prefix("http://").expect("an address").to_owned();
        Self { child, address, stderr }
    }

    fn send(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let (address, length) = (&self.address, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{JSON}\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).expect("sent");
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let address = &self.address;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        Answer::of(&rest(&mut stream))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(&rest(&mut self.send(path, body)))
    }

    /// Sends a signal, and returns the exit code and what was said on the standard error.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
        let mut text = String::new();
        let stderr = self.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut text).expect("text");
        (self.child.wait().expect("it ends").code(), text)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The content of a streamed conversation.
fn streamed(answer: &Answer) -> String {
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    let events = answer.body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: {"));
    let text = |event: &str| {
        let value: Value = serde_json::from_str(&format!("{{{event}")).expect("JSON");
        value["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    };
    events.map(text).collect()
}

/// One server for all of it, as loading takes a second.
#[test]
fn texts_are_those_that_generate_writes() {
    let server = Program::start(&[]);
    let story = ["generate", MODEL, STORY, "-n", "24", "--temperature", "0", "-q", "--no-warmup"];
    let wanted = text(&command().args(story).output().expect("it runs"));
    let body = json!({ "prompt": STORY, "max_tokens": 24, "temperature": 0 });
    let answer = server.post("/v1/completions", &body).json();
    assert_eq!(answer["choices"][0]["text"].as_str().map(str::trim_end), Some(wanted.trim_end()));
    assert_eq!(answer["usage"]["completion_tokens"], 24);

    // Once more: whole pages of the prompt are in the cache, and the bits are the same.
    let long = [STORY; 12].join(" ");
    let more = json!({ "prompt": long, "max_tokens": 24, "temperature": 0, "logprobs": 2 });
    let mut fresh = more.clone();
    fresh["cache_prompt"] = false.into();
    let [first, again, fresh] =
        [&more, &more, &fresh].map(|body| server.post("/v1/completions", body).json());
    assert_eq!(first["choices"], again["choices"]);
    assert_eq!(first["choices"], fresh["choices"]);
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    let prompt = first["usage"]["prompt_tokens"].as_u64().expect("a number");
    assert!(prompt > 33, "{first}");
    let whole = json!((prompt - 1) / 32 * 32);
    assert_eq!([&first, &again, &fresh].map(cached), [json!(0), whole, json!(0)]);

    // A conversation, as `generate --system` has it; sampled, by seed.
    let seeded = [
        "generate",
        MODEL,
        "Tell me a story.",
        "--system",
        "Be brief.",
        "-n",
        "20",
        "--seed",
        "5",
        "--temperature",
        "0.8",
        "--top-k",
        "0",
        "--top-p",
        "1",
        "-q",
        "--no-warmup",
    ];
    let wanted = text(&command().args(seeded).output().expect("it runs"));
    let body = json!({
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "Tell me a story." },
        ],
        "max_tokens": 20, "seed": 5, "temperature": 0.8,
    });
    let whole = server.post("/v1/chat/completions", &body).json();
    let content = whole["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    assert_eq!(content.trim_end(), wanted.trim_end());

    // Streamed, two at once, the same; several texts of one seed differ.
    let mut stream = body.clone();
    stream["stream"] = true.into();
    let mut clients = [0; 2].map(|_| server.send("/v1/chat/completions", &stream));
    for client in &mut clients {
        assert_eq!(streamed(&Answer::of(&rest(client))), content);
    }
    let mut several = body.clone();
    several["n"] = 2.into();
    let several = server.post("/v1/chat/completions", &several).json();
    assert_eq!(several["choices"][0]["message"]["content"], content);
    assert_ne!(several["choices"][1]["message"]["content"], content);

    // A text that stops where it should.
    let stop = content.split_whitespace().nth(3).expect("a word");
    let mut stopped = body.clone();
    stopped["stop"] = stop.into();
    let stopped = server.post("/v1/chat/completions", &stopped).json();
    let (before, _) = content.split_once(stop).expect("it is there");
    assert_eq!(stopped["choices"][0]["message"]["content"], before);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");

    // A client that leaves, in the middle of a long text, is no hindrance.
    let long = chat("Tell me a story.", &json!({ "max_tokens": 1500, "ignore_eos": true }));
    let leaving = server.send("/v1/chat/completions", &long);
    thread::sleep(Duration::from_millis(150));
    drop(leaving);
    assert_eq!(server.post("/v1/chat/completions", &body).json()["choices"], whole["choices"]);

    let (code, said) = server.end("-TERM");
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().any(|line| line["outcome"] == "client_left"), "{said}");
    assert!(!said.contains("story"), "{said}");
}

/// Texts of several keys in a cache that has room for one context: they are those that they are
/// alone, to the bits of their log-probabilities.
#[test]
fn texts_at_once_are_those_that_they_are_alone() {
    let args = ["--rows", "3", "--contexts", "1", "--context", "160", "--max-stall", "1"];
    let server = Program::start(&args);
    let body = |i: usize| {
        let prompt = [STORY; 10][..=(i * 2 % 9)].join(" ");
        json!({
            "prompt": prompt, "max_tokens": 60, "seed": i, "temperature": 0.7, "logprobs": 1,
            "ignore_eos": true, "n": 1 + i % 2, "cache_prompt": !i.is_multiple_of(3),
        })
    };
    let bodies: Vec<Value> = (0..7).map(body).collect();
    let choices = |answer: Answer| answer.json()["choices"].clone();
    let together: Vec<Value> = thread::scope(|scope| {
        let server = &server;
        let ask = |body| scope.spawn(move || choices(server.post("/v1/completions", body)));
        let asked: Vec<_> = bodies.iter().map(ask).collect();
        asked.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    });
    for (body, together) in bodies.iter().zip(together) {
        let mut alone = body.clone();
        alone["cache_prompt"] = false.into();
        assert_eq!(choices(server.post("/v1/completions", &alone)), together, "{body}");
    }
    let metrics = server.get("/metrics").body;
    let of = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert!(of("grok_wgpu_preemptions_total") > 0, "{metrics}");
    assert!(of("grok_wgpu_rows_per_step_bucket{le=\"1\"}") < of("grok_wgpu_rows_per_step_count"));
    assert!(of("grok_wgpu_step_seconds_count{phase=\"mixed\"}") > 0, "{metrics}");
    assert_eq!(of("grok_wgpu_pages{state=\"used\"}"), 0, "{metrics}");
    assert_eq!(server.get("/slots").json(), json!([]));
}

#[test]
fn a_signal_lets_the_text_end() {
    let server = Program::start(&["--grace", "20"]);
    let body = chat("Hi.", &json!({ "max_tokens": 150, "ignore_eos": true, "stream": true }));
    let mut client = server.send("/v1/chat/completions", &body);
    let mut begun = [0; 64];
    client.read_exact(&mut begun).expect("it begins");
    let reading = thread::spawn(move || rest(&mut client));
    let (code, said) = server.end("-INT");
    assert_eq!(code, Some(0), "{said}");
    let text = reading.join().expect("it reads");
    assert!(text.contains("\"finish_reason\":\"length\"") && text.contains("[DONE]"), "{text}");
}

#[test]
fn other_computers_need_a_key() {
    for (args, code, what) in [
        (&["--host", "0.0.0.0"][..], 2, "--api-key-file"),
        (&["--api-key-file", "/nothing/here"], 3, "/nothing/here"),
        (&["--cors-origin", "*"], 2, "https://example.org"),
        (&["--temperature", "3"], 2, "temperature"),
        (&["--host", "256.0.0.1"], 2, "256.0.0.1"),
    ] {
        let output = command().args(["serve", MODEL, "--port", "0"]).args(args).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(what), "{args:?}: {said}");
    }
    let output = command()
        .args(["serve", MODEL, "--port", "0"])
        .env("GROK_WGPU_API_KEY", "short")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("openssl rand -hex 32") && !said.contains("short"), "{said}");
}

/// What the demo model says at temperature 1 has the form that was asked for.
#[test]
fn forms_and_calls_are_obeyed() {
    let server = Program::start(&[]);
    let number = json!({ "type": "integer", "minimum": 1, "maximum": 3 });
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": number },
    });
    let get = json!({ "name": "get", "description": "Gets some.", "parameters": schema });
    let stop = json!({ "name": "stop" });
    let tools = json!([
        { "type": "function", "function": get }, { "type": "function", "function": stop },
    ]);
    let is_good = |text: &str| {
        let object: Value = serde_json::from_str(text).expect("JSON");
        let fields = object.as_object().expect("an object");
        fields.len() == 1 && fields["a"].as_i64().is_some_and(|a| (1..=3).contains(&a))
    };
    let ask = |more: &Value| server.post("/v1/chat/completions", &chat("How many?", more)).json();
    for seed in 0..3 {
        let format = json!({ "type": "json_schema", "json_schema": { "schema": schema } });
        let more = json!({ "seed": seed, "response_format": format });
        let answer = ask(&more);
        let choice = &answer["choices"][0];
        let content = choice["message"]["content"].as_str().expect("text");
        assert!(is_good(content) && choice["finish_reason"] == "stop", "{answer}");
        let mut stream = chat("How many?", &more);
        stream["stream"] = true.into();
        let answer = server.post("/v1/chat/completions", &stream);
        assert_eq!(streamed(&answer), content);

        for tool_choice in
            [json!("required"), json!({ "type": "function", "function": { "name": "get" } })]
        {
            let more = json!({ "seed": seed, "tools": tools, "tool_choice": tool_choice });
            let answer = ask(&more);
            let choice = &answer["choices"][0];
            assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
            let function = &choice["message"]["tool_calls"][0]["function"];
            let arguments = function["arguments"].as_str().expect("JSON");
            match function["name"].as_str() {
                Some("get") => assert!(is_good(arguments), "{answer}"),
                Some("stop") if tool_choice.is_string() => assert_eq!(arguments, "{}"),
                _ => panic!("{answer}"),
            }
        }
    }
    let cut = ask(&json!({ "max_tokens": 2, "response_format": { "type": "json_object" } }));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let auto = ask(&json!({ "max_tokens": 20, "tools": tools }));
    let message = &auto["choices"][0]["message"];
    assert!(message["content"].is_string() || message["tool_calls"].is_array(), "{auto}");
}
