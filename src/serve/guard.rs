//! Who may ask for what: keys, host names, origins.

use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN},
};
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::wire::Refusal;

/// A key of the server, as a digest: keys of all lengths are compared in the same time.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The digest of a key.
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

/// Shows nothing of it.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Checks the key of a request, if there are keys. All are compared, in the same time. Returns its
/// number, counted from 1; 0 if there are no keys.
///
/// # Errors
///
/// Status 401.
pub(super) fn check_key(keys: &[Key], headers: &HeaderMap) -> Result<u64, Refusal> {
    if keys.is_empty() {
        return Ok(0);
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = bearer else {
        let what = "a key is needed: send the header `Authorization: Bearer KEY`";
        return Err(Refusal::new(401, "invalid_api_key", what));
    };
    let Key(given) = Key::new(key.trim());
    let same = |number: u64, (at, Key(key)): (u64, &Key)| {
        u64::conditional_select(&number, &at, key.ct_eq(&given))
    };
    match (1..).zip(keys).fold(0, same) {
        0 => Err(Refusal::new(401, "invalid_api_key", "this key is not one of the server's")),
        number => Ok(number),
    }
}

/// Checks that a request to a server on the loopback address names it by one of its own names.
/// Otherwise a page of any site, whose name was made to lead here, could ask in that site's name
/// (DNS rebinding).
///
/// # Errors
///
/// Status 403.
pub(super) fn check_host(headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let named = headers.get(HOST).map(|value| value.to_str().unwrap_or_default());
    let own = |host: &str| {
        let name = host.strip_prefix('[').map_or_else(
            || host.split(':').next().unwrap_or_default(),
            |v6| v6.split(']').next().unwrap_or_default(),
        );
        let port = host.rsplit_once(':').map_or("", |(_, port)| port.trim_end_matches(']'));
        let plain = port.chars().all(|c| c.is_ascii_digit() || c == ':');
        plain && (["127.0.0.1", "::1"].contains(&name) || name.eq_ignore_ascii_case("localhost"))
    };
    let uri = uri.authority().map(hyper::http::uri::Authority::as_str);
    let only = headers.get_all(HOST).iter().count() == 1;
    if only && named.is_some_and(own) && uri.is_none_or(own) {
        return Ok(());
    }
    Err(Refusal::new(
        403,
        "forbidden_host",
        "the header Host must be localhost, 127.0.0.1 or [::1] on this server",
    ))
}

/// Checks the page that asks, if a browser says which: it must be the server's own or one of the
/// `allowed`. Returns the latter.
///
/// # Errors
///
/// Status 403.
pub(super) fn check_origin(
    headers: &HeaderMap,
    allowed: &[String],
) -> Result<Option<HeaderValue>, Refusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    if allowed.iter().any(|one| one == text) {
        return Ok(Some(origin.clone()));
    }
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let own = text.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
    if own.is_some_and(|(_, authority)| Some(authority) == host) {
        return Ok(None);
    }
    Err(Refusal::new(
        403,
        "forbidden_origin",
        "pages of this origin may not ask; the server's option --cors-origin allows one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_the_loopback_address_are_known() {
        for (host, fine) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:80", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("localhost:80@evil.example", false),
            ("127.0.0.2", false),
            ("", false),
        ] {
            let headers: HeaderMap =
                [(HOST, HeaderValue::from_str(host).expect("a header"))].into_iter().collect();
            assert_eq!(check_host(&headers, &Uri::from_static("/x")).is_ok(), fine, "{host}");
        }
        assert!(check_host(&HeaderMap::new(), &Uri::from_static("/")).is_err(), "none");
    }

    #[test]
    fn one_of_several_keys_is_enough() {
        let keys = ["one", "two"].map(Key::new);
        let with = |value: &'static str| -> HeaderMap {
            [(AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect()
        };
        for value in ["Bearer one", "bearer two", "Bearer  two "] {
            assert!(check_key(&keys, &with(value)).is_ok(), "{value}");
        }
        for value in ["Bearer three", "Bearer ", "one", "Basic one", "Bearer onetwo", ""] {
            assert_eq!(check_key(&keys, &with(value)).map_err(|e| e.status), Err(401), "{value}");
        }
        assert!(check_key(&[], &HeaderMap::new()).is_ok());
    }
}
