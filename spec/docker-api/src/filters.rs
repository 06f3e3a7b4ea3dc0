//! The `filters` query parameter: `{"label":{"a=b":true}}`, or `{"label":["a=b"]}` as clients before API 1.22 and
//! several libraries write it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Filters by field; each field has values of which one must match (labels: all).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// No filters: everything matches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the query parameter; empty text is no filters.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let fields: Option<BTreeMap<String, Values>> = serde_json::from_str(json)?;
        let list = |values| match values {
            Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
            Values::List(list) => list,
        };
        Ok(Self(
            fields.unwrap_or_default().into_iter().map(|(field, values)| (field, list(values))).collect(),
        ))
    }

    /// The query parameter for the API.
    pub fn to_json(&self) -> String {
        let fields: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(field, values)| {
                (field.as_str(), values.iter().map(|value| (value.as_str(), true)).collect())
            })
            .collect();
        serde_json::to_string(&fields).unwrap_or_default()
    }

    /// Adds a value to a field.
    pub fn add(&mut self, field: &str, value: &str) {
        let values = self.0.entry(field.to_owned()).or_default();
        if !values.iter().any(|known| known == value) {
            values.push(value.to_owned());
        }
    }

    /// Whether there are no filters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields that are filtered by.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a field is filtered by.
    pub fn contains(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// The values of a field; none when the field is not filtered by.
    pub fn values(&self, field: &str) -> &[String] {
        self.0.get(field).map_or(&[], Vec::as_slice)
    }

    /// Whether `value` is one of the field's values, or the field is not filtered by.
    pub fn matches_exact(&self, field: &str, value: &str) -> bool {
        let values = self.values(field);
        values.is_empty() || values.iter().any(|wanted| wanted == value)
    }

    /// A boolean filter (`true`, `1`, `false`, `0`): `Ok(None)` when absent, `Err` with the bad value.
    pub fn boolean(&self, field: &str) -> Result<Option<bool>, String> {
        match self.values(field) {
            [] => Ok(None),
            [value] if value == "true" || value == "1" => Ok(Some(true)),
            [value] if value == "false" || value == "0" => Ok(Some(false)),
            values => Err(values.join(",")),
        }
    }

    /// Whether labels satisfy every value of a label field: `key` or `key=value`.
    pub fn matches_labels(&self, field: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(field).iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The first field that is not in `known`, for the error `invalid filter 'x'`.
    pub fn unknown_field(&self, known: &[&str]) -> Option<&str> {
        self.fields().find(|field| !known.contains(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_alike() {
        let set = Filters::parse(r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#).unwrap();
        let list = Filters::parse(r#"{"label":["a=b","c"],"status":["exited"]}"#).unwrap();
        assert_eq!(set, list);
        assert_eq!(set.to_json(), r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#);
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse("[1").is_err());
    }

    #[test]
    fn labels_must_all_match_and_other_fields_any() {
        let filters = Filters::parse(r#"{"label":["a=b","c"],"status":["exited","dead"]}"#).unwrap();
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(filters.matches_labels("label", &labels(&[("a", "b"), ("c", "x")])));
        assert!(!filters.matches_labels("label", &labels(&[("a", "z"), ("c", "x")])));
        assert!(!filters.matches_labels("label", &labels(&[("a", "b")])));
        assert!(filters.matches_exact("status", "dead") && !filters.matches_exact("status", "running"));
        assert!(filters.matches_exact("name", "anything"));
        assert_eq!(filters.unknown_field(&["label"]), Some("status"));
    }
}
