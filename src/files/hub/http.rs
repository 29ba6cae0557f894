//! Requests to the hub: redirects without the token, tries that are repeated, errors in words.

use std::{
    fmt,
    io::{ErrorKind, Read as _},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, Uri},
    tls::{RootCerts, TlsConfig, TlsProvider},
};

use super::{Event, Limits, Listener, Settings, name::Name};
use crate::base::{
    error::{Error, Result},
    json::clipped,
};

/// Most redirects of one request.
const REDIRECTS: usize = 5;

/// Bytes of an answer that are read for nothing but its end.
const SHORT: u64 = 4096;

/// How often a wait looks whether the work is to stop.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// What talks to the hub.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    token: Option<Token>,
    pub(super) limits: Limits,
}

/// What is shown to nobody but the hub.
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// A server, as far as a token is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match &*scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { port: uri.port_u16().unwrap_or(usual), scheme, host })
    }

    fn describe(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// What is wrong with a try.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another try may succeed, perhaps not before some time.
    Passing { what: String, wait: Option<Duration> },
    /// Another try would give the same.
    Final(Error),
}

impl Failure {
    pub(super) fn passing(what: impl Into<String>) -> Self {
        Self::Passing { what: what.into(), wait: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// What a request is about, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) name: &'a Name,
    /// The file, or nothing for the model itself.
    pub(super) file: Option<&'a str>,
}

impl About<'_> {
    pub(super) fn what(&self) -> String {
        match self.file {
            Some(file) => format!("hf://{}: {}", self.name.repository(), clipped(file)),
            None => self.name.to_string(),
        }
    }

    /// An error of the network or of the server.
    fn io(&self, kind: ErrorKind, what: String) -> Error {
        Error::io(self.what(), std::io::Error::new(kind, what))
    }
}

/// A response, and where it came from in the end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Whether it is the hub's own, and not that of a server that it named.
    own: bool,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(self.response.headers(), name)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

impl Client {
    /// A client for an endpoint. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the endpoint is no address, or the token no token.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        let origin = endpoint.parse().ok().as_ref().and_then(Origin::of);
        let origin = origin.ok_or_else(|| {
            Error::Usage(format!("the hub's address `{}` is none", clipped(&endpoint)))
                .with_hint("HF_ENDPOINT is an address such as https://huggingface.co.")
        })?;
        // It becomes a header.
        let odd = |token: &String| token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic());
        if settings.token.as_ref().is_some_and(odd) {
            return Err(Error::Usage("the token of the hub has characters that none has".into())
                .with_hint("Look at HF_TOKEN, or at the file `token` in HF_HOME."));
        }
        let limits = settings.limits;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("grok-wgpu/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.page))
            .timeout_per_write(Some(limits.stall))
            .timeout_per_read(Some(limits.stall));
        if !settings.system_proxy {
            config = config.proxy(None);
        }
        let agent = Agent::new_with_config(config.build());
        let token = settings.token.clone().map(Token);
        Ok(Self { agent, endpoint, origin, token, limits })
    }

    /// An address of the hub.
    pub(super) fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Asks once, and follows redirects. The token goes to the hub alone: after a redirect to
    /// another server it is not sent again, not even to the hub. Statuses below 400 and 416 are an
    /// answer. `whole` limits the time of the whole answer.
    pub(super) fn ask(
        &self,
        about: About<'_>,
        address: &str,
        headers: &[(&str, String)],
        whole: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let mut address = address.to_owned();
        let mut trusted = true;
        for _ in 0..=REDIRECTS {
            let uri: Uri = address.parse().map_err(|_| bad_redirect(about, &address))?;
            let origin = Origin::of(&uri).ok_or_else(|| bad_redirect(about, &address))?;
            trusted &= origin == self.origin;
            if self.origin.scheme == "https" && origin.scheme != "https" {
                let what = format!("it leads from https to {}, which is not", origin.describe());
                return Err(Failure::Final(about.io(ErrorKind::InvalidData, what)));
            }
            // A range is one of the file's bytes, not of a compressed form of them.
            let mut request = self.agent.get(uri.clone()).header("accept-encoding", "identity");
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(Token(token)) = self.token.as_ref().filter(|_| trusted) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let sent = request.config().timeout_recv_body(whole).build().call();
            let response = sent.map_err(|error| self.failure(about, &origin, error))?;
            let status = response.status().as_u16();
            let location = header(response.headers(), "location");
            match status {
                301 | 302 | 303 | 307 | 308 if location.is_some() => {
                    address = joined(&uri, location.unwrap_or_default());
                    // A connection whose answer was read serves again.
                    let mut rest = response.into_body().into_reader().take(SHORT);
                    let _ = std::io::copy(&mut rest, &mut std::io::sink());
                }
                200..400 | 416 => return Ok(Answer { response, own: trusted }),
                _ => return Err(self.refused(about, &Answer { response, own: trusted })),
            }
        }
        let what = format!("more than {REDIRECTS} redirects");
        Err(Failure::Final(about.io(ErrorKind::InvalidData, what)))
    }

