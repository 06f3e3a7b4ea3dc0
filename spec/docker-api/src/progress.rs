//! The stream of JSON messages a pull, push, load, import or build answers with.

use serde_json::Value;

use crate::go::go_struct;

go_struct! {
    /// One message; the stream has one per line (`\r\n`).
    pub struct JsonMessage {
        stream: String = "stream" omitempty,
        status: String = "status" omitempty,
        progress_detail: Option<ProgressDetail> = "progressDetail" omitempty,
        /// The progress bar as text, for clients older than `progressDetail`.
        progress: String = "progress" omitempty,
        id: String = "id" omitempty,
        from: String = "from" omitempty,
        time: i64 = "time" omitempty,
        time_nano: i64 = "timeNano" omitempty,
        error_detail: Option<ErrorDetail> = "errorDetail" omitempty,
        error: String = "error" omitempty,
        aux: Option<Value> = "aux" omitempty,
    }

    /// How far an operation is.
    pub struct ProgressDetail {
        current: i64 = "current" omitempty,
        total: i64 = "total" omitempty,
        start: i64 = "start" omitempty,
        hidecounts: bool = "hidecounts" omitempty,
        /// Bytes when empty.
        units: String = "units" omitempty,
    }

    /// Why the operation failed; the last message of a stream.
    pub struct ErrorDetail {
        code: i64 = "code" omitempty,
        message: String = "message" omitempty,
    }
}

impl JsonMessage {
    /// A status line about the object `id` (empty for the whole operation).
    pub fn status(id: &str, status: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            status: status.into(),
            progress_detail: (!id.is_empty()).then(ProgressDetail::default),
            ..Self::default()
        }
    }

    /// Progress of `id` in bytes.
    pub fn progress(id: &str, status: impl Into<String>, current: i64, total: i64) -> Self {
        Self {
            progress_detail: Some(ProgressDetail { current, total, ..ProgressDetail::default() }),
            ..Self::status(id, status)
        }
    }

    /// The failure that ends a stream.
    pub fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error_detail: Some(ErrorDetail { code: 0, message: message.clone() }),
            error: message,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_status_carries_an_empty_detail_as_docker_does() {
        let text = |m: &JsonMessage| serde_json::to_string(m).unwrap();
        assert_eq!(
            text(&JsonMessage::status("4f4fb700ef54", "Pull complete")),
            r#"{"status":"Pull complete","progressDetail":{},"id":"4f4fb700ef54"}"#
        );
        assert_eq!(text(&JsonMessage::status("", "Digest: x")), r#"{"status":"Digest: x"}"#);
        assert_eq!(text(&JsonMessage::error("no")), r#"{"errorDetail":{"message":"no"},"error":"no"}"#);
    }
}
