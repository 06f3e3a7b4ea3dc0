//! `/exec` and `POST /containers/{id}/exec`.

use hull_docker_api::{ExecCreateRequest, ExecStartRequest};
use hull_engine::Engine;
use hyper::StatusCode;

use super::containers::terminal_size;
use crate::error::HttpError;
use crate::hijack::Hijack;
use crate::request::Call;
use crate::respond::{Answer, empty, json, json_with};

pub(crate) async fn create(engine: &Engine, container: &str, mut call: Call) -> Answer {
    let request: ExecCreateRequest = call.json().await?;
    if request.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(HttpError::bad_request("No exec command specified"));
    }
    json_with(StatusCode::CREATED, &engine.exec_create(container, request).await?)
}

pub(crate) async fn start(engine: &Engine, id: &str, mut call: Call) -> Answer {
    let request: ExecStartRequest = call.json().await?;
    let detach = request.detach;
    let session = engine.exec_start(id, request).await?;
    if detach {
        session.detached().await?;
        return empty(StatusCode::OK);
    }
    let hijack = Hijack {
        peer: call.peer,
        upgrade: call.upgrade,
        input: None,
        version: call.version,
        tty: session.tty,
    };
    hijack.answer(move |client| session.run(client))
}

pub(crate) async fn resize(engine: &Engine, id: &str, call: Call) -> Answer {
    let (height, width) = terminal_size(&call)?;
    engine.exec_resize(id, height, width).await?;
    empty(StatusCode::OK)
}

pub(crate) async fn inspect(engine: &Engine, id: &str) -> Answer {
    json(&engine.exec_inspect(id).await?)
}
