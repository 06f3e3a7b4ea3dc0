//! Commands about contexts: named engines.

pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod rm;
pub(crate) mod show;
#[path = "use.rs"]
pub(crate) mod use_context;

use crate::command::{Group, Invocation};
use crate::config::{ContextEndpoint, ContextMeta, ContextStore};

/// `hull context`.
pub(crate) static GROUP: Group = Group {
    about: "Manage contexts",
    commands: &[
        &create::COMMAND,
        &inspect::COMMAND,
        &ls::COMMAND,
        &rm::COMMAND,
        &show::COMMAND,
        &use_context::COMMAND,
    ],
};

fn store(invocation: &Invocation) -> ContextStore {
    ContextStore::new(&invocation.engine.config_directory())
}

/// The context that is not stored: the engine of `-H`, `DOCKER_HOST` or the default socket.
fn default_context() -> ContextMeta {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| format!("unix://{}", crate::engine::default_socket().display()));
    let endpoint = ContextEndpoint { host, skip_tls_verify: false };
    ContextMeta {
        name: "default".to_owned(),
        metadata: [("Description".to_owned(), "Current DOCKER_HOST based configuration".into())]
            .into_iter()
            .collect(),
        endpoints: [("docker".to_owned(), endpoint)].into(),
    }
}
