//! The server: its settings, its routes, and the life of its connections.

mod route;

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use serde_json::Value;
use tokio::{net::TcpStream, sync::watch, time::sleep};

use super::{
    connection::{Connection, Patience, Turns},
    engine::Submit,
    form::Forms,
    guard::Key,
    metrics::Metrics,
    wire::Refusal,
};
use crate::text::{chat::Scaffold, sampler::Sampling, tokenizer::Tokenizer};

/// Bytes of the longest headers.
const HEADERS: usize = 16 << 10;
/// Threads that handle connections, and threads that translate texts.
const THREADS: usize = 2;
/// How often it is looked whether the server should end.
const LOOK: Duration = Duration::from_millis(50);
/// How long texts may take to end once they must, and connections to close.
const LAST: Duration = Duration::from_secs(5);
/// What a client gets for which there is no connection left.
const CROWDED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\
    \r\ncontent-length: 0\r\n\r\n";

/// How long things may take.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Times {
    /// The headers of a request.
    pub head: Duration,
    /// The body of a request.
    pub body: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// A client that reads nothing of what it is sent.
    pub write: Duration,
    /// A request, from its first byte to the end of the answer.
    pub request: Duration,
    /// Texts that are being made when the server ends.
    pub grace: Duration,
    /// Between two signs of life in a stream.
    pub ping: Duration,
    /// A step of the engine, before it counts as stalled.
    pub stall: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head: seconds(10),
            body: seconds(30),
            idle: seconds(75),
            write: seconds(60),
            request: seconds(600),
            grace: seconds(30),
            ping: seconds(15),
            stall: seconds(60),
        }
    }
}

/// Takes lines of the log: objects of numbers and the server's own names.
pub type Log = dyn Fn(&Value) + Send + Sync;

/// What the server allows.
#[derive(Clone)]
pub struct Settings {
    /// The name of the model.
    pub alias: String,
    /// Whether requests may name any model.
    pub any_model: bool,
    /// Most tokens of an answer, if a request does not say.
    pub max_tokens: u32,
    /// How tokens are chosen, where a request does not say.
    pub sampling: Sampling,
    /// Keys, one of which each request must have; none if it needs none.
    pub keys: Vec<Key>,
    /// Origins of pages that may ask.
    pub origins: Vec<String>,
    /// Bytes of the longest body.
    pub body: usize,
    /// Most connections.
    pub connections: usize,
    /// How long things may take.
    pub times: Times,
    /// Where a line for each request goes.
    pub log: Arc<Log>,
}

/// The model, as far as it is known before its weights are read.
pub struct Model {
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How its conversations are written.
    pub scaffold: &'static Scaffold,
    /// Rows of its embedding table.
    pub vocab: u32,
    /// What `/v1/models` tells of it.
    pub meta: Value,
}

/// What is known once the model is loaded.
#[derive(Debug)]
pub struct Ready {
    /// Positions of the context.
    pub context: u32,
    /// Texts that are generated at once.
    pub rows: u32,
    /// What decides the bits of an answer.
    pub fingerprint: String,
    /// What `/props` tells beside.
    pub facts: Value,
}

/// What all connections share.
pub(super) struct App {
    pub(super) settings: Settings,
    pub(super) model: Model,
    pub(super) submit: Submit,
    pub(super) metrics: Metrics,
    pub(super) forms: Forms,
    ready: OnceLock<Ready>,
    stopping: watch::Sender<bool>,
    /// Seconds since 1970.
    started: u64,
    /// Whether only this computer can connect.
    local: bool,
    requests: AtomicU64,
    open: AtomicUsize,
    salt: u64,
}

impl App {
    /// Positions of the context.
    ///
    /// # Errors
    ///
    /// Status 503 if the model is not there yet, or the server ends.
    pub(super) fn context(&self) -> Result<usize, Refusal> {
        if *self.stopping.borrow() {
            return Err(super::engine::Failure::Stopping.into());
        }
        let ready = self.ready.get().ok_or_else(|| {
            Refusal::new(503, "loading", "the model is still being loaded").retry_after(1)
        })?;
        Ok(ready.context as usize)
    }

    pub(super) fn fingerprint(&self) -> Option<&str> {
        self.ready.get().map(|ready| ready.fingerprint.as_str())
    }

    /// Checks the name of a model.
    pub(super) fn check_model(&self, name: Option<&str>) -> Result<(), Refusal> {
        let alias = &self.settings.alias;
        if self.settings.any_model || name.is_none_or(|name| name == alias) {
            return Ok(());
        }
        let what = format!(
            "this server has the model {alias} alone; its option --any-model takes \
             every name for it"
        );
        Err(Refusal::new(404, "model_not_found", what).on("model"))
    }

