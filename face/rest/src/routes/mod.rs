//! Handlers: one function per operation, query and body in, one engine action, a response out.

use hull_engine::Engine;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};

use crate::error::HttpError;
use crate::query::{Query, percent_decode};
use crate::request::Call;
use crate::respond::{self, Answer, Body};
use crate::router::{Route, SwarmOp, route};
use crate::server::Peer;
use crate::version::{self, ApiVersion};

mod containers;
mod exec;
mod images;
mod networks;
mod system;
mod times;
mod volumes;

/// Answers one request. Never fails: errors are responses too.
pub(crate) async fn handle(engine: Engine, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let what = format!("{} {}", request.method(), request.uri().path());
    let server = server_header(&engine);
    let answer = dispatch(engine, peer, request).await;
    let mut response = answer.unwrap_or_else(|error| {
        tracing::debug!(request = what, status = error.status().as_u16(), error = error.message());
        respond::error(&error)
    });
    let headers = response.headers_mut();
    headers.insert("api-version", HeaderValue::from_static(version::MAX_API_VERSION));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert(header::SERVER, server);
    response
}

/// The response when a handler itself failed.
pub(crate) fn internal_error() -> Response<Body> {
    respond::error(&HttpError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal error of the engine; see its log",
    ))
}

fn server_header(engine: &Engine) -> HeaderValue {
    HeaderValue::from_str(&format!("Hull/{} (linux)", engine.config().version))
        .unwrap_or(HeaderValue::from_static("Hull (linux)"))
}

async fn dispatch(engine: Engine, peer: Peer, mut request: Request<Incoming>) -> Answer {
    let path = percent_decode(request.uri().path(), false)?;
    let (version, path) = version::split(&path)?;
    let Some(route) = route(request.method(), path) else { return Err(HttpError::page_not_found()) };
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let (parts, body) = request.into_parts();
    let call = Call { version, query, headers: parts.headers, peer, upgrade, body };
    perform(&engine, route, call).await
}

async fn perform(engine: &Engine, route: Route, call: Call) -> Answer {
    match route {
        Route::Ping => system::ping(),
        Route::Version => system::version(engine).await,
        Route::Info => system::info(engine).await,
        Route::Events => system::events(engine, call),
        Route::DiskUsage => system::disk_usage(engine, call).await,
        Route::SystemCheck => system::check(engine, call).await,
        Route::Auth => system::auth(engine, call).await,

        Route::ContainerList => containers::list(engine, call).await,
        Route::ContainerCreate => containers::create(engine, call).await,
        Route::ContainerPrune => containers::prune(engine, call).await,
        Route::Container(id, op) => containers::one(engine, &id, op, call).await,

        Route::ExecStart(id) => exec::start(engine, &id, call).await,
        Route::ExecResize(id) => exec::resize(engine, &id, call).await,
        Route::ExecInspect(id) => exec::inspect(engine, &id).await,

        Route::ImageList => images::list(engine, call).await,
        Route::ImageCreate => images::create(engine, call).await,
        Route::ImageLoad => images::load(engine, call).await,
        Route::ImageSaveAll => images::save_all(engine, call).await,
        Route::ImagePrune => images::prune(engine, call).await,
        Route::ImageSearch => Err(HttpError::not_implemented("searching registries")),
        Route::Image(name, op) => images::one(engine, &name, op, call).await,
        Route::Commit => images::commit(engine, call).await,
        Route::Distribution(name) => images::distribution(engine, &name, call).await,
        Route::ManifestFetch(name) => images::manifest(engine, &name, call).await,
        Route::ManifestPush(name) => images::push_manifest(engine, &name, call).await,
        Route::Referrers(name) => images::referrers(engine, &name, call).await,
        Route::ArtifactList => respond::json(&engine.artifact_list().await),

        Route::NetworkList => networks::list(engine, call).await,
        Route::NetworkCreate => networks::create(engine, call).await,
        Route::NetworkPrune => networks::prune(engine, call).await,
        Route::Network(name, op) => networks::one(engine, &name, op, call).await,

        Route::VolumeList => volumes::list(engine, call).await,
        Route::VolumeCreate => volumes::create(engine, call).await,
        Route::VolumePrune => volumes::prune(engine, call).await,
        Route::Volume(name, op) => volumes::one(engine, &name, op, call).await,

        // There are none, which is an answer.
        Route::PluginList => respond::json::<[(); 0]>(&[]),
        Route::Plugin(name) => {
            Err(HttpError::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found")))
        }
        Route::PluginOther => Err(HttpError::not_implemented("managing plugins")),
        Route::Swarm(op) => Err(swarm(op)),
        Route::Absent(what) => Err(HttpError::not_implemented(what)),
    }
}

/// This engine is in no swarm. What only a manager does is refused with the status and the words that clients test
/// for; becoming part of a swarm is not there at all.
fn swarm(op: SwarmOp) -> HttpError {
    let not_in_swarm = StatusCode::SERVICE_UNAVAILABLE;
    match op {
        SwarmOp::Enter => HttpError::not_implemented("swarm mode"),
        SwarmOp::Leave => HttpError::new(not_in_swarm, "This node is not part of a swarm"),
        SwarmOp::Managed => HttpError::new(
            not_in_swarm,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
             node to swarm and try again.",
        ),
    }
}

/// Whether the client's API version is before `1.<minor>`.
fn before(version: ApiVersion, minor: u32) -> bool {
    version < ApiVersion::minor(minor)
}
