//! The list of containers, its filters and what people read in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_docker_api::{
    ContainerSummary, Filters, Port, PortMap, SummaryHostConfig, SummaryNetworkSettings, nat,
};
use jiff::Timestamp;
use serde::Serialize;

use super::ListOptions;
use super::inspect::mount_points;
use super::record::{Definition, ListEntry, RunState, Snapshot, Status};
use crate::{Engine, Error, Result};

const FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "until",
    "volume",
];

impl Engine {
    /// Containers that pass the filters, newest first.
    ///
    /// # Errors
    /// When a filter is unknown or its value cannot be read.
    pub async fn container_list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let found = self.containers_to_list(&options)?;
        let mut summaries = Vec::with_capacity(found.len());
        for now in found {
            let mut summary = summary(&now);
            if options.size {
                let size = i64::try_from(self.upper_size(&now.def.id).await).unwrap_or(i64::MAX);
                summary.size_rw = size;
                summary.size_root_fs =
                    size.saturating_add(i64::try_from(now.def.image_size).unwrap_or(i64::MAX));
            }
            summaries.push(summary);
        }
        Ok(summaries)
    }

    /// [`Engine::container_list`] as a JSON array. Clients ask for it again and again while little changes, so every
    /// state of a container is written as JSON once.
    ///
    /// # Errors
    /// As of [`Engine::container_list`].
    pub async fn container_list_json(&self, options: ListOptions) -> Result<Vec<u8>> {
        if options.size {
            return Ok(json(&self.container_list(options).await?)?.into_bytes());
        }
        let found = self.containers_to_list(&options)?;
        let time = Timestamp::now();
        let mut list = String::with_capacity(found.len() * USUAL_ENTRY + 2);
        for now in &found {
            list.push(if list.is_empty() { '[' } else { ',' });
            let ListEntry { head, tail } = match now.entry.get() {
                Some(entry) => entry,
                None => {
                    let made = entry(now)?;
                    now.entry.get_or_init(|| made)
                }
            };
            list.push_str(head);
            list.push_str(&json(&sentence(now, time))?);
            list.push_str(tail);
        }
        list.push_str(if list.is_empty() { "[]" } else { "]" });
        Ok(list.into_bytes())
    }

    /// What passes the filters, newest first.
    fn containers_to_list(&self, options: &ListOptions) -> Result<Vec<Arc<Snapshot>>> {
        let filter = ListFilter::new(self, options)?;
        let mut found: Vec<Arc<Snapshot>> =
            self.0.containers.registry.all().iter().map(super::registry::Handle::now).collect();
        found.retain(|now| !now.removed && filter.matches(now));
        found.sort_by_key(|now| std::cmp::Reverse(now.def.created));
        if let Some(limit) = options.limit {
            found.truncate(limit);
        }
        Ok(found)
    }
}

/// Bytes of a container's entry in the list, about.
const USUAL_ENTRY: usize = 1100;

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::system("write a list as JSON", source))
}

/// The container's entry without the sentence about its state.
fn entry(now: &Snapshot) -> Result<ListEntry> {
    // The id stands where the sentence goes. It was drawn at random after labels and annotations were given, so
    // none of them can be taken for it.
    let placeholder = json(&now.def.id)?;
    let json = json(&ContainerSummary { status: now.def.id.clone(), ..summary(now) })?;
    let key = "\"Status\":";
    let at = json.find(&format!("{key}{placeholder}")).map(|at| at + key.len());
    let (head, rest) = at.and_then(|at| json.split_at_checked(at)).unwrap_or((&json, ""));
    let tail = rest.strip_prefix(placeholder.as_str()).unwrap_or(rest);
    Ok(ListEntry { head: head.into(), tail: tail.into() })
}

fn sentence(now: &Snapshot, time: Timestamp) -> String {
    status_text(&now.state, now.health.as_ref().map(|health| health.status.as_str()), time)
}

/// Filters with what they refer to looked up.
struct ListFilter<'a> {
    filters: &'a Filters,
    all: bool,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i64>,
    networks: Vec<String>,
}

