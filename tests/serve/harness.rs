//! A server whose engine follows a script, and a client that sees every byte.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use grok_wgpu::lab::{
    engine::options::{FinishReason, Logprobs},
    serve::{
        Model, Ready, Server, Settings, Times,
        engine::{Event, Failure, Job, Jobs, Usage, channel},
    },
    text::{
        chat::Scaffold,
        sampler::Sampling,
        shaping::Shaping,
        tokenizer::{Tokenizer, synthetic_tok_json},
    },
};
use serde_json::{Value, json};

/// Positions of the scripted engine's context.
pub(crate) const CONTEXT: usize = 1000;

/// Longest time that a test waits for what must happen.
const LONG: Duration = Duration::from_secs(10);

/// A server under test. Ends when it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    server: Option<Server>,
    engine: Option<JoinHandle<()>>,
    log: Arc<Mutex<Vec<Value>>>,
    /// Prompts that the engine has begun, and the seeds of their texts.
    pub(crate) begun: Arc<Mutex<Vec<Begun>>>,
}

/// A text that the engine was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) stream: u64,
    pub(crate) max_tokens: usize,
    pub(crate) stops: Vec<String>,
    pub(crate) stop_ids: usize,
    pub(crate) reuse: bool,
    pub(crate) shaping: Shaping,
    /// Whether its form was prescribed.
    pub(crate) constrained: bool,
    /// How it ended: `done`, or why it had to.
    pub(crate) ended: Option<String>,
}

pub(crate) fn tokenizer() -> Tokenizer {
    let json = synthetic_tok_json(2048).expect("in range");
    Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
}

pub(crate) fn settings() -> Settings {
    Settings {
        alias: "demo".into(),
        any_model: false,
        max_tokens: 100,
        sampling: Sampling { temperature: 1.0, ..Sampling::GREEDY },
        keys: Vec::new(),
        origins: Vec::new(),
        body: 64 << 10,
        connections: 64,
        times: Times::default(),
        log: Arc::new(|_| {}),
    }
}

