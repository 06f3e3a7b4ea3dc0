//! The command against an engine that answers from a script, on a socket of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// One request the engine got.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    headers: String,
    body: String,
}

/// What to answer, and what to do with the connection afterwards.
enum Answer {
    Json(u16, String),
    /// 101, then this output; input is echoed until the client closes its half when `echo`.
    Upgrade {
        output: Vec<u8>,
        echo: bool,
    },
}

type Script = dyn Fn(&Request, usize) -> Answer + Send + Sync;

struct Engine {
    directory: PathBuf,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Engine {
    /// An engine whose script gets each request and the number of requests to the same path before it.
    fn start(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("hull-flows-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("s")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Arc<Script>, _) = (Arc::new(script), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, log) = (script.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*script, &log));
            }
        });
        Self { directory, requests }
    }

    fn hull(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hull"))
            .args(arguments)
            .env("DOCKER_HOST", format!("unix://{}/s", self.directory.display()))
            .env("DOCKER_CONFIG", self.directory.join("config"))
            .env_remove("DOCKER_API_VERSION")
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command may end without reading its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.line.clone()).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn serve(stream: UnixStream, script: &Script, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        let before = {
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|known| known.line == request.line).count();
            log.push(request.clone());
            before
        };
        match script(&request, before) {
            Answer::Json(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).is_err() {
                    return;
                }
            }
            Answer::Upgrade { output, echo } => {
                let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\
                            Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&output).unwrap();
                if echo {
                    let mut input = Vec::new();
                    // Ends only when the client closes its half.
                    reader.read_to_end(&mut input).unwrap();
                    stream.write_all(&frame(1, &input)).unwrap();
                }
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut headers = String::new();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header == "\r\n" {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        headers += &header;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, headers, body: String::from_utf8(body).unwrap() })
}

fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend((text.len() as u32).to_be_bytes());
    frame.extend(text);
    frame
}

fn json(status: u16, body: &str) -> Answer {
    Answer::Json(status, body.to_owned())
}

