//! A registry that is killed at any moment has lost nothing of what it acknowledged.

mod suite;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hull_fixtures::made::noise;
use suite::{MANIFEST, Registry, digest, manifest, try_ask};

const ROUNDS: u64 = 12;
const PUSHERS: u64 = 4;

/// What was acknowledged: tags and their manifests; blobs and their seeds and lengths.
#[derive(Default)]
struct Acknowledged {
    tags: HashMap<String, String>,
    blobs: HashMap<String, (u64, usize)>,
}

#[test]
fn nothing_acknowledged_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let acknowledged = Mutex::new(Acknowledged::default());
    let serial = AtomicU64::new(1);
    let mut address = "127.0.0.1:0".to_owned();
    for round in 0..ROUNDS {
        let registry =
            Registry::start_at(root.path(), &address, Path::new("/dev/null"), &["--set", "gc.grace=0"]);
        let target = registry.address;
        address = target.to_string();
        verify(target, &acknowledged.lock().unwrap());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..PUSHERS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        push(target, serial.fetch_add(1, Ordering::Relaxed), &acknowledged);
                    }
                });
            }
            // Enough pushes for something to lose, then at an instant that differs from round to round.
            let before = serial.load(Ordering::Relaxed);
            while serial.load(Ordering::Relaxed) < before + 6 + round {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_micros(round * 1700 % 9000));
            over.store(true, Ordering::Relaxed);
            registry.kill();
        });
    }
    let registry = Registry::start(root.path(), &["--set", "gc.grace=0"]);
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.tags.len() > 20, "{} images were pushed", acknowledged.tags.len());
    verify(registry.address, &acknowledged);
    let check = |command: &str| {
        let output = suite::command()
            .args([command, "--config", "/dev/null", "--root"])
            .arg(root.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (collected, text) = check("gc");
    assert!(collected, "{text}");
    let (intact, text) = check("check");
    assert!(intact, "{text}");
    verify(registry.address, &Acknowledged { tags: acknowledged.tags, blobs: HashMap::new() });
}

/// Pushes one image in one of several ways; what is refused or broken off does not count.
fn push(address: SocketAddr, serial: u64, acknowledged: &Mutex<Acknowledged>) -> Option<()> {
    let length = if serial.is_multiple_of(3) { 400_000 } else { 500 };
    let layer = noise(serial, length);
    let name = digest(&layer);
    let done = if serial.is_multiple_of(2) {
        let path = format!("/v2/app/blobs/uploads/?digest={name}");
        try_ask(address, "POST", &path, &[], &layer).ok()?
    } else {
        let begun = try_ask(address, "POST", "/v2/app/blobs/uploads/", &[], b"").ok()?;
        let (first, second) = layer.split_at(length / 2);
        let next = try_ask(address, "PATCH", begun.header("location"), &[], first).ok()?;
        let path = format!("{}&digest={name}", next.header("location"));
        try_ask(address, "PUT", &path, &[], second).ok()?
    };
    if done.status != 201 {
        return None;
    }
    acknowledged.lock().unwrap().blobs.insert(name.clone(), (serial, length));
    let text = manifest(&name, length, &name, length);
    let tag = format!("v{serial}");
    let path = format!("/v2/app/manifests/{tag}");
    let done = try_ask(address, "PUT", &path, &[MANIFEST], text.as_bytes()).ok()?;
    if done.status == 201 {
        acknowledged.lock().unwrap().tags.insert(tag, digest(text.as_bytes()));
    }
    Some(())
}

fn verify(address: SocketAddr, acknowledged: &Acknowledged) {
    for (tag, image) in &acknowledged.tags {
        let found = try_ask(address, "GET", &format!("/v2/app/manifests/{tag}"), &[], b"").unwrap();
        assert_eq!((found.status, digest(&found.body)), (200, image.clone()), "{tag}");
    }
    for (name, (serial, length)) in &acknowledged.blobs {
        let found = try_ask(address, "GET", &format!("/v2/app/blobs/{name}"), &[], b"").unwrap();
        assert!(found.status == 200 && found.body == noise(*serial, *length), "{name}");
    }
}

#[test]
fn an_upload_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::start(root.path(), &[]);
    let blob = noise(1, 1_000_000);
    let begun = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    let location = begun.header("location").to_owned();
    assert_eq!(registry.ask("PATCH", &location, &[], &blob[..600_000]).status, 202);
    let small = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"").header("location").to_owned();
    let small = registry.ask("PATCH", &small, &[], b"few").header("location").to_owned();
    registry.kill();
    let registry = Registry::start(root.path(), &[]);
    let status = registry.get(&location);
    assert_eq!((status.status, status.header("range")), (204, "0-599999"));
    let path = format!("{}&digest={}", status.header("location"), digest(&blob));
    assert_eq!(registry.ask("PUT", &path, &["Content-Range: 600000-999999"], &blob[600_000..]).status, 201);
    assert!(registry.get(&format!("/v2/a/blobs/{}", digest(&blob))).body == blob);
    // What was in memory only is not taken for something that is there.
    let lost = registry.ask("PUT", &format!("{small}&digest={}", digest(b"few")), &[], b"");
    assert_eq!((lost.status, lost.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
}