    /// As [`Client::try_for`], as often as the limits say.
    pub(super) fn persist<T>(
        &self,
        about: About<'_>,
        on: &mut Listener<'_>,
        attempt: impl FnMut(&mut u64, &mut Listener<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        self.try_for(self.limits.tries, about, on, attempt)
    }

    /// Runs `attempt` until it succeeds, or another try would give the same, or there were too many
    /// tries in which nothing moved. `attempt` says in its number how far it got.
    pub(super) fn try_for<T>(
        &self,
        most: u32,
        about: About<'_>,
        on: &mut Listener<'_>,
        mut attempt: impl FnMut(&mut u64, &mut Listener<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let (mut tries, mut reached, mut best) = (0, 0, 0);
        loop {
            let (what, asked) = match attempt(&mut reached, on) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { what, wait }) => (what, wait),
            };
            if reached >= u64::saturating_add(best, self.limits.advance) {
                (tries, best) = (0, reached);
            }
            tries += 1;
            if tries >= most {
                let tries = if tries == 1 { "1 try".into() } else { format!("{tries} tries") };
                let error = about.io(ErrorKind::HostUnreachable, format!("{what} ({tries})"));
                return Err(error.with_hint(
                    "Check the network and run it again: what was downloaded is kept, and the \
                     same command goes on with it.",
                ));
            }
            let usual = self.limits.wait.saturating_mul(2_u32.saturating_pow(tries - 1));
            let wait = asked.unwrap_or(usual).min(self.limits.longest_wait);
            on(Event::Retry { what: &what, wait })?;
            pause(wait, on)?;
        }
    }

    /// What a request that had no answer says.
    fn failure(&self, about: About<'_>, origin: &Origin, error: ureq::Error) -> Failure {
        let server = origin.describe();
        let final_ = |what: String, hint: &str| {
            Failure::Final(about.io(ErrorKind::InvalidData, what).with_hint(hint))
        };
        match error {
            ureq::Error::Timeout(_) => Failure::passing(self.silence(&server)),
            ureq::Error::HostNotFound => {
                Failure::passing(format!("there is no server of the name {}", origin.host))
            }
            ureq::Error::Io(error) if is_timeout(&error) => Failure::passing(self.silence(&server)),
            // What TLS says comes as an error of reading, too.
            ureq::Error::Io(error) if is_tls(&error) => certificate(final_, &server, &error),
            ureq::Error::Io(error) => Failure::passing(format!("{server}: {error}")),
            ureq::Error::Rustls(error) => certificate(final_, &server, &error),
            ureq::Error::InvalidProxyUrl => final_(
                "the proxy's address is none".into(),
                "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY are addresses such as http://HOST:PORT.",
            ),
            other => Failure::passing(format!("{server}: {other}")),
        }
    }

    fn silence(&self, server: &str) -> String {
        format!("nothing came from {server} for {} s", seconds(self.limits.stall))
    }

    /// What an error while a body is read says.
    pub(super) fn broken(&self, error: &std::io::Error) -> Failure {
        if is_timeout(error) {
            let what = format!("nothing came for {} s", seconds(self.limits.stall));
            return Failure::passing(what);
        }
        Failure::passing(format!("the connection broke: {error}"))
    }

