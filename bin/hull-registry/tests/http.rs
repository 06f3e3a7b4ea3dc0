//! The protocol, as clients that mean well and others see it.

mod suite;

use std::io::{Read, Write};

use hull_fixtures::made::noise;
use suite::{MANIFEST, Registry, command, digest, manifest};

#[test]
fn uploads_in_all_ways() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &[]);
    let blob = noise(1, 300_000);
    let digest = digest(&blob);
    // In chunks, one of which comes in the wrong order.
    let begun = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!(begun.status, 202);
    let location = begun.header("location").to_owned();
    assert_eq!(registry.get(&location).status, 204);
    let (first, second) = blob.split_at(100_000);
    let early = registry.ask("PATCH", &location, &["Content-Range: 100000-299999"], second);
    assert_eq!((early.status, early.header("range")), (416, "0-0"));
    let answer = registry.ask("PATCH", &location, &["Content-Range: 0-99999"], first);
    assert_eq!((answer.status, answer.header("range")), (202, "0-99999"));
    let status = registry.get(&location);
    assert_eq!((status.status, status.header("range")), (204, "0-99999"));
    let location = format!("{}&digest={digest}", answer.header("location"));
    let twice = registry.ask("PUT", &location, &["Content-Range: 0-99999"], first);
    assert_eq!(twice.status, 416);
    let done = registry.ask("PUT", &location, &["Content-Range: 100000-299999"], second);
    assert_eq!((done.status, done.header("docker-content-digest")), (201, digest.as_str()));
    assert_eq!(registry.get(&location).code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.get(done.header("location")).body, blob);
    // Mounted.
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    assert_eq!(registry.ask("POST", &mount, &[], b"").status, 201);
    assert_eq!(
        registry.ask("HEAD", &format!("/v2/b/blobs/{digest}"), &[], b"").header("content-length"),
        "300000"
    );
    // Cancelled.
    let begun = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!(registry.ask("DELETE", begun.header("location"), &[], b"").status, 204);
    assert_eq!(registry.get(begun.header("location")).status, 404);
    assert!(registry.stop());
}

#[test]
fn parts_of_blobs() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &[]);
    for length in [100, 200_000] {
        let blob = noise(length as u64, length);
        let digest = registry.push_blob("a", &blob);
        let path = format!("/v2/a/blobs/{digest}");
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=90-", 90..length),
            ("bytes=-7", length - 7..length),
            ("bytes=50-999999999", 50..length),
        ] {
            let answer = registry.ask("GET", &path, &[&format!("Range: {range}")], b"");
            assert_eq!((answer.status, &answer.body[..]), (206, &blob[part.clone()]), "{range}");
            let said = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            assert_eq!(answer.header("content-range"), said);
        }
        for range in ["bytes=5-1", "bytes=a-b", "bytes=0-1,3-4", "items=0-1"] {
            let answer = registry.ask("GET", &path, &[&format!("Range: {range}")], b"");
            assert_eq!((answer.status, answer.body.len()), (200, length), "{range}");
        }
        let beyond = registry.ask("GET", &path, &["Range: bytes=999999999-"], b"");
        assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{length}")));
        let known = format!("If-None-Match: \"{digest}\"");
        assert_eq!(registry.ask("GET", &path, &[&known], b"").status, 304);
    }
}

