//! What refers to a manifest: signatures, SBOMs, other artifacts (distribution-spec, listing referrers).

use hull_model::{Descriptor, Digest, Index, ManifestOrIndex, media_type};
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Method, StatusCode};

use crate::auth::escape;
use crate::repository::{Ask, Repository, next_page, protocol, read_body};
use crate::{DistributionError, MAX_DOCUMENT};

/// What refers to a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    /// One for each.
    pub manifests: Vec<Descriptor>,
    /// The registry lacks the referrers API; the list is the index under the fallback tag.
    pub by_tag: bool,
}

impl Repository {
    /// Everything that refers to a manifest, of one artifact type if it is given.
    ///
    /// # Errors
    /// When the registry cannot be reached or answers nonsense. One that knows no referrers has none.
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, DistributionError> {
        let mut path = format!("referrers/{subject}");
        if let Some(kind) = artifact_type {
            path = format!("{path}?artifactType={}", escape(kind));
        }
        let mut found = Referrers::default();
        // A registry that pages for ever is cut off.
        for _ in 0..100 {
            let headers = vec![(ACCEPT, media_type::OCI_INDEX.to_owned())];
            let ask = Ask { method: Method::GET, path: &path, headers, retry: true };
            let (uri, answer) = self.ask_any(&ask).await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => {
                    found = self.referrers_by_tag(subject).await?;
                    break;
                }
                _ => return Err(self.status_error(&Method::GET, (uri, answer)).await),
            }
            let next = next_page(answer.headers(), &uri);
            let body = read_body(self.client(), answer, MAX_DOCUMENT, &uri).await?;
            let index: Index = serde_json::from_slice(&body).map_err(|e| protocol(&uri, e.to_string()))?;
            found.manifests.extend(index.manifests);
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        // Filtering is the registry's to refuse.
        found.manifests.retain(|d| artifact_type.is_none_or(|kind| d.artifact_type.as_deref() == Some(kind)));
        Ok(found)
    }

    async fn referrers_by_tag(&self, subject: &Digest) -> Result<Referrers, DistributionError> {
        let tagged = self.fallback_tag(subject)?;
        match self.manifest(&tagged).await {
            Ok(fetched) => match ManifestOrIndex::parse(&fetched.descriptor.media_type, &fetched.bytes)? {
                ManifestOrIndex::Index(index) => Ok(Referrers { manifests: index.manifests, by_tag: true }),
                ManifestOrIndex::Manifest(_) => Ok(Referrers::default()),
            },
            Err(DistributionError::ManifestUnknown { .. }) => {
                Ok(Referrers { by_tag: true, ..Referrers::default() })
            }
            Err(e) => Err(e),
        }
    }

    fn fallback_tag(&self, subject: &Digest) -> Result<hull_model::Reference, DistributionError> {
        let tag = format!("{}-{}", subject.algorithm().as_str(), subject.hex());
        self.reference().with_tag(&tag).map_err(|e| DistributionError::Setup(e.to_string()))
    }

    /// After a manifest with a subject was pushed: a registry that did not take note of it (no `OCI-Subject` in its
    /// answer) gets the index under the fallback tag.
    pub(crate) async fn note_subject(
        &self,
        answer: &HeaderMap,
        pushed: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), DistributionError> {
        if answer.contains_key("oci-subject") {
            return Ok(());
        }
        let (subject, artifact_type, annotations) = match ManifestOrIndex::parse(&pushed.media_type, bytes)? {
            ManifestOrIndex::Manifest(m) => {
                let kind = m.artifact_type.unwrap_or(m.config.media_type);
                (m.subject, Some(kind), m.annotations)
            }
            ManifestOrIndex::Index(i) => (i.subject, i.artifact_type, i.annotations),
        };
        let Some(subject) = subject else { return Ok(()) };
        let mut known = self.referrers(&subject.digest, None).await?;
        if !known.by_tag || known.manifests.iter().any(|d| d.digest == pushed.digest) {
            return Ok(());
        }
        known.manifests.push(Descriptor { artifact_type, annotations, ..pushed.clone() });
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.into()),
            artifact_type: None,
            manifests: known.manifests,
            subject: None,
            annotations: Default::default(),
        };
        let bytes = serde_json::to_vec(&index).map_err(|e| DistributionError::Setup(e.to_string()))?;
        let tagged = self.fallback_tag(&subject.digest)?;
        // Boxed: pushing a manifest comes back here, but an index of referrers has no subject.
        Box::pin(self.push_manifest(&tagged, media_type::OCI_INDEX, &bytes)).await.map(drop)
    }
}