impl<'a> ListFilter<'a> {
    fn new(engine: &Engine, options: &'a ListOptions) -> Result<ListFilter<'a>> {
        let filters = &options.filters;
        if let Some(unknown) = filters.unknown_field(&FILTERS) {
            return Err(Error::invalid(format!("invalid filter '{unknown}'")));
        }
        let invalid = |field: &str, value: &str| Error::invalid(format!("invalid filter '{field}={value}'"));
        for status in filters.values("status") {
            let known = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
            if !known.contains(&status.as_str()) {
                return Err(invalid("status", status));
            }
        }
        for health in filters.values("health") {
            if !["starting", "healthy", "unhealthy", "none"].contains(&health.as_str()) {
                return Err(invalid("health", health));
            }
        }
        let created = |field: &str| -> Result<Option<Timestamp>> {
            let found = filters.values(field).iter().map(|id| engine.0.containers.registry.find(id));
            let times = found.map(|handle| handle.map(|handle| handle.now().def.created));
            times.collect::<Result<Vec<_>>>().map(|times| times.into_iter().next())
        };
        let exited = filters.values("exited").iter();
        let exited =
            exited.map(|code| code.parse().map_err(|_| invalid("exited", code))).collect::<Result<_>>()?;
        let networks = filters.values("network").iter().map(|network| {
            engine.network_lookup(network).map_or_else(|_| network.clone(), |found| found.name)
        });
        let asked_for_stopped =
            ["status", "exited", "before", "since"].iter().any(|field| filters.contains(field));
        Ok(ListFilter {
            filters,
            all: options.all || options.limit.is_some() || asked_for_stopped,
            before: created("before")?,
            since: created("since")?,
            exited,
            networks: networks.collect(),
        })
    }

    fn matches(&self, now: &Snapshot) -> bool {
        let (def, state) = (&now.def, &now.state);
        let any = |field: &str, test: &dyn Fn(&str) -> bool| {
            let values = self.filters.values(field);
            values.is_empty() || values.iter().any(|value| test(value))
        };
        (self.all || state.status.is_up())
            && any("status", &|wanted| wanted == state.status.as_str())
            && (self.exited.is_empty()
                || (matches!(state.status, Status::Exited | Status::Dead)
                    && self.exited.contains(&state.exit_code)))
            && any("id", &|wanted| def.id.starts_with(wanted))
            && any("name", &|wanted| matches_name(&def.name, wanted))
            && any("health", &|wanted| wanted == now.health.as_ref().map_or("none", |health| &health.status))
            && any("ancestor", &|wanted| matches_image(def, wanted))
            && any("volume", &|wanted| {
                def.mounts.iter().any(|mount| {
                    mount.name == wanted || mount.source == wanted || mount.destination == wanted
                })
            })
            && any("publish", &|wanted| matches_port(&state.ports, wanted, true))
            && any("expose", &|wanted| {
                def.config.exposed_ports.keys().any(|port| port_is(port, wanted))
                    || matches_port(&state.ports, wanted, false)
            })
            && any("is-task", &|wanted| matches!(wanted, "false" | "0"))
            && (self.networks.is_empty()
                || self.networks.iter().any(|network| def.networks.contains_key(network)))
            && self.before.is_none_or(|before| def.created < before)
            && self.since.is_none_or(|since| def.created > since)
            && matches_labels(self.filters, def)
    }
}

/// A part of the name, as a client shows it (with the slash) or not. `^` and `$` bind it to the ends.
fn matches_name(name: &str, wanted: &str) -> bool {
    let (wanted, from_start) = wanted.strip_prefix('^').map_or((wanted, false), |rest| (rest, true));
    let (wanted, to_end) = wanted.strip_suffix('$').map_or((wanted, false), |rest| (rest, true));
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    match (from_start, to_end) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

fn matches_image(def: &Definition, wanted: &str) -> bool {
    let full = def.image_id.strip_prefix("sha256:").unwrap_or(&def.image_id);
    let own = def.config.image.as_str();
    let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let tagged = |name: &str| {
        if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            name.to_owned()
        } else {
            format!("{name}:latest")
        }
    };
    own == wanted || tagged(own) == tagged(wanted) || (id.len() >= 4 && full.starts_with(id))
}

fn port_is(port: &str, wanted: &str) -> bool {
    let (number, proto) = nat::split_proto(port);
    let (wanted, wanted_proto) = nat::split_proto(wanted);
    let in_range = nat::parse_range(wanted)
        .zip(number.parse::<u16>().ok())
        .is_some_and(|((first, last), number)| (first..=last).contains(&number));
    proto == wanted_proto && in_range
}

fn matches_port(ports: &PortMap, wanted: &str, public: bool) -> bool {
    ports.iter().any(|(port, bindings)| {
        let (_, proto) = nat::split_proto(port);
        let published = || {
            bindings
                .iter()
                .flatten()
                .any(|binding| port_is(&format!("{}/{proto}", binding.host_port), wanted))
        };
        port_is(port, wanted) && !public || published()
    })
}

/// `label` must all match, `label!` none.
pub(super) fn matches_labels(filters: &Filters, def: &Definition) -> bool {
    let none = BTreeMap::new();
    let labels = def.config.labels.as_ref().unwrap_or(&none);
    let unwanted = filters.values("label!").iter().any(|term| match term.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(term),
    });
    filters.matches_labels("label", labels) && !unwanted
}

