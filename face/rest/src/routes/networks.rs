//! `/networks`.

use hull_docker_api::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use hull_engine::Engine;
use hyper::StatusCode;

use crate::request::Call;
use crate::respond::{Answer, empty, json, json_with, no_content};
use crate::router::NetworkOp;

pub(crate) async fn list(engine: &Engine, call: Call) -> Answer {
    json(&engine.network_list(&call.query.filters()?).await?)
}

pub(crate) async fn create(engine: &Engine, mut call: Call) -> Answer {
    let request: NetworkCreateRequest = call.json().await?;
    json_with(StatusCode::CREATED, &engine.network_create(request).await?)
}

pub(crate) async fn prune(engine: &Engine, call: Call) -> Answer {
    json(&engine.network_prune(&call.query.filters()?).await?)
}

pub(crate) async fn one(engine: &Engine, name: &str, op: NetworkOp, mut call: Call) -> Answer {
    match op {
        NetworkOp::Inspect => {
            let scope = call.query.text("scope").unwrap_or_default();
            json(&engine.network_inspect(name, scope).await?)
        }
        NetworkOp::Remove => {
            engine.network_remove(name).await?;
            no_content()
        }
        NetworkOp::Connect => {
            let request: NetworkConnectRequest = call.json().await?;
            engine.network_connect(name, request).await?;
            empty(StatusCode::OK)
        }
        NetworkOp::Disconnect => {
            let request: NetworkDisconnectRequest = call.json().await?;
            engine.network_disconnect(name, request).await?;
            empty(StatusCode::OK)
        }
    }
}
