//! `/_ping`, `/version`, `/info`, `/events`, `/system/df`, `/auth`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use hull_docker_api::{AuthConfig, Filters};
use hull_engine::Engine;
use hull_engine::events::{Event, Filter, Subscription};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use tokio::sync::broadcast::error::RecvError;

use super::{before, times};
use crate::error::HttpError;
use crate::request::Call;
use crate::respond::{self, Answer, full, json};
use crate::stream as bodies;

pub(crate) fn ping() -> Answer {
    let mut response = respond::with_type(StatusCode::OK, "text/plain; charset=utf-8", full("OK"));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // No builder is there to be chosen.
    headers.insert("builder-version", HeaderValue::from_static(""));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    Ok(response)
}

pub(crate) async fn version(engine: &Engine) -> Answer {
    json(&engine.version(crate::MAX_API_VERSION, crate::MIN_API_VERSION).await?)
}

pub(crate) async fn info(engine: &Engine) -> Answer {
    json(&engine.info().await?)
}

pub(crate) async fn disk_usage(engine: &Engine, call: Call) -> Answer {
    let types = call.query.all("type");
    for kind in &types {
        if !matches!(kind.as_str(), "container" | "image" | "volume" | "build-cache") {
            return Err(HttpError::bad_request(format!("unknown object type: {kind}")));
        }
    }
    let wanted = |kind: &str| types.is_empty() || types.iter().any(|t| t == kind);
    let usage = engine.disk_usage(wanted("container"), wanted("image"), wanted("volume")).await?;
    json(&usage)
}

pub(crate) async fn check(engine: &Engine, call: Call) -> Answer {
    json(&engine.store_check(call.query.flag("repair")).await?)
}

pub(crate) async fn auth(engine: &Engine, mut call: Call) -> Answer {
    let credentials: AuthConfig = call.json().await?;
    json(&engine.registry_login(credentials).await?)
}

pub(crate) fn events(engine: &Engine, call: Call) -> Answer {
    let since = times::parse("since", call.query.value("since"))?;
    let until = times::parse("until", call.query.value("until"))?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(HttpError::bad_request(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    let filter = event_filter(&call.query.filters()?);
    let subscription = engine.events().subscribe(since, until);
    let media_type = if before(call.version, 52) { "application/json" } else { "application/jsonl" };
    let lines = matching(subscription, filter, until).map(|event| bodies::line(&*event));
    Ok(respond::with_type(StatusCode::OK, media_type, bodies::bytes(&call.peer, lines)))
}

fn event_filter(filters: &Filters) -> Filter {
    let terms: BTreeMap<String, Vec<String>> =
        filters.fields().map(|field| (field.to_owned(), filters.values(field).to_vec())).collect();
    Filter::new(terms)
}

/// Past events, then live ones until the deadline.
fn matching(
    subscription: Subscription,
    filter: Filter,
    until: Option<i64>,
) -> impl Stream<Item = Arc<Event>> + Send + 'static {
    let Subscription { past, live } = subscription;
    let live = stream::unfold(live, |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => return Some((event, live)),
                Err(RecvError::Lagged(lost)) => tracing::debug!(lost, "a client reads events too slowly"),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let deadline = async move {
        match until {
            None => std::future::pending().await,
            Some(until) => tokio::time::sleep(remaining(until)).await,
        }
    };
    let all = stream::iter(past).chain(live.take_until(Box::pin(deadline)));
    all.filter(move |event| std::future::ready(filter.matches(event)))
}

fn remaining(until: i64) -> Duration {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    Duration::from_nanos(u64::try_from(until.saturating_sub(now)).unwrap_or(0))
}
