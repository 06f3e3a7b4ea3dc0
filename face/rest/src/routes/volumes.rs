//! `/volumes`.

use hull_docker_api::VolumeCreateRequest;
use hull_engine::Engine;
use hyper::StatusCode;

use super::before;
use crate::error::HttpError;
use crate::request::Call;
use crate::respond::{Answer, json, json_with, no_content};
use crate::router::VolumeOp;

pub(crate) async fn list(engine: &Engine, call: Call) -> Answer {
    json(&engine.volume_list(&call.query.filters()?).await?)
}

pub(crate) async fn create(engine: &Engine, mut call: Call) -> Answer {
    let request: VolumeCreateRequest = call.json().await?;
    json_with(StatusCode::CREATED, &engine.volume_create(request).await?)
}

pub(crate) async fn prune(engine: &Engine, call: Call) -> Answer {
    // Before 1.42 named volumes were pruned too.
    let every = before(call.version, 42);
    json(&engine.volume_prune(&call.query.filters()?, every).await?)
}

pub(crate) async fn one(engine: &Engine, name: &str, op: VolumeOp, call: Call) -> Answer {
    match op {
        VolumeOp::Inspect => json(&engine.volume_inspect(name).await?),
        VolumeOp::Remove => {
            engine.volume_remove(name, call.query.flag("force")).await?;
            no_content()
        }
        VolumeOp::Update => Err(HttpError::not_implemented("updating cluster volumes")),
    }
}
