//! Go templates with docker's functions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use crate::error::{Failure, Result};

/// A parsed template.
pub(crate) struct Format {
    template: Template,
    text: String,
}

thread_local! {
    /// The JSON a template is executed on: `json` writes its objects in their own order.
    static SOURCE: RefCell<serde_json::Value> = const { RefCell::new(serde_json::Value::Null) };
}

impl Format {
    /// Parses a template; `\t` and `\n` written as two characters stand for tab and newline.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, MissingKey::Error)
    }

    /// [`Format::parse`] of a template that may name what is not there: it prints `<no value>`.
    pub(crate) fn parse_lenient(text: &str) -> Result<Self> {
        Self::parse_with(text, MissingKey::Invalid)
    }

    fn parse_with(text: &str, missing: MissingKey) -> Result<Self> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        // Placeholders that are methods with an argument are function values here, which Go calls by `call`.
        let text = text.replace(".Label \"", "call .Label \"").replace(".Label `", "call .Label `");
        functions(Template::new("").missing_key(missing))
            .parse(&text)
            .map(|template| Self { template, text: text.clone() })
            .map_err(|error| Failure::new(format!("template parsing error: {error}")).with_status(64))
    }

    /// Executes the template on JSON. What `json` writes is in the order of `shown`, which has what `data` has but
    /// for keys that are null.
    pub(crate) fn render_json(&self, data: &serde_json::Value, shown: &serde_json::Value) -> Result<String> {
        SOURCE.set(shown.clone());
        let text = self.render(&from_json(data));
        SOURCE.set(serde_json::Value::Null);
        text
    }

    /// Executes the template on a value.
    pub(crate) fn render(&self, data: &Value) -> Result<String> {
        self.template.execute_to_string(data).map_err(|error| {
            let reason = error.to_string();
            let reason = self.where_missing(&reason).unwrap_or(reason);
            Failure::new(format!("template parsing error: {reason}"))
        })
    }

    /// Go's words for a key that is not there, with its place in the template.
    fn where_missing(&self, reason: &str) -> Option<String> {
        let key = reason.rsplit_once("map has no entry for key: ")?.1;
        let name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let field = format!(".{key}");
        let (at, _) = self
            .text
            .match_indices(&field)
            .find(|(at, _)| !self.text[at + field.len()..].starts_with(name))?;
        let chain = self.text[..at].trim_end_matches(|letter| name(letter) || letter == '.');
        let (line, start) =
            (chain.matches('\n').count() + 1, chain.rfind('\n').map_or(0, |newline| newline + 1));
        let path = &self.text[chain.len()..at + field.len()];
        let column = chain.len() - start + path.rfind('.').unwrap_or_default();
        Some(format!(
            "template: :{line}:{column}: executing \"\" at <{path}>: map has no entry for key {key:?}"
        ))
    }
}

fn functions(template: Template) -> Template {
    let text = |value: Option<&Value>| value.map(ToString::to_string).unwrap_or_default();
    template
        .func("json", |args| {
            let value = args.first().map_or(serde_json::Value::Null, to_json);
            let value = SOURCE.with_borrow(|source| in_order(source, &value).cloned()).unwrap_or(value);
            serde_json::to_string(&value)
                .map(|text| Value::from(go_escape(&text)))
                .map_err(|e| exec_error(&e.to_string()))
        })
        .func("split", move |args| {
            let (value, separator) = (text(args.first()), text(args.get(1)));
            Ok(Value::from(value.split(separator.as_str()).map(Value::from).collect::<Vec<_>>()))
        })
        .func("join", move |args| {
            let items = match args.first() {
                Some(Value::List(items)) => items.iter().map(ToString::to_string).collect::<Vec<_>>(),
                _ => return Err(exec_error("join: expected a list")),
            };
            Ok(Value::from(items.join(&text(args.get(1)))))
        })
        .func("title", move |args| Ok(Value::from(title(&text(args.first())))))
        .func("lower", move |args| Ok(Value::from(text(args.first()).to_lowercase())))
        .func("upper", move |args| Ok(Value::from(text(args.first()).to_uppercase())))
        .func("pad", move |args| {
            let count = |index: usize| args.get(index).and_then(Value::as_int).unwrap_or(0).max(0) as usize;
            Ok(Value::from(format!("{}{}{}", " ".repeat(count(1)), text(args.first()), " ".repeat(count(2)))))
        })
        .func("truncate", move |args| {
            let len = args.get(1).and_then(Value::as_int).unwrap_or(0).max(0) as usize;
            Ok(Value::from(text(args.first()).chars().take(len).collect::<String>()))
        })
}

