//! What is answered to a request.

use std::{
    future::poll_fn,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONNECTION,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
        RETRY_AFTER, TRANSFER_ENCODING, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        X_FRAME_OPTIONS,
    },
};
use serde_json::{Value, json};

use super::App;
use crate::{
    engine::schedule::{Phase, Progress},
    serve::{
        answer::{Form, Texts, failed},
        ask::Asked,
        chat::{self, Chat},
        completions::{self, Completion},
        echo::Echo,
        engine::{Event, Failure, Wanted},
        guard,
        metrics::Entry,
        page::{PAGE, POLICY},
        sse::{AnswerBody, Stream},
        tokens,
        wire::{Fields, Refusal},
    },
};

type Answer = Response<AnswerBody>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IGNORED: HeaderName = HeaderName::from_static("x-ignored-fields");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

const JSON: &str = "application/json";
const OPENAPI: &str = include_str!("../openapi.json");
/// Where its text has the largest id of a token, which is the model's.
const LARGEST_ID: &str = "\"maximum\": 4294967295";
/// How long a stream waits for its first event before its headers are sent: what goes wrong until
/// then has a status of its own.
const FIRST: Duration = Duration::from_secs(10);

/// What there is to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Page,
    Health,
    Ready,
    Models,
    Props,
    Slots,
    Metrics,
    OpenApi,
    Chat,
    Completions,
    Tokenize,
    Detokenize,
    ApplyTemplate,
}

/// Paths, their routes, whether they take POST instead of GET, and whether they need a key.
const ROUTES: [(&str, Route, bool, bool); 13] = [
    ("/", Route::Page, false, false),
    ("/health", Route::Health, false, false),
    ("/ready", Route::Ready, false, false),
    ("/v1/models", Route::Models, false, true),
    ("/props", Route::Props, false, true),
    ("/slots", Route::Slots, false, true),
    ("/metrics", Route::Metrics, false, true),
    ("/openapi.json", Route::OpenApi, false, true),
    ("/v1/chat/completions", Route::Chat, true, true),
    ("/v1/completions", Route::Completions, true, true),
    ("/tokenize", Route::Tokenize, true, true),
    ("/detokenize", Route::Detokenize, true, true),
    ("/apply-template", Route::ApplyTemplate, true, true),
];

/// Where a single model is described.
const MODEL: &str = "/v1/models/";

/// Paths of other servers that this one does not have, and what to say of them.
const ELSEWHERE: [(&str, &str); 4] = [
    ("/v1/embeddings", "this server makes no embeddings: the models that it runs write text"),
    ("/v1/responses", "this server has /v1/chat/completions in place of /v1/responses"),
    ("/api/", "this server has OpenAI's endpoints and not Ollama's: use /v1/chat/completions"),
    ("/completion", "this server has /v1/completions in place of /completion"),
];

/// A number that nobody can guess. `RandomState` has random keys, so no crate for random numbers is
/// needed.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Answers a request.
pub(super) async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Answer {
    // A head that has a length as well means two things, of which hyper takes the chunks. Whoever
    // took the other gets no chance to say more.
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let mut response = respond(app, request).await;
    if chunked {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn respond(app: &Arc<App>, request: Request<Incoming>) -> Answer {
    let id = request_id(app, request.headers());
    let mut entry = Entry::new(Arc::clone(app), id.clone());
    let origin = match guard::check_origin(request.headers(), &app.settings.origins) {
        Ok(origin) => origin,
        Err(refusal) => return finish(refused(&refusal), entry, &id, None),
    };
    let result = admitted(app, request, &mut entry).await;
    match result {
        Ok(Made::Stream(begun)) => {
            let Begun { form, texts, count, usage, first, ignored } = *begun;
            entry.status = Some(200);
            let stream = Stream::new((form, texts, entry), count, usage, first);
            let mut response = Response::new(AnswerBody::stream(stream));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            note_ignored(headers, ignored);
            dress(&mut response, &id, origin);
            response
        }
        Ok(Made::Whole(response)) => finish(response, entry, &id, origin),
        Err(refusal) => finish(refused(&refusal), entry, &id, origin),
    }
}

/// What a request led to.
enum Made {
    Whole(Answer),
    Stream(Box<Begun>),
}

/// A stream that has not begun.
struct Begun {
    form: Form,
    texts: Texts,
    count: usize,
    usage: bool,
    first: Option<(usize, Event)>,
    ignored: Option<String>,
}

/// Adds what all answers have, and notes how the request ended.
fn finish(mut response: Answer, mut entry: Entry, id: &str, origin: Option<HeaderValue>) -> Answer {
    entry.status = Some(response.status().as_u16());
    dress(&mut response, id, origin);
    response
}

/// Adds the headers that all answers have.
fn dress(response: &mut Answer, id: &str, origin: Option<HeaderValue>) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("origin"));
        let exposed = "x-request-id, x-ignored-fields, retry-after, x-should-retry";
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
}

