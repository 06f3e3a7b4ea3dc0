//! Query strings and path segments, read as docker reads them.

use hull_docker_api::Filters;

use crate::error::HttpError;

/// The decoded parameters of a query string, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=1&b=%20`. Broken escapes are an error with status 400.
    pub(crate) fn parse(query: &str) -> Result<Query, HttpError> {
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((percent_decode(name, true)?, percent_decode(value, true)?));
        }
        Ok(Query(pairs))
    }

    /// The first value of a parameter, if it is there at all.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|v| !v.is_empty())
    }

    /// As [`Query::text`], as an owned string.
    pub(crate) fn string(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// All values of a repeated parameter.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// Docker's reading of a boolean: absent, empty, `0`, `no`, `false` and `none` are false, all else is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(truthy)
    }

    /// As [`Query::flag`], with another value where the parameter is absent.
    pub(crate) fn flag_or(&self, name: &str, absent: bool) -> bool {
        self.value(name).map_or(absent, truthy)
    }

    /// A number; a value that is none is an error with status 400.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, HttpError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(HttpError::bad_request(format!(
                "invalid value for {name}: {value:?} is not a valid number"
            ))),
        }
    }

    /// The `filters` parameter in either of its JSON forms.
    pub(crate) fn filters(&self) -> Result<Filters, HttpError> {
        match self.text("filters") {
            None => Ok(Filters::default()),
            Some(json) => Filters::parse(json).map_err(|error| HttpError::bad_request(error.to_string())),
        }
    }
}

fn truthy(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// Decodes `%xx` escapes (and `+` as a space in query strings).
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Result<String, HttpError> {
    let invalid = || HttpError::bad_request(format!("invalid URL escape in {text:?}"));
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or_else(invalid)?;
                let low = bytes.next().and_then(hex).ok_or_else(invalid)?;
                decoded.push(high << 4 | low);
            }
            b'+' if plus_is_space => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).map_err(|_| invalid())
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_as_docker_reads_them() {
        let query = Query::parse("a=1&b=0&c=No&d=&e=yes&f=False&g").unwrap();
        let read: Vec<bool> =
            ["a", "b", "c", "d", "e", "f", "g", "absent"].iter().map(|n| query.flag(n)).collect();
        assert_eq!(read, [true, false, false, false, true, false, false, false]);
        assert!(query.flag_or("absent", true));
        assert!(!query.flag_or("b", true));
    }

    #[test]
    fn escapes_and_repeats() {
        let query = Query::parse("names=a%3A1&names=b+c&x=%e2%82%ac").unwrap();
        assert_eq!(query.all("names"), ["a:1", "b c"]);
        assert_eq!(query.value("x"), Some("€"));
        assert_eq!(Query::parse("x=%4").unwrap_err().status(), 400);
        assert_eq!(Query::parse("x=%ff").unwrap_err().status(), 400);
    }

    #[test]
    fn numbers_are_checked() {
        let query = Query::parse("t=-1&h=12x&w=").unwrap();
        assert_eq!(query.number::<i64>("t").unwrap(), Some(-1));
        assert_eq!(query.number::<u16>("w").unwrap(), None);
        assert_eq!(query.number::<u16>("h").unwrap_err().status(), 400);
    }
}
