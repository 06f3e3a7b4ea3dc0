//! The state machine of a container against a monitor played by the test.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use hull_docker_api::{ContainerConfig, HostConfig, StrSlice};
use hull_monitor::client::Connection;
use hull_monitor::protocol::{Action, Event, Exit, Failure, FailureKind, Request};
use jiff::Timestamp;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::link::Link;
use super::reconcile::First;
use super::record::{Definition, RunState, Status};
use super::{StopOptions, WaitCondition};
use crate::{Config, Engine, Kind};

/// The monitor's end of the connection.
struct Monitor(OwnedFd);

impl Monitor {
    /// The next request; the engine has a few seconds to send it.
    async fn request(&self) -> Request {
        let socket = self.0.try_clone().expect("clone");
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0u8; 1 << 16];
            let (length, _) = recv(&socket, &mut buffer, RecvFlags::empty()).expect("receive");
            serde_json::from_slice(&buffer[..length]).expect("request")
        });
        tokio::time::timeout(Duration::from_secs(5), read).await.expect("in time").expect("join")
    }

    async fn signal(&self) -> i32 {
        match self.request().await.action {
            Action::Signal { exec_id: None, signal } => signal,
            other => panic!("expected a signal, got {other:?}"),
        }
    }

    fn tell(&self, event: &Event) {
        send(self.0.as_fd(), &serde_json::to_vec(event).expect("json"), SendFlags::empty()).expect("send");
    }

    fn exit(&self, status: u8) {
        let at = Timestamp::now().to_string();
        self.tell(&Event::Exited(Exit { status, oom_killed: false, at, started_at: None, failure: None }));
    }
}

struct Bench {
    _directory: tempfile::TempDir,
    engine: Engine,
    id: String,
    monitor: Monitor,
}

/// An engine that has adopted one running container.
async fn running(edit: impl FnOnce(&mut HostConfig)) -> Bench {
    let directory = tempfile::tempdir().expect("temp dir");
    let config =
        Config::new(directory.path().join("data"), directory.path().join("run"), "/nonexistent".into());
    let engine =
        tokio::task::spawn_blocking(move || Engine::open(config)).await.expect("join").expect("open");
    let mut host = HostConfig { network_mode: "none".to_owned(), ..HostConfig::default() };
    edit(&mut host);
    let id = hull_model::Id::random().to_string();
    let def = Definition {
        id: id.clone(),
        name: "web".to_owned(),
        created: Timestamp::now(),
        image_id: String::new(),
        layers: Vec::new(),
        image_size: 0,
        config: ContainerConfig { cmd: Some(StrSlice(vec!["x".to_owned()])), ..ContainerConfig::default() },
        host,
        mounts: Vec::new(),
        networks: Default::default(),
        os: "linux".to_owned(),
    };
    std::fs::create_dir_all(engine.config().container_dir(&id).join("upper")).expect("directory");
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("socket pair");
    let link = Link::register(Connection::from_socket(ours), None).expect("link");
    let state = RunState {
        status: Status::Running,
        // Its root is looked into for the users of execs.
        pid: i32::try_from(std::process::id()).expect("pid"),
        started_at: Some(Timestamp::now()),
        ..RunState::default()
    };
    engine.0.containers.registry.claim("web", &id).expect("name");
    engine.begin_task(def, state, First::Adopt(Box::new(link)));
    Bench { _directory: directory, engine, id, monitor: Monitor(theirs) }
}

impl Bench {
    async fn until(&self, status: Status) {
        let mut snapshots = self.engine.0.containers.registry.find(&self.id).expect("container").snapshots;
        let reached = snapshots.wait_for(|now| now.state.status == status);
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("in time").expect("state");
    }

