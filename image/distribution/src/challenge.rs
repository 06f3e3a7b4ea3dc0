/// One challenge of a `WWW-Authenticate` header (RFC 9110, section 11.6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Parameters, names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The challenges of one header value. What cannot be understood ends the list.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = token(rest) else { return found };
        let blank = after.trim_start_matches([' ', '\t']);
        match (blank.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = parameter_value(value.trim_start_matches([' ', '\t'])) else {
                    return found;
                };
                challenge.parameters.push((name.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !part(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.into(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_and_basic() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg, one",scope="repository:a/b:pull,push""#;
        let found = parse_challenges(header);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].parameter("realm"), Some("https://auth.example/token"));
        assert_eq!(found[0].parameter("service"), Some("reg, one"));
        assert_eq!(found[0].parameter("scope"), Some("repository:a/b:pull,push"));
        let found = parse_challenges(r#"BASIC realm="a \"b\"", Negotiate, Bearer realm = x"#);
        assert_eq!(
            found.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(),
            ["basic", "negotiate", "bearer"]
        );
        assert_eq!(found[0].parameter("realm"), Some("a \"b\""));
        assert_eq!(found[2].parameter("realm"), Some("x"));
    }

    #[test]
    fn nonsense_ends_the_list() {
        for text in ["", "=", "\"", "Bearer realm=\"x", "Basic realm=", "@@@", "a=b"] {
            let _ = parse_challenges(text);
        }
        assert!(parse_challenges("a=b").is_empty());
    }
}
