//! `GET /events`.

use std::collections::BTreeMap;

use crate::go::go_struct;

go_struct! {
    /// Something that happened to an object of the engine.
    pub struct Event {
        /// Deprecated copy of the action for containers and images.
        status: String = "status" omitempty,
        /// Deprecated copy of the actor's id for containers and images.
        id: String = "id" omitempty,
        /// Deprecated copy of the container's image.
        from: String = "from" omitempty,
        /// `container`, `image`, `network`, `volume`, `daemon`, `builder`.
        kind: String = "Type",
        /// `create`, `start`, `die`, `exec_create: sh`, ….
        action: String = "Action",
        actor: EventActor = "Actor",
        /// `local` or `swarm`.
        scope: String = "scope" omitempty,
        /// Seconds since 1970.
        time: i64 = "time" omitempty,
        /// Nanoseconds since 1970.
        time_nano: i64 = "timeNano" omitempty,
    }

    /// What an event happened to.
    pub struct EventActor {
        id: String = "ID",
        attributes: BTreeMap<String, String> = "Attributes",
    }
}