/// The id of a request: the client's if it has a good one.
fn request_id(app: &App, headers: &HeaderMap) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let given = given.filter(|id| (1..=64).contains(&id.len()) && id.chars().all(plain));
    given.map_or_else(|| format!("req-{}", fresh(app)), str::to_owned)
}

/// A name that was not given before.
fn fresh(app: &App) -> String {
    let number = app.requests.fetch_add(1, Ordering::Relaxed);
    format!("{:012x}{number:06x}", app.salt & 0xffff_ffff_ffff)
}

/// An error as an answer.
fn refused(refusal: &Refusal) -> Answer {
    let mut response = as_json(&refusal.body());
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if refusal.is_final {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    match refusal.status {
        401 => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // There may be more of a body than was read.
        408 | 413 => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        405 => {
            let allowed = if refusal.param.as_deref() == Some("POST") { "POST" } else { "GET" };
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        _ => {}
    }
    response
}

fn as_json(value: &Value) -> Answer {
    of_type(JSON, value.to_string())
}

fn of_type(kind: &'static str, text: impl Into<hyper::body::Bytes>) -> Answer {
    let mut response = Response::new(AnswerBody::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn note_ignored(headers: &mut HeaderMap, ignored: Option<String>) {
    if let Some(value) = ignored.and_then(|names| HeaderValue::from_str(&names).ok()) {
        headers.insert(IGNORED, value);
    }
}

/// Answers a request whose origin was checked.
async fn admitted(
    app: &Arc<App>,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Made, Refusal> {
    let headers = request.headers();
    if app.local {
        guard::check_host(headers, request.uri())?;
    }
    if request.method() == Method::OPTIONS {
        return Ok(Made::Whole(preflight(headers)));
    }
    let path = request.uri().path();
    let found = ROUTES.iter().find(|(known, ..)| *known == path);
    let model = path.strip_prefix(MODEL);
    let (route, posts, needs_key) = match (found, model) {
        (Some((known, route, posts, key)), _) => {
            entry.endpoint = known;
            (*route, *posts, *key)
        }
        (None, Some(_)) => {
            entry.endpoint = "/v1/models/{id}";
            (Route::Models, false, true)
        }
        (None, None) => {
            guard::check_key(&app.settings.keys, headers)?;
            let known = ELSEWHERE.iter().find(|(start, _)| path.starts_with(start));
            let what = known.map_or("there is no such endpoint; /openapi.json has all", |k| k.1);
            return Err(Refusal::new(404, "not_found", what));
        }
    };
    let key = if needs_key { guard::check_key(&app.settings.keys, headers)? } else { 0 };
    let method = request.method();
    if *method != if posts { Method::POST } else { Method::GET } {
        let wanted = if posts { "POST" } else { "GET" };
        let what = format!("this endpoint takes {wanted}");
        return Err(Refusal::new(405, "method_not_allowed", what).on(wanted));
    }
    if posts {
        return post(app, route, key, request, entry).await;
    }
    get(app, route, model).map(Made::Whole)
}

/// The answer to a browser that asks whether it may ask.
fn preflight(headers: &HeaderMap) -> Answer {
    let mut response = Response::new(AnswerBody::whole(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    // Where the origin is not allowed, its check has refused it; without one, nobody asks.
    if headers.contains_key(hyper::header::ORIGIN) {
        let headers = response.headers_mut();
        let methods = HeaderValue::from_static("GET, POST");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        // A star does not stand for this one.
        let allowed = HeaderValue::from_static("authorization, *");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// Answers what takes no body.
fn get(app: &App, route: Route, model: Option<&str>) -> Result<Answer, Refusal> {
    Ok(match route {
        Route::Page => {
            let mut response = of_type("text/html; charset=utf-8", PAGE);
            let headers = response.headers_mut();
            let policy = HeaderValue::from_static(POLICY.as_str());
            headers.insert(CONTENT_SECURITY_POLICY, policy);
            headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        }
        Route::Health => {
            health(app)?;
            as_json(&json!({ "status": "ok" }))
        }
        Route::Ready => {
            health(app)?;
            let load = app.submit.load();
            if load.waiting() >= load.queue() {
                let what = "as many requests wait as may";
                return Err(Refusal::new(503, "queue_full", what).retry_after(1));
            }
            as_json(&json!({ "status": "ready" }))
        }
        Route::Models => {
            let one = json!({
                "id": app.settings.alias,
                "object": "model",
                "created": app.started,
                "owned_by": "grok-wgpu",
                "max_model_len": app.ready.get().map(|ready| ready.context),
                "meta": app.model.meta,
            });
            match model {
                None => as_json(&json!({ "object": "list", "data": [one] })),
                Some(name) => {
                    app.check_model(Some(name))?;
                    as_json(&one)
                }
            }
        }
        Route::Props => as_json(&props(app)),
        Route::Slots => as_json(&slots(app)),
        Route::Metrics => {
            of_type("text/plain; version=0.0.4; charset=utf-8", app.metrics.text(app.submit.load()))
        }
        _ => of_type(JSON, openapi(app)),
    })
}

/// The description of all endpoints, for this model.
fn openapi(app: &App) -> String {
    let tokens = app.model.tokenizer.vocab_size().min(app.model.vocab as usize);
    OPENAPI.replace(LARGEST_ID, &format!("\"maximum\": {}", tokens.saturating_sub(1)))
}

/// Whether the server can do its work.
fn health(app: &App) -> Result<(), Refusal> {
    app.context()?;
    if app.submit.load().is_lost() {
        let what = "the device was lost, and the model is loaded onto a new one";
        return Err(Refusal::new(503, "device_lost", what).retry_after(1));
    }
    let stalled = app.submit.load().step_time().filter(|time| *time > app.settings.times.stall);
    if let Some(time) = stalled {
        let what = format!("a step of the engine has been running for {} s", time.as_secs());
        return Err(Refusal::new(503, "stalled", what));
    }
    Ok(())
}

/// What becomes of each text, in numbers.
fn slots(app: &App) -> Value {
    let texts = app.submit.load().snapshot().texts;
    let slot = |text: &Progress| {
        json!({
            "id": text.id.0,
            "state": text.phase.name(),
            "is_processing": matches!(text.phase, Phase::Prompt | Phase::Generating),
            "prompt_tokens": text.prompt,
            "generated_tokens": text.generated,
            "max_tokens": text.most,
            "positions": text.cached,
            "pages": text.pages,
        })
    };
    texts.iter().map(slot).collect()
}

/// What the server is and allows; nothing of where its files are.
fn props(app: &App) -> Value {
    let (settings, load) = (&app.settings, app.submit.load());
    let ready = app.ready.get();
    json!({
        "model": settings.alias,
        "version": env!("CARGO_PKG_VERSION"),
        "chat_template": app.model.scaffold.name,
        "context": ready.map(|ready| ready.context),
        "system_fingerprint": app.fingerprint(),
        "engine": ready.map(|ready| &ready.facts),
        "defaults": settings.sampling.to_json(),
        "limits": {
            "max_tokens": settings.max_tokens,
            "queue": load.queue(),
            "body_bytes": settings.body,
            "connections": settings.connections,
            "request_seconds": settings.times.request.as_secs(),
        },
        "rows": ready.map(|ready| ready.rows),
        "load": { "running": load.running(), "waiting": load.waiting() },
    })
}

/// Answers what takes a body.
async fn post(
    app: &Arc<App>,
    route: Route,
    key: u64,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Made, Refusal> {
    check_type(request.headers())?;
    let body = read(app, request).await?;
    let shared = Arc::clone(app);
    // Long texts take a while: they must not keep other connections waiting.
    let work = tokio::task::spawn_blocking(move || prepare(&shared, route, key, &body));
    let prepared = work.await.map_err(|_| {
        Refusal::new(500, "internal_error", "the request could not be handled").finally()
    })??;
    let Asking { asked, wanted, ignored, chat, echo } = match prepared {
        Prepared::Whole(value, ignored) => {
            let mut response = as_json(&value);
            note_ignored(response.headers_mut(), ignored);
            return Ok(Made::Whole(response));
        }
        Prepared::Texts(asking) => *asking,
    };
    let count = wanted.len();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = if chat { "chatcmpl" } else { "cmpl" };
    let form = Form {
        app: Arc::clone(app),
        chat,
        id: format!("{start}-{}", fresh(app)),
        created: now.as_secs(),
        seed: asked.sampling.seed,
        logprobs: asked.logprobs.is_some(),
        ids: asked.ids,
        calls: asked.calls,
        forced: asked.forced,
        count: asked.count as usize,
        echo,
    };
    let mut texts = Texts::ask(app, wanted)?;
    if !asked.stream {
        let value = form.whole(texts, entry).await?;
        let mut response = as_json(&value);
        note_ignored(response.headers_mut(), ignored);
        return Ok(Made::Whole(response));
    }
    let first = match texts.first(app, FIRST.min(app.settings.times.ping)).await {
        Some(Some((_, Event::Failed(failure)))) => return Err(failed(entry, failure)),
        Some(None) => return Err(Failure::Stopping.into()),
        first => first.flatten(),
    };
    let usage = asked.usage;
    Ok(Made::Stream(Box::new(Begun { form, texts, count, usage, first, ignored })))
}

/// Checks that a body is JSON. Forms and plain texts, which pages of other sites can send without
/// being asked, are refused.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    let what = "the header Content-Type must be application/json";
    Err(Refusal::new(415, "unsupported_media_type", what))
}

/// The body of a request.
async fn read(app: &App, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
    let most = app.settings.body;
    let too_large = || {
        let what = format!("the body is larger than {most} bytes");
        Refusal::new(413, "body_too_large", what)
    };
    let mut body = request.into_body();
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| {
                Refusal::new(400, "invalid_body", format!("the body could not be read: {error}"))
            })?;
            // Trailers say nothing that is needed.
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > most {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes)
    };
    tokio::time::timeout(app.settings.times.body, reading).await.unwrap_or_else(|_| {
        Err(Refusal::new(408, "timeout", "the body of the request took too long").finally())
    })
}

/// What is known before the engine is asked.
enum Prepared {
    Whole(Value, Option<String>),
    Texts(Box<Asking>),
}

/// What to ask of the engine.
struct Asking {
    asked: Asked,
    wanted: Vec<Wanted>,
    ignored: Option<String>,
    chat: bool,
    echo: Vec<Echo>,
}

fn prepare(app: &App, route: Route, key: u64, body: &[u8]) -> Result<Prepared, Refusal> {
    let mut fields = Fields::parse(body)?;
    let answer: fn(&App, &mut Fields) -> Result<Value, Refusal> = match route {
        Route::Tokenize => tokens::tokenize,
        Route::Detokenize => tokens::detokenize,
        Route::ApplyTemplate => tokens::apply_template,
        Route::Chat => {
            let Chat { messages, asked } = Chat::read(app, &mut fields)?;
            let prompts = vec![chat::encode(app, &messages)?];
            let wanted = asked.texts(app, key, prompts)?;
            return Ok(texts(asked, wanted, &fields, None));
        }
        _ => {
            let Completion { prompts, asked } = Completion::read(app, &mut fields)?;
            let encode = |prompt| completions::encode(app, prompt);
            let prompts = prompts.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
            let ids = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
            let wanted = asked.texts(app, key, ids)?;
            let echo = if asked.echo { prompts } else { Vec::new() };
            return Ok(texts(asked, wanted, &fields, Some(echo)));
        }
    };
    let value = answer(app, &mut fields)?;
    Ok(Prepared::Whole(value, fields.ignored()))
}

/// Texts to ask for, with the prompts to give back; none of these after a conversation.
fn texts(asked: Asked, wanted: Vec<Wanted>, fields: &Fields, echo: Option<Vec<Echo>>) -> Prepared {
    let (chat, echo) = (echo.is_none(), echo.unwrap_or_default());
    Prepared::Texts(Box::new(Asking { asked, wanted, ignored: fields.ignored(), chat, echo }))
}