/// The part of `source` that is `value`, apart from the order of keys and from keys that are null.
fn in_order<'a>(source: &'a serde_json::Value, value: &serde_json::Value) -> Option<&'a serde_json::Value> {
    use serde_json::Value::{Array, Object};
    if matches!(value, Object(_) | Array(_)) && same(source, value) {
        return Some(source);
    }
    match source {
        Object(fields) => fields.values().find_map(|field| in_order(field, value)),
        Array(items) => items.iter().find_map(|item| in_order(item, value)),
        _ => None,
    }
}

fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Null, Object};
    match (a, b) {
        (Object(a), Object(b)) => {
            let known = |key: &String| !matches!(a.get(key), None | Some(Null));
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Null)))
                && b.iter().all(|(key, value)| *value == Null || known(key))
        }
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

fn exec_error(message: &str) -> TemplateError {
    TemplateError::Exec(message.to_owned())
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|letter| {
            let out = if start { letter.to_ascii_uppercase() } else { letter };
            start = letter.is_whitespace();
            out
        })
        .collect()
}

/// Go's encoder writes `<`, `>` and `&` escaped.
pub(crate) fn go_escape(json: &str) -> String {
    if !json.contains(['<', '>', '&']) {
        return json.to_owned();
    }
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// JSON as a template's data.
pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(on) => Value::Bool(*on),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Uint(number),
            _ => Value::Float(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        serde_json::Value::Object(fields) => {
            let map: BTreeMap<Arc<str>, Value> =
                fields.iter().map(|(key, value)| (Arc::from(key.as_str()), from_json(value))).collect();
            Value::from(map)
        }
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(on) => (*on).into(),
        Value::Int(number) => (*number).into(),
        Value::Uint(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::String(text) => text.as_ref().into(),
        Value::List(items) => items.iter().map(to_json).collect::<Vec<_>>().into(),
        Value::Map(fields) => serde_json::Value::Object(
            fields.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect(),
        ),
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> String {
        let data = serde_json::json!({
            "State": {"Status": "running", "Pid": 5, "Dead": false},
            "Args": ["a", "b c"], "Name": "/web", "Cmd": null,
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
            "Config": {"Labels": {"com.example.a": "1"}},
        });
        Format::parse(template)
            .and_then(|format| format.render(&from_json(&data)))
            .unwrap_or_else(|f| f.message)
    }

    #[test]
    fn templates_people_use() {
        assert_eq!(render("{{.State.Status}} {{.State.Pid}}"), "running 5");
        assert_eq!(render("{{json .State}}"), r#"{"Dead":false,"Pid":5,"Status":"running"}"#);
        assert_eq!(render("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"), "172.17.0.2");
        assert_eq!(render("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}"), "com.example.a=1");
        assert_eq!(render("{{index .Config.Labels \"com.example.a\"}}"), "1");
        assert_eq!(render("{{join .Args \",\"}} {{upper .Name}} {{slice .Name 1}}"), "a,b c /WEB web");
        assert_eq!(render("{{(index .Args 1) | printf \"%q\"}}"), "\"b c\"");
        assert_eq!(render("{{if .Cmd}}yes{{else}}no{{end}} {{json .Cmd}}"), "no null");
        assert_eq!(render("{{println .Name}}{{len .Args}}"), "/web\n2");
        assert_eq!(
            render("{{truncate .Name 2}}{{pad .Name 1 1}}|{{title \"ab cd\"}}{{split \"a-b\" \"-\"}}"),
            "/w /web |Ab Cd[a b]"
        );
        assert_eq!(render("{{.Args}} {{.Config}}"), "[a b c] map[Labels:map[com.example.a:1]]");
    }

    #[test]
    fn json_keeps_the_order_of_its_source() {
        let shown = serde_json::json!({"a": {"z": 1, "b": [{"y": 1, "x": null}]}});
        let data = serde_json::json!({"a": {"z": 1, "omitted": null, "b": [{"y": 1, "x": null}]}});
        let render = |text: &str| Format::parse(text).unwrap().render_json(&data, &shown).unwrap();
        assert_eq!(render("{{json .a}}"), r#"{"z":1,"b":[{"y":1,"x":null}]}"#);
        assert_eq!(render("{{json .a.b}}"), r#"[{"y":1,"x":null}]"#);
        assert_eq!(render("{{json .a.omitted}} {{json .a.z}}"), "null 1");
        let lenient = Format::parse_lenient("{{.a.nope}}").unwrap();
        assert_eq!(lenient.render_json(&data, &shown).unwrap(), "<no value>");
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(
            render("{{.Foo}}"),
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
        );
        assert_eq!(
            render("{{.Name}}\n{{.State.Foo}}"),
            "template parsing error: template: :2:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\""
        );
        assert!(render("{{.Foo").starts_with("template parsing error:"));
    }
}
