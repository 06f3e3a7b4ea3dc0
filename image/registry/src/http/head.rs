//! A request's line and headers.

use std::borrow::Cow;

/// Headers in one request at most.
const HEADERS_MAX: usize = 64;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Read without the body.
    Head,
    /// Begin.
    Post,
    /// Store.
    Put,
    /// Add.
    Patch,
    /// Remove.
    Delete,
    /// Anything else.
    Other,
}

impl Method {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
}

/// A request without its body.
#[derive(Debug)]
pub struct Head {
    /// What.
    pub method: Method,
    /// Path, escapes resolved.
    pub path: String,
    query: String,
    headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
}

/// Why a request is refused before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It breaks the grammar, or could be understood in two ways.
    #[error("{0}")]
    Malformed(&'static str),
    /// More headers, or larger ones, than are taken.
    #[error("request header fields too large")]
    TooLarge,
    /// A version that is not spoken.
    #[error("HTTP version not supported")]
    Version,
    /// An encoding that is not known.
    #[error("transfer coding not supported")]
    Encoding,
    /// It did not arrive in time.
    #[error("the request did not arrive in time")]
    Slow,
}

impl HeadError {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooLarge => 431,
            Self::Version => 505,
            Self::Encoding => 501,
            Self::Slow => 408,
        }
    }
}

impl Head {
    /// Reads a head; `None` while it is not complete. Returns how many bytes it has.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(httparse::Error::Version) => return Err(HeadError::Version),
            Err(_) => return Err(HeadError::Malformed("malformed request")),
        };
        let method = method(request.method.unwrap_or_default());
        let (path, query) = target(request.path.unwrap_or_default())?;
        let headers = owned(request.headers)?;
        let old = request.version == Some(0);
        let mut head = Self {
            method,
            path,
            query,
            headers,
            framing: Framing::Length(0),
            keep_alive: !old,
            expects_continue: false,
        };
        head.read_connection(old)?;
        Ok(Some((head, length)))
    }

    fn read_connection(&mut self, old: bool) -> Result<(), HeadError> {
        if !old && self.all("host").count() != 1 {
            return Err(HeadError::Malformed("a request needs one Host header"));
        }
        self.framing = self.read_framing()?;
        let tokens = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        if tokens.split(',').any(|token| token.trim() == "close") {
            self.keep_alive = false;
        }
        let expect = self.header("expect").map(str::to_ascii_lowercase);
        self.expects_continue = match expect.as_deref() {
            None => false,
            Some("100-continue") => !old,
            Some(_) => return Err(HeadError::Malformed("unknown expectation")),
        };
        Ok(())
    }

    fn read_framing(&self) -> Result<Framing, HeadError> {
        let mut lengths = self.all("content-length");
        let mut encodings = self.all("transfer-encoding");
        match (lengths.next(), lengths.next(), encodings.next(), encodings.next()) {
            (None, None, None, None) => Ok(Framing::Length(0)),
            (Some(length), None, None, None) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits);
                length.map(Framing::Length).ok_or(HeadError::Malformed("malformed Content-Length"))
            }
            (None, None, Some(encoding), None) if encoding.eq_ignore_ascii_case("chunked") => {
                Ok(Framing::Chunked)
            }
            (None, None, Some(_), _) => Err(HeadError::Encoding),
            _ => Err(HeadError::Malformed("the length of the body is said twice")),
        }
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A header's first value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Length of the body in bytes, if it is known.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }

    /// A parameter of the query.
    pub fn parameter<'a>(&'a self, name: &'a str) -> Option<Cow<'a, str>> {
        self.parameters(name).next()
    }

    /// All values of a parameter of the query.
    pub fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key, true)? == name).then(|| unescape(value, true))?
        })
    }

    /// The path and query as they were sent, for a log.
    pub fn shown(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        _ => Method::Other,
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Result<Vec<(String, String)>, HeadError> {
    let owned = |header: &httparse::Header<'_>| {
        let value =
            std::str::from_utf8(header.value).map_err(|_| HeadError::Malformed("a header is not UTF-8"))?;
        Ok((header.name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    headers.iter().map(owned).collect()
}

/// Path and query of a request's target, which may name the host, too (RFC 9112 section 3.2).
fn target(text: &str) -> Result<(String, String), HeadError> {
    let bad = HeadError::Malformed("malformed request target");
    let text = match text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => text,
    };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if !path.starts_with('/') && path != "*" {
        return Err(bad);
    }
    // An escaped slash is no separator to some and one to others.
    if path.as_bytes().windows(3).any(|w| w.eq_ignore_ascii_case(b"%2f")) {
        return Err(bad);
    }
    let path = unescape(path, false).filter(|path| !path.contains(|c: char| c.is_control())).ok_or(bad)?;
    Ok((path.into_owned(), query.to_owned()))
}

/// Resolves `%xx`, and `+` in queries; `None` if that gives no text.
fn unescape(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    if !text.contains('%') && (!plus || !text.contains('+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut found = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        found.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(found).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Head, HeadError> {
        Head::parse(text.as_bytes()).map(|found| found.expect("complete").0)
    }

    #[test]
    fn a_request() {
        let text = "PUT /v2/a/manifests/sha256%3Aff?tag=a&tag=b%2B HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nbody";
        let (head, length) = Head::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[length..], "body");
        assert_eq!((head.method, head.path.as_str()), (Method::Put, "/v2/a/manifests/sha256:ff"));
        assert_eq!(head.parameters("tag").collect::<Vec<_>>(), ["a", "b+"]);
        assert_eq!(head.length(), Some(12));
        assert!(head.keep_alive);
        assert!(Head::parse(b"GET / HTTP/1.1\r\nHo").unwrap().is_none());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for headers in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Folded: x\r\n",
            "A: b\r\n c\r\n",
            "Host: y\r\n",
            "Expect: magic\r\n",
        ] {
            assert!(parse(&format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).is_err(), "{headers:?}");
        }
        assert!(parse("GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(parse("GET /v2/a%2fb/ HTTP/1.1\r\nHost: x\r\n\r\n").is_err());
        assert!(parse("GET /v2/%00 HTTP/1.1\r\nHost: x\r\n\r\n").is_err());
        assert!(parse("GET v2 HTTP/1.1\r\nHost: x\r\n\r\n").is_err());
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert_eq!(parse(&many).unwrap_err(), HeadError::TooLarge);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Head::parse(&bytes);
            let mut text = b"GET /".to_vec();
            text.extend_from_slice(&bytes);
            text.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\n\r\n");
            let _ = Head::parse(&text);
        }
    }
}
