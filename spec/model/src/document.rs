use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Digest, Platform, media_type};

/// Pointer to content: what it is, its digest and size (OCI image-spec descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Kind of the content.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Places it can also be fetched from (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub urls: Vec<String>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// For an entry of an index: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Kind of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// With nothing but the three required fields.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// Whether it is a build attestation beside the images of an index, which is no image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|t| t == "attestation-manifest")
    }
}

/// Image manifest (OCI image-spec manifest.md; Docker schema 2 has the same shape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Own media type; OCI allows to leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Kind of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// What this is about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// Image index (OCI image-spec image-index.md; Docker's manifest list has the same shape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Own media type; OCI allows to leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Kind of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// One manifest for each platform, and attestations.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// What this is about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The best entry for a platform. An entry that names none is taken when nothing better is there.
    pub fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        let rank = |d: &Descriptor| match &d.platform {
            _ if d.is_attestation() => None,
            Some(p) => platform.rank(p),
            None => Some(u32::MAX),
        };
        self.manifests
            .iter()
            .filter_map(|d| Some((rank(d)?, d)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, d)| d)
    }
}

/// What a reference can resolve to.
// One at a time, and soon taken apart: a box would only get in the way.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Manifest),
    /// One for each platform.
    Index(Index),
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or fields missing.
    #[error("{what} is not valid")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// Docker's first format, which nobody supports any more.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported: rebuild or push the image with a current tool"
    )]
    Schema1,
    /// Any other version.
    #[error("manifest schema version {0} is not supported")]
    SchemaVersion(u64),
    /// Both or neither of `layers` and `manifests`, or a type that contradicts them.
    #[error("manifest is ambiguous or of unsupported type {0:?}")]
    Type(String),
    /// The configuration has another number of layers than the manifest.
    #[error("image has {layers} layers but its configuration lists {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

impl ManifestOrIndex {
    /// Parses the bytes of a manifest or index. `media_type` is what the registry or descriptor said, perhaps
    /// empty; the document's own type and shape must not contradict it (CVE-2021-41190).
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        let probe: Probe = serde_json::from_slice(bytes).map_err(json("manifest"))?;
        let own = probe.media_type.as_deref().unwrap_or_default();
        if probe.schema_version == 1 || media_type::is_schema1(media_type) || media_type::is_schema1(own) {
            return Err(DocumentError::Schema1);
        }
        if probe.schema_version != 2 {
            return Err(DocumentError::SchemaVersion(probe.schema_version));
        }
        let kind = if own.is_empty() { media_type } else { own };
        let is_index = probe.manifests.is_some();
        let is_manifest = probe.config.is_some() || probe.layers.is_some();
        let contradicts =
            |t: &str| (media_type::is_index(t) && !is_index) || (media_type::is_manifest(t) && !is_manifest);
        if is_index == is_manifest || contradicts(media_type) || contradicts(own) {
            return Err(DocumentError::Type(kind.into()));
        }
        if is_index {
            return Ok(Self::Index(serde_json::from_slice(bytes).map_err(json("image index"))?));
        }
        Ok(Self::Manifest(serde_json::from_slice(bytes).map_err(json("image manifest"))?))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Image configuration (OCI image-spec config.md with Docker's additions, docker-image-spec).
///
/// The document's digest is the image's id, so its bytes are always kept as they came; this is for reading
/// and for making new ones. Fields unknown here are kept in `extra`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub variant: String,
    /// GOOS.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of the operating system.
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_features: Vec<String>,
    /// Defaults for containers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerDefaults,
    /// The layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How it was made, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Everything else (`container`, `container_config`, `docker_version`, `parent`, …).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageConfig {
    /// Parses the document.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        serde_json::from_slice(bytes).map_err(json("image configuration"))
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }

