//! `/containers`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use hull_docker_api::{
    ContainerCreateRequest, ContainerPathStat, ContainerUpdateRequest, ContainerWait, WaitError,
};
use hull_engine::Engine;
use hull_engine::containers::{
    AttachOptions, ExtractOptions, ListOptions, LogsOptions, RemoveOptions, StopOptions, WaitCondition,
};
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::{exec, times};
use crate::error::HttpError;
use crate::hijack::{self, Hijack};
use crate::request::Call;
use crate::respond::{self, Answer, Body, empty, json, json_with, no_content};
use crate::router::ContainerOp;
use crate::stream as bodies;

const PATH_STAT: &str = "x-docker-container-path-stat";

pub(crate) async fn list(engine: &Engine, call: Call) -> Answer {
    let query = &call.query;
    let options = ListOptions {
        all: query.flag("all"),
        limit: query
            .number::<i64>("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        size: query.flag("size"),
        filters: query.filters()?,
    };
    respond::json_text(engine.container_list_json(options).await?)
}

pub(crate) async fn create(engine: &Engine, mut call: Call) -> Answer {
    let request: Option<ContainerCreateRequest> = call.json_if_any().await?;
    let Some(request) = request else {
        return Err(HttpError::bad_request("invalid JSON: got EOF while reading request body"));
    };
    let name = call.query.text("name").unwrap_or_default();
    let platform = call.query.text("platform").unwrap_or_default();
    json_with(StatusCode::CREATED, &engine.container_create(name, platform, request).await?)
}

pub(crate) async fn prune(engine: &Engine, call: Call) -> Answer {
    json(&engine.container_prune(&call.query.filters()?).await?)
}

pub(crate) async fn one(engine: &Engine, id: &str, op: ContainerOp, call: Call) -> Answer {
    use ContainerOp as Op;
    match op {
        Op::Inspect => json(&engine.container_inspect(id, call.query.flag("size")).await?),
        Op::Top => json(&engine.container_top(id, call.query.text("ps_args").unwrap_or_default()).await?),
        Op::Changes => json(&engine.container_changes(id).await?),
        Op::Start => done(engine.container_start(id).await),
        Op::Stop => done(engine.container_stop(id, stop_options(&call)?).await),
        Op::Restart => done(engine.container_restart(id, stop_options(&call)?).await),
        Op::Kill => done(engine.container_kill(id, call.query.text("signal").unwrap_or_default()).await),
        Op::Rename => done(engine.container_rename(id, call.query.text("name").unwrap_or_default()).await),
        Op::Pause => done(engine.container_pause(id).await),
        Op::Unpause => done(engine.container_unpause(id).await),
        Op::Remove => remove(engine, id, call).await,
        Op::Update => update(engine, id, call).await,
        Op::Resize => resize(engine, id, call).await,
        Op::Logs => logs(engine, id, call).await,
        Op::Stats => stats(engine, id, call).await,
        Op::Wait => wait(engine, id, call).await,
        Op::Attach => attach(engine, id, call).await,
        Op::Export => export(engine, id, call).await,
        Op::ArchiveStat => archive_stat(engine, id, call).await,
        Op::ArchiveGet => archive_get(engine, id, call).await,
        Op::ArchivePut => archive_put(engine, id, call).await,
        Op::ExecCreate => exec::create(engine, id, call).await,
    }
}

/// 204, or the error.
fn done(outcome: hull_engine::Result<()>) -> Answer {
    outcome?;
    no_content()
}

fn stop_options(call: &Call) -> Result<StopOptions, HttpError> {
    Ok(StopOptions { signal: call.query.string("signal"), timeout: call.query.number("t")? })
}

async fn remove(engine: &Engine, id: &str, call: Call) -> Answer {
    let query = &call.query;
    let options =
        RemoveOptions { force: query.flag("force"), volumes: query.flag("v"), link: query.flag("link") };
    done(engine.container_remove(id, options).await)
}

async fn update(engine: &Engine, id: &str, mut call: Call) -> Answer {
    let request: ContainerUpdateRequest = call.json().await?;
    json(&engine.container_update(id, request).await?)
}

async fn resize(engine: &Engine, id: &str, call: Call) -> Answer {
    let (height, width) = terminal_size(&call)?;
    engine.container_resize(id, height, width).await?;
    empty(StatusCode::OK)
}

/// `h` and `w` of a resize, rows and columns.
pub(super) fn terminal_size(call: &Call) -> Result<(u16, u16), HttpError> {
    let size = |name: &str, what: &str| {
        call.query.number::<u16>(name).and_then(|number| {
            number.ok_or_else(|| {
                HttpError::bad_request(format!("invalid resize {what} {:?}: invalid syntax", ""))
            })
        })
    };
    Ok((size("h", "height")?, size("w", "width")?))
}

async fn logs(engine: &Engine, id: &str, call: Call) -> Answer {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(HttpError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let options = LogsOptions {
        follow: query.flag("follow"),
        stdout,
        stderr,
        since: times::parse("since", query.value("since"))?,
        until: times::parse("until", query.value("until"))?,
        timestamps: query.flag("timestamps"),
        // Docker reads everything that is no number, "all" first of all, as all lines.
        tail: query.text("tail").and_then(|tail| tail.parse().ok()),
    };
    let logs = engine.container_logs(id, options).await?;
    let media_type = hijack::media_type(call.version, logs.tty);
    Ok(respond::with_type(StatusCode::OK, media_type, bodies::bytes(&call.peer, logs.body)))
}

async fn stats(engine: &Engine, id: &str, call: Call) -> Answer {
    let stream = call.query.flag_or("stream", true);
    let one_shot = call.query.flag("one-shot");
    if stream && one_shot {
        return Err(HttpError::bad_request("cannot have stream=true and one-shot=true"));
    }
    let mut samples = engine.container_stats(id, stream, one_shot).await?;
    if !stream {
        return match samples.next().await {
            Some(sample) => json(&sample?),
            None => Err(HttpError::new(StatusCode::NOT_FOUND, format!("No such container: {id}"))),
        };
    }
    Ok(bodies::json_lines(
        &call.peer,
        samples
            .take_while(|sample| std::future::ready(sample.is_ok()))
            .filter_map(|sample| std::future::ready(sample.ok())),
    ))
}

/// The headers go out at once: `docker run` starts the container only when it has them, so that no exit is missed.
async fn wait(engine: &Engine, id: &str, call: Call) -> Answer {
    let condition = match call.query.text("condition").unwrap_or_default() {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(HttpError::bad_request(format!("invalid condition: {other:?}"))),
    };
    let wait = engine.container_wait(id, condition).await?;
    let exit = stream::once(async move {
        wait.await.unwrap_or_else(|error| ContainerWait {
            status_code: -1,
            error: Some(WaitError { message: error.message().to_owned() }),
        })
    });
    Ok(bodies::json_lines(&call.peer, exit))
}

async fn attach(engine: &Engine, id: &str, call: Call) -> Answer {
    let query = &call.query;
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: query.string("detachKeys"),
    };
    let session = engine.container_attach(id, options).await?;
    let hijack = Hijack {
        peer: call.peer,
        upgrade: call.upgrade,
        input: Some(call.body),
        version: call.version,
        tty: session.tty,
    };
    hijack.answer(move |client| session.run(client))
}

async fn export(engine: &Engine, id: &str, call: Call) -> Answer {
    let archive = engine.container_export(id).await?;
    Ok(respond::with_type(StatusCode::OK, "application/octet-stream", bodies::bytes(&call.peer, archive)))
}

async fn archive_stat(engine: &Engine, id: &str, call: Call) -> Answer {
    let stat = engine.container_stat_path(id, archive_path(&call)?).await?;
    with_path_stat(respond::with_type(StatusCode::OK, "text/plain; charset=utf-8", respond::nothing()), &stat)
}

async fn archive_get(engine: &Engine, id: &str, call: Call) -> Answer {
    let (stat, archive) = engine.container_archive(id, archive_path(&call)?).await?;
    let body = bodies::bytes(&call.peer, archive);
    with_path_stat(respond::with_type(StatusCode::OK, "application/x-tar", body), &stat)
}

async fn archive_put(engine: &Engine, id: &str, call: Call) -> Answer {
    let options = ExtractOptions {
        path: archive_path(&call)?.to_owned(),
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    engine.container_extract(id, options, call.into_stream()).await?;
    empty(StatusCode::OK)
}

fn archive_path(call: &Call) -> Result<&str, HttpError> {
    call.query.text("path").ok_or_else(|| HttpError::bad_request("bad parameter: 'path' cannot be empty"))
}

fn with_path_stat(mut response: Response<Body>, stat: &ContainerPathStat) -> Answer {
    let document = serde_json::to_vec(stat).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(document)) {
        response.headers_mut().insert(PATH_STAT, value);
    }
    Ok(response)
}
