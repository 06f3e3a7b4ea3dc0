//! The event bus: what happened, in docker's words.
//!
//! [`Bus::publish`] keeps the last 256 events for `since` and hands each to every subscriber. A subscriber that falls
//! more than [`BACKLOG`] events behind loses the oldest ones, as with dockerd.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Events kept for subscribers that ask for the past.
const KEPT: usize = 256;

/// Events a slow subscriber may lag behind.
const BACKLOG: usize = 512;

/// Something that happened (swagger `EventMessage`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Action again, for old clients; container and image events only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Actor's id again, for old clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Image of the container, for old clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `network`, `volume`, `daemon`…
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_start: ls`…
    #[serde(rename = "Action")]
    pub action: String,
    /// Whom it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// Whom an event happened to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Id, or the name for things that have none.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels and facts.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event that happens now.
    pub fn new(kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) -> Event {
        let now = jiff::Timestamp::now();
        let old_style = matches!(kind, "container" | "image");
        let from = match kind {
            "container" => attributes.get("image").cloned().unwrap_or_default(),
            _ => String::new(),
        };
        Event {
            status: if old_style { action.to_owned() } else { String::new() },
            id: if old_style { id.to_owned() } else { String::new() },
            from,
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }
}

/// The engine's event bus.
#[derive(Debug)]
pub struct Bus {
    past: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

/// What a subscriber gets: matching events of the past, then everything that happens (to be filtered).
#[derive(Debug)]
pub struct Subscription {
    /// Events kept from before the subscription, oldest first.
    pub past: Vec<Arc<Event>>,
    /// Events from now on.
    pub live: broadcast::Receiver<Arc<Event>>,
}

impl Default for Bus {
    fn default() -> Bus {
        Bus { past: Mutex::new(VecDeque::new()), live: broadcast::Sender::new(BACKLOG) }
    }
}

impl Bus {
    /// Keeps the event and hands it to all subscribers.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut past = self.past.lock().unwrap_or_else(|e| e.into_inner());
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Sent under the lock, so that a new subscriber sees each event exactly once.
        let _ = self.live.send(event);
    }

    /// Builds an event and publishes it.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.publish(Event::new(kind, action, id, attributes));
    }

    /// Starts listening. `past` holds kept events with `since <= time <= until` (nanoseconds since 1970); nothing of
    /// the past is wanted without a `since`.
    pub fn subscribe(&self, since: Option<i64>, until: Option<i64>) -> Subscription {
        let past = self.past.lock().unwrap_or_else(|e| e.into_inner());
        let live = self.live.subscribe();
        let wanted = |event: &&Arc<Event>| {
            since.is_some_and(|since| event.time_nano >= since)
                && until.is_none_or(|until| event.time_nano <= until)
        };
        Subscription { past: past.iter().filter(wanted).cloned().collect(), live }
    }

    /// How many subscribers there are.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

/// Docker's event filters: values of one key are alternatives, keys must all match.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    terms: BTreeMap<String, Vec<String>>,
}

impl Filter {
    /// A filter of these terms. Unknown keys match nothing special and are ignored, as dockerd does.
    pub fn new(terms: BTreeMap<String, Vec<String>>) -> Filter {
        Filter { terms }
    }

    /// Whether the event passes.
    pub fn matches(&self, event: &Event) -> bool {
        self.action(event)
            && self.exact("type", &[&event.kind])
            && self.exact("scope", &[&event.scope])
            && ["daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config"]
                .iter()
                .all(|kind| self.by_name(kind, event))
            && self.image(event)
            && self.labels(event)
    }

    fn values(&self, key: &str) -> &[String] {
        self.terms.get(key).map_or(&[], Vec::as_slice)
    }

    fn exact(&self, key: &str, found: &[&str]) -> bool {
        let wanted = self.values(key);
        wanted.is_empty() || wanted.iter().any(|value| found.contains(&value.as_str()))
    }

    /// `health_status` also means `health_status: healthy`, `exec_create` also `exec_create: ls`.
    fn action(&self, event: &Event) -> bool {
        let prefixed = ["health_status", "exec_create", "exec_start"];
        let wanted = self.values("event");
        wanted.is_empty()
            || wanted.iter().any(|value| {
                *value == event.action
                    || (prefixed.contains(&value.as_str()) && event.action.starts_with(value.as_str()))
            })
    }

    fn by_name(&self, kind: &str, event: &Event) -> bool {
        let wanted = self.values(kind);
        if wanted.is_empty() {
            return true;
        }
        // A network's connect event names its container; every other kind only knows itself by this key.
        if event.kind != kind && !(kind == "container" && event.kind == "network") {
            return false;
        }
        let name = event.actor.attributes.get("name").map_or("", String::as_str);
        let other = match kind {
            "container" if event.kind == "network" => {
                event.actor.attributes.get("container").map_or("", String::as_str)
            }
            _ => &event.actor.id,
        };
        wanted.iter().any(|value| other.starts_with(value.as_str()) || name.starts_with(value.as_str()))
    }

    fn image(&self, event: &Event) -> bool {
        let key = if event.kind == "image" { "name" } else { "image" };
        let name = event.actor.attributes.get(key).map_or("", String::as_str);
        self.exact("image", &[&event.actor.id, name, without_tag(name)])
    }

    fn labels(&self, event: &Event) -> bool {
        self.values("label").iter().all(|term| match term.split_once('=') {
            Some((key, value)) => event.actor.attributes.get(key).is_some_and(|found| found == value),
            None => event.actor.attributes.contains_key(term),
        })
    }
}

fn without_tag(name: &str) -> &str {
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Event::new(kind, action, id, attributes)
    }

    fn filter(terms: &[(&str, &[&str])]) -> Filter {
        let own = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        Filter::new(terms.iter().map(|(k, v)| ((*k).to_owned(), own(v))).collect())
    }

    #[test]
    fn values_are_alternatives_and_keys_all_match() {
        let die =
            event("container", "die", "abc123", &[("name", "web"), ("image", "nginx:1"), ("tier", "front")]);
        assert!(filter(&[("event", &["start", "die"])]).matches(&die));
        assert!(!filter(&[("event", &["start"])]).matches(&die));
        assert!(filter(&[("container", &["we"]), ("type", &["container"])]).matches(&die));
        assert!(filter(&[("container", &["abc"])]).matches(&die));
        assert!(!filter(&[("container", &["abc"]), ("type", &["image"])]).matches(&die));
        assert!(filter(&[("image", &["nginx"])]).matches(&die));
        assert!(filter(&[("label", &["tier=front", "name"])]).matches(&die));
        assert!(!filter(&[("label", &["tier=back"])]).matches(&die));
    }

    #[test]
    fn actions_with_details_match_by_their_first_word() {
        let exec = event("container", "exec_start: ls -l", "abc", &[]);
        assert!(filter(&[("event", &["exec_start"])]).matches(&exec));
        assert!(filter(&[("event", &["exec_start: ls -l"])]).matches(&exec));
        assert!(!filter(&[("event", &["exec"])]).matches(&exec));
    }

    #[tokio::test]
    async fn a_subscriber_sees_the_past_once_and_then_the_present() {
        let bus = Bus::default();
        for n in 0..300 {
            bus.emit("container", "create", &n.to_string(), BTreeMap::new());
        }
        let mut sub = bus.subscribe(Some(0), None);
        assert_eq!(sub.past.len(), KEPT);
        assert_eq!(sub.past[0].actor.id, "44");
        bus.emit("container", "start", "x", BTreeMap::new());
        assert_eq!(sub.live.recv().await.expect("event").action, "start");
        assert!(bus.subscribe(None, None).past.is_empty());
    }

    #[test]
    fn json_is_dockers() {
        let mut event = event("container", "start", "abc", &[("image", "busybox")]);
        (event.time, event.time_nano) = (1, 1_000_000_002);
        let json = serde_json::to_string(&event).expect("json");
        assert_eq!(
            json,
            r#"{"status":"start","id":"abc","from":"busybox","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"busybox"}},"scope":"local","time":1,"timeNano":1000000002}"#
        );
    }
}
