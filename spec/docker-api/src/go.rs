//! Go's JSON behaviour, which Docker's API has inherited: a `null` is the zero value of whatever is expected,
//! a field marked `omitempty` is left out when empty, and maps are sorted.

use std::collections::BTreeMap;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Reads a value where `null` stands for the type's default, as Go's decoder does.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What Go's `omitempty` calls empty: false, 0, a nil pointer, an empty string, list or map. Never a struct.
pub(crate) trait GoEmpty {
    fn go_empty(&self) -> bool;
}

pub(crate) fn is_empty<T: GoEmpty>(value: &T) -> bool {
    value.go_empty()
}

macro_rules! zero_is_empty {
    ($($ty:ty = $zero:expr),*) => { $(impl GoEmpty for $ty { fn go_empty(&self) -> bool { *self == $zero } })* };
}
zero_is_empty!(bool = false, i32 = 0, i64 = 0, u16 = 0, u32 = 0, u64 = 0, f64 = 0.0);

impl GoEmpty for String {
    fn go_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<T> GoEmpty for Vec<T> {
    fn go_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> GoEmpty for BTreeMap<K, V> {
    fn go_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<T> GoEmpty for Option<T> {
    fn go_empty(&self) -> bool {
        self.is_none()
    }
}

impl<T> GoEmpty for Box<T>
where
    T: GoEmpty,
{
    fn go_empty(&self) -> bool {
        (**self).go_empty()
    }
}

/// Declares a struct of the API. Each field names its JSON key; `omitempty` leaves it out when empty. Missing keys
/// and `null` read as the default.
macro_rules! go_struct {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty = $key:literal $($omit:ident)? ),* $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                #[doc = concat!("`", $key, "`.")]
                $(
                    #[doc = concat!("(", stringify!($omit), ")")]
                    #[serde(skip_serializing_if = "crate::go::is_empty")]
                )?
                $(#[$fmeta])*
                #[serde(rename = $key, deserialize_with = "crate::go::null_default")]
                pub $field: $ty,
            )*
        }
    )* };
}
pub(crate) use go_struct;

/// Go's `struct{}`: `{}` in JSON, the value of a map that is used as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A command line. Written as a list; read from a list or from a single string (`strslice.StrSlice`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StrSlice(pub Vec<String>);

impl GoEmpty for StrSlice {
    fn go_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::ops::Deref for StrSlice {
    type Target = Vec<String>;
    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl std::ops::DerefMut for StrSlice {
    fn deref_mut(&mut self) -> &mut Vec<String> {
        &mut self.0
    }
}

impl From<Vec<String>> for StrSlice {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl FromIterator<String> for StrSlice {
    fn from_iter<I: IntoIterator<Item = String>>(words: I) -> Self {
        Self(words.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = StrSlice;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E>(self, word: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![word.to_owned()]))
            }
            fn visit_unit<E>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrSlice, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(StrSlice(words))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// Go's zero `time.Time` in RFC 3339: what Docker writes where an instant has not come yet.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// An instant as Go's `time.RFC3339Nano` in UTC writes it: trailing zeros of the fraction are dropped.
pub fn rfc3339_nano(at: jiff::Timestamp) -> String {
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_from_a_string_a_list_or_null() {
        let read = |s: &str| serde_json::from_str::<StrSlice>(s).unwrap().0;
        assert_eq!(read("\"a b\""), ["a b"]);
        assert_eq!(read("[\"a\",\"b\"]"), ["a", "b"]);
        assert!(read("null").is_empty());
        assert!(serde_json::from_str::<StrSlice>("3").is_err());
    }

    #[test]
    fn times_are_written_as_go_does() {
        let text = |s: &str| rfc3339_nano(s.parse().unwrap());
        assert_eq!(text("2026-01-02T03:04:05.120000000Z"), "2026-01-02T03:04:05.12Z");
        assert_eq!(text("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
        assert_eq!(text("2026-01-02T03:04:05.123456789Z"), "2026-01-02T03:04:05.123456789Z");
    }
}