/// An engine that has the image and runs a container whose output is `out` and `err` and whose status is `status`.
fn runner(status: u32, echo: bool) -> impl Fn(&Request, usize) -> Answer + Send + Sync {
    move |request, _| match request.line.as_str() {
        line if line.contains("/containers/create") => {
            json(201, r#"{"Id":"c0ffee","Warnings":["be careful"]}"#)
        }
        line if line.contains("/attach") => {
            let output = [frame(1, b"out\n"), frame(2, b"err\n")].concat();
            Answer::Upgrade { output, echo }
        }
        line if line.contains("/wait") => json(200, &format!("{{\"StatusCode\":{status}}}")),
        line if line.contains("/start") => json(204, ""),
        line => json(500, &format!("{{\"message\":\"unexpected {line}\"}}")),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn run_splits_the_streams_and_ends_with_the_containers_status() {
    let engine = Engine::start(runner(7, false));
    let output = engine.hull(&["run", "--rm", "busybox", "sh"], "");
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("out\n".into(), "WARNING: be careful\nerr\n".into())
    );
    assert_eq!(output.status.code(), Some(7));
    let mut lines = engine.lines();
    // Attach and wait are sent side by side.
    lines[1..3].sort();
    assert_eq!(
        lines,
        [
            "POST /v1.50/containers/create",
            "POST /v1.50/containers/c0ffee/attach?stream=1&stdout=1&stderr=1",
            "POST /v1.50/containers/c0ffee/wait?condition=removed",
            "POST /v1.50/containers/c0ffee/start",
        ]
    );
}

#[test]
fn run_sends_its_input_and_closes_its_half() {
    let engine = Engine::start(runner(0, true));
    let output = engine.hull(&["run", "-i", "busybox", "cat"], "hello\n");
    assert_eq!(text(&output.stdout), "out\nhello\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn run_pulls_a_missing_image() {
    let rest = runner(0, false);
    let engine = Engine::start(move |request, before| match request.line.as_str() {
        line if line.contains("/containers/create") && before == 0 => {
            json(404, r#"{"message":"No such image: busybox:latest"}"#)
        }
        line if line.contains("/images/create") => json(
            200,
            "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n\
             {\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"aa\"}\r\n\
             {\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"aa\"}\r\n",
        ),
        _ => rest(request, before),
    });
    let output = engine.hull(&["run", "busybox"], "");
    assert_eq!(
        text(&output.stderr),
        "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\naa: Pull \
         complete\nWARNING: be careful\nerr\n"
    );
    let pull = engine.requests.lock().unwrap()[1].clone();
    assert_eq!(pull.line, "POST /v1.50/images/create?fromImage=busybox&tag=latest");
    assert!(pull.headers.to_lowercase().contains("x-registry-auth: e30="), "{}", pull.headers);
}

#[test]
fn a_failed_pull_ends_with_its_reason() {
    let engine = Engine::start(|request, _| match request.line.as_str() {
        line if line.contains("/images/create") => {
            json(200, "{\"errorDetail\":{\"message\":\"toomanyrequests\"},\"error\":\"toomanyrequests\"}\r\n")
        }
        _ => json(404, r#"{"message":"No such image: busybox:latest"}"#),
    });
    let output = engine.hull(&["pull", "-q", "busybox"], "");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), "toomanyrequests\n".into()));
    let output = engine.hull(&["run", "-q", "busybox"], "");
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn a_command_that_is_not_there_is_127() {
    let rest = runner(0, false);
    let engine = Engine::start(move |request, before| match request.line.as_str() {
        line if line.contains("/start") => {
            json(400, r#"{"message":"exec: \"nope\": executable file not found in $PATH"}"#)
        }
        _ => rest(request, before),
    });
    let output = engine.hull(&["run", "busybox", "nope"], "");
    assert_eq!(output.status.code(), Some(127));
    assert!(
        text(&output.stderr).ends_with(
            "hull: Error response from daemon: exec: \"nope\": executable file not found in $PATH\n\nRun 'hull run \
             --help' for more information\n"
        ),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn an_older_engine_is_asked_again_in_its_version() {
    let engine = Engine::start(|request, _| match request.line.starts_with("GET /v1.43/") {
        true => json(200, "[]"),
        false => json(
            400,
            r#"{"message":"client version 1.50 is too new. Maximum supported API version is 1.43"}"#,
        ),
    });
    let output = engine.hull(&["ps", "-q"], "");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert_eq!(engine.lines(), ["GET /v1.50/containers/json", "GET /v1.43/containers/json"]);
}

#[test]
fn several_containers_one_failure() {
    let engine = Engine::start(|request, _| match request.line.contains("/bad") {
        true => json(404, r#"{"message":"No such container: bad"}"#),
        false => json(204, ""),
    });
    let output = engine.hull(&["stop", "-t", "1", "a", "bad", "b"], "");
    assert_eq!(text(&output.stdout), "a\nb\n");
    assert_eq!(text(&output.stderr), "Error response from daemon: No such container: bad\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn exec_answers_with_the_status_of_the_process() {
    let engine = Engine::start(|request, _| match request.line.as_str() {
        line if line.contains("/containers/") => json(201, r#"{"Id":"e"}"#),
        line if line.contains("/start") => Answer::Upgrade { output: frame(1, b"hi\n"), echo: false },
        _ => json(200, r#"{"ID":"e","ExitCode":3}"#),
    });
    let output = engine.hull(&["exec", "-e", "A=b", "web", "ls"], "");
    assert_eq!((text(&output.stdout), output.status.code()), ("hi\n".into(), Some(3)));
    let requests = engine.requests.lock().unwrap();
    assert!(requests[0].body.contains(r#""Env":["A=b"]"#), "{}", requests[0].body);
}

#[test]
fn nobody_at_a_named_socket_is_told_with_a_hint() {
    let output = Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["-H", "unix:///nonexistent/hull.sock", "ps"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.starts_with("Cannot connect to the Docker daemon at unix:///nonexistent/hull.sock."),
        "{error}"
    );
    assert!(error.contains("hint: start an engine with 'hulld'"), "{error}");
}
