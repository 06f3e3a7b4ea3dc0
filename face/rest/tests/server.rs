//! The server on a real engine in a temporary directory, spoken to with bytes.

use std::path::Path;
use std::time::Duration;

use hull_engine::{Config, Engine};
use hull_rest::{Listener, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct Server {
    dir: tempfile::TempDir,
    engine: Engine,
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let engine = tokio::task::spawn_blocking(|| Engine::open(config)).await.unwrap().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(vec![Listener::Unix(listener)], engine.clone(), stopped));
        Server { dir, engine, stop, task }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("sock")).await.unwrap()
    }

    /// Sends a request, shuts down the sending side, reads to the end: status, head, body.
    async fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, target: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", target, "", "").await;
        (status, body)
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

async fn read_line(stream: &mut UnixStream, text: &mut String, wanted: &str) {
    let mut chunk = [0; 1024];
    while !text.contains(wanted) {
        let read = stream.read(&mut chunk).await.unwrap();
        assert_ne!(read, 0, "ended before {wanted:?}: {text}");
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn every_answer_says_who_answers() {
    let server = Server::start().await;
    let (status, head, body) = server.ask("GET", "/v1.24/_ping", "", "").await;
    assert_eq!((status, body.as_str()), (200, "OK"));
    for header in [
        "api-version: 1.50",
        "docker-experimental: false",
        "ostype: linux",
        "server: hull/",
        "cache-control: no-cache, no-store, must-revalidate",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    let (status, head, body) = server.ask("HEAD", "/_ping", "", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("api-version: 1.50"));
    let (_, head, _) = server.ask("GET", "/nope", "", "").await;
    assert!(head.contains("api-version: 1.50") && head.contains("content-type: application/json"), "{head}");
}

#[tokio::test]
async fn errors_have_dockers_status_and_shape() {
    let server = Server::start().await;
    for (method, target, headers, body, status, message) in [
        (
            "GET",
            "/v1.20/info",
            "",
            "",
            400,
            "client version 1.20 is too old. Minimum supported API version is 1.24",
        ),
        (
            "GET",
            "/v1.99/info",
            "",
            "",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.50",
        ),
        ("GET", "/nope", "", "", 404, "page not found"),
        ("DELETE", "/info", "", "", 404, "page not found"),
        ("GET", "/volumes/nope", "", "", 404, "get nope: no such volume"),
        ("GET", "/images/a/b:c/json", "", "", 404, "No such image: a/b:c"),
        ("GET", "/images/A/json", "", "", 400, "invalid reference format"),
        ("GET", "/networks/nope", "", "", 404, "network nope not found"),
        ("POST", "/volumes/create", JSON, "{", 400, "invalid JSON: "),
        ("POST", "/volumes/create", JSON, "{}{}", 400, "invalid JSON: "),
        ("POST", "/volumes/create", "", "{}", 400, "malformed Content-Type header ()"),
        (
            "POST",
            "/volumes/create",
            "Content-Type: text/plain\r\n",
            "{}",
            400,
            "unsupported Content-Type header",
        ),
        ("POST", "/containers/create", JSON, "", 400, "invalid JSON: got EOF while reading request body"),
        ("GET", "/volumes?filters=%7B", "", "", 400, ""),
        ("GET", "/volumes?filters=%7B%22x%22:%5B%221%22%5D%7D", "", "", 400, "invalid filter 'x'"),
        ("GET", "/events?since=tomorrow", "", "", 400, "invalid value for \"since\""),
        ("GET", "/events?since=20&until=10", "", "", 400, "`since` time (20"),
        ("POST", "/containers/x/wait?condition=never", "", "", 400, "invalid condition: \"never\""),
        ("GET", "/containers/x/logs", "", "", 400, "Bad parameters: you must choose at least one stream"),
        ("POST", "/swarm/init", JSON, "{}", 501, "swarm mode is not implemented"),
        ("GET", "/services", "", "", 503, "This node is not a swarm manager."),
        ("POST", "/build", "", "", 501, "building images is not implemented"),
        ("GET", "/images/search?term=x", "", "", 501, "searching registries is not implemented"),
    ] {
        let (got, head, answer) = server.ask(method, target, headers, body).await;
        assert_eq!(got, status, "{method} {target}: {answer}");
        assert!(head.contains("content-type: application/json"), "{method} {target}: {head}");
        let document: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let text = document["message"].as_str().unwrap();
        assert!(text.starts_with(message), "{method} {target}: {text}");
    }
    assert_eq!(server.get("/plugins").await, (200, "[]\n".to_owned()));
}

#[tokio::test]
async fn a_body_without_limit_is_refused() {
    let server = Server::start().await;
    let body = format!("{{\"Name\":\"{}\"}}", "x".repeat(9 << 20));
    let mut stream = server.connect().await;
    let head =
        format!("POST /volumes/create HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may stop reading before everything is sent.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut text = String::new();
    read_line(&mut stream, &mut text, "larger than").await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
}

#[tokio::test]
async fn events_come_one_by_one_and_end_with_the_client() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let filters = "%7B%22type%22:%5B%22volume%22%5D%7D";
    stream
        .write_all(format!("GET /events?filters={filters} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    read_line(&mut stream, &mut text, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "headers before the first event: {text}");
    for name in ["one", "two"] {
        let body = format!("{{\"Name\":\"{name}\"}}");
        assert_eq!(server.ask("POST", "/volumes/create", JSON, &body).await.0, 201);
        read_line(&mut stream, &mut text, &format!("\"ID\":\"{name}\"")).await;
    }
    assert_eq!(server.engine.events().listeners(), 1);
    drop(stream);
    until("the subscription ends", || server.engine.events().listeners() == 0).await;
}

#[tokio::test]
async fn past_events_end_at_until() {
    let server = Server::start().await;
    server.ask("POST", "/volumes/create", JSON, "{\"Name\":\"v1\"}").await;
    let (status, body) = server.get("/v1.43/events?since=1&until=1.5").await;
    assert_eq!((status, body.as_str()), (200, "0\r\n\r\n"));
    let now = jiff::Timestamp::now().as_second() + 1;
    let (_, body) = server.get(&format!("/v1.43/events?since=1&until={now}")).await;
    assert!(body.contains("\"Action\":\"create\""), "{body}");
}

#[tokio::test]
async fn stopping_ends_streams_and_finishes() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    read_line(&mut stream, &mut text, "\r\n\r\n").await;
    server.stop.send(true).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), server.task).await.expect("in time");
    ended.unwrap().unwrap();
    assert!(
        Path::new(&server.dir.path().join("sock")).exists(),
        "the socket file belongs to whoever bound it"
    );
}

#[tokio::test]
async fn an_archive_is_imported_tagged_and_removed() {
    let server = Server::start().await;
    let mut archive = tar_of("hello", b"world");
    let mut stream = server.connect().await;
    let head = "POST /images/create?fromSrc=-&repo=a/b&tag=1&changes=CMD%20%5B%22%2Fhello%22%5D HTTP/1.1\r\nHost: x\r\n\
                Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    while !archive.is_empty() {
        let rest = archive.split_off(archive.len().min(1000));
        stream.write_all(format!("{:x}\r\n", archive.len()).as_bytes()).await.unwrap();
        stream.write_all(&archive).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        archive = rest;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("{\"status\":\"sha256:"), "{answer}");
    assert_eq!(server.ask("POST", "/images/a/b:1/tag?repo=c&tag=2", "", "").await.0, 201);
    let (status, body) = server.get("/images/c:2/json").await;
    let image: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &image["Config"]["Cmd"]), (200, &serde_json::json!(["/hello"])));
    assert_eq!(image["RepoTags"], serde_json::json!(["a/b:1", "c:2"]));
    let (_, _, untagged) = server.ask("DELETE", "/images/a/b:1", "", "").await;
    assert_eq!(untagged, "[{\"Untagged\":\"a/b:1\"}]\n");
    assert_eq!(server.ask("DELETE", "/images/c:2", "", "").await.0, 200);
    assert_eq!(server.get("/images/json").await.1, "[]\n");
}

/// A ustar archive of one file.
fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}
