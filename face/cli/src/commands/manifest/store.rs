//! Manifest lists under construction, in docker's place and form: `manifests/<list>/<manifest>` below the
//! configuration directory.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_docker_api::{Descriptor, DescriptorPlatform, ManifestDocument};
use hull_model::{Reference, media_type};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::write_private;
use crate::error::{Failure, Result};

/// A manifest of a list, with what `annotate` says of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Full name, with tag or digest.
    #[serde(rename = "Ref")]
    pub(super) reference: String,
    #[serde(rename = "Descriptor")]
    pub(super) descriptor: Descriptor,
    /// The document, base64.
    #[serde(rename = "Raw")]
    pub(super) raw: String,
    #[serde(rename = "SchemaV2Manifest", default, skip_serializing_if = "Option::is_none")]
    schema2: Option<Value>,
    #[serde(rename = "OCIManifest", default, skip_serializing_if = "Option::is_none")]
    oci: Option<Value>,
}

impl Stored {
    pub(super) fn new(reference: &Reference, document: ManifestDocument) -> Result<Self> {
        let ManifestDocument { mut descriptor, raw, platform } = document;
        let parsed: Value = serde_json::from_slice(&decode(&raw)?)?;
        let oci = descriptor.media_type == media_type::OCI_MANIFEST;
        descriptor.platform = platform.or(descriptor.platform);
        Ok(Self {
            reference: reference.to_string(),
            descriptor,
            raw,
            schema2: (!oci).then(|| parsed.clone()),
            oci: oci.then_some(parsed),
        })
    }

    /// The document as the registry has it.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        decode(&self.raw)
    }

    /// What it runs on, to be completed.
    pub(super) fn platform(&mut self) -> &mut DescriptorPlatform {
        self.descriptor.platform.get_or_insert_default()
    }
}

fn decode(raw: &str) -> Result<Vec<u8>> {
    STANDARD.decode(raw).map_err(|error| Failure::new(format!("manifest is not base64: {error}")))
}

/// The lists below a configuration directory.
pub(super) struct Lists {
    root: PathBuf,
}

impl Lists {
    pub(super) fn new(config_directory: &Path) -> Self {
        Self { root: config_directory.join("manifests") }
    }

    fn folder(&self, list: &Reference) -> PathBuf {
        self.root.join(file_name(list))
    }

    pub(super) fn contains(&self, list: &Reference) -> bool {
        self.folder(list).is_dir()
    }

    pub(super) fn save(&self, list: &Reference, manifest: &Stored) -> Result<()> {
        let reference = super::reference(&manifest.reference)?;
        fs::create_dir_all(self.folder(list))?;
        write_private(&self.folder(list).join(file_name(&reference)), &serde_json::to_vec(manifest)?)
    }

    /// One manifest of a list; `None` if it is not in it.
    pub(super) fn find(&self, list: &Reference, manifest: &Reference) -> Result<Option<Stored>> {
        match fs::read(self.folder(list).join(file_name(manifest))) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All manifests of a list, by file name as docker; `None` if there is no such list.
    pub(super) fn all(&self, list: &Reference) -> Result<Option<Vec<Stored>>> {
        let entries = match fs::read_dir(self.folder(list)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.sort();
        let read = |path: &PathBuf| Ok(serde_json::from_slice(&fs::read(path)?)?);
        paths.iter().map(read).collect::<Result<Vec<Stored>>>().map(Some)
    }

    pub(super) fn remove(&self, list: &Reference) -> Result<()> {
        Ok(fs::remove_dir_all(self.folder(list))?)
    }
}

/// A full name as a file's: `docker.io_library_busybox-latest`.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_kept_where_docker_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let lists = Lists::new(folder.path());
        let list = super::super::reference("team/app").unwrap();
        assert!(lists.all(&list).unwrap().is_none());
        let member = super::super::reference("localhost:5000/team/app:arm").unwrap();
        let document = ManifestDocument {
            descriptor: Descriptor { media_type: media_type::OCI_MANIFEST.into(), ..Descriptor::default() },
            raw: STANDARD.encode("{}"),
            platform: None,
        };
        let mut stored = Stored::new(&member, document).unwrap();
        stored.platform().architecture = "arm64".into();
        lists.save(&list, &stored).unwrap();
        let path = "manifests/docker.io_team_app-latest/localhost-5000_team_app-arm";
        assert!(folder.path().join(path).is_file());
        assert_eq!(lists.find(&list, &member).unwrap().unwrap().platform().architecture, "arm64");
        assert_eq!(lists.all(&list).unwrap().unwrap().len(), 1);
        lists.remove(&list).unwrap();
        assert!(!lists.contains(&list));
    }
}