fn summary(now: &Snapshot) -> ContainerSummary {
    let (def, state) = (&now.def, &now.state);
    ContainerSummary {
        id: def.id.clone(),
        names: vec![format!("/{}", def.name)],
        image: def.config.image.clone(),
        image_id: def.image_id.clone(),
        command: command_text(def),
        created: def.created.as_second(),
        ports: ports(def, state),
        labels: def.config.labels.clone().unwrap_or_default(),
        state: state.status.as_str().to_owned(),
        status: sentence(now, Timestamp::now()),
        host_config: SummaryHostConfig {
            network_mode: def.host.network_mode.clone(),
            annotations: def.host.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings { networks: super::inspect::endpoints(def, state) },
        mounts: mount_points(def),
        ..ContainerSummary::default()
    }
}

/// Path and arguments; docker puts an argument with a space into quotes.
fn command_text(def: &Definition) -> String {
    let (path, args) = def.command();
    let quoted = args.into_iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { arg });
    std::iter::once(path).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// Published ports, one entry for each address, then exposed ones.
fn ports(def: &Definition, state: &RunState) -> Vec<Port> {
    if !state.status.is_up() {
        return Vec::new();
    }
    let mut list = Vec::new();
    for (port, bindings) in &state.ports {
        let (number, kind) = nat::split_proto(port);
        let Ok(private_port) = number.parse() else { continue };
        for binding in bindings.iter().flatten() {
            let public_port = binding.host_port.parse().unwrap_or_default();
            list.push(Port { ip: binding.host_ip.clone(), private_port, public_port, kind: kind.to_owned() });
        }
    }
    for port in def.config.exposed_ports.keys().filter(|port| !state.ports.contains_key(*port)) {
        let (number, kind) = nat::split_proto(port);
        if let Ok(private_port) = number.parse() {
            list.push(Port { private_port, kind: kind.to_owned(), ..Port::default() });
        }
    }
    list
}

/// docker's sentence about a state: `Up 2 minutes (healthy)`, `Exited (0) 3 hours ago`.
fn status_text(state: &RunState, health: Option<&str>, now: Timestamp) -> String {
    let since = |at: Option<Timestamp>| {
        at.map_or_else(String::new, |at| human_duration(now.as_second() - at.as_second()))
    };
    match state.status {
        Status::Running | Status::Paused => {
            let paused = if state.status == Status::Paused { " (Paused)" } else { "" };
            let health = match health {
                Some("starting") => " (health: starting)".to_owned(),
                Some(health) if paused.is_empty() && health != "none" => format!(" ({health})"),
                _ => String::new(),
            };
            format!(
                "Up {}{paused}{}",
                since(state.started_at),
                if paused.is_empty() { health } else { String::new() }
            )
        }
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited if state.finished_at.is_none() => String::new(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

/// docker's `units.HumanDuration`.
fn human_duration(seconds: i64) -> String {
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        i64::MIN..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use hull_docker_api::{ContainerConfig, HostConfig};

    use super::*;

    #[test]
    fn durations_read_as_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (125, "2 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (20 * 86400, "2 weeks"),
            (90 * 86400, "3 months"),
            (900 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn an_entry_of_the_list_is_whole_with_its_sentence() {
        let labels = [("Status", ""), ("a", "\"Status\":\"x\"")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let def = Definition {
            id: "5f".repeat(32),
            name: "web".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            image_id: String::new(),
            layers: Vec::new(),
            image_size: 0,
            config: ContainerConfig { labels: Some(BTreeMap::from(labels)), ..ContainerConfig::default() },
            host: HostConfig::default(),
            mounts: Vec::new(),
            networks: BTreeMap::new(),
            os: String::new(),
        };
        let now = Snapshot {
            def: Arc::new(def),
            state: Arc::new(RunState::default()),
            health: None,
            removed: false,
            entry: Default::default(),
        };
        let made = entry(&now).expect("an entry");
        let json = format!("{}\"Up 2 minutes\"{}", made.head, made.tail);
        let read: ContainerSummary = serde_json::from_str(&json).expect("JSON");
        let expected = ContainerSummary { status: "Up 2 minutes".to_owned(), ..summary(&now) };
        assert_eq!(
            serde_json::to_value(read).expect("read"),
            serde_json::to_value(expected).expect("expected")
        );
    }

    #[test]
    fn names_and_ports_match_as_in_docker() {
        assert!(
            matches_name("web-1", "web")
                && matches_name("web-1", "^/web-1$")
                && !matches_name("web-1", "^eb")
        );
        let binding = hull_docker_api::PortBinding { host_ip: String::new(), host_port: "8080".to_owned() };
        let ports = PortMap::from([("80/tcp".to_owned(), Some(vec![binding]))]);
        assert!(matches_port(&ports, "8080", true) && !matches_port(&ports, "80", true));
        assert!(matches_port(&ports, "80/tcp", false) && !matches_port(&ports, "80/udp", false));
        assert!(matches_port(&ports, "8000-9000", true));
    }

    #[test]
    fn states_read_as_dockers() {
        let at = |seconds: i64| Timestamp::from_second(seconds).ok();
        let now = Timestamp::from_second(1000).expect("time");
        let mut state = RunState { status: Status::Running, started_at: at(880), ..RunState::default() };
        assert_eq!(status_text(&state, Some("healthy"), now), "Up 2 minutes (healthy)");
        state.status = Status::Paused;
        assert_eq!(status_text(&state, None, now), "Up 2 minutes (Paused)");
        let state =
            RunState { status: Status::Exited, exit_code: 3, finished_at: at(995), ..RunState::default() };
        assert_eq!(status_text(&state, None, now), "Exited (3) 5 seconds ago");
    }
}