    /// A string of `extra`, empty if it is not there (`docker_version`, `parent`, …).
    pub fn extra_str(&self, name: &str) -> &str {
        self.extra.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Checks that it has as many layers as its manifest.
    pub fn check_layers(&self, manifest: &Manifest) -> Result<(), DocumentError> {
        let (layers, diff_ids) = (manifest.layers.len(), self.rootfs.diff_ids.len());
        if layers == diff_ids { Ok(()) } else { Err(DocumentError::LayerCount { layers, diff_ids }) }
    }
}

/// The `rootfs` of an image configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layer tars, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// A remark.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The `config` of an image configuration: what a container starts with. Names are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDefaults {
    /// User and group.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Ports, `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// Environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Program put before the command. `None` and empty differ to Docker.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "string_or_list")]
    pub entrypoint: Option<Vec<String>>,
    /// Command.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "string_or_list")]
    pub cmd: Option<Vec<String>>,
    /// Paths that become volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Directory the command starts in.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to stop.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Whether the command is already escaped (Windows).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// How to see whether it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images built from this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Shell for the shell form of instructions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    /// Everything else older builders wrote (`Hostname`, `Tty`, `Image`, …).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Docker's health check; times in nanoseconds, 0 means inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `[]` inherit, `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", …]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// Chain ids of a list of diff ids, lowest first: the name of a layer together with all those below it
/// (OCI image-spec config.md, "Layer ChainID"). `hash` is SHA-256 of its argument.
pub fn chain_ids(diff_ids: &[Digest], hash: impl Fn(&[u8]) -> Digest) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => hash(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

fn json(what: &'static str) -> impl Fn(serde_json::Error) -> DocumentError {
    move |source| DocumentError::Json { what, source }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes nil slices, maps and strings as null.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Docker accepts a single string where a command is expected.
fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn parse(text: &str) -> Result<ManifestOrIndex, DocumentError> {
        ManifestOrIndex::parse("", text.as_bytes())
    }

    #[test]
    fn manifest_and_index_are_told_apart() {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{A}","size":7}},"layers":null,"annotations":null}}"#
        );
        assert!(matches!(parse(&manifest), Ok(ManifestOrIndex::Manifest(m)) if m.layers.is_empty()));
        assert!(ManifestOrIndex::parse(media_type::OCI_INDEX, manifest.as_bytes()).is_err());
        let index =
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(matches!(parse(index), Ok(ManifestOrIndex::Index(_))));
        assert!(ManifestOrIndex::parse(media_type::OCI_MANIFEST, index.as_bytes()).is_err());
    }

    #[test]
    fn bad_manifests_are_refused() {
        for text in [
            "",
            "null",
            "[]",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":3,"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"config":{"digest":"sha256:1","size":1},"layers":[]}"#,
            &format!(r#"{{"schemaVersion":2,"config":{{"digest":"{A}","size":-1}},"layers":[]}}"#),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(matches!(parse(r#"{"schemaVersion":1,"fsLayers":[]}"#), Err(DocumentError::Schema1)));
    }

    #[test]
    fn index_chooses_the_platform() {
        let entry = |platform: Option<&str>, byte: u8| Descriptor {
            platform: platform.map(|p| p.parse().unwrap()),
            ..Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&[byte; 32]), 1)
        };
        let mut attestation = entry(None, 9);
        attestation.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        let mut index: Index = serde_json::from_str(r#"{"schemaVersion":2,"manifests":null}"#).unwrap();
        index.manifests = vec![
            attestation,
            entry(Some("linux/386"), 1),
            entry(Some("linux/arm64"), 2),
            entry(Some("linux/amd64"), 3),
        ];
        let chosen = |p: &str| index.choose(&p.parse().unwrap()).map(|d| d.digest.hex()[..2].to_owned());
        assert_eq!(chosen("linux/amd64").as_deref(), Some("03"));
        assert_eq!(chosen("linux/arm64").as_deref(), Some("02"));
        assert_eq!(chosen("linux/s390x"), None);
    }

    #[test]
    fn config_keeps_what_it_does_not_know() {
        let text = r#"{"architecture":"amd64","os":"linux","docker_version":"1.2","config":{"Cmd":"sh","Entrypoint":null,"Env":null,"Tty":true,"ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, Some(vec!["sh".into()]));
        assert_eq!(config.extra_str("docker_version"), "1.2");
        let again: Value = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again["config"]["Tty"], Value::Bool(true));
        assert_eq!(again["config"]["ExposedPorts"]["80/tcp"], serde_json::json!({}));
        assert_eq!(again["docker_version"], "1.2");
    }
}
