//! How a command fails: what is printed and the exit status.

/// A failed command.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// Printed on standard error; nothing when empty.
    pub(crate) message: String,
    /// The process's exit status.
    pub(crate) status: u8,
    /// What to do next, printed after the message.
    pub(crate) hint: Option<String>,
    /// Status of the engine's refusal, for commands that go on after it.
    pub(crate) api_status: Option<u16>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with exit status 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 1, ..Self::default() }
    }

    pub(crate) fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.api_status == Some(404)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<hull_client::Error> for Failure {
    fn from(error: hull_client::Error) -> Self {
        let mut failure = Self::new(error.to_string());
        failure.api_status = error.status();
        if let hull_client::Error::Connect { source, .. } = &error {
            failure.hint = match source.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    Some("run as root, or as a member of the group that owns the socket".to_owned())
                }
                _ => Some(
                    "start an engine with 'hulld', or name another one with -H or DOCKER_HOST".to_owned(),
                ),
            };
        }
        failure
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// How many objects are worked on at the same time.
const PARALLEL: usize = 50;

/// Runs an operation on each of several objects, side by side, as docker does: successes are printed in the order of
/// the names, failures after them, and one failure makes the whole command fail.
pub(crate) async fn for_each<F>(names: &[String], action: impl FnMut(String) -> F) -> Result<u8>
where
    F: Future<Output = Result<Option<String>>>,
{
    use futures_util::StreamExt;
    let mut results = futures_util::stream::iter(names.iter().cloned()).map(action).buffered(PARALLEL);
    let mut failures: Vec<Failure> = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(Some(text)) => crate::output::line(&text),
            Ok(None) => {}
            Err(failure) => failures.push(failure),
        }
    }
    all_failures(failures)
}

/// [`for_each`] one after another, for operations whose order matters.
pub(crate) async fn for_each_in_order<F>(names: &[String], mut action: impl FnMut(String) -> F) -> Result<u8>
where
    F: Future<Output = Result<Option<String>>>,
{
    let mut failures: Vec<Failure> = Vec::new();
    for name in names {
        match action(name.clone()).await {
            Ok(Some(text)) => crate::output::line(&text),
            Ok(None) => {}
            Err(failure) => failures.push(failure),
        }
    }
    all_failures(failures)
}

fn all_failures(failures: Vec<Failure>) -> Result<u8> {
    let Some(hint) = failures.first().map(|first| first.hint.clone()) else {
        return Ok(0);
    };
    let message = failures.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("\n");
    Err(Failure { message, status: 1, hint, api_status: None })
}
