//! Other people's clients, and Hull's own: each pulls an image and pushes it under another name.

mod suite;

use std::path::Path;
use std::process::Command;

use hull_distribution::{Access, Client, Config};
use hull_fixtures::made::{self, noise};
use hull_fixtures::skip;
use hull_model::{Descriptor, Reference, media_type};
use suite::{MANIFEST, Registry, digest, manifest};

/// What a client does, in a Debian root of its own mounts, with the registry's address in `$REG`.
const SKOPEO: &str = "skopeo copy --all --insecure-policy --src-tls-verify=false --dest-tls-verify=false \
    docker://$REG/seed:t docker://$REG/skopeo:t && skopeo list-tags --tls-verify=false docker://$REG/seed";
const PODMAN: &str = "p() { podman --root /scratch/p --runroot /run/p --storage-driver vfs --cgroup-manager cgroupfs \"$@\"; }; \
    p pull -q --tls-verify=false $REG/seed:t && p push --tls-verify=false $REG/seed:t $REG/podman:t";
const DOCKER: &str = "dockerd --bridge=none --iptables=false --ip6tables=false --ip-forward=false --storage-driver vfs \
      --data-root /scratch/d --exec-root /run/d --pidfile /run/d.pid -H unix:///run/d.sock >/run/d.log 2>&1 & \
    export DOCKER_HOST=unix:///run/d.sock; \
    n=0; until docker version >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 600 ] || { cat /run/d.log; exit 1; }; sleep 0.1; done; \
    docker pull -q $REG/seed:t && docker tag $REG/seed:t $REG/docker:t && docker push -q $REG/docker:t";

#[test]
fn skopeo() {
    client("skopeo", SKOPEO);
}

#[test]
fn podman() {
    client("podman", PODMAN);
}

#[test]
fn docker() {
    client("docker", DOCKER);
}

fn client(name: &str, script: &str) {
    let root = hull_fixtures::place::peers();
    if !rustix_is_root() {
        return skip(name, "needs root");
    }
    if !root.join("usr/bin").join(name).exists() {
        return skip(name, &format!("there is no {name} in {}", root.display()));
    }
    let place = tempfile::tempdir().unwrap();
    let registry = Registry::start(&place.path().join("registry"), &[]);
    let config = seed(&registry, place.path());
    let scratch = place.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let output = in_root(&root, &scratch, script, &registry.address.to_string()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
    let pushed = registry.ask(
        "GET",
        &format!("/v2/{name}/manifests/t"),
        &[&format!("Accept: {}, {}", media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST)],
        b"",
    );
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    assert!(pushed.text().contains(&config), "{name} pushed another image: {}", pushed.text());
    let output = suite::command()
        .args(["check", "--config", "/dev/null", "--root"])
        .arg(place.path().join("registry"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Pushes an image that clients can unpack; returns its configuration's digest.
fn seed(registry: &Registry, place: &Path) -> String {
    let tree = place.join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("small"), "hello").unwrap();
    std::fs::write(tree.join("large"), noise(1, 3_000_000)).unwrap();
    let tar = Command::new("tar")
        .args(["-C"])
        .arg(&tree)
        .args(["--owner=0", "--group=0", "-cf", "-", "."])
        .output();
    let layer = tar.unwrap().stdout;
    let layer_digest = registry.push_blob("seed", &layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
    );
    let config_digest = registry.push_blob("seed", config.as_bytes());
    let text = manifest(&config_digest, config.len(), &layer_digest, layer.len());
    assert_eq!(registry.ask("PUT", "/v2/seed/manifests/t", &[MANIFEST], text.as_bytes()).status, 201);
    config_digest
}

/// Runs a script in the root, in mounts and processes of its own that are gone with it; the network is the machine's,
/// and nothing of it is changed.
fn in_root(root: &Path, scratch: &Path, script: &str, registry: &str) -> Command {
    const ENTER: &str = r#"set -e
        mount --make-rprivate /
        mount --bind "$1" "$1"; cd "$1"
        mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev
        mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; mkdir -p tmp/root
        mount -t tmpfs tmpfs mnt; mkdir mnt/scratch; mount --bind "$2" mnt/scratch
        exec chroot . sh -c "$3""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
    command.arg(root).arg(scratch).arg(script.replace("/scratch", "/mnt/scratch"));
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/tmp/root").env("REG", registry);
    command
}

#[test]
fn hulls_own() {
    let place = tempfile::tempdir().unwrap();
    let registry = Registry::start(place.path(), &[]);
    let layer = noise(5, 2_000_000);
    let file = place.path().join("layer");
    std::fs::write(&file, &layer).unwrap();
    let runtime = std::thread::spawn({
        let address = registry.address;
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(push_and_pull(&address.to_string(), &file, &layer));
        }
    });
    runtime.join().unwrap();
    assert_eq!(registry.get("/v2/own/image/tags/list").text(), r#"{"name":"own/image","tags":["t"]}"#);
}

#[test]
fn hulls_own_with_tls() {
    let place = tempfile::tempdir().unwrap();
    let (certificate, key) = (place.path().join("certificate"), place.path().join("key"));
    if let Err(error) = made::certificate(&certificate, &key) {
        return skip("tls", &format!("{error:#}"));
    }
    let flags = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let registry = Registry::start(&place.path().join("root"), &flags);
    let layer = noise(6, 3_000_000);
    let file = place.path().join("layer");
    std::fs::write(&file, &layer).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(push_and_pull(&registry.address.to_string(), &file, &layer));
    assert!(
        !registry.raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"),
        "it is not plain"
    );
}

async fn push_and_pull(address: &str, file: &Path, layer: &[u8]) {
    let reference: Reference = format!("{address}/own/image:t").parse().unwrap();
    let repository = Client::new(Config::default()).repository(&reference, Access::Push, None);
    let (layer_digest, config_digest) = (digest(layer).parse().unwrap(), digest(b"{}").parse().unwrap());
    let open = || std::fs::File::open(file);
    repository.push_blob(&layer_digest, layer.len() as u64, &open, &[], &|_| {}).await.unwrap();
    let config = file.with_extension("config");
    std::fs::write(&config, "{}").unwrap();
    let open = || std::fs::File::open(&config);
    repository.push_blob(&config_digest, 2, &open, &[], &|_| {}).await.unwrap();
    let text = manifest(config_digest.as_str(), 2, layer_digest.as_str(), layer.len());
    repository.push_manifest(&reference, media_type::OCI_MANIFEST, text.as_bytes()).await.unwrap();
    let fetched = repository.manifest(&reference).await.unwrap();
    assert_eq!(fetched.bytes, text.as_bytes());
    assert_eq!(repository.resolve(&reference).await.unwrap(), fetched.descriptor);
    let descriptor = Descriptor::new(media_type::OCI_LAYER, layer_digest, layer.len() as u64);
    assert!(repository.blob_bytes(&descriptor, 1 << 30).await.unwrap() == layer);
    assert_eq!(repository.tags().await.unwrap(), ["t"]);
    let other: Reference = format!("{address}/own/other:t").parse().unwrap();
    let other = Client::new(Config::default()).repository(&other, Access::Push, None);
    assert!(other.mount_blob(&descriptor.digest, &reference).await.unwrap());
}
