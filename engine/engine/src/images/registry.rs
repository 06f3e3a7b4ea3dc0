//! The registry client with this machine's certificates, and what its errors mean to clients.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use hull_distribution::{
    Client, Config as ClientConfig, Credentials, DistributionError, HostConfig, Registries as Rules, Secret,
};
use hull_docker_api::{AuthConfig, AuthResponse, DescriptorPlatform, DistributionInspect};
use hull_images::ImageError;
use hull_model::{Descriptor, ManifestOrIndex, Reference};

use super::record::parse_reference;
use crate::{Config, Engine, Error, Kind, Result};

/// Where distributions keep the certificate authorities they trust, all in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates of single registries: `<directory>/<host[:port]>/{*.crt,*.cert,*.key}`, docker's place first.
const HOST_CERTIFICATES: [&str; 2] = ["/etc/docker/certs.d", "/etc/hull/certs.d"];

/// The registry client, made when it is first needed: reading certificates takes a while. It is made anew when the
/// file of registries has changed.
#[derive(Debug)]
pub(super) struct Registries {
    mirrors: Vec<String>,
    insecure: Vec<String>,
    version: String,
    attempts: Option<u32>,
    file: PathBuf,
    made: Mutex<Option<(Stamp, Client)>>,
}

/// What tells one state of a file from another: when it was written, its length, its inode.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Registries {
    pub(super) fn new(config: &Config) -> Registries {
        Registries {
            mirrors: config.registry_mirrors.clone(),
            insecure: config.insecure_registries.clone(),
            version: config.version.clone(),
            attempts: config.max_download_attempts,
            file: config.registries_file.clone(),
            made: Mutex::default(),
        }
    }

    fn connect(&self) -> Result<Client> {
        let mut made = self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let stamp = stamp(&self.file);
        if let Some((known, client)) = &*made
            && *known == stamp
        {
            return Ok(client.clone());
        }
        let registries = read_rules(&self.file)?;
        let mut hosts = host_certificates();
        rule_certificates(&registries, &mut hosts)?;
        let mut config = ClientConfig {
            user_agent: format!("hull/{}", self.version),
            roots: BUNDLES.iter().find_map(|path| fs::read(path).ok()).into_iter().collect(),
            mirrors: self.mirrors.clone(),
            insecure: self.insecure.clone(),
            hosts,
            registries,
            ..ClientConfig::default()
        };
        if let Some(attempts) = self.attempts {
            config.retries = attempts.saturating_sub(1);
        }
        let client = Client::new(config);
        *made = Some((stamp, client.clone()));
        Ok(client)
    }
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// The rules of a file; none if there is no file.
pub(crate) fn read_rules(file: &Path) -> Result<Rules> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Rules::default()),
        Err(error) => return Err(Error::system(format_args!("read {}", file.display()), error)),
    };
    Rules::parse(&text).map_err(|error| Error::new(Kind::System, format!("{}: {error}", file.display())))
}

/// Certificates that rules name go to the hosts of their prefix or location.
fn rule_certificates(rules: &Rules, hosts: &mut BTreeMap<String, HostConfig>) -> Result<()> {
    for rule in &rules.rules {
        if rule.ca.is_empty() && rule.client_cert.is_none() {
            continue;
        }
        let read = |path: &Path| {
            fs::read(path).map_err(|error| Error::system(format_args!("read {}", path.display()), error))
        };
        let place = rule.location.as_deref().unwrap_or(&rule.prefix);
        let host = match place.split('/').next().unwrap_or(place) {
            hull_model::DEFAULT_DOMAIN => "registry-1.docker.io",
            host => host,
        };
        let entry = hosts.entry(host.to_owned()).or_default();
        for path in &rule.ca {
            entry.roots.push(read(path)?);
        }
        if let (Some(certificate), Some(key)) = (&rule.client_cert, &rule.client_key) {
            let key = String::from_utf8_lossy(&read(key)?).into_owned();
            entry.client = Some((read(certificate)?, Secret::new(key)));
        }
    }
    Ok(())
}

impl Engine {
    /// Refuses a name without registry where the configuration wants one.
    pub(super) fn registries_allow(&self, written: &str, reference: &Reference) -> Result<()> {
        let registries = &self.0.images.registries;
        if read_rules(&registries.file)?.allows(written, reference) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{written:?} does not name its registry, as {} demands: {reference} would be meant",
            registries.file.display()
        )))
    }
}

impl Engine {
    /// The registry client.
    pub(super) async fn registry_client(&self) -> Result<Client> {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || engine.0.images.registries.connect()).await?
    }

    /// Checks credentials with their registry. They are not kept: the client keeps them and sends them along.
    ///
    /// # Errors
    /// When the registry refuses them (unauthorized) or cannot be reached.
    pub async fn registry_login(&self, auth: AuthConfig) -> Result<AuthResponse> {
        let domain = registry_domain(&auth.serveraddress);
        let client = self.registry_client().await?;
        let identity = client.login(&domain, credentials(auth)).await.map_err(error)?;
        let identity_token = identity.map(|token| token.reveal().to_owned()).unwrap_or_default();
        Ok(AuthResponse { status: "Login Succeeded".to_owned(), identity_token })
    }

    /// What a registry has under a name.
    ///
    /// # Errors
    /// When the registry has no such thing or cannot be reached.
    pub async fn distribution_inspect(
        &self,
        name: &str,
        auth: Option<AuthConfig>,
    ) -> Result<DistributionInspect> {
        let reference =
            parse_reference(name).map_err(|error| Error::invalid(error.to_string()))?.or_default_tag();
        let client = self.registry_client().await?;
        let access = hull_distribution::Access::Pull;
        let repository = client.repository(&reference, access, auth.map(credentials));
        let fetched = repository.manifest(&reference).await.map_err(error)?;
        let document = ManifestOrIndex::parse(&fetched.descriptor.media_type, &fetched.bytes)
            .map_err(|error| Error::invalid(crate::chain(&error)))?;
        let platforms = match document {
            ManifestOrIndex::Index(index) => index.manifests.iter().filter_map(platform_of).collect(),
            ManifestOrIndex::Manifest(manifest) => {
                let limit = hull_distribution::MAX_DOCUMENT;
                let bytes = repository.blob_bytes(&manifest.config, limit).await.map_err(error)?;
                hull_model::ImageConfig::parse(&bytes)
                    .ok()
                    .map(|config| platform(&config.platform()))
                    .into_iter()
                    .collect()
            }
        };
        Ok(DistributionInspect { descriptor: descriptor(&fetched.descriptor), platforms })
    }
}

