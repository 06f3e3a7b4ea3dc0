//! Finding the engine, and starting one when the default one is not running.

use std::cell::OnceCell;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hull_client::{Client, Endpoint, TlsFiles};

use crate::config::{self, Config, ContextStore};
use crate::error::{Failure, Result};
use crate::flags::Matches;

/// How long a new engine may take until its socket answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The engine of an invocation: where it is, and the client once it is needed.
pub(crate) struct Engine {
    globals: Matches,
    config: OnceCell<Config>,
    client: OnceCell<Rc<Client>>,
}

/// Where the engine is and where that was said.
pub(crate) struct Location {
    pub(crate) endpoint: Endpoint,
    /// Hull's own socket, where an engine may be started.
    is_default: bool,
}

impl Engine {
    pub(crate) fn new(globals: &Matches) -> Self {
        Self { globals: globals.clone(), config: OnceCell::new(), client: OnceCell::new() }
    }

    /// The configuration directory.
    pub(crate) fn config_directory(&self) -> PathBuf {
        config::directory(self.globals.text("config"))
    }

    /// `config.json`; one that cannot be read is an empty one and a warning.
    pub(crate) fn config(&self) -> &Config {
        self.config.get_or_init(|| {
            Config::load(&self.config_directory()).unwrap_or_else(|failure| {
                crate::output::warn(&format!("WARNING: {}", failure.message));
                Config::default()
            })
        })
    }

    /// The client, connected.
    pub(crate) async fn client(&self) -> Result<Rc<Client>> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let location = self.location()?;
        let version = std::env::var("DOCKER_API_VERSION").ok().filter(|version| !version.is_empty());
        let agent = concat!("Hull-Client/", env!("CARGO_PKG_VERSION"), " (linux)");
        let client = Client::new(location.endpoint.clone(), agent, version.as_deref())
            .with_headers(self.config().http_headers());
        match client.connect().await {
            Err(hull_client::Error::Connect { source, .. })
                if location.is_default && nobody_there(&source) =>
            {
                start(&location.endpoint, &client).await?;
            }
            other => other?,
        }
        let client = Rc::new(client);
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// The name of the context in use.
    pub(crate) fn context_name(&self) -> String {
        let flag = self.globals.text("context");
        if !flag.is_empty() {
            return flag.to_owned();
        }
        if self.globals.is_set("host") || nonempty_env("DOCKER_HOST").is_some() {
            return "default".to_owned();
        }
        let named = nonempty_env("DOCKER_CONTEXT").or_else(|| match self.config().text("currentContext") {
            "" => None,
            name => Some(name.to_owned()),
        });
        named.unwrap_or_else(|| "default".to_owned())
    }

    /// The engine's address: `-H`, a context, `DOCKER_HOST`, or Hull's own socket.
    pub(crate) fn location(&self) -> Result<Location> {
        let hosts = self.globals.list("host");
        if hosts.len() > 1 {
            return Err("specify only one -H".into());
        }
        if !hosts.is_empty() && !self.globals.text("context").is_empty() {
            return Err("conflicting options: cannot specify both --host and --context".into());
        }
        let context = self.context_name();
        if context != "default" {
            return self.context_location(&context);
        }
        match hosts.first().map(|host| (*host).to_owned()).or_else(|| nonempty_env("DOCKER_HOST")) {
            Some(host) => {
                let endpoint = Endpoint::parse(&host)?;
                let endpoint = match self.tls_files() {
                    Some(files) => endpoint.with_tls(&files)?,
                    None => endpoint,
                };
                Ok(Location { endpoint, is_default: false })
            }
            None => Ok(Location { endpoint: Endpoint::unix(default_socket()), is_default: true }),
        }
    }

    fn context_location(&self, name: &str) -> Result<Location> {
        let store = ContextStore::new(&self.config_directory());
        let context = store.find(name)?;
        let endpoint = Endpoint::parse(context.host())?;
        let directory = store.tls_directory(name).join("docker");
        let file = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        let skip_verify = context.endpoints.get("docker").is_some_and(|endpoint| endpoint.skip_tls_verify);
        let files =
            TlsFiles { ca: file("ca.pem"), identity: file("cert.pem").zip(file("key.pem")), skip_verify };
        let endpoint = match files.ca.is_some() || files.identity.is_some() || skip_verify {
            true => endpoint.with_tls(&files)?,
            false => endpoint,
        };
        Ok(Location { endpoint, is_default: false })
    }

    fn tls_files(&self) -> Option<TlsFiles> {
        let verify = self.globals.on("tlsverify") || nonempty_env("DOCKER_TLS_VERIFY").is_some();
        if !verify && !self.globals.on("tls") && nonempty_env("DOCKER_TLS").is_none() {
            return None;
        }
        let directory =
            nonempty_env("DOCKER_CERT_PATH").map_or_else(|| self.config_directory(), PathBuf::from);
        let file = |flag: &str, name: &str| match self.globals.text(flag) {
            "" => directory.join(name),
            path => PathBuf::from(path),
        };
        let existing = |path: PathBuf| Some(path).filter(|path| path.exists());
        let identity = existing(file("tlscert", "cert.pem")).zip(existing(file("tlskey", "key.pem")));
        Some(TlsFiles {
            ca: Some(file("tlscacert", "ca.pem")).filter(|_| verify),
            identity,
            skip_verify: !verify,
        })
    }
}

fn nonempty_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Hull's own socket: the system's for root, otherwise one of the user's session.
pub(crate) fn default_socket() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/hull/hull.sock");
    }
    let runtime = nonempty_env("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    Path::new(&runtime).join("hull/hull.sock")
}

fn nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Starts an engine and waits until its socket answers. A lock keeps several callers from starting one each; the
/// engine itself refuses to run twice.
async fn start(endpoint: &Endpoint, client: &Client) -> Result<()> {
    let directory = endpoint.socket_path().and_then(Path::parent).unwrap_or(Path::new("/run/hull"));
    let prepare =
        |error: io::Error| Failure::new(format!("cannot start the engine: {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(prepare)?;
    let lock = std::fs::File::create(directory.join("start.lock")).map_err(prepare)?;
    lock.lock().map_err(prepare)?;
    if client.connect().await.is_ok() {
        return Ok(());
    }
    let log = directory.join("hulld.log");
    let mut child = spawn(&log)?;
    let begun = Instant::now();
    loop {
        if client.connect().await.is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            return Err(not_started(&format!("hulld ended with {status}"), &log));
        }
        if begun.elapsed() > START_LIMIT {
            return Err(not_started(&format!("{endpoint} does not answer"), &log));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

fn spawn(log: &Path) -> Result<Child> {
    let hulld = find_program("hulld").ok_or_else(|| {
        Failure::new("Cannot connect to the Hull engine: it is not running, and hulld was not found beside hull or in PATH")
            .with_hint("install hulld, or name another engine with -H or DOCKER_HOST")
    })?;
    let output = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    // An own process group: the terminal's signals are for the command, not for the engine.
    Command::new(&hulld)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", hulld.display())))
}

/// A program of Hull's beside this one, else in PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let sibling = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let in_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).collect::<Vec<_>>()
    });
    sibling.into_iter().chain(in_path).find(|path| path.is_file())
}

fn not_started(reason: &str, log: &Path) -> Failure {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    let tail: String = lines.iter().rev().map(|line| format!("\n  {line}")).collect();
    Failure::new(format!("Cannot start the Hull engine: {reason}{tail}"))
        .with_hint(format!("the whole log is in {}", log.display()))
}
