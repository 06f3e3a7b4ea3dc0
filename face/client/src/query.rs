//! Paths and query strings of requests.

/// The query part of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl Query {
    /// An empty query.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key=value`.
    pub fn set(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.push(key, value.as_ref());
        self
    }

    /// Adds `key=value` unless the value is empty.
    pub fn set_nonempty(self, key: &str, value: impl AsRef<str>) -> Self {
        if value.as_ref().is_empty() { self } else { self.set(key, value) }
    }

    /// Adds `key=1` when on.
    pub fn flag(self, key: &str, on: bool) -> Self {
        if on { self.set(key, "1") } else { self }
    }

    /// Adds the filters when there are any.
    pub fn filters(self, filters: &hull_docker_api::Filters) -> Self {
        if filters.is_empty() { self } else { self.set("filters", filters.to_json()) }
    }

    fn push(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        encode_into(value, &mut self.0, false);
    }

    /// `?key=value&…`, or nothing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name as one part of a path; `/` stays, because image names contain it.
pub fn path_part(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    encode_into(name, &mut text, true);
    text
}

fn encode_into(value: &str, text: &mut String, path: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte as char),
            b'/' | b':' | b'@' if path => text.push(byte as char),
            _ => {
                text.push('%');
                text.push(HEX[usize::from(byte >> 4)] as char);
                text.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let query =
            Query::new().flag("all", true).flag("size", false).set("name", "a b/ü").set_nonempty("x", "");
        assert_eq!(query.as_str(), "?all=1&name=a%20b%2F%C3%BC");
        assert_eq!(path_part("reg:5000/a?b"), "reg:5000/a%3Fb");
    }
}
