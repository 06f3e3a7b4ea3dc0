//! Which operation a method and a path name.
//!
//! Names may contain slashes (`/images/registry:5000/team/app:1/json`), so a name is whatever lies between the fixed
//! first and last segments.

use hyper::Method;

/// Every operation the API knows. Names and ids are as the client wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Version,
    Info,
    Events,
    DiskUsage,
    /// Hull's own: whether the store is as it was made.
    SystemCheck,
    Auth,

    ContainerList,
    ContainerCreate,
    ContainerPrune,
    Container(String, ContainerOp),

    ExecStart(String),
    ExecResize(String),
    ExecInspect(String),

    ImageList,
    ImageCreate,
    ImageLoad,
    ImageSaveAll,
    ImageSearch,
    ImagePrune,
    Image(String, ImageOp),
    Commit,
    Distribution(String),
    /// Hull's own: manifests as they are, and what refers to them.
    ManifestFetch(String),
    ManifestPush(String),
    Referrers(String),
    ArtifactList,

    NetworkList,
    NetworkCreate,
    NetworkPrune,
    Network(String, NetworkOp),

    VolumeList,
    VolumeCreate,
    VolumePrune,
    Volume(String, VolumeOp),

    PluginList,
    Plugin(String),
    PluginOther,
    /// Anything that needs a swarm manager.
    Swarm(SwarmOp),
    /// Part of docker's API and not there: what it is called.
    Absent(&'static str),
}

/// Operations on one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerOp {
    Inspect,
    Top,
    Logs,
    Changes,
    Export,
    Stats,
    Resize,
    Start,
    Stop,
    Restart,
    Kill,
    Update,
    Rename,
    Pause,
    Unpause,
    Attach,
    Wait,
    Remove,
    ArchiveStat,
    ArchiveGet,
    ArchivePut,
    ExecCreate,
}

/// Operations on one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageOp {
    Inspect,
    History,
    Push,
    Tag,
    Remove,
    Save,
    /// Hull's own: what each layer does.
    Layers,
}

/// Operations on one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkOp {
    Inspect,
    Remove,
    Connect,
    Disconnect,
}

/// Operations on one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeOp {
    Inspect,
    Remove,
    Update,
}

/// Swarm operations differ in how they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwarmOp {
    /// Becoming part of a swarm.
    Enter,
    /// Leaving one.
    Leave,
    /// Everything that asks a manager.
    Managed,
}

/// The operation named by a method and the decoded path behind the version prefix; `None` is docker's
/// `page not found`.
pub(crate) fn route(method: &Method, path: &str) -> Option<Route> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (area, rest) = segments.split_first()?;
    match *area {
        "containers" => container(method, rest),
        "exec" => exec(method, rest),
        "images" => image(method, rest),
        "networks" => network(method, rest),
        "volumes" => volume(method, rest),
        "plugins" => plugin(method, rest),
        "distribution" => match (method, rest) {
            (&Method::GET, [name @ .., "json"]) if !name.is_empty() => {
                Some(Route::Distribution(name.join("/")))
            }
            (&Method::GET, [name @ .., "manifest"]) if !name.is_empty() => {
                Some(Route::ManifestFetch(name.join("/")))
            }
            (&Method::PUT, [name @ .., "manifest"]) if !name.is_empty() => {
                Some(Route::ManifestPush(name.join("/")))
            }
            (&Method::GET, [name @ .., "referrers"]) if !name.is_empty() => {
                Some(Route::Referrers(name.join("/")))
            }
            _ => None,
        },
        "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" => {
            Some(Route::Swarm(swarm(area, rest)))
        }
        _ => system(method, &segments),
    }
}

fn system(method: &Method, segments: &[&str]) -> Option<Route> {
    Some(match (method, segments) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => Route::Ping,
        (&Method::GET, ["version"]) => Route::Version,
        (&Method::GET, ["info"]) => Route::Info,
        (&Method::GET, ["events"]) => Route::Events,
        (&Method::GET, ["system", "df"]) => Route::DiskUsage,
        (&Method::GET, ["artifacts", "json"]) => Route::ArtifactList,
        (&Method::POST, ["system", "check"]) => Route::SystemCheck,
        (&Method::POST, ["auth"]) => Route::Auth,
        (&Method::POST, ["commit"]) => Route::Commit,
        (&Method::POST, ["build"]) => Route::Absent("building images"),
        (&Method::POST, ["build", "prune"]) => Route::Absent("the build cache"),
        (&Method::POST, ["build", "cancel"]) => Route::Absent("building images"),
        (&Method::POST, ["session"]) => Route::Absent("the build session"),
        (&Method::POST, ["grpc"]) => Route::Absent("the build service"),
        _ => return None,
    })
}

