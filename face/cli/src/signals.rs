//! Signals this process gets and their names.

use std::rc::Rc;

use tokio::signal::unix::{SignalKind, signal};

use hull_client::{Client, Query};

/// Signals that are passed on to a container: those a user or a supervisor sends.
const FORWARDED: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("TRAP", 5),
    ("ABRT", 6),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CONT", 18),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Tasks that end with their owner.
#[derive(Default)]
pub(crate) struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Passes signals of this process on to a container while the result lives.
pub(crate) fn forward(client: &Rc<Client>, id: &str) -> Tasks {
    let tasks = FORWARDED.iter().filter_map(|(name, number)| {
        let mut received = signal(SignalKind::from_raw(*number)).ok()?;
        let (client, id) = (client.clone(), id.to_owned());
        Some(tokio::task::spawn_local(async move {
            while received.recv().await.is_some() {
                let query = Query::new().set("signal", *name);
                // The container may be gone already; its exit is reported elsewhere.
                let _ = client.container_action(&id, "kill", &query).await;
            }
        }))
    });
    Tasks(tasks.collect())
}

/// Keeps the size of a container's or exec's terminal equal to this terminal's while the result lives. `path` is
/// `/containers/{id}` or `/exec/{id}`.
pub(crate) fn follow_size(client: &Rc<Client>, path: String) -> Tasks {
    let Ok(mut changed) = signal(SignalKind::window_change()) else {
        return Tasks::default();
    };
    let client = client.clone();
    Tasks(vec![tokio::task::spawn_local(async move {
        loop {
            let [rows, columns] = crate::terminal::size();
            if rows > 0 && columns > 0 {
                let query = Query::new().set("h", rows.to_string()).set("w", columns.to_string());
                let resize = format!("{path}/resize");
                let _ = client
                    .request_bytes(hull_client::Method::POST, &resize, &query, hull_client::empty())
                    .await;
            }
            if changed.recv().await.is_none() {
                return;
            }
        }
    })])
}
