//! What the registry reads in a manifest: which blobs and manifests it names, and its subject.

use hull_model::{Digest, media_type};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{ApiError, ApiResult, Code};

/// Descriptors in one manifest at most.
const DESCRIPTORS_MAX: usize = 10_000;

/// A blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What kind.
    pub media_type: String,
    /// It is not distributed with the image and need not be here.
    pub elsewhere: bool,
}

/// A manifest or index, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Configuration and layers.
    pub blobs: Vec<Used>,
    /// Manifests of an index.
    pub manifests: Vec<Digest>,
    /// What it is about.
    pub subject: Option<Digest>,
    /// What kind of artifact it is, as a list of referrers says it.
    pub artifact_type: Option<String>,
    /// Its annotations, JSON.
    pub annotations: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<Value>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    blobs: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    fs_layers: Option<Value>,
    subject: Option<RawDescriptor>,
    annotations: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Document {
    /// Reads a manifest that was sent with that media type; refuses what is none or contradicts itself.
    pub fn parse(content_type: &str, bytes: &[u8]) -> ApiResult<Self> {
        let invalid = |message: String| ApiError::new(Code::ManifestInvalid, message);
        if media_type::is_schema1(content_type) {
            return Err(invalid(
                "image manifest schema 1 is no longer supported; build and push the image anew".into(),
            ));
        }
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|e| invalid(format!("the manifest cannot be read: {e}")))?;
        if raw.fs_layers.is_some() || raw.schema_version.as_ref().is_some_and(|v| v.as_u64() != Some(2)) {
            return Err(invalid("the manifest's schemaVersion is not 2".into()));
        }
        if let Some(inner) = raw.media_type.as_deref().filter(|inner| *inner != content_type) {
            return Err(invalid(format!(
                "the manifest says it is {inner:?} but was sent as {content_type:?}"
            )));
        }
        raw.check(content_type).map_err(invalid)?;
        Ok(raw.document())
    }
}

impl Raw {
    fn check(&self, content_type: &str) -> Result<(), String> {
        let image = self.config.is_some() || self.layers.is_some();
        if image && self.manifests.is_some() {
            // What different clients would take for different things (CVE-2021-41190).
            return Err("the manifest is an image and an index at once".into());
        }
        if media_type::is_index(content_type) && (image || self.manifests.is_none()) {
            return Err(format!("{content_type} needs manifests, and neither config nor layers"));
        }
        if media_type::is_manifest(content_type) && (self.config.is_none() || self.layers.is_none()) {
            return Err(format!("{content_type} needs config and layers"));
        }
        let count = [&self.layers, &self.blobs, &self.manifests];
        if count.into_iter().flatten().map(Vec::len).sum::<usize>() > DESCRIPTORS_MAX {
            return Err(format!("the manifest has more than {DESCRIPTORS_MAX} descriptors"));
        }
        Ok(())
    }

    fn document(self) -> Document {
        let config_type = self.config.as_ref().and_then(|config| config.media_type.clone());
        let artifact_type = self.artifact_type.filter(|kind| !kind.is_empty()).or(config_type);
        let named = self.config.into_iter().chain(self.layers.into_iter().flatten());
        Document {
            blobs: named.chain(self.blobs.into_iter().flatten()).map(RawDescriptor::used).collect(),
            manifests: self.manifests.into_iter().flatten().map(|d| d.digest).collect(),
            subject: self.subject.map(|subject| subject.digest),
            artifact_type,
            annotations: self
                .annotations
                .filter(|annotations| !annotations.is_empty())
                .map(|annotations| Value::Object(annotations).to_string()),
        }
    }
}

impl RawDescriptor {
    fn used(self) -> Used {
        let media_type = self.media_type.unwrap_or_default();
        let foreign = media_type::is_foreign_layer(&media_type) || media_type.contains(".nondistributable.");
        Used {
            elsewhere: foreign || self.urls.is_some_and(|urls| !urls.is_empty()),
            digest: self.digest,
            size: self.size,
            media_type,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = media_type::OCI_MANIFEST;
    const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn parse(kind: &str, text: &str) -> Result<Document, String> {
        Document::parse(kind, text.replace("DIGEST", &format!("sha256:{HEX}")).as_bytes())
            .map_err(|e| e.message)
    }

    #[test]
    fn an_image() {
        let document = parse(
            MANIFEST,
            r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"DIGEST","size":3},
                "layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"DIGEST","size":4}],
                "subject":{"mediaType":"x","digest":"DIGEST","size":1},"annotations":{"k":"v"}}"#,
        )
        .unwrap();
        assert_eq!(document.blobs.iter().map(|b| b.elsewhere).collect::<Vec<_>>(), [false, true]);
        assert_eq!(document.artifact_type.as_deref(), Some("a/b"));
        assert_eq!(document.annotations.as_deref(), Some(r#"{"k":"v"}"#));
        assert!(document.subject.is_some());
    }

    #[test]
    fn what_is_refused() {
        for (kind, text, sentence) in [
            (MANIFEST, "", "cannot be read"),
            (MANIFEST, "[]", "cannot be read"),
            (MANIFEST, "{}", "needs config and layers"),
            (MANIFEST, r#"{"schemaVersion":1}"#, "schemaVersion"),
            (MANIFEST, r#"{"mediaType":"application/x"}"#, "was sent as"),
            (MANIFEST, r#"{"config":{"digest":"DIGEST","size":1},"layers":[],"manifests":[]}"#, "at once"),
            (MANIFEST, r#"{"config":{"digest":"../../etc","size":1},"layers":[]}"#, "cannot be read"),
            (MANIFEST, r#"{"config":{"digest":"DIGEST","size":-1},"layers":[]}"#, "cannot be read"),
            (media_type::OCI_INDEX, r#"{"schemaVersion":2}"#, "needs manifests"),
            (media_type::DOCKER_MANIFEST_V1_SIGNED, "{}", "schema 1"),
        ] {
            let error = parse(kind, text).unwrap_err();
            assert!(error.contains(sentence), "{text}: {error}");
        }
    }
}
