//! Bad input and things that go wrong: docker's error and exit code, one clear sentence, nothing left behind.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hull_conformance::{Client, Ground};
use hull_fixtures::{Engine, Ran, TestHost, debian, http, image, registry::Registry, skip};
use serde_json::json;

fn case(case: impl FnOnce(&Ground) -> Result<()>) -> Result<()> {
    Ground::with(Client::Hull, case)
}

/// A clear sentence is one line, without the words of the code.
fn one_sentence(ran: &Ran, code: i32, words: &str) -> Result<()> {
    ensure!(
        ran.code == code && ran.stderr.contains(words),
        "{ran}\nwanted code {code} and the words: {words}"
    );
    let lines: Vec<&str> =
        ran.stderr.lines().filter(|line| !line.is_empty() && !line.starts_with("Run '")).collect();
    ensure!(lines.len() <= 2 && !ran.stderr.contains("panicked") && !ran.stderr.contains("Os {"), "{ran}");
    Ok(())
}

fn with_registry(test: impl FnOnce(&Ground, &Registry) -> Result<()>) -> Result<()> {
    if debian::cached("docker-registry", "usr/bin/docker-registry").is_none() {
        skip("registry", "the package docker-registry was not fetched (cargo xtask test does)");
        return Ok(());
    }
    case(|ground| {
        let registry = Registry::start(ground.host)?;
        test(ground, &registry)
    })
}

#[test]
fn an_unknown_image() -> Result<()> {
    with_registry(|ground, _| {
        let name = format!("{}/no/such", Registry::ADDRESS);
        let ran = ground.call(&["run", "--rm", &name, "true"])?;
        ensure!(ran.code == 125 && ran.stderr.contains(&name), "{ran}");
        one_sentence(&ground.call(&["pull", &name])?, 1, &name)?;
        one_sentence(&ground.call(&["pull", "UPPER"])?, 1, "must be lowercase")?;
        one_sentence(&ground.call(&["pull", "a@sha256:12"])?, 1, "invalid")?;
        ensure!(ground.ok(&["images", "-q"])?.lines().count() == 1);
        Ok(())
    })
}

/// Pushes the image, forgets it, and gives the file that the registry keeps for its only layer.
fn layer_in_registry(ground: &Ground, registry: &Registry, name: &str) -> Result<PathBuf> {
    ground.ok(&["tag", "busybox", name])?;
    ground.ok(&["push", name])?;
    ground.ok(&["rmi", name, "busybox"])?;
    let largest = |folder: &Path| {
        let blobs = fs::read_dir(folder).into_iter().flatten().flatten();
        let blobs = blobs.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
        blobs
            .map(|blob| blob.path().join("data"))
            .max_by_key(|data| fs::metadata(data).map(|data| data.len()).unwrap_or(0))
    };
    largest(&registry.blobs().join("sha256")).context("the registry keeps no blob")
}

#[test]
fn a_layer_with_the_wrong_bytes() -> Result<()> {
    with_registry(|ground, registry| {
        let name = format!("{}/changed", Registry::ADDRESS);
        let layer = layer_in_registry(ground, registry, &name)?;
        let honest = fs::read(&layer)?;
        let mut bytes = honest.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&layer, &bytes)?;
        let ran = ground.call(&["pull", "-q", &name])?;
        ensure!(ran.code == 1, "{ran}");
        ensure!(["digest", "verif", "corrupt"].iter().any(|word| ran.stderr.contains(word)), "{ran}");
        ensure!(ground.ok(&["images", "-q"])?.is_empty(), "an image with wrong bytes was taken");
        // The next attempt is not spoilt by the first.
        fs::write(&layer, honest)?;
        ground.ok(&["pull", &name])?;
        ensure!(ground.ok(&["run", "--rm", &name, "echo", "works"])? == "works");
        Ok(())
    })
}

#[test]
fn a_truncated_layer() -> Result<()> {
    with_registry(|ground, registry| {
        let name = format!("{}/short", Registry::ADDRESS);
        let layer = layer_in_registry(ground, registry, &name)?;
        let honest = fs::read(&layer)?;
        fs::write(&layer, &honest[..honest.len() / 2])?;
        let ran = ground.call(&["pull", "-q", &name])?;
        ensure!(ran.code == 1 && !ran.stderr.is_empty(), "{ran}");
        ensure!(ground.ok(&["images", "-q"])?.is_empty(), "half an image was taken");
        fs::write(&layer, honest)?;
        ground.ok(&["pull", &name])?;
        ensure!(ground.ok(&["run", "--rm", &name, "echo", "works"])? == "works");
        Ok(())
    })
}