/// What the scripted engine does with a text: the last word of its prompt that begins with `@`
/// decides. Without one, it says "Hi there" as two tokens.
fn act(tokenizer: &Tokenizer, job: &mut Job) -> Option<Failure> {
    let prompt = tokenizer.decode_lossy(&job.wanted.prompt).expect("ids");
    let order = prompt.split(['<', ' ', '\n']).rev().find_map(|word| word.strip_prefix('@'));
    let (order, number) = order.unwrap_or("").split_once(':').unwrap_or((order.unwrap_or(""), ""));
    let number: usize = number.parse().unwrap_or(0);
    let logprobs = job.wanted.options.logprobs.map(|count| {
        let json = json!({ "chosen": -0.5, "norm": 2.0 });
        logprobs(&json, count)
    });
    let mut said = 0;
    let mut say = |job: &mut Job, text: &str| {
        said += 1;
        let (id, text) = (Some(200), text.to_owned());
        send(job, Event::Text { id, text, logprobs: logprobs.clone() })
    };
    match order {
        // For ever, one each few milliseconds.
        "endless" => loop {
            if let Some(failure) = say(job, "x") {
                return Some(failure);
            }
            thread::sleep(Duration::from_millis(2));
        },
        // As fast as the client reads.
        "flood" => loop {
            if let Some(failure) = say(job, &"y".repeat(4096)) {
                return Some(failure);
            }
        },
        // Nothing for so many milliseconds, and then the answer.
        "wait" => {
            let end = Instant::now() + Duration::from_millis(number as u64);
            while Instant::now() < end {
                if let Some(failure) = job.must_end() {
                    return Some(failure);
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        "nan" => return Some(Failure::NonFinite("the logits are not finite".into())),
        "lost" => return Some(Failure::DeviceLost("it was unplugged".into())),
        // In the middle of a text.
        "break" => {
            say(job, "half");
            return Some(Failure::NonFinite("the logits are not finite".into()));
        }
        _ => {}
    }
    let (finish, texts) = match order {
        "long" => (FinishReason::Length, vec![" one", " two", " three"]),
        "blank" => (FinishReason::Stop, vec!["", "é"]),
        "call" => (FinishReason::Stop, CALL.to_vec()),
        "cut" => (FinishReason::Length, CALL[..number].to_vec()),
        _ => (FinishReason::Stop, vec![" Hi", " there"]),
    };
    for text in texts {
        if let Some(failure) = say(job, text) {
            return Some(failure);
        }
    }
    if order == "held" {
        send(job, Event::Text { id: None, text: "!".into(), logprobs: None });
    }
    let usage = Usage { prompt: job.wanted.prompt.len(), cached: 3, completion: said };
    send(job, Event::End { finish, usage })
}

/// Sends an event, and waits until the client has read enough. Returns why the text must end, if it
/// must.
fn send(job: &mut Job, event: Event) -> Option<Failure> {
    job.send(event);
    while !job.flush() && job.must_end().is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    job.must_end()
}

/// Takes in the texts that came, and drops those that nobody waits for.
fn look(jobs: &mut Jobs, waiting: &mut VecDeque<Job>) {
    while let Some(request) = jobs.take() {
        waiting.extend(request);
    }
    waiting.retain_mut(|job| match job.must_end() {
        Some(failure) => {
            job.send(Event::Failed(failure));
            false
        }
        None => true,
    });
}

/// A call, in pieces that have nothing to do with its parts.
const CALL: [&str; 6] =
    [" Well <to", "ol_call>{\"na", "me\":\"get_it\",\"arguments\"", ":{\"a\":{}", ",\"b\":1}", "}"];

/// The engine that follows the script.
fn follow(mut jobs: Jobs, tokenizer: &Tokenizer, begun: &Mutex<Vec<Begun>>) {
    let mut waiting = VecDeque::new();
    loop {
        look(&mut jobs, &mut waiting);
        let Some(mut job) = waiting.pop_front() else {
            if jobs.is_over() {
                break;
            }
            jobs.wait(None);
            continue;
        };
        job.start();
        let wanted = &job.wanted;
        let all = || begun.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all().len();
        all().push(Begun {
            prompt: wanted.prompt.clone(),
            sampling: wanted.sampling,
            stream: wanted.stream,
            max_tokens: wanted.options.max_tokens,
            stops: wanted.options.stop_texts.clone(),
            stop_ids: wanted.options.stop_ids.len(),
            reuse: wanted.reuse,
            shaping: wanted.options.shaping.clone(),
            constrained: wanted.options.constraint.is_some(),
            ended: None,
        });
        look(&mut jobs, &mut waiting);
        let failure = act(tokenizer, &mut job);
        all()[at].ended = Some(failure.as_ref().map_or_else(
            || "done".to_owned(),
            |failure| match failure {
                Failure::Cancelled(why) => why.name().to_owned(),
                other => format!("{other:?}"),
            },
        ));
        if let Some(failure) = failure {
            job.send(Event::Failed(failure));
        }
    }
}

/// Log-probabilities, of which the library makes none outside of a generation.
fn logprobs(of: &Value, count: usize) -> Logprobs {
    let number = |name: &str| of[name].as_f64().expect("a number");
    let all = [(200, -0.5), (201, -1.25), (202, f64::NEG_INFINITY)];
    Logprobs::new(number("chosen"), all[..count.min(all.len())].to_vec(), number("norm"))
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(settings())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::queueing(settings, 8, LONG)
    }

    /// A server with a queue of this length, whose engine waits so long for slow readers.
    pub(crate) fn queueing(settings: Settings, queue: usize, patience: Duration) -> Self {
        let server = Self::loading(settings, queue, patience);
        server.ready();
        server
    }

    /// The same, whose model is never loaded.
    pub(crate) fn loading(settings: Settings, queue: usize, patience: Duration) -> Self {
        Self::before(settings, queue, patience, follow)
    }

    /// A server before this engine, which is a thread.
    pub(crate) fn before(
        mut settings: Settings,
        queue: usize,
        patience: Duration,
        engine: impl FnOnce(Jobs, &Tokenizer, &Mutex<Vec<Begun>>) + Send + 'static,
    ) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        settings.log = Arc::new(move |line| {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        });
        let tokenizer = Arc::new(tokenizer());
        let (submit, jobs) = channel(queue, patience);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let model = Model {
            tokenizer: Arc::clone(&tokenizer),
            scaffold: &Scaffold::GROK_2,
            vocab: 2048,
            meta: json!({ "layers": 1 }),
        };
        let asks = move || asked.load(Ordering::SeqCst);
        let server = Server::start(listener, settings, model, submit, asks).expect("a server");
        let begun = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&begun);
        let engine = thread::spawn(move || engine(jobs, &tokenizer, &all));
        let address = server.address();
        Self { address, stop, server: Some(server), engine: Some(engine), log, begun }
    }

    /// Says that the model is loaded.
    pub(crate) fn ready(&self) {
        let (fingerprint, facts) = ("fp_test".into(), json!({ "adapter": "none" }));
        let context = u32::try_from(CONTEXT).expect("small");
        let ready = Ready { context, rows: 1, fingerprint, facts };
        self.server.as_ref().expect("it runs").ready(ready);
    }

    /// What the engine was asked for.
    pub(crate) fn asked(&self) -> Vec<Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines of the log.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LONG;
        while !is_so(self) {
            assert!(Instant::now() < end, "never: {what}; {:?}", self.asked());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks the server to end, without waiting.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits for its end.
    pub(crate) fn join(&mut self) {
        self.stop();
        if let Some(server) = self.server.take() {
            server.join();
        }
        if let Some(engine) = self.engine.take() {
            engine.join().expect("the engine does not panic");
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(LONG)).expect("a limit");
        stream
    }

    /// Sends bytes, and reads until the server closes the connection.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may close it before all is written.
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    /// A request with these headers beside those that each has.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let Self { address, .. } = self;
        let length = body.len();
        Answer::of(
            &self.raw(
                format!(
                    "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
                 content-length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            ),
        )
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, JSON, &body.to_string())
    }

    /// A conversation of one message with other fields.
    pub(crate) fn chat(&self, message: &str, more: &Value) -> Answer {
        self.post("/v1/chat/completions", &chat(message, more))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.join();
        }
        self.stop();
    }
}

/// The header of a body.
pub(crate) const JSON: &str = "content-type: application/json\r\n";

/// The body of a conversation of one message, with other fields.
pub(crate) fn chat(message: &str, more: &Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": message }] });
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

/// What comes until the end of a connection.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let mut answer = Self { status, head: head.to_lowercase(), body: body.to_owned() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunked(body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}:");
        self.head.lines().find_map(|line| line.strip_prefix(start.as_str())).map(str::trim)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error in OpenAI's shape, and the field it is about.
    pub(crate) fn error(&self) -> (u16, String, Option<String>) {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"], "{self:?}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() > 5), "{self:?}");
        assert!(error["type"].is_string() && self.header("x-request-id").is_some(), "{self:?}");
        let code = error["code"].as_str().unwrap_or_default().to_owned();
        (self.status, code, error["param"].as_str().map(str::to_owned))
    }
}

/// The content of a chunked body, as far as it came.
fn unchunked(body: &str) -> String {
    let (mut text, mut rest) = (String::new(), body);
    while let Some((length, more)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        if length == 0 || more.len() < length {
            break;
        }
        text += &more[..length];
        rest = more[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    text
}
