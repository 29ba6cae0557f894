//! A hub of the test's own: an HTTP server on this machine that does as it is told, wrong things
//! most of all.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The commit that the hub's `main` is.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// With its query.
    pub(crate) path: String,
    /// By names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte that is asked for, if a range is.
    pub(crate) fn from(&self) -> Option<usize> {
        let (from, _) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        from.parse().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

/// What is done after the headers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// The body is sent, with its length.
    Whole,
    /// So many bytes of it, then the connection is closed.
    Cut(usize),
    /// So many bytes of it, then nothing.
    Stalls(usize),
    /// The body in chunks, again and again.
    Endless,
    /// Nothing at all is sent, and the connection is closed.
    Closed,
}

impl Reply {
    pub(crate) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), end: End::Whole }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::of(302, "").with("Location", to)
    }
}

type Handler = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    /// A server that answers by a function of the request and of how many of this path came before.
    pub(crate) fn new(handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, ended) = (Arc::clone(&requests), Arc::clone(&over));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (log, handler, ended) =
                    (Arc::clone(&log), Arc::clone(&handler), Arc::clone(&ended));
                thread::spawn(move || serve(&stream, &log, &*handler, &ended));
            }
        });
        Self { address, requests, over }
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests whose path has this in it.
    pub(crate) fn asked(&self, part: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path.contains(part)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
    }
}

/// One connection: one request, one reply.
fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler, over: &AtomicBool) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let request = Request { path, headers };
    let before = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let before = log.iter().filter(|earlier| earlier.path == request.path).count();
        log.push(request.clone());
        before
    };
    // The client may leave at any time.
    let _ = answer(stream, &handler(&request, before), over);
    let _ = stream.shutdown(Shutdown::Both);
}

fn answer(mut stream: &TcpStream, reply: &Reply, over: &AtomicBool) -> std::io::Result<()> {
    if reply.end == End::Closed {
        return Ok(());
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if reply.end == End::Endless {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        let _ = write!(head, "Content-Length: {}\r\n", reply.body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    match reply.end {
        End::Whole => stream.write_all(&reply.body),
        End::Cut(bytes) => stream.write_all(&reply.body[..bytes]),
        End::Stalls(bytes) => {
            stream.write_all(&reply.body[..bytes])?;
            while !over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        End::Endless => {
            while !over.load(Ordering::SeqCst) {
                stream.write_all(format!("{:x}\r\n", reply.body.len()).as_bytes())?;
                stream.write_all(&reply.body)?;
                stream.write_all(b"\r\n")?;
            }
            Ok(())
        }
        End::Closed => Ok(()),
    }
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).expect("below 16");
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The hash by which git knows a file.
pub(crate) fn git_hash(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

/// The files of a model on the hub.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(pub(crate) Vec<(String, Vec<u8>)>);

impl Files {
    /// A file of weights of this many bytes, and a small file beside it.
    pub(crate) fn usual(bytes: usize) -> Self {
        let weights: Vec<u8> = (0..bytes).map(|i| (i * 31 + i / 251).to_le_bytes()[0]).collect();
        Self(vec![("config.json".into(), b"{}".to_vec()), (WEIGHTS.into(), weights)])
    }

    pub(crate) fn get(&self, path: &str) -> &[u8] {
        &self.0.iter().find(|(name, _)| name == path).expect("a file").1
    }

    /// Whether git keeps a file elsewhere, by its SHA-256.
    fn is_large(path: &str) -> bool {
        [".safetensors", ".gguf"].iter().any(|end| path.ends_with(end))
    }

    pub(crate) fn etag(&self, path: &str) -> String {
        let bytes = self.get(path);
        if Self::is_large(path) { sha256(bytes) } else { git_hash(bytes) }
    }

    /// An entry of a listing.
    fn entry(&self, path: &str) -> serde_json::Value {
        let size = self.get(path).len();
        let mut entry = serde_json::json!({
            "type": "file", "path": path, "size": size, "oid": git_hash(self.get(path)),
        });
        if Self::is_large(path) {
            entry["lfs"] =
                serde_json::json!({ "oid": self.etag(path), "size": size, "pointerSize": 134 });
        }
        entry
    }

    /// The listing of all, with an entry for a folder.
    pub(crate) fn listing(&self) -> serde_json::Value {
        let files = self.0.iter().map(|(path, _)| self.entry(path));
        let folder = serde_json::json!({ "type": "directory", "path": "x", "oid": "", "size": 0 });
        files.chain([folder]).collect()
    }

    /// What a hub answers that has nothing wrong.
    pub(crate) fn reply(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap_or_default();
        if path.contains("/revision/") {
            return Reply::of(200, format!("{{\"sha\": \"{COMMIT}\", \"siblings\": []}}"));
        }
        if path.contains("/tree/") {
            return Reply::of(200, self.listing().to_string());
        }
        let after = path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, path)| path);
        match after.filter(|path| self.0.iter().any(|(name, _)| name == path)) {
            Some(path) => self.file(path, request),
            None => Reply::of(404, "").with("X-Error-Code", "EntryNotFound"),
        }
    }

    /// A file, or the range of it that is asked for, if it is still the same.
    pub(crate) fn file(&self, path: &str, request: &Request) -> Reply {
        let (bytes, etag) = (self.get(path), format!("\"{}\"", self.etag(path)));
        let same = request.header("if-range").is_none_or(|wanted| wanted == etag);
        let range = request.header("range").filter(|_| same);
        let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((from, to)) = range else { return Reply::of(200, bytes).with("ETag", etag) };
        let from: usize = from.parse().expect("a number");
        let end = to.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
        if from >= bytes.len() {
            return Reply::of(416, "").with("Content-Range", format!("bytes */{}", bytes.len()));
        }
        let range = format!("bytes {from}-{}/{}", end - 1, bytes.len());
        Reply::of(206, &bytes[from..end]).with("ETag", etag).with("Content-Range", range)
    }
}

/// The file of weights of [`Files::usual`].
pub(crate) const WEIGHTS: &str = "model.safetensors";
