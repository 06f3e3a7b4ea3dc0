//! Lists: a table of chosen columns, JSON, or a template, as `--format` and the configuration say.
//!
//! The default tables are written directly; a template is parsed once and executed for each row.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::Value;

use super::{table, template};
use crate::error::Result;

/// A placeholder of a list: its name, its header, and its value for an item.
pub(crate) struct Column<T: ?Sized> {
    pub(crate) name: &'static str,
    pub(crate) header: &'static str,
    pub(crate) value: fn(&T) -> String,
}

/// The labels of an item.
pub(crate) type LabelsOf<T> = fn(&T) -> &BTreeMap<String, String>;

/// How a list is printed.
pub(crate) struct Listing<T: 'static> {
    pub(crate) columns: &'static [Column<T>],
    /// Columns of the default table.
    pub(crate) default: Vec<&'static str>,
    /// The column printed alone by `--quiet`.
    pub(crate) quiet: &'static str,
    /// Labels of an item, for `.Label "key"`.
    pub(crate) labels: Option<LabelsOf<T>>,
}

impl<T: 'static> Listing<T> {
    /// The list as text. `format` is the user's or configured format, empty for the default.
    pub(crate) fn render(&self, items: &[T], format: &str, quiet: bool) -> Result<String> {
        let format = format.trim();
        if quiet && (format.is_empty() || format == "table") {
            return Ok(items.iter().map(|item| self.value(self.quiet, item) + "\n").collect());
        }
        match format {
            "" | "table" => Ok(self.table(items)),
            "json" | "{{json .}}" => items.iter().map(|item| self.json(item)).collect(),
            _ => match format.strip_prefix("table ") {
                Some(format) => self.templated_table(items, format.trim()),
                None => self.templated(items, format),
            },
        }
    }

    fn column(&self, name: &str) -> Option<&'static Column<T>> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn value(&self, name: &str, item: &T) -> String {
        self.column(name).map(|column| (column.value)(item)).unwrap_or_default()
    }

    fn table(&self, items: &[T]) -> String {
        let columns: Vec<&Column<T>> = self.default.iter().filter_map(|name| self.column(name)).collect();
        let mut text = columns.iter().map(|column| column.header).collect::<Vec<_>>().join("\t");
        text.push('\n');
        for item in items {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    text.push('\t');
                }
                text.push_str(&(column.value)(item));
            }
            text.push('\n');
        }
        table::align(&text)
    }

    fn json(&self, item: &T) -> Result<String> {
        let fields: BTreeMap<&str, String> =
            self.columns.iter().map(|column| (column.name, (column.value)(item))).collect();
        Ok(template::go_escape(&serde_json::to_string(&fields)?) + "\n")
    }

    /// The placeholders and their values for an item, as `--format json` has them.
    pub(crate) fn fields(&self, item: &T) -> serde_json::Value {
        let fields = self.columns.iter().map(|column| (column.name.to_owned(), (column.value)(item).into()));
        serde_json::Value::Object(fields.collect())
    }

    fn templated_table(&self, items: &[T], format: &str) -> Result<String> {
        let parsed = parse(format)?;
        let mut text = parsed.render(&self.header_data())?;
        text.push('\n');
        for item in items {
            text += &parsed.render(&self.data(item))?;
            text.push('\n');
        }
        Ok(table::align(&text))
    }

    fn templated(&self, items: &[T], format: &str) -> Result<String> {
        let parsed = parse(format)?;
        items.iter().map(|item| Ok(parsed.render(&self.data(item))? + "\n")).collect()
    }

    fn data(&self, item: &T) -> Value {
        let mut map: BTreeMap<Arc<str>, Value> = self
            .columns
            .iter()
            .map(|column| (Arc::from(column.name), Value::from((column.value)(item))))
            .collect();
        if let Some(labels) = self.labels {
            let labels = labels(item).clone();
            map.insert(
                Arc::from("Label"),
                label_function(move |key| labels.get(key).cloned().unwrap_or_default()),
            );
        }
        Value::from(map)
    }

    fn header_data(&self) -> Value {
        let mut map: BTreeMap<Arc<str>, Value> =
            self.columns.iter().map(|column| (Arc::from(column.name), Value::from(column.header))).collect();
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ");
        map.insert(Arc::from("Label"), label_function(last));
        Value::from(map)
    }
}

/// A list ends with status 1 whatever is wrong with its template.
fn parse(format: &str) -> Result<template::Format> {
    template::Format::parse(format).map_err(|failure| failure.with_status(1))
}

fn label_function(find: impl Fn(&str) -> String + Send + Sync + 'static) -> Value {
    Value::Function(Arc::new(move |args: &[Value]| {
        Ok(Value::from(find(&args.first().map(ToString::to_string).unwrap_or_default())))
    }))
}

/// Labels as `a=b,c=d`.
pub(crate) fn joined_labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item {
        id: &'static str,
        labels: BTreeMap<String, String>,
    }

    fn listing() -> Listing<Item> {
        const COLUMNS: &[Column<Item>] = &[
            Column { name: "ID", header: "ID", value: |item| item.id.to_owned() },
            Column { name: "Labels", header: "LABELS", value: |item| joined_labels(&item.labels) },
        ];
        Listing {
            columns: COLUMNS,
            default: vec!["ID", "Labels"],
            quiet: "ID",
            labels: Some(|item| &item.labels),
        }
    }

    fn items() -> Vec<Item> {
        let labels = [("com.x-y".to_owned(), "1<".to_owned())].into();
        vec![Item { id: "aa", labels }, Item { id: "bb", labels: BTreeMap::new() }]
    }

    #[test]
    fn forms() {
        let render =
            |format: &str, quiet| listing().render(&items(), format, quiet).unwrap_or_else(|f| f.message);
        assert_eq!(render("", false), "ID        LABELS\naa        com.x-y=1<\nbb        \n");
        assert_eq!(render("", true), "aa\nbb\n");
        assert_eq!(
            render("json", false),
            "{\"ID\":\"aa\",\"Labels\":\"com.x-y=1\\u003c\"}\n{\"ID\":\"bb\",\"Labels\":\"\"}\n"
        );
        assert_eq!(render("{{.ID}}-{{.Label \"com.x-y\"}}", false), "aa-1<\nbb-\n");
        assert_eq!(
            render("table {{.ID}}\\t{{.Label \"com.x-y\"}}", false),
            "ID        x y\naa        1<\nbb        \n"
        );
        assert!(render("{{.Nope}}", false).contains("Nope"));
    }
}
