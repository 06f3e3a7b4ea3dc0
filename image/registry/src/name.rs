//! Names of the protocol, checked once at the edge: repositories, tags, digests, upload sessions.

use std::fmt;

use hull_model::Digest;

/// Longest repository name, in bytes: with a host before it, clients' limit of 255 is still kept.
pub const NAME_MAX: usize = 229;
const TAG_MAX: usize = 128;

/// A repository's name (distribution-spec, "Pulling manifests"); always well formed, so it is safe in paths and keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

/// A tag; always well formed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// What names a manifest in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A name that can move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl Name {
    /// Checks a name; `None` if it breaks the grammar or is too long.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= NAME_MAX && text.split('/').all(is_component);
        fits.then(|| Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// Checks a tag; `None` if it breaks the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = text.as_bytes();
        let fits = (1..=TAG_MAX).contains(&bytes.len())
            && word(bytes[0])
            && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'));
        fits.then(|| Self(text.into()))
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Runs of `[a-z0-9]` joined by one of `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.split(plain).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

/// Whether a pattern of the configuration matches a text: `*` stands for any characters but `/`, `**` for any at all.
pub fn matches(pattern: &str, text: &str) -> bool {
    fn go(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| go(rest, &text[n..])),
            [b'*', rest @ ..] => {
                let end = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
                (0..=end).any(|n| go(rest, &text[n..]))
            }
            [first, rest @ ..] => text.first() == Some(first) && go(rest, &text[1..]),
        }
    }
    go(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar() {
        for name in ["a", "library/nginx", "a__b/c---d.e_f", "0/1/2"] {
            assert_eq!(Name::parse(name).as_ref().map(Name::as_str), Some(name));
        }
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "..", "a/../b", "a/./b", ".a", "a.", "a..b", "a___b", "a\0",
            "a b", "a%2fb", "é", "_catalog", "-a",
        ] {
            assert_eq!(Name::parse(name), None, "{name:?}");
        }
        assert!(Name::parse(&"a".repeat(NAME_MAX)).is_some());
        assert!(Name::parse(&"a".repeat(NAME_MAX + 1)).is_none());
    }

    #[test]
    fn tags_of_the_grammar() {
        for tag in ["latest", "V1.0-x_y", "_"] {
            assert!(Tag::parse(tag).is_some(), "{tag}");
        }
        for tag in ["", ".a", "-a", "a/b", "a:b", "a b", "é"] {
            assert!(Tag::parse(tag).is_none(), "{tag:?}");
        }
        assert!(Tag::parse(&"a".repeat(129)).is_none());
    }

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("team/*", "team/a", true),
            ("team/*", "team/a/b", false),
            ("team/**", "team/a/b", true),
            ("**", "anything/at/all", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("v*", "latest", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