    /// The error for a status.
    fn refused(&self, about: About<'_>, answer: &Answer) -> Failure {
        let status = answer.status();
        let reason = answer.header("x-error-message").map(clipped);
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let said = format!("the server answers {status}{reason}");
        // An address that the hub signed for some minutes is refused later: it makes another one.
        let expired = !answer.own && matches!(status, 401 | 403 | 404 | 410);
        if expired || matches!(status, 408 | 425 | 429 | 500..) {
            let date = answer.header("date");
            let wait = answer.header("retry-after").and_then(|when| wait_until(when, date));
            return Failure::Passing { what: said, wait };
        }
        let repository = about.name.repository();
        let code = answer.header("x-error-code").unwrap_or_default();
        let with = self.token.is_some();
        let fail =
            |kind, what: String, hint: String| Failure::Final(about.io(kind, what).with_hint(hint));
        let page = self.address(&repository);
        match (status, code) {
            (401 | 403, "GatedRepo") | (403, _) => fail(
                ErrorKind::PermissionDenied,
                format!("{said}; the publisher wants its terms accepted"),
                format!(
                    "Accept them at {page}, and give a token of the same account that may read \
                     it, in HF_TOKEN."
                ),
            ),
            (401, _) if with => fail(
                ErrorKind::PermissionDenied,
                format!("{said}; the token is not valid, or may not read it"),
                "Check HF_TOKEN and the name: the hub does not tell a model that is private from \
                 one that does not exist."
                    .into(),
            ),
            (401, _) => fail(
                ErrorKind::PermissionDenied,
                format!("{said}; there is no such model, or it is private"),
                "Check the name. For a model that is private or has terms, set HF_TOKEN to a \
                 token of the hub."
                    .into(),
            ),
            (404, "RevisionNotFound") => fail(
                ErrorKind::NotFound,
                format!("{said}; there is no revision `{}`", clipped(about.name.revision())),
                format!("{page}/refs lists branches and tags."),
            ),
            (404, _) => fail(
                ErrorKind::NotFound,
                format!("{said}; there is nothing of this name"),
                format!("Check the name: {page} should show it."),
            ),
            _ => fail(
                ErrorKind::InvalidData,
                said,
                "Look at it in a browser, or run it again later.".into(),
            ),
        }
    }
}

/// The wait that a `Retry-After` header asks for, in seconds or as a date. A date is compared with
/// that of the answer, if it has one: the clocks of this machine and of the server may differ.
/// `None` for a date that is past, and for what is neither.
fn wait_until(when: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = when.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let now = now.unwrap_or_else(SystemTime::now);
    httpdate::parse_http_date(when).ok()?.duration_since(now).ok()
}

/// The error for a certificate that is not taken.
fn certificate(
    fail: impl Fn(String, &str) -> Failure,
    server: &str,
    error: &dyn fmt::Display,
) -> Failure {
    fail(
        format!("the connection to {server} is not secure: {error}"),
        "Check the clock of this machine. Its own list of certificates is used: on Linux the \
         package ca-certificates has it, or SSL_CERT_FILE names it.",
    )
}

fn bad_redirect(about: About<'_>, address: &str) -> Failure {
    let what = format!("it leads to `{}`, which is no address", clipped(address));
    Failure::Final(about.io(ErrorKind::InvalidData, what))
}

/// The address that a redirect from `uri` means.
fn joined(uri: &Uri, location: &str) -> String {
    let scheme = uri.scheme_str().unwrap_or("https");
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    match uri.authority() {
        Some(server) if location.starts_with('/') => format!("{scheme}://{server}{location}"),
        _ => location.to_owned(),
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
        || matches!(inner, Some(ureq::Error::Timeout(_)))
}

fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
}

/// Waits, unless the work is to stop.
pub(super) fn pause(mut time: Duration, on: &mut Listener<'_>) -> Result<()> {
    while !time.is_zero() {
        on(Event::Waits)?;
        let step = time.min(LOOK);
        thread::sleep(step);
        time -= step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let is = |when, date, wanted: Option<u64>| {
            assert_eq!(wait_until(when, date), wanted.map(Duration::from_secs), "{when}");
        };
        is("120", Some(date), Some(120));
        is("Sun, 06 Nov 1994 08:50:00 GMT", Some(date), Some(23));
        // The two older forms, which servers may still use.
        is("Sunday, 06-Nov-94 08:50:00 GMT", Some(date), Some(23));
        is("Sun Nov  6 08:50:00 1994", Some(date), Some(23));
        // Past, by the server's clock and by this machine's.
        is("Sun, 06 Nov 1994 08:49:00 GMT", Some(date), None);
        is("Sun, 06 Nov 1994 08:50:00 GMT", None, None);
        is("Sun, 06 Nov 1994 08:50:00 GMT", Some("nonsense"), None);
        for wrong in ["", "soon", "-1", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            is(wrong, Some(date), None);
        }
        let later = SystemTime::now() + Duration::from_secs(100);
        let wait = wait_until(&httpdate::fmt_http_date(later), None).expect("a wait");
        assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
    }
}