    /// Whether the model has such a token.
    pub(super) fn has_token(&self, id: u32) -> bool {
        id < self.model.vocab && (id as usize) < self.model.tokenizer.vocab_size()
    }
}

/// A server whose connections are handled, on threads of their own.
pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts to listen. Until [`Server::ready`], what needs the model is refused. `stop` is asked
    /// often; once it says true, no connection is taken, texts that wait fail, those that are being
    /// made have [`Times::grace`], and then the engine's loop ends.
    ///
    /// # Errors
    ///
    /// Those of the system: no threads, or a socket that is none.
    pub fn start(
        listener: TcpListener,
        settings: Settings,
        model: Model,
        submit: Submit,
        stop: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(THREADS)
            .thread_name("serve")
            .enable_io()
            .enable_time()
            .build()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let app = Arc::new(App {
            settings,
            model,
            submit,
            metrics: Metrics::default(),
            forms: Forms::default(),
            ready: OnceLock::new(),
            stopping: watch::Sender::new(false),
            started: now.as_secs(),
            local: address.ip().is_loopback(),
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            salt: route::random(),
        });
        let shared = Arc::clone(&app);
        let thread = thread::Builder::new().name("serve".into()).spawn(move || {
            runtime.block_on(serve(&shared, listener, stop));
            // Connections that are still open are cut.
            runtime.shutdown_background();
        })?;
        Ok(Self { app, address, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The model is loaded.
    pub fn ready(&self, ready: Ready) {
        // Only the first one counts.
        let _ = self.app.ready.set(ready);
    }

    /// Waits until all connections are closed.
    pub fn join(self) {
        // A panic was printed where it happened.
        let _ = self.thread.join();
    }
}

/// Takes connections until the server is to end; then ends it.
async fn serve(app: &Arc<App>, listener: TcpListener, stop: impl Fn() -> bool) {
    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
        let mut pause = LOOK;
        while !stop() {
            match tokio::time::timeout(LOOK, listener.accept()).await {
                Ok(Ok((stream, _))) => {
                    pause = LOOK;
                    take(app, stream);
                }
                // Too many open files, or a client that was gone at once.
                Ok(Err(_)) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(_) => {}
            }
        }
    }
    let submit = &app.submit;
    submit.stop();
    app.stopping.send_replace(true);
    let texts = || submit.load().running() + submit.load().waiting();
    wait(app.settings.times.grace, || texts() == 0).await;
    submit.end();
    wait(LAST, || texts() == 0).await;
    wait(LAST, || app.open.load(Ordering::SeqCst) == 0).await;
    submit.shutdown();
}

/// Waits until something is so, for `limit` at the most.
async fn wait(limit: Duration, is_so: impl Fn() -> bool) {
    let look = async {
        while !is_so() {
            sleep(LOOK / 5).await;
        }
    };
    let _ = tokio::time::timeout(limit, look).await;
}

/// Counts a connection while it lives.
struct Open(Arc<App>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Handles a connection in a task of its own, if there is room.
fn take(app: &Arc<App>, stream: TcpStream) {
    let most = app.settings.connections;
    let open = Open(Arc::clone(app));
    if app.open.fetch_add(1, Ordering::SeqCst) >= most {
        // What does not fit into the socket's buffer is not worth waiting for.
        let _ = stream.try_write(CROWDED);
        return;
    }
    // Small pieces of text are sent at once.
    let _ = stream.set_nodelay(true);
    tokio::spawn(async move {
        handle(&open.0, stream).await;
    });
}

async fn handle(app: &Arc<App>, stream: TcpStream) {
    let times = app.settings.times;
    let patience = Patience { head: times.head, idle: times.idle, write: times.write };
    let turns = Turns::default();
    let connection = Connection::new(stream, turns.clone(), patience);
    let service = service_fn(|request: Request<Incoming>| {
        let turn = turns.begin();
        async move {
            let mut response = route::answer(app, request).await;
            response.body_mut().turn = Some(turn);
            Ok::<_, Infallible>(response)
        }
    });
    let mut served = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(HEADERS)
            .serve_connection(connection, service)
    );
    let mut stopping = app.stopping.subscribe();
    let mut stop = pin!(stopping.wait_for(|stopping| *stopping));
    let mut told = false;
    // What went wrong with a connection is its client's affair.
    let _ = std::future::poll_fn(|cx| {
        if !told && stop.as_mut().poll(cx).is_ready() {
            told = true;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    })
    .await;
}