/// Imports an archive made by `fill`, runs a container of it if it was taken, and looks for what got out.
fn hostile(fill: impl Fn(&mut tar::Builder<Vec<u8>>, &Path) -> Result<()>) -> Result<()> {
    case(|ground| {
        let outside = ground.host.folder().join("outside");
        fs::create_dir(&outside)?;
        fs::write(outside.join("kept"), "untouched")?;
        let mut tar = tar::Builder::new(Vec::new());
        fill(&mut tar, &outside)?;
        let archive = ground.host.folder().join("hostile.tar");
        fs::write(&archive, tar.into_inner()?)?;
        let ran = ground.call(&["import", archive.to_str().context("path")?, "hostile"])?;
        ensure!(ran.code == 0 || ran.code == 1, "{ran}");
        let left: Vec<_> = fs::read_dir(&outside)?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(left == ["kept"], "the archive wrote outside of its layer: {left:?}");
        ensure!(fs::read_to_string(outside.join("kept"))? == "untouched");
        ensure!(ground.sh(&[], "echo works")? == "works");
        ground.call(&["rmi", "-f", "hostile"]).map(drop)
    })
}

#[test]
fn entries_that_climb_out() -> Result<()> {
    hostile(|tar, outside| {
        let climbing = format!("../../../../../../../../../../../..{}/climbed", outside.display());
        image::add_raw(tar, &climbing[..climbing.len().min(99)], b"x")?;
        image::add_raw(tar, "a/../../../../escaped", b"x")?;
        let absolute = format!("{}/absolute", outside.display());
        image::add_raw(tar, &absolute, b"x")
    })
}

#[test]
fn entries_that_go_through_links() -> Result<()> {
    hostile(|tar, outside| {
        let outside = outside.to_str().context("path")?;
        image::add_link(tar, "absolute", outside)?;
        image::add_raw(tar, "absolute/through", b"x")?;
        image::add_link(tar, "relative", &format!("../../../../../../../../../../../../../..{outside}"))?;
        image::add_raw(tar, "relative/through", b"x")?;
        image::add_link(tar, "file", &format!("{outside}/kept"))?;
        image::add_raw(tar, "file", b"overwritten")
    })
}

#[test]
fn hard_links_out_of_the_layer() -> Result<()> {
    hostile(|tar, outside| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_link(&mut header, "linked", outside.join("kept"))?;
        image::add_raw(tar, "linked", b"overwritten")
    })
}

#[test]
fn what_is_no_archive() -> Result<()> {
    case(|ground| {
        let file = ground.host.folder().join("garbage");
        fs::write(&file, [0x55; 5000])?;
        let file = file.to_str().context("path")?;
        for arguments in [["import", file].as_slice(), &["load", "-i", file]] {
            let ran = ground.call(arguments)?;
            ensure!(ran.code == 1 && !ran.stderr.is_empty(), "{ran}");
        }
        ensure!(ground.ok(&["images", "-q"])?.lines().count() == 1);
        Ok(())
    })
}

#[test]
fn a_port_in_use_on_the_host() -> Result<()> {
    case(|ground| {
        let busybox = image::busybox_program()?;
        let listening =
            hull_fixtures::host::with(ground.host.command(&busybox), &["httpd", "-f", "-p", "8080"])
                .spawn()?;
        let taken = || ground.host.sh("ss -ltn | grep -c :8080 || true").is_ok_and(|count| count != "0");
        hull_fixtures::wait::until("the port to be taken", || taken().then_some(()))?;
        let ran =
            ground.call(&["run", "-d", "--name", "box", "-p", "8080:80", "busybox", "sleep", "1000"])?;
        let mut listening = listening;
        listening.kill()?;
        listening.wait()?;
        ensure!(
            ran.code == 125 && ran.stderr.contains("8080") && ran.stderr.contains("address already in use"),
            "{ran}"
        );
        ground.ok(&["start", "box"]).map(drop)
    })
}

#[test]
fn names_in_use() -> Result<()> {
    case(|ground| {
        ground.lasting(&["--name", "one"])?;
        let ran = ground.call(&["create", "--name", "one", "busybox"])?;
        one_sentence(&ran, 1, "The container name \"/one\" is already in use by container")
    })
}

#[test]
fn commands_that_cannot_run() -> Result<()> {
    case(|ground| {
        one_sentence(
            &ground.call(&["run", "--rm", "busybox", "nosuch"])?,
            127,
            "executable file not found in $PATH",
        )?;
        one_sentence(&ground.call(&["run", "--rm", "busybox", "/etc"])?, 126, "")?;
        one_sentence(&ground.call(&["run", "--rm", "busybox", "/etc/passwd"])?, 126, "permission denied")
    })
}

#[test]
fn malformed_json() -> Result<()> {
    case(|ground| {
        let socket = ground.engine.socket();
        let post = |path: &str, body: &[u8]| http::request(&socket, "POST", path, "application/json", body);
        for body in [
            b"{\"Image\": ".as_slice(),
            b"[]",
            b"{\"Image\": 5}",
            b"\xff\xfe",
            b"{\"Image\":\"busybox\"} trailing",
        ] {
            let answer = post("/v1.44/containers/create", body)?;
            ensure!(answer.status == 400, "{}: {answer:?}", String::from_utf8_lossy(body));
            ensure!(answer.json()?["message"].is_string(), "{answer:?}");
        }
        let empty = post("/v1.44/containers/create", b"")?;
        ensure!(empty.status == 400, "{empty:?}");
        let missing = post("/v1.44/containers/create", json!({"Image": "nosuch"}).to_string().as_bytes())?;
        ensure!(
            missing.status == 404 && missing.json()?["message"] == "No such image: nosuch:latest",
            "{missing:?}"
        );
        let filters = http::get(&socket, "/v1.44/containers/json?filters=%7Bbroken")?;
        ensure!(filters.status == 400, "{filters:?}");
        let unknown = http::get(&socket, "/v1.44/no/such/page")?;
        ensure!(unknown.status == 404 && unknown.json()?["message"] == "page not found", "{unknown:?}");
        let version = http::get(&socket, "/v1.10/version")?;
        ensure!(version.status == 400, "{version:?}");
        ensure!(http::get(&socket, "/_ping")?.body == b"OK");
        Ok(())
    })
}