fn container(method: &Method, rest: &[&str]) -> Option<Route> {
    use ContainerOp as Op;
    match (method, rest) {
        (&Method::GET, ["json"]) => return Some(Route::ContainerList),
        (&Method::POST, ["create"]) => return Some(Route::ContainerCreate),
        (&Method::POST, ["prune"]) => return Some(Route::ContainerPrune),
        (_, [_, "checkpoints", ..]) => return Some(Route::Absent("checkpoint and restore")),
        (&Method::GET, [_, "attach", "ws"]) => return Some(Route::Absent("attaching by websocket")),
        _ => {}
    }
    if method == Method::DELETE {
        return (!rest.is_empty()).then(|| Route::Container(rest.join("/"), Op::Remove));
    }
    let (verb, name) = rest.split_last()?;
    let op = match (method, *verb) {
        (&Method::GET, "json") => Op::Inspect,
        (&Method::GET, "top") => Op::Top,
        (&Method::GET, "logs") => Op::Logs,
        (&Method::GET, "changes") => Op::Changes,
        (&Method::GET, "export") => Op::Export,
        (&Method::GET, "stats") => Op::Stats,
        (&Method::GET, "archive") => Op::ArchiveGet,
        (&Method::HEAD, "archive") => Op::ArchiveStat,
        (&Method::PUT, "archive") => Op::ArchivePut,
        (&Method::POST, "resize") => Op::Resize,
        (&Method::POST, "start") => Op::Start,
        (&Method::POST, "stop") => Op::Stop,
        (&Method::POST, "restart") => Op::Restart,
        (&Method::POST, "kill") => Op::Kill,
        (&Method::POST, "update") => Op::Update,
        (&Method::POST, "rename") => Op::Rename,
        (&Method::POST, "pause") => Op::Pause,
        (&Method::POST, "unpause") => Op::Unpause,
        (&Method::POST, "attach") => Op::Attach,
        (&Method::POST, "wait") => Op::Wait,
        (&Method::POST, "exec") => Op::ExecCreate,
        _ => return None,
    };
    (!name.is_empty()).then(|| Route::Container(name.join("/"), op))
}

fn exec(method: &Method, rest: &[&str]) -> Option<Route> {
    match (method, rest) {
        (&Method::POST, [id, "start"]) => Some(Route::ExecStart((*id).to_owned())),
        (&Method::POST, [id, "resize"]) => Some(Route::ExecResize((*id).to_owned())),
        (&Method::GET, [id, "json"]) => Some(Route::ExecInspect((*id).to_owned())),
        _ => None,
    }
}

fn image(method: &Method, rest: &[&str]) -> Option<Route> {
    match (method, rest) {
        (&Method::GET, ["json"]) => return Some(Route::ImageList),
        (&Method::GET, ["search"]) => return Some(Route::ImageSearch),
        (&Method::GET, ["get"]) => return Some(Route::ImageSaveAll),
        (&Method::POST, ["create"]) => return Some(Route::ImageCreate),
        (&Method::POST, ["load"]) => return Some(Route::ImageLoad),
        (&Method::POST, ["prune"]) => return Some(Route::ImagePrune),
        _ => {}
    }
    if method == Method::DELETE {
        return (!rest.is_empty()).then(|| Route::Image(rest.join("/"), ImageOp::Remove));
    }
    let (verb, name) = rest.split_last()?;
    let op = match (method, *verb) {
        (&Method::GET, "json") => ImageOp::Inspect,
        (&Method::GET, "history") => ImageOp::History,
        (&Method::GET, "get") => ImageOp::Save,
        (&Method::GET, "layers") => ImageOp::Layers,
        (&Method::POST, "push") => ImageOp::Push,
        (&Method::POST, "tag") => ImageOp::Tag,
        _ => return None,
    };
    (!name.is_empty()).then(|| Route::Image(name.join("/"), op))
}

fn network(method: &Method, rest: &[&str]) -> Option<Route> {
    Some(match (method, rest) {
        (&Method::GET, []) => Route::NetworkList,
        (&Method::POST, ["create"]) => Route::NetworkCreate,
        (&Method::POST, ["prune"]) => Route::NetworkPrune,
        (&Method::POST, [name @ .., "connect"]) if !name.is_empty() => {
            Route::Network(name.join("/"), NetworkOp::Connect)
        }
        (&Method::POST, [name @ .., "disconnect"]) if !name.is_empty() => {
            Route::Network(name.join("/"), NetworkOp::Disconnect)
        }
        (&Method::GET, name) => Route::Network(name.join("/"), NetworkOp::Inspect),
        (&Method::DELETE, name) if !name.is_empty() => Route::Network(name.join("/"), NetworkOp::Remove),
        _ => return None,
    })
}

