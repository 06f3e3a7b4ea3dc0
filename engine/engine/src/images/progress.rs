//! One action's progress, followed by any number of clients.
//!
//! Messages about one thing (a layer) replace each other: a client that reads slowly, or comes late, gets the newest of
//! each and misses none of the others. When the last client leaves before the end, the action is given up.

use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream;
use hull_docker_api::{JsonMessage, ProgressDetail};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Progress;
use crate::{Error, Kind, Result};

/// How an action ended; errors are told to every follower.
type Outcome = Result<(), (Kind, String)>;

/// Where an action tells what it does.
#[derive(Debug, Clone)]
pub(super) struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Latest messages with the version they were told at.
    messages: Vec<(u64, JsonMessage)>,
    outcome: Option<Outcome>,
}

/// An action that runs as long as somebody follows it.
#[derive(Debug)]
pub(super) struct Followed {
    board: Board,
    task: AbortHandle,
}

impl Followed {
    /// Whether the action has ended: nobody should begin to follow it.
    pub(super) fn is_done(&self) -> bool {
        self.board.state().outcome.is_some()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Board {
    pub(super) fn new() -> Board {
        Board(Arc::new(Inner { state: Mutex::default(), version: watch::Sender::new(0) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tells something. A message with an id replaces the last one with this id.
    pub(super) fn tell(&self, message: JsonMessage) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let same = |known: &&mut (u64, JsonMessage)| !message.id.is_empty() && known.1.id == message.id;
        match state.messages.iter_mut().find(same) {
            Some(known) => *known = (version, message),
            None => state.messages.push((version, message)),
        }
        drop(state);
        self.0.version.send_replace(version);
    }

    /// Tells how a thing with a known size goes on, with docker's bar.
    pub(super) fn tell_progress(&self, id: &str, status: &str, current: u64, total: u64) {
        self.tell(progress_message(id, status, current, total));
    }

    fn finish(&self, outcome: Result<()>) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.outcome = Some(outcome.map_err(|error| (error.kind(), error.message().to_owned())));
        drop(state);
        self.0.version.send_replace(version);
    }

    /// What was told since `seen`, in order; and the outcome once everything was told.
    fn since(&self, seen: u64) -> (u64, Vec<JsonMessage>, Option<Outcome>) {
        let state = self.state();
        let mut news: Vec<&(u64, JsonMessage)> =
            state.messages.iter().filter(|(version, _)| *version > seen).collect();
        news.sort_by_key(|(version, _)| *version);
        let news = news.into_iter().map(|(_, message)| message.clone()).collect();
        (state.version, news, state.outcome.clone())
    }
}

/// Starts an action and follows it.
pub(super) fn run<F, A>(action: A) -> Arc<Followed>
where
    A: FnOnce(Board) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let board = Board::new();
    let work = action(board.clone());
    let teller = board.clone();
    let task = tokio::spawn(async move { teller.finish(work.await) });
    Arc::new(Followed { board, task: task.abort_handle() })
}

/// The messages of an action from its begin. The last one to drop its stream gives the action up.
pub(super) fn follow(followed: Arc<Followed>) -> Progress {
    let version = followed.board.0.version.subscribe();
    let start = Follower { followed, version, seen: 0, ready: Vec::new().into_iter(), ended: false };
    Box::pin(stream::unfold(start, |mut follower| async move {
        let item = follower.next().await?;
        Some((item, follower))
    }))
}

struct Follower {
    followed: Arc<Followed>,
    version: watch::Receiver<u64>,
    seen: u64,
    ready: std::vec::IntoIter<JsonMessage>,
    ended: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<JsonMessage>> {
        loop {
            if let Some(message) = self.ready.next() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            self.version.borrow_and_update();
            let (version, news, outcome) = self.followed.board.since(self.seen);
            self.seen = version;
            if !news.is_empty() {
                self.ready = news.into_iter();
                continue;
            }
            match outcome {
                Some(Ok(())) => self.ended = true,
                Some(Err((kind, message))) => {
                    self.ended = true;
                    return Some(Err(Error::new(kind, message)));
                }
                // The sender lives as long as the board, which this follower holds.
                None => {
                    let _ = self.version.changed().await;
                }
            }
        }
    }
}

fn progress_message(id: &str, status: &str, current: u64, total: u64) -> JsonMessage {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    JsonMessage {
        progress_detail: Some(ProgressDetail {
            current: signed(current),
            total: signed(total),
            ..Default::default()
        }),
        progress: bar(current, total),
        ..JsonMessage::status(id, status)
    }
}

/// Docker's bar: `[=====>      ]  12.3MB/45.6MB`.
fn bar(current: u64, total: u64) -> String {
    const WIDTH: usize = 50;
    if total == 0 {
        return if current == 0 { String::new() } else { format!("{:>8}", human_size(current)) };
    }
    let percent = (u128::from(current) * 100 / u128::from(total)).min(100);
    let filled = usize::try_from(percent / 2).unwrap_or(WIDTH);
    let bar = format!("[{}>{}] ", "=".repeat(filled), " ".repeat(WIDTH - filled));
    if current > total {
        return format!("{bar}{:>8}", human_size(current));
    }
    format!("{bar}{:>8}/{}", human_size(current), human_size(total))
}

/// Four significant digits and a decimal unit (go-units `HumanSize`).
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let decimals = match size {
        s if s >= 100.0 => 1,
        s if s >= 10.0 => 2,
        _ => 3,
    };
    let digits = format!("{size:.decimals$}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[test]
    fn sizes_and_bars_are_dockers() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1234, "1.234kB"), (32_768, "32.77kB"), (2_220_000, "2.22MB")]
        {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(bar(1, 2), format!("[{}>{}]       1B/2B", "=".repeat(25), " ".repeat(25)));
        assert_eq!(bar(2, 2), format!("[{}>]       2B/2B", "=".repeat(50)));
        assert_eq!(bar(1500, 0), "   1.5kB");
        let message = serde_json::to_value(progress_message("a", "Downloading", 1, 2)).expect("json");
        assert_eq!(message["progressDetail"], serde_json::json!({"current": 1, "total": 2}));
    }

    #[tokio::test]
    async fn a_late_follower_sees_the_newest_of_each_thing_and_the_outcome() {
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let followed = run(|board| async move {
            board.tell(JsonMessage::status("", "Pulling"));
            board.tell(JsonMessage::status("layer", "Waiting"));
            board.tell(JsonMessage::status("layer", "Pull complete"));
            let _ = gone.await;
            board.tell(JsonMessage::status("", "Digest"));
            Err(Error::not_found("but no"))
        });
        tokio::task::yield_now().await;
        let mut late = follow(Arc::clone(&followed));
        drop(followed);
        let first = late.next().await.expect("message").expect("ok");
        assert_eq!(first.status, "Pulling");
        assert_eq!(late.next().await.expect("message").expect("ok").status, "Pull complete");
        go.send(()).expect("waiting");
        assert_eq!(late.next().await.expect("message").expect("ok").status, "Digest");
        let error = late.next().await.expect("outcome").expect_err("error");
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, "but no"));
        assert!(late.next().await.is_none());
    }

    #[tokio::test]
    async fn the_action_ends_with_its_last_follower() {
        struct Tell(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let guard = Tell(Some(sender));
        let followed = run(|board| async move {
            let _guard = guard;
            board.tell(JsonMessage::status("", "begun"));
            std::future::pending().await
        });
        let (mut one, two) = (follow(Arc::clone(&followed)), follow(followed));
        assert_eq!(one.next().await.expect("message").expect("ok").status, "begun");
        drop(two);
        drop(one);
        dropped.await.expect("the action was dropped");
    }
}