    fn actions(&self) -> Vec<String> {
        let past = self.engine.events().subscribe(Some(0), None).past;
        past.iter().map(|event| event.action.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_is_not_heard_becomes_a_kill_and_both_are_answered() {
    let bench = running(|_| {}).await;
    let wait = bench.engine.container_wait("web", WaitCondition::NextExit).await.expect("wait");
    let engine = bench.engine.clone();
    let stop = tokio::spawn(async move {
        engine.container_stop("web", StopOptions { signal: None, timeout: Some(0) }).await
    });
    assert_eq!(bench.monitor.signal().await, 15);
    assert_eq!(bench.monitor.signal().await, 9);
    bench.monitor.exit(137);
    stop.await.expect("join").expect("stopped");
    assert_eq!(wait.await.expect("wait").status_code, 137);
    assert!(matches!(bench.monitor.request().await.action, Action::Acknowledge));
    assert_eq!(bench.actions(), ["kill", "kill", "die", "stop"]);
    let again =
        bench.engine.container_stop("web", StopOptions::default()).await.expect_err("stopped already");
    assert_eq!(again.kind(), Kind::NotModified);
    let kill = bench.engine.container_kill("web", "KILL").await.expect_err("not running");
    assert_eq!(kill.kind(), Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_restarts_until_somebody_stops_it() {
    let bench = running(|host| host.restart_policy.name = "always".to_owned()).await;
    bench.monitor.exit(0);
    bench.until(Status::Restarting).await;
    bench.engine.container_stop("web", StopOptions::default()).await.expect("stopped while waiting");
    bench.until(Status::Exited).await;
    let inspect = bench.engine.container_inspect("web", false).await.expect("inspect");
    assert_eq!((inspect.restart_count, inspect.state.running), (1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_by_hand_is_on_record_before_the_process_hears_of_it() {
    let bench = running(|host| host.restart_policy.name = "always".to_owned()).await;
    let engine = bench.engine.clone();
    let stop = tokio::spawn(async move { engine.container_stop("web", StopOptions::default()).await });
    assert_eq!(bench.monitor.signal().await, 15);
    // An engine that is killed now leaves this record.
    let record: Option<RunState> =
        bench.engine.store().get(super::record::STATES, &bench.id).await.expect("store");
    assert!(record.is_some_and(|state| state.stopped_by_hand && state.status == Status::Running));
    bench.monitor.exit(143);
    stop.await.expect("join").expect("stopped");
    bench.until(Status::Exited).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_for_one_run_is_gone_after_it() {
    let bench = running(|host| host.auto_remove = true).await;
    let removed = bench.engine.container_wait("web", WaitCondition::Removed).await.expect("wait");
    let directory = bench.engine.config().container_dir(&bench.id);
    bench.monitor.exit(3);
    let outcome =
        tokio::time::timeout(Duration::from_secs(5), removed).await.expect("in time").expect("wait");
    assert_eq!(outcome.status_code, 3);
    assert!(!directory.exists());
    let error = bench.engine.container_inspect("web", false).await.expect_err("gone");
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "No such container: web"));
    assert_eq!(bench.actions(), ["die", "destroy"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_vanishes_leaves_what_it_recorded() {
    let bench = running(|_| {}).await;
    let at = Timestamp::now().to_string();
    let exit = Exit { status: 42, oom_killed: true, at, started_at: None, failure: None };
    let path = bench.engine.config().container_dir(&bench.id).join("exit.json");
    std::fs::write(path, serde_json::to_vec(&exit).expect("json")).expect("exit record");
    let Bench { monitor, engine, id, .. } = &bench;
    rustix::net::shutdown(&monitor.0, rustix::net::Shutdown::Both).expect("shutdown");
    bench.until(Status::Exited).await;
    let inspect = engine.container_inspect(id, false).await.expect("inspect");
    assert_eq!((inspect.state.exit_code, inspect.state.oom_killed), (42, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_removal_kills_first_and_an_unforced_one_is_refused() {
    let bench = running(|_| {}).await;
    let options = super::RemoveOptions::default();
    let refused = bench.engine.container_remove("web", options).await.expect_err("running");
    assert!(
        refused
            .message()
            .contains("container is running: stop the container before removing or force remove")
    );
    let engine = bench.engine.clone();
    let remove = tokio::spawn(async move {
        engine.container_remove("web", super::RemoveOptions { force: true, ..options }).await
    });
    assert_eq!(bench.monitor.signal().await, 9);
    bench.monitor.exit(137);
    remove.await.expect("join").expect("removed");
    assert_eq!(bench.actions(), ["kill", "die", "destroy"]);
    // The name is free again.
    bench.engine.0.containers.registry.claim("web", "other").expect("free name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_exec_has_dockers_words_and_code() {
    let bench = running(|_| {}).await;
    let request = hull_docker_api::ExecCreateRequest {
        cmd: Some(vec!["nosuch".to_owned()]),
        ..hull_docker_api::ExecCreateRequest::default()
    };
    let exec = bench.engine.exec_create("web", request).await.expect("create").id;
    let session = bench.engine.exec_start(&exec, Default::default()).await.expect("start");
    let started = tokio::spawn(session.detached());
    let asked = bench.monitor.request().await;
    assert!(
        matches!(&asked.action, Action::Exec(exec) if exec.process.args().as_deref() == Some(&["nosuch".to_owned()]))
    );
    let failure = Failure {
        kind: FailureKind::CommandNotFound,
        message: "exec: \"nosuch\": executable file not found in $PATH".to_owned(),
    };
    bench.monitor.tell(&Event::Failed { tag: asked.tag, failure });
    let error = started.await.expect("join").expect_err("failed");
    assert_eq!(error.kind(), Kind::InvalidParameter);
    assert!(error.message().contains("executable file not found in $PATH"));
    let inspect = bench.engine.exec_inspect(&exec).await.expect("inspect");
    assert_eq!((inspect.exit_code, inspect.running), (Some(127), false));
    let again = bench.engine.exec_start(&exec, Default::default()).await.expect_err("ran already");
    assert_eq!(again.kind(), Kind::Conflict);
}

// One thread: the container's task gets no turn that the test does not give it.
#[tokio::test]
async fn who_sees_an_execs_streams_end_is_told_how_it_ended() {
    let bench = running(|_| {}).await;
    let request = hull_docker_api::ExecCreateRequest {
        cmd: Some(vec!["x".to_owned()]),
        ..hull_docker_api::ExecCreateRequest::default()
    };
    let exec = bench.engine.exec_create("web", request).await.expect("create").id;
    let session = bench.engine.exec_start(&exec, Default::default()).await.expect("start");
    let started = tokio::spawn(session.detached());
    let tag = bench.monitor.request().await.tag;
    bench.monitor.tell(&Event::ExecStarted { tag, exec_id: exec.clone(), pid: 1 });
    started.await.expect("join").expect("started");
    assert_eq!(bench.engine.exec_inspect(&exec).await.expect("inspect").exit_code, None);
    bench.monitor.tell(&Event::ExecExited { exec_id: exec.clone(), status: 3, detached: false });
    let inspect = bench.engine.exec_inspect(&exec).await.expect("inspect");
    assert_eq!((inspect.running, inspect.exit_code), (false, Some(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_ids_and_beginnings_find_a_container() {
    let bench = running(|_| {}).await;
    for text in ["web", "/web", &bench.id, &bench.id[..4]] {
        let found = bench.engine.container_inspect(text, false).await.expect(text);
        assert_eq!(found.id, bench.id);
    }
    bench.engine.container_rename("web", "site").await.expect("rename");
    assert!(bench.engine.container_inspect("web", false).await.is_err());
    let found = bench.engine.container_inspect("site", false).await.expect("new name");
    assert_eq!(found.name, "/site");
}