/// A descriptor in the terms of the API.
pub(super) fn descriptor(of: &Descriptor) -> hull_docker_api::Descriptor {
    hull_docker_api::Descriptor {
        media_type: of.media_type.clone(),
        digest: of.digest.to_string(),
        size: i64::try_from(of.size).unwrap_or(i64::MAX),
        urls: of.urls.clone(),
        annotations: of.annotations.clone(),
        platform: of.platform.as_ref().map(platform),
        artifact_type: of.artifact_type.clone().unwrap_or_default(),
    }
}

fn platform_of(entry: &Descriptor) -> Option<DescriptorPlatform> {
    entry.platform.as_ref().filter(|_| !entry.is_attestation()).map(platform)
}

pub(super) fn platform(platform: &hull_model::Platform) -> DescriptorPlatform {
    DescriptorPlatform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
    }
}

/// Turns what a client sent into what the registry client takes, which is never printed.
pub(super) fn credentials(auth: AuthConfig) -> Credentials {
    let (username, password) = match (auth.username.is_empty(), auth.auth.is_empty()) {
        (true, false) => decode_pair(&auth.auth).unwrap_or_default(),
        _ => (auth.username, auth.password),
    };
    Credentials {
        username,
        password: Secret::new(password),
        identity_token: Secret::new(auth.identitytoken),
        registry_token: Secret::new(auth.registrytoken),
    }
}

/// `user:password` in base64, as in docker's config.json.
fn decode_pair(text: &str) -> Option<(String, String)> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Host of a registry's address as clients write it: `https://index.docker.io/v1/`, `quay.io`, `localhost:5000`.
fn registry_domain(address: &str) -> String {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    match host.split('/').next().unwrap_or(host) {
        "" | "index.docker.io" | "registry-1.docker.io" => hull_model::DEFAULT_DOMAIN.to_owned(),
        host => host.to_owned(),
    }
}

/// What a failed exchange with a registry means to a client.
pub(super) fn error(error: DistributionError) -> Error {
    let kind = match &error {
        DistributionError::PullDenied { .. }
        | DistributionError::ManifestUnknown { .. }
        | DistributionError::BlobUnknown { .. } => Kind::NotFound,
        DistributionError::PushDenied { .. } | DistributionError::Blocked(_) => Kind::Forbidden,
        DistributionError::Login { .. } => Kind::Unauthorized,
        _ => Kind::System,
    };
    Error::new(kind, crate::chain(&error)).because(error)
}

/// What a failed pull, push, load or save means to a client.
pub(super) fn image_error(failed: ImageError) -> Error {
    let kind = match &failed {
        ImageError::NoPlatform(_) | ImageError::WrongPlatform { .. } => Kind::NotFound,
        ImageError::NotAnImage(_) | ImageError::Document(_) | ImageError::Archive(_) => {
            Kind::InvalidParameter
        }
        _ => Kind::System,
    };
    match failed {
        ImageError::Distribution(failed) => error(failed),
        failed => Error::new(kind, crate::chain(&failed)).because(failed),
    }
}

fn host_certificates() -> BTreeMap<String, HostConfig> {
    let mut hosts: BTreeMap<String, HostConfig> = BTreeMap::new();
    for directory in HOST_CERTIFICATES {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let host = hosts.entry(entry.file_name().to_string_lossy().into_owned()).or_default();
            read_host(&entry.path(), host);
        }
    }
    hosts
}

/// `*.crt` are authorities, `<name>.cert` with `<name>.key` identify the client.
fn read_host(directory: &Path, host: &mut HostConfig) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = file.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => host.roots.extend(fs::read(&path).ok()),
            Some("cert") => {
                let key = fs::read_to_string(path.with_extension("key")).ok();
                if let (Ok(certificate), Some(key)) = (fs::read(&path), key) {
                    host.client = Some((certificate, Secret::new(key)));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_registries() {
        for (address, domain) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("quay.io", "quay.io"),
            ("http://localhost:5000/v2/", "localhost:5000"),
        ] {
            assert_eq!(registry_domain(address), domain);
        }
    }

    #[test]
    fn credentials_come_in_two_forms_and_are_never_printed() {
        let pair = AuthConfig { auth: "dXNlcjpwYTpzcw==".to_owned(), ..AuthConfig::default() };
        let read = credentials(pair);
        assert_eq!((read.username.as_str(), read.password.reveal()), ("user", "pa:ss"));
        assert!(!format!("{read:?}").contains("pa:ss"));
    }
}