fn volume(method: &Method, rest: &[&str]) -> Option<Route> {
    Some(match (method, rest) {
        (&Method::GET, []) => Route::VolumeList,
        (&Method::POST, ["create"]) => Route::VolumeCreate,
        (&Method::POST, ["prune"]) => Route::VolumePrune,
        (&Method::GET, name) => Route::Volume(name.join("/"), VolumeOp::Inspect),
        (&Method::DELETE, name) if !name.is_empty() => Route::Volume(name.join("/"), VolumeOp::Remove),
        (&Method::PUT, name) if !name.is_empty() => Route::Volume(name.join("/"), VolumeOp::Update),
        _ => return None,
    })
}

fn plugin(method: &Method, rest: &[&str]) -> Option<Route> {
    Some(match (method, rest) {
        (&Method::GET, []) => Route::PluginList,
        (&Method::GET, [name @ .., "json"]) if !name.is_empty() => Route::Plugin(name.join("/")),
        (&Method::GET | &Method::POST | &Method::DELETE, _) => Route::PluginOther,
        _ => return None,
    })
}

fn swarm(area: &str, rest: &[&str]) -> SwarmOp {
    match (area, rest) {
        ("swarm", ["init" | "join"]) => SwarmOp::Enter,
        ("swarm", ["leave"]) => SwarmOp::Leave,
        _ => SwarmOp::Managed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Option<Route> {
        route(&Method::GET, path)
    }

    fn post(path: &str) -> Option<Route> {
        route(&Method::POST, path)
    }

    #[test]
    fn names_may_contain_slashes() {
        let image = |name: &str, op| Some(Route::Image(name.to_owned(), op));
        assert_eq!(get("/images/localhost:5000/a/b:1/json"), image("localhost:5000/a/b:1", ImageOp::Inspect));
        assert_eq!(get("/images/json/json"), image("json", ImageOp::Inspect));
        assert_eq!(post("/images/a/create/tag"), image("a/create", ImageOp::Tag));
        assert_eq!(route(&Method::DELETE, "/images/a/b"), image("a/b", ImageOp::Remove));
        assert_eq!(get("/distribution/a/b/json"), Some(Route::Distribution("a/b".to_owned())));
    }

    #[test]
    fn fixed_paths_win_over_names() {
        assert_eq!(get("/images/json"), Some(Route::ImageList));
        assert_eq!(post("/containers/create"), Some(Route::ContainerCreate));
        assert_eq!(post("/networks/create"), Some(Route::NetworkCreate));
        assert_eq!(get("/networks/"), Some(Route::NetworkList));
        assert_eq!(get("/volumes/create"), Some(Route::Volume("create".to_owned(), VolumeOp::Inspect)));
    }

    #[test]
    fn methods_are_told_apart() {
        let archive = |op| Some(Route::Container("c".to_owned(), op));
        assert_eq!(get("/containers/c/archive"), archive(ContainerOp::ArchiveGet));
        assert_eq!(route(&Method::HEAD, "/containers/c/archive"), archive(ContainerOp::ArchiveStat));
        assert_eq!(route(&Method::PUT, "/containers/c/archive"), archive(ContainerOp::ArchivePut));
        assert_eq!(post("/containers/c/archive"), None);
        assert_eq!(route(&Method::HEAD, "/_ping"), Some(Route::Ping));
    }

    #[test]
    fn unknown_paths_are_no_operation() {
        for path in
            ["/", "", "/nope", "/containers", "/containers/c", "/containers/c/nope", "/images/x", "/exec/x"]
        {
            assert_eq!(get(path), None, "{path}");
        }
    }

    #[test]
    fn a_leading_slash_of_a_name_is_dropped() {
        assert_eq!(
            get("/containers//web/json"),
            Some(Route::Container("web".to_owned(), ContainerOp::Inspect))
        );
    }

    #[test]
    fn every_endpoint_of_the_specification_is_routed() {
        const ENDPOINTS: &str = include_str!("endpoints.tsv");
        for line in ENDPOINTS.lines() {
            let (method, path) = line.split_once('\t').unwrap();
            let path = path.replace("{id}", "x").replace("{name}", "x");
            assert!(route(&method.parse().unwrap(), &path).is_some(), "{method} {path}");
        }
    }
}
