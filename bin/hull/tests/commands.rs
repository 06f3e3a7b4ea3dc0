//! Commands against an engine that answers from a table. What they print is what docker 28.2 prints of the same
//! answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// Answers by method and path (without the version): status and body.
const ANSWERS: &[(&str, u16, &str)] = &[
    ("GET /networks", 200, NETWORKS),
    ("GET /networks/app9", 200, r#"{"Name":"app9","Id":"77","IPAM":{"Driver":"default","Config":[]}}"#),
    ("POST /networks/create", 201, r#"{"Id":"0123","Warning":""}"#),
    ("DELETE /networks/app9", 204, ""),
    ("POST /networks/prune", 200, r#"{"NetworksDeleted":["a","b"]}"#),
    ("GET /volumes", 200, r#"{"Volumes":[{"Name":"data","Driver":"local","Scope":"local","Labels":null}]}"#),
    ("POST /volumes/prune", 200, r#"{"VolumesDeleted":["v1"],"SpaceReclaimed":1234567}"#),
    ("DELETE /images/busybox", 200, r#"[{"Untagged":"busybox:latest"},{"Deleted":"sha256:12"}]"#),
    (
        "GET /containers/web/changes",
        200,
        r#"[{"Path":"/a","Kind":0},{"Path":"/a/b","Kind":1},{"Path":"/c","Kind":2}]"#,
    ),
    ("GET /containers/web/top", 200, r#"{"Titles":["PID","CMD"],"Processes":[["12","nginx: master"]]}"#),
    ("POST /containers/web/update", 200, r#"{"Warnings":["careful"]}"#),
    ("POST /containers/w2/update", 200, r#"{"Warnings":null}"#),
    ("POST /containers/web/wait", 200, r#"{"StatusCode":3}"#),
    ("GET /events", 200, EVENTS),
];

const NETWORKS: &str = r#"[
 {"Name":"app10","Id":"fedcba98765432100000","Driver":"bridge","Scope":"local","Labels":{"x":"1"}},
 {"Name":"app9","Id":"77777777777777777777","Driver":"bridge","Scope":"local","Labels":null}]"#;

const EVENTS: &str = r#"{"status":"die","id":"ab","Type":"container","Action":"die","Actor":{"ID":"ab","Attributes":{"name":"web","exitCode":"0"}},"scope":"local","time":1767323045,"timeNano":1767323045000000001}
{"Type":"network","Action":"create","Actor":{"ID":"cd","Attributes":{}},"scope":"local","time":1767323046,"timeNano":1767323046120000000}
"#;

#[test]
fn output_and_status() {
    let engine = Engine::start();
    let run = |line: &str| engine.hull(line);
    let ok =
        |line: &str, expected: &str| assert_eq!(run(line), (expected.to_owned(), String::new(), 0), "{line}");
    ok(
        "network ls",
        "NETWORK ID     NAME      DRIVER    SCOPE\n777777777777   app9      bridge    local\nfedcba987654   app10     \
         bridge    local\n",
    );
    ok("network ls -q", "777777777777\nfedcba987654\n");
    ok("network ls --format {{.Name}}={{.Labels}}", "app9=\napp10=x=1\n");
    ok(
        "network inspect -f {{json.}} app9",
        "{\"Name\":\"app9\",\"Id\":\"77\",\"IPAM\":{\"Driver\":\"default\",\"Config\":[]}}\n",
    );
    ok("network create n1", "0123\n");
    ok("network rm app9", "app9\n");
    ok("network prune -f", "Deleted Networks:\na\nb\n\n");
    ok("volume ls", "DRIVER    VOLUME NAME\nlocal     data\n");
    ok("volume prune -f", "Deleted Volumes:\nv1\n\nTotal reclaimed space: 1.235MB\n");
    ok("rmi busybox", "Untagged: busybox:latest\nDeleted: sha256:12\n");
    ok("diff web", "C /a\nA /a/b\nD /c\n");
    ok("top web", "PID                 CMD\n12                  nginx: master\n");
    ok("update --memory 1g web w2", "web\nw2\ncareful\n");
    ok("wait web", "3\n");
    ok(
        "events",
        "2026-01-02T03:04:05.000000001Z container die ab (exitCode=0, name=web)\n2026-01-02T03:04:06.120000000Z \
         network create cd\n",
    );
    ok("events --format {{.Actor.Attributes.name}}", "web\n<no value>\n");
}

#[test]
fn failures() {
    let engine = Engine::start();
    let missing = "Error response from daemon: no such thing\n";
    assert_eq!(
        engine.hull("network rm nope app9"),
        ("app9\n".to_owned(), format!("{missing}exit status 1\n"), 1)
    );
    assert_eq!(engine.hull("volume inspect nope"), ("[]\n".to_owned(), missing.to_owned(), 1));
    assert_eq!(engine.hull("update nope").2, 1);
    // The answer to the question is no: standard input is empty.
    assert_eq!(engine.hull("volume prune").2, 0);
    assert!(engine.hull("network ls --format {{.Nope}}").1.contains("no entry for key \"Nope\""));
}

#[test]
fn without_an_engine() {
    let engine = Engine::start();
    std::fs::remove_file(engine.directory.path().join("engine.sock")).unwrap();
    let (out, err, status) = engine.hull("info");
    assert!(out.starts_with("Client:\n Version:") && out.ends_with("\nServer:\n"), "{out}");
    assert!(err.starts_with("Cannot connect to the Docker daemon at unix://"), "{err}");
    assert_eq!(status, 1);
    let (out, _, status) = engine.hull("version -f {{.Server.Version}}");
    assert_eq!((out.as_str(), status), ("\n", 1));
    assert_eq!(engine.hull("version -f {{.Client.Context}}").0, "default\n");
}

struct Engine {
    directory: tempfile::TempDir,
}

impl Engine {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("engine.sock")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || serve(&stream));
            }
        });
        Self { directory }
    }

    /// Runs `hull` with words separated by spaces: what it printed on both streams, and its status.
    fn hull(&self, line: &str) -> (String, String, i32) {
        let path: &Path = self.directory.path();
        let output = Command::new(env!("CARGO_BIN_EXE_hull"))
            .args(line.split(' ').map(|word| word.replace("json.", "json .")))
            .env("DOCKER_HOST", format!("unix://{}", path.join("engine.sock").display()))
            .env("DOCKER_CONFIG", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap_or(-1))
    }
}

/// Answers the requests of one connection until it is closed.
fn serve(stream: &UnixStream) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        reader.by_ref().take(length).read_to_end(&mut Vec::new()).unwrap();
        let (status, body) = answer(&request);
        let head = format!("HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n");
        let length =
            if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let mut writer = stream;
        if writer.write_all(format!("{head}{length}\r\n{body}").as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(request: &str) -> (u16, &'static str) {
    let (method, rest) = request.split_once(' ').unwrap();
    let path = rest.split([' ', '?']).next().unwrap();
    let path = path.strip_prefix("/v").and_then(|path| path.find('/').map(|at| &path[at..])).unwrap_or(path);
    let wanted = format!("{method} {path}");
    match ANSWERS.iter().find(|(known, ..)| *known == wanted) {
        Some((_, status, body)) => (*status, body),
        None => (404, r#"{"message":"no such thing"}"#),
    }
}