#[test]
fn connections_that_say_nothing_or_nonsense() -> Result<()> {
    case(|ground| {
        let silent: Vec<_> =
            (0..50).map(|_| UnixStream::connect(ground.engine.socket())).collect::<Result<_, _>>()?;
        for words in
            [b"\x16\x03\x01\x02\x00".as_slice(), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[b'x'; 200_000]]
        {
            let mut stream = UnixStream::connect(ground.engine.socket())?;
            let _ = stream.write_all(words);
            stream.shutdown(std::net::Shutdown::Write)?;
            let _ = stream.read_to_end(&mut Vec::new());
        }
        ensure!(ground.sh(&[], "echo works")? == "works");
        drop(silent);
        Ok(())
    })
}

#[test]
fn a_full_disk() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("full disk", "needs root");
        return Ok(());
    }
    let host = TestHost::new()?;
    let root = host.folder().join("small/data");
    host.sh(&format!("mkdir -p {0} && mount -t tmpfs -o size=12m tmpfs {0}", root.display()))?;
    let engine = Engine::start(&host, "small", &[])?;
    let run = || -> Result<()> {
        engine.import_busybox()?;
        let big = host.folder().join("big.tar");
        let mut tar = tar::Builder::new(Vec::new());
        image::add_file(&mut tar, "big", 0o644, &vec![b'x'; 20 << 20])?;
        fs::write(&big, tar.into_inner()?)?;
        let ran = engine.hull(&["import", big.to_str().context("path")?, "big"])?;
        ensure!(ran.stderr.to_lowercase().contains("no space left on device"), "{ran}");
        one_sentence(&ran, 1, "")?;
        ensure!(engine.hull(&["images", "-q"])?.ok()?.lines().count() == 1, "half an image was taken");
        // What the failed import had written is gone: containers have room again.
        ensure!(
            engine
                .hull(&[
                    "run",
                    "--rm",
                    "busybox",
                    "sh",
                    "-c",
                    "head -c 1000000 /dev/zero > /x && echo works"
                ])?
                .ok()?
                == "works"
        );
        let filling = engine.hull(&["run", "--rm", "busybox", "sh", "-c", "dd if=/dev/zero of=/x bs=64k"])?;
        ensure!(filling.code == 1 && filling.stderr.contains("No space left on device"), "{filling}");
        ensure!(engine.hull(&["run", "--rm", "busybox", "echo", "works"])?.ok()? == "works");
        Ok(())
    };
    run().with_context(|| engine.log())
}

#[test]
fn two_engines_do_not_touch_each_other() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("two engines", "needs root");
        return Ok(());
    }
    let host = TestHost::new()?;
    let one = Engine::start(&host, "one", &[])?;
    let other = Engine::start(&host, "other", &[])?;
    let run = || -> Result<()> {
        one.import_busybox()?;
        other.import_busybox()?;
        let up = |engine: &Engine, port: &str| {
            let port = format!("{port}:80");
            engine.hull(&["run", "-d", "--name", "same", "-p", &port, "busybox", "sleep", "1000"])?.ok()
        };
        let running =
            |engine: &Engine| engine.hull(&["inspect", "-f", "{{.Id}} {{.State.Running}}", "same"])?.ok();
        let here = up(&one, "8001")?;
        let there = up(&other, "8002")?;
        other.kill()?;
        other.start_again()?;
        ensure!(running(&one)? == format!("{here} true"), "the other's reconciliation took it");
        ensure!(running(&other)? == format!("{there} true"));
        other.hull(&["rm", "-f", "same"])?.ok()?;
        other.stop()?;
        ensure!(running(&one)? == format!("{here} true"));
        ensure!(one.hull(&["port", "same"])?.ok()?.contains("8001"));
        // A second engine on the same folders is refused while the first lives.
        let mut command = host.command(&hull_fixtures::place::program("hulld")?);
        command.arg("-H").arg(format!("unix://{}/second.sock", host.folder().display()));
        command.arg("--data-root").arg(one.data_root()).arg("--exec-root").arg(host.folder().join("e2"));
        let ran = Ran::new(command)?;
        ensure!(ran.code != 0 && !ran.stderr.is_empty(), "{ran}");
        ensure!(running(&one)? == format!("{here} true"));
        Ok(())
    };
    run().with_context(|| one.log())
}