#[test]
fn lists_in_pages() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &[]);
    for tag in ["c", "a", "B", "d"] {
        registry.push_image("x/y", tag, b"layer");
    }
    registry.push_image("z", "t", b"layer");
    assert_eq!(registry.get("/v2/x/y/tags/list").text(), r#"{"name":"x/y","tags":["B","a","c","d"]}"#);
    let page = registry.get("/v2/x/y/tags/list?n=2");
    assert_eq!(page.text(), r#"{"name":"x/y","tags":["B","a"]}"#);
    let link = page.header("link");
    assert_eq!(link, r#"</v2/x/y/tags/list?n=2&last=a>; rel="next""#);
    let last = registry.get("/v2/x/y/tags/list?n=2&last=a");
    assert_eq!((last.text().as_str(), last.header("link")), (r#"{"name":"x/y","tags":["c","d"]}"#, ""));
    let none = registry.get("/v2/x/y/tags/list?n=0");
    assert_eq!((none.text().as_str(), none.header("link")), (r#"{"name":"x/y","tags":[]}"#, ""));
    assert_eq!(registry.get("/v2/x/y/tags/list?n=-1").code(), "PAGINATION_NUMBER_INVALID");
    assert_eq!(registry.get("/v2/none/tags/list").code(), "NAME_UNKNOWN");
    let catalog = registry.get("/v2/_catalog?n=1");
    assert_eq!(catalog.text(), r#"{"repositories":["x/y"]}"#);
    assert_eq!(catalog.header("link"), r#"</v2/_catalog?n=1&last=x%2Fy>; rel="next""#);
    assert_eq!(registry.get("/v2/_catalog?n=1&last=x%2Fy").text(), r#"{"repositories":["z"]}"#);
}

#[test]
fn names_and_digests_that_are_none() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &[]);
    let hex = "a".repeat(64);
    for (path, status, code) in [
        ("/v2/../../etc/passwd".to_owned(), 404, "UNSUPPORTED"),
        ("/v2/a/../b/manifests/t".into(), 400, "NAME_INVALID"),
        ("/v2/%2e%2e/b/manifests/t".into(), 400, "NAME_INVALID"),
        ("/v2/A/manifests/t".into(), 400, "NAME_INVALID"),
        ("/v2//manifests/t".into(), 400, "NAME_INVALID"),
        (format!("/v2/{}/manifests/t", "a".repeat(300)), 400, "NAME_INVALID"),
        ("/v2/a/manifests/..".into(), 400, "TAG_INVALID"),
        (format!("/v2/a/manifests/{}", "t".repeat(129)), 400, "TAG_INVALID"),
        ("/v2/a/manifests/sha256:zz".into(), 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:../../../x".into(), 404, "UNSUPPORTED"),
        (format!("/v2/a/blobs/md5:{hex}"), 400, "DIGEST_INVALID"),
        (format!("/v2/a/blobs/sha256:{}", hex.to_uppercase()), 400, "DIGEST_INVALID"),
        (format!("/v2/a/blobs/sha256:{hex}"), 404, "BLOB_UNKNOWN"),
        ("/v2/a/manifests/t".into(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/blobs/uploads/../../x".into(), 404, "UNSUPPORTED"),
        ("/v2/a/blobs/uploads/x".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/referrers/t".into(), 400, "DIGEST_INVALID"),
        ("/elsewhere".into(), 404, "UNSUPPORTED"),
    ] {
        let answer = registry.get(&path);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
    }
    assert!(
        registry.raw(b"GET /v2/a%2fb/manifests/t HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 400")
    );
}

#[test]
fn lies_about_content() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &["--set", "limits.manifest-size=64KiB"]);
    let other = digest(b"other");
    let path = format!("/v2/a/blobs/uploads/?digest={other}");
    let answer = registry.ask("POST", &path, &[], b"content");
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(registry.get(&format!("/v2/a/blobs/{other}")).status, 404);
    // Less than was said.
    let short = registry
        .raw(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nshort").as_bytes());
    assert!(!short.contains("201"), "{short}");
    let missing = digest(b"missing");
    let config = registry.push_blob("a", b"{}");
    for (kind, text, code) in [
        (MANIFEST, manifest(&missing, 7, &missing, 7), "MANIFEST_BLOB_UNKNOWN"),
        (MANIFEST, manifest(&config, 3, &config, 2), "MANIFEST_INVALID"),
        (MANIFEST, "{}".into(), "MANIFEST_INVALID"),
        (MANIFEST, "not json".into(), "MANIFEST_INVALID"),
        ("Content-Type: ", "{}".into(), "MANIFEST_INVALID"),
        ("Content-Type: text/html, x", manifest(&config, 2, &config, 2), "MANIFEST_INVALID"),
        (
            "Content-Type: application/vnd.oci.image.index.v1+json",
            manifest(&config, 2, &config, 2),
            "MANIFEST_INVALID",
        ),
    ] {
        let answer = registry.ask("PUT", "/v2/a/manifests/t", &[kind], text.as_bytes());
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{text}");
    }
    let right = manifest(&config, 2, &config, 2);
    let wrong = format!("/v2/a/manifests/{missing}");
    assert_eq!(registry.ask("PUT", &wrong, &[MANIFEST], right.as_bytes()).code(), "DIGEST_INVALID");
    let padded = format!("{right}{}", " ".repeat(64 << 10));
    assert_eq!(registry.ask("PUT", "/v2/a/manifests/t", &[MANIFEST], padded.as_bytes()).status, 413);
    assert_eq!(registry.get("/v2/a/tags/list").text(), r#"{"name":"a","tags":[]}"#);
}

#[test]
fn requests_that_are_none() {
    let root = tempfile::tempdir().unwrap();
    let flags =
        ["--set", "limits.head-time=1s", "--set", "limits.body-time=1s", "--set", "limits.idle-time=5s"];
    let registry = Registry::start(root.path(), &flags);
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    for (text, status) in [
        ("\r\n\r\nnonsense\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", "505"),
        (huge.as_str(), "431"),
        (
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        ("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "501"),
        ("BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", "400"),
    ] {
        let answer = registry.raw(text.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{text:.60}: {answer}");
    }
    // One letter and then nothing.
    let mut slow = registry.connect();
    slow.write_all(b"G").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // A body that does not come.
    let begun = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    let location = begun.header("location");
    let mut slow = registry.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nsome");
    slow.write_all(head.as_bytes()).unwrap();
    answer.clear();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("too slowly"), "{answer}");
    assert_eq!(registry.get(location).header("range"), "0-3", "what came is kept");
    // Chunks that are none.
    for chunk in ["zz\r\n", "5\r\nabcdeX\r\n", "-1\r\n", "fffffffffffffffff\r\n", "5\nabcde\n"] {
        let begun = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
        let head = format!(
            "PATCH {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            begun.header("location")
        );
        let answer = registry.raw(format!("{head}{chunk}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{chunk:?}: {answer}");
    }
    assert_eq!(registry.get("/v2/").status, 200);
}

#[test]
fn several_requests_on_a_connection() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &[]);
    let digest = digest(b"hello");
    let requests = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n\
         HEAD /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answers = registry.raw(requests.as_bytes());
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["201", "200", "200", "202", "200"], "{answers}");
    assert_eq!(answers.matches("hello").count(), 1, "{answers}");
    let expecting = registry.raw(
        format!("POST /v2/b/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
            .as_bytes(),
    );
    assert!(expecting.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201"), "{expecting}");
}

#[test]
fn read_only_and_without_deletion() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &["--set", "delete=false"]);
    let digest = registry.push_image("a", "t", b"layer");
    assert_eq!(registry.ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").status, 405);
    assert!(registry.stop());
    let registry = Registry::start(root.path(), &["--read-only"]);
    assert_eq!(registry.get("/v2/a/manifests/t").status, 200);
    let refused = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!((refused.status, refused.code().as_str()), (405, "UNSUPPORTED"));
    assert_eq!(registry.ask("DELETE", "/v2/a/manifests/t", &[], b"").status, 405);
}

#[test]
fn users_tokens_and_rights() {
    let root = tempfile::tempdir().unwrap();
    let users = root.path().join("users");
    let config = root.path().join("registry.toml");
    let mut line = command()
        .args(["passwd", "ann"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    line.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    std::fs::write(&users, line.wait_with_output().unwrap().stdout).unwrap();
    let text = format!(
        "[auth]\nhtpasswd = {users:?}\n[auth.token]\nservice = \"test\"\n\
         [[access]]\nrepositories = \"public/*\"\nusers = [\"anonymous\"]\nallow = [\"pull\"]\n\
         [[access]]\nrepositories = \"**\"\nusers = [\"ann\"]\nallow = [\"pull\", \"push\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let registry = Registry::start_with(&root.path().join("root"), &config);
    let refused = registry.get("/v2/");
    assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHORIZED"));
    let challenge = refused.header("www-authenticate");
    assert!(
        challenge.starts_with(&format!(
            "Bearer realm=\"http://{}/auth/token\",service=\"test\"",
            registry.address
        ))
    );
    let refused = registry.ask("POST", "/v2/team/a/blobs/uploads/", &[], b"");
    assert!(refused.header("www-authenticate").contains("scope=\"repository:team/a:pull,push\""));
    // base64 of ann:secret and ann:wrong
    let (right, wrong) = ("Authorization: Basic YW5uOnNlY3JldA==", "Authorization: Basic YW5uOndyb25n");
    assert_eq!(registry.ask("GET", "/v2/", &[wrong], b"").status, 401);
    assert_eq!(registry.ask("GET", "/v2/", &[right], b"").status, 200);
    assert_eq!(registry.get("/metrics").status, 401);
    assert_eq!(registry.ask("GET", "/metrics", &[right], b"").status, 200);
    let path = "/auth/token?service=test&scope=repository:team/a:pull,push,delete";
    let answer = registry.ask("GET", path, &[right], b"").text();
    let token = answer.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap();
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(registry.ask("POST", "/v2/team/a/blobs/uploads/", &[&bearer], b"").status, 202);
    assert_eq!(registry.ask("POST", "/v2/team/b/blobs/uploads/", &[&bearer], b"").status, 401);
    let missing = digest(b"x");
    assert_eq!(registry.ask("DELETE", &format!("/v2/team/a/blobs/{missing}"), &[&bearer], b"").status, 401);
    assert_eq!(registry.ask("DELETE", &format!("/v2/team/a/blobs/{missing}"), &[right], b"").status, 403);
    assert_eq!(registry.get("/v2/public/a/manifests/t").status, 404);
    assert_eq!(registry.get("/v2/team/a/manifests/t").status, 401);
    assert_eq!(registry.ask("GET", "/v2/", &["Authorization: Bearer x.y.z"], b"").status, 401);
}

#[test]
fn a_cache_serves_what_it_has_when_the_upstream_is_gone() {
    let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Registry::start(above.path(), &[]);
    let layer = noise(3, 5_000_000);
    let image = upstream.push_image("library/app", "v1", &layer);
    let url = format!("http://{}", upstream.address);
    let config = below.path().join("registry.toml");
    let text = format!("[[upstream]]\nprefix = \"up\"\nurl = {url:?}\nttl = \"0s\"\n");
    std::fs::write(&config, text).unwrap();
    let cache = Registry::start_with(&below.path().join("root"), &config);
    let found = cache.get("/v2/up/library/app/manifests/v1");
    assert_eq!((found.status, found.header("docker-content-digest")), (200, image.as_str()));
    let blob = format!("/v2/up/library/app/blobs/{}", digest(&layer));
    assert_eq!(cache.ask("HEAD", &blob, &[], b"").header("content-length"), "5000000");
    // Several at once; the upstream delivers once.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert!(cache.get(&blob).body == layer));
        }
    });
    let by_host = format!("/v2/library/app/manifests/v1?ns={}", upstream.address);
    assert_eq!(cache.get(&by_host).status, 200);
    assert_eq!(cache.ask("POST", "/v2/up/library/app/blobs/uploads/", &[], b"").status, 405);
    assert_eq!(cache.get("/v2/up/library/none/manifests/v1").status, 404);
    let moved = upstream.push_image("library/app", "v1", b"new");
    assert_eq!(cache.get("/v2/up/library/app/manifests/v1").header("docker-content-digest"), moved);
    upstream.kill();
    let stale = cache.get("/v2/up/library/app/manifests/v1");
    assert_eq!((stale.status, stale.header("docker-content-digest")), (200, moved.as_str()));
    assert!(stale.header("warning").starts_with("299 - "), "{stale:?}");
    assert!(cache.get(&blob).body == layer);
    assert_eq!(cache.get("/v2/up/library/app/manifests/v2").status, 502);
    let numbers = cache.get("/metrics").text();
    assert!(numbers.contains("hull_registry_cache_stale_total 1"), "{numbers}");
    let fetched = 5_000_000;
    let line =
        numbers.lines().find(|line| line.starts_with("hull_registry_cache_fetched_bytes_total ")).unwrap();
    let bytes: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((fetched..fetched + 10_000).contains(&bytes), "{line}");
}

#[test]
fn a_full_disk_fails_one_push_and_no_more() {
    let root = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::start_on_small_disk(root.path(), "8m") else {
        return hull_fixtures::skip("full disk", "needs root, to mount a small disk");
    };
    let path = format!("/v2/a/blobs/uploads/?digest={}", digest(&noise(1, 20_000_000)));
    let refused = registry.ask("POST", &path, &[], &noise(1, 20_000_000));
    assert_eq!(refused.status, 507, "{}", refused.text());
    let layer = noise(2, 2_000_000);
    let image = registry.push_image("a", "t", &layer);
    assert_eq!(registry.get("/v2/a/manifests/t").header("docker-content-digest"), image);
    assert!(registry.get(&format!("/v2/a/blobs/{}", digest(&layer))).body == layer);
}

#[test]
fn commands_beside_the_server() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &["--set", "gc.grace=0"]);
    let layer = noise(9, 100_000);
    registry.push_image("a", "t", &layer);
    let run = |arguments: &[&str]| {
        let output = command()
            .args(arguments)
            .args(["--config", "/dev/null", "--root"])
            .arg(root.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (intact, text) = run(&["check"]);
    assert!(intact && text.starts_with("read 2 blobs (100002 bytes) and 1 manifests: 0 damaged"), "{text}");
    let blob = root.path().join("blobs/sha256").join(&digest(&layer)[7..]);
    let mut damaged = layer.clone();
    damaged[5] ^= 1;
    std::fs::write(&blob, &damaged).unwrap();
    let (intact, text) = run(&["check", "--repair"]);
    assert!(!intact && text.contains("it has another digest"), "{text}");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{}", digest(&layer))).status, 404);
    registry.push_blob("a", &layer);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{}", digest(&layer))).status, 200);
    std::fs::write(&blob, &damaged[..50_000]).unwrap();
    assert_eq!(
        registry.get(&format!("/v2/a/blobs/{}", digest(&layer))).status,
        404,
        "a short file is noticed at once"
    );
    registry.push_blob("a", &layer);
    let (done, text) = run(&["gc", "--dry-run"]);
    assert!(done && text.starts_with("would remove 0 blobs"), "{text}");
    assert!(registry.stop());
    // Without a server the commands do it themselves.
    let (done, text) = run(&["check"]);
    assert!(done && text.contains(" 0 damaged"), "{text}");
    assert!(run(&["gc"]).0);
}

#[test]
fn wrong_settings_are_told_precisely() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("registry.toml");
    for (text, problem) in [
        ("[limits]\nmanifest-size = \"big\"", "is no size"),
        ("[auth]\nhtpasswd = \"/nonexistent\"", "auth.htpasswd: /nonexistent"),
        ("[auth]\n", "nobody could log in"),
        ("[tls]\ncertificate = \"/nonexistent\"\nkey = \"/nonexistent\"", "tls.certificate: /nonexistent"),
        ("[[upstream]]\nprefix = \"x\"\nurl = \"ftp://x\"", "upstream[0].url"),
        ("[[retention]]\nrepositories = \"**\"", "retention[0]"),
        ("[[access]]\nrepositories = \"**\"\nusers = [\"a\"]\nallow = [\"fly\"]", "access[0].allow"),
        ("color = \"blue\"", "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = command()
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--root")
            .arg(root.path().join("root"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(problem), "{text}: {error}");
    }
    let output = command()
        .env("HULL_REGISTRY_LISTEN", "nowhere")
        .args(["serve", "--validate", "--config", "/dev/null"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("listen: \"nowhere\" is no address"));
    let output = command()
        .env("HULL_REGISTRY_LISTN", "x")
        .args(["serve", "--validate", "--config", "/dev/null"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("HULL_REGISTRY_LISTN: there is no such setting")
    );
}
