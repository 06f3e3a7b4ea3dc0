//! Push and pull through Debian's docker-registry, over plain HTTP, TLS and with a password.

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Place, chain, gzip, noise, quiet, request, tar};
use hull_distribution::{Access, Client, Config, Credentials, DistributionError, Secret};
use hull_fixtures::made;
use hull_images::{Image, ImageError, PushEvent, PushProgress, PushStatus, PushTarget};
use hull_model::{ImageConfig, Reference};

/// A registry of its own directory and port, ended with the test.
struct Registry {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Registry {
    /// `None`, with the reason printed, where the program is not installed.
    fn start(tls: bool, password: bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.path().join("data").display()
        );
        if tls {
            certificate(dir.path())?;
            let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            text.push_str(&format!("  tls: {{certificate: {}, key: {}}}\n", cert.display(), key.display()));
        }
        if password {
            // user:secret
            let line = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
            let path = dir.path().join("htpasswd");
            std::fs::write(&path, line).unwrap();
            text.push_str(&format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", path.display()));
        }
        let config = dir.path().join("config.yml");
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(e) => {
                eprintln!(
                    "not run: docker-registry cannot be started ({e}); install the package docker-registry"
                );
                return None;
            }
        };
        let registry = Self { child, address: format!("127.0.0.1:{port}"), dir };
        registry.wait();
        Some(registry)
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&self.address).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse_default_tag(&format!("{}/{name}", self.address)).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificate(dir: &Path) -> Option<()> {
    let made = made::certificate(&dir.join("cert.pem"), &dir.join("key.pem"));
    made.inspect_err(|error| eprintln!("not run: {error:#}")).ok()
}

fn image(place: &Place) -> Image {
    let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    let base = gzip(&tar(&[("etc/a", b"one"), ("data", &noise(7, 3_000_000))]));
    let base = place.store.import(base.as_slice(), config.clone()).unwrap();
    let lease = place.store.lease();
    let top = place.store.add_layer(tar(&[("etc/b", b"two")]).as_slice(), &lease).unwrap();
    place.store.create(Some(&base.value), Some(top), config, lease).unwrap().value
}

async fn push(
    client: &Client,
    place: &Place,
    image: &Image,
    reference: &Reference,
    credentials: Option<Credentials>,
    mounts: &[Reference],
) -> Result<Vec<PushStatus>, ImageError> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let progress: PushProgress = Arc::new(move |e: PushEvent| log.lock().unwrap().push(e.status));
    let repository = client.repository(reference, Access::Push, credentials);
    let mounts = |_: &_| mounts.to_vec();
    let target = PushTarget { repository: &repository, mounts: &mounts, concurrency: 3, progress: &progress };
    place.store.push(&target, reference, image).await?;
    let found = seen.lock().unwrap();
    let last = |s: &&PushStatus| !matches!(s, PushStatus::Preparing | PushStatus::Pushing(..));
    Ok(found.iter().filter(last).cloned().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back() {
    let Some(registry) = Registry::start(false, false) else { return };
    let place = Place::new();
    let image = image(&place);
    let client = Client::new(common::config());
    let reference = registry.reference("team/app:1");
    let first = push(&client, &place, &image, &reference, None, &[])
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(first, [PushStatus::Pushed, PushStatus::Pushed]);
    let second = push(&client, &place, &image, &reference, None, &[]).await.unwrap();
    assert_eq!(second, [PushStatus::Exists, PushStatus::Exists]);
    let other = registry.reference("team/other:2");
    let third = push(&client, &place, &image, &other, None, std::slice::from_ref(&reference)).await.unwrap();
    let mounted = PushStatus::Mounted(reference.clone());
    assert_eq!(third, [mounted.clone(), mounted]);
    for reference in [&reference, &other, &reference.with_digest(image.manifest.digest.clone())] {
        let back = Place::new();
        let repository = client.repository(reference, Access::Pull, None);
        let pulled = back.store.pull(&repository, &request(reference), &quiet()).await.unwrap().value;
        assert_eq!(pulled, image);
        assert_eq!(back.file(&pulled, "etc/b").as_deref(), Some("two"));
        assert_eq!(back.counts(), (4, 2, 0));
    }
    let repository = client.repository(&reference, Access::Pull, None);
    assert_eq!(repository.tags().await.unwrap(), ["1"]);
    assert_eq!(repository.resolve(&reference).await.unwrap().digest, image.manifest.digest);
    let missing = registry.reference("team/app:none");
    let error = repository.manifest(&missing).await.unwrap_err();
    assert!(matches!(error, DistributionError::ManifestUnknown { .. }), "{error}");
    let nowhere = registry.reference("no/such");
    let error = client.repository(&nowhere, Access::Pull, None).manifest(&nowhere).await.unwrap_err();
    assert!(matches!(error, DistributionError::ManifestUnknown { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_password() {
    let Some(registry) = Registry::start(false, true) else { return };
    let place = Place::new();
    let image = image(&place);
    let client = Client::new(common::config());
    let reference = registry.reference("team/app:1");
    let user = |password: &str| {
        Some(Credentials {
            username: "user".into(),
            password: Secret::new(password),
            ..Credentials::default()
        })
    };
    push(&client, &place, &image, &reference, user("secret"), &[])
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    for bad in [None, user("wrong")] {
        let error = push(&client, &place, &image, &reference, bad.clone(), &[]).await.unwrap_err();
        assert!(error.to_string().starts_with("push access denied"), "{error}");
        let repository = client.repository(&reference, Access::Pull, bad);
        let error = place.store.pull(&repository, &request(&reference), &quiet()).await.unwrap_err();
        assert!(error.to_string().starts_with("pull access denied"), "{error}");
    }
    client.login(&registry.address, user("secret").unwrap()).await.unwrap();
    let error = client.login(&registry.address, user("wrong").unwrap()).await.unwrap_err();
    assert!(matches!(error, DistributionError::Login { .. }), "{error}");
    let back = Place::new();
    let repository = client.repository(&reference, Access::Pull, user("secret"));
    assert_eq!(back.store.pull(&repository, &request(&reference), &quiet()).await.unwrap().value, image);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls() {
    let Some(registry) = Registry::start(true, false) else { return };
    let place = Place::new();
    let image = image(&place);
    let reference = registry.reference("team/app:1");
    // Loopback may have any certificate.
    let client = Client::new(common::config());
    push(&client, &place, &image, &reference, None, &[]).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    // With an authority named for the host, that one must have signed it.
    let mut config = common::config();
    let pem = std::fs::read(registry.dir.path().join("cert.pem")).unwrap();
    let host = hull_distribution::HostConfig { roots: vec![pem], client: None };
    config.hosts.insert(registry.address.clone(), host);
    let pulled = pull_with(config.clone(), &reference).await.unwrap();
    assert_eq!(pulled, image);
    certificate(registry.dir.path()).unwrap();
    let other = std::fs::read(registry.dir.path().join("cert.pem")).unwrap();
    config
        .hosts
        .insert(registry.address.clone(), hull_distribution::HostConfig { roots: vec![other], client: None });
    let error = pull_with(config, &reference).await.unwrap_err().to_string();
    assert!(error.contains("tls: failed to verify certificate: x509:"), "{error}");
}

async fn pull_with(config: Config, reference: &Reference) -> Result<Image, ImageError> {
    let place = Place::new();
    let repository = Client::new(config).repository(reference, Access::Pull, None);
    place.store.pull(&repository, &request(reference), &quiet()).await.map(|leased| leased.value)
}
