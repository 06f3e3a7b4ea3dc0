//! Repositories that are caches of an upstream registry.
//!
//! A tag is asked for again when its time is over; while the upstream does not answer, what is here is served. A blob
//! is fetched once whoever asks, and goes to all who wait while it arrives; it becomes one of the repository's when its
//! digest was checked.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hull_distribution::{Access, Client, Credentials, DistributionError, Repository};
use hull_model::{Descriptor, Digest, Reference as Remote};
use tokio::sync::watch;

use crate::api::blobs;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Head, Payload, Response, Tail};
use crate::manifest::Document;
use crate::name::{Name, Reference, Tag};
use crate::service::Service;
use crate::store::{Content, INLINE_MAX, PutManifest, Session, StoredManifest, now};

/// One upstream.
pub struct Upstream {
    /// Repositories below this name are its cache; empty is all of them.
    pub prefix: String,
    /// Host and perhaps port.
    pub host: String,
    /// How it is reached.
    pub client: Client,
    /// Who this registry is there.
    pub credentials: Option<Credentials>,
    /// How long a tag is served without asking.
    pub ttl: Duration,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("prefix", &self.prefix)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// The upstreams, and what is being fetched.
#[derive(Debug, Default)]
pub struct Caches {
    upstreams: Vec<Upstream>,
    asking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    fetches: Fetches,
}

type Fetches = Arc<Mutex<HashMap<(Name, Digest), Arc<Fetch>>>>;

/// A blob on its way.
#[derive(Debug)]
struct Fetch {
    /// Where it goes; none if it is small.
    file: Option<Arc<std::fs::File>>,
    written: watch::Receiver<u64>,
    failed: OnceLock<String>,
}

/// A repository that is a cache.
#[derive(Debug)]
pub(crate) struct Cache<'c> {
    caches: &'c Caches,
    upstream: &'c Upstream,
    local: Name,
    remote: Remote,
}

impl Caches {
    /// Caches of these upstreams; the longest prefix that fits a name counts.
    pub fn new(mut upstreams: Vec<Upstream>) -> Self {
        upstreams.sort_by_key(|upstream| std::cmp::Reverse(upstream.prefix.len()));
        Self { upstreams, ..Self::default() }
    }

    /// The name here of a repository that a client asks for by its host (`ns`, distribution-spec "Registry Proxying").
    pub(crate) fn localized(&self, name: Name, host: Option<&str>) -> Name {
        let Some(host) = host else { return name };
        let host =
            if host == "registry-1.docker.io" || host == "index.docker.io" { "docker.io" } else { host };
        let upstream =
            self.upstreams.iter().find(|upstream| upstream.host == host && !upstream.prefix.is_empty());
        match upstream {
            Some(upstream) => Name::parse(&format!("{}/{name}", upstream.prefix)).unwrap_or(name),
            None => name,
        }
    }

    /// The cache that a repository is, if it is one.
    pub(crate) fn find(&self, name: &Name) -> Option<Cache<'_>> {
        let fitting = |upstream: &&Upstream| rest(upstream, name).is_some();
        let upstream = self.upstreams.iter().find(fitting)?;
        let remote = format!("{}/{}", upstream.host, rest(upstream, name)?).parse().ok()?;
        Some(Cache { caches: self, upstream, local: name.clone(), remote })
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.retain(|_, turn| Arc::strong_count(turn) > 1);
        asking.entry(key.to_owned()).or_default().clone()
    }
}

fn rest<'n>(upstream: &Upstream, name: &'n Name) -> Option<&'n str> {
    if upstream.prefix.is_empty() {
        return Some(name.as_str());
    }
    name.as_str().strip_prefix(&upstream.prefix)?.strip_prefix('/')
}

/// A manifest, and a sentence for the client if it may be out of date.
type Served = Option<(StoredManifest, Option<String>)>;

impl Cache<'_> {
    fn repository(&self) -> Repository {
        self.upstream.client.repository(&self.remote, Access::Pull, self.upstream.credentials.clone())
    }

    /// A manifest: from here while it is fresh, else from the upstream.
    pub(crate) async fn manifest(&self, service: &Service, reference: &Reference) -> ApiResult<Served> {
        let turn = self.caches.turn(&format!("{}@{reference}", self.local));
        let _turn = turn.lock().await;
        let here = service.store.manifest(&self.local, reference)?;
        let fresh = match reference {
            Reference::Digest(_) => here.is_some(),
            Reference::Tag(tag) => {
                let state = service.store.tag_state(&self.local, tag)?;
                state.is_some_and(|state| now() < state.checked + self.upstream.ttl.as_secs() as i64)
            }
        };
        if fresh {
            service.metrics().cache_hits.fetch_add(1, Ordering::Relaxed);
            if let Some(manifest) = &here {
                // Whether this is recorded does not matter to the client.
                let _ = service.store.use_manifest(self.local.clone(), manifest.digest.clone()).await;
            }
            return Ok(here.map(|manifest| (manifest, None)));
        }
        match self.ask(service, reference, here.as_ref()).await {
            Ok(()) => Ok(service.store.manifest(&self.local, reference)?.map(|manifest| (manifest, None))),
            Err(DistributionError::ManifestUnknown { .. }) => {
                if matches!(reference, Reference::Tag(_)) && here.is_some() {
                    service.store.delete_manifest(self.local.clone(), reference.clone()).await?;
                }
                Ok(None)
            }
            Err(error) => match here {
                Some(manifest) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(repository = %self.local, error, "upstream does not answer; serving what is here");
                    service.metrics().cache_stale.fetch_add(1, Ordering::Relaxed);
                    let warning = format!("{} did not answer; this may be out of date", self.upstream.host);
                    Ok(Some((manifest, Some(warning))))
                }
                None => Err(self.failure(&error)),
            },
        }
    }

    /// Brings a manifest here, or confirms the one that is here.
    async fn ask(
        &self,
        service: &Service,
        reference: &Reference,
        here: Option<&StoredManifest>,
    ) -> Result<(), DistributionError> {
        let repository = self.repository();
        let remote = match reference {
            Reference::Tag(tag) => match self.remote.with_tag(tag.as_str()) {
                Ok(remote) => remote,
                Err(_) => return Err(unusable(self, "the tag is not valid there")),
            },
            Reference::Digest(digest) => self.remote.with_digest(digest.clone()),
        };
        if let (Some(here), Reference::Tag(tag)) = (here, reference)
            && repository.resolve(&remote).await?.digest.as_str() == here.digest
        {
            service.metrics().cache_hits.fetch_add(1, Ordering::Relaxed);
            let confirmed = service.store.confirm_tag(self.local.clone(), tag.clone()).await;
            return confirmed.map_err(|_| unusable(self, "the confirmation was not recorded"));
        }
        let fetched = repository.manifest(&remote).await?;
        service.metrics().cache_misses.fetch_add(1, Ordering::Relaxed);
        service.metrics().cache_fetched.fetch_add(fetched.bytes.len() as u64, Ordering::Relaxed);
        let tags: Vec<Tag> = match reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => Vec::new(),
        };
        let document = Document::parse(&fetched.descriptor.media_type, &fetched.bytes)
            .map_err(|error| unusable(self, &error.message))?;
        let put = PutManifest {
            repository: self.local.clone(),
            digest: fetched.descriptor.digest,
            media_type: fetched.descriptor.media_type,
            bytes: fetched.bytes,
            document,
            tags,
            whole: false,
        };
        service.store.put_manifest(put).await.map_err(|error| unusable(self, &error.to_string()))
    }

    fn failure(&self, error: &DistributionError) -> ApiError {
        tracing::warn!(repository = %self.local, error = error as &dyn std::error::Error, "upstream failed");
        match error {
            DistributionError::PullDenied { .. } => ApiError::new(
                Code::Denied,
                format!("{} denies access to {}", self.upstream.host, self.remote.path()),
            ),
            DistributionError::RateLimited { .. } => ApiError::new(
                Code::TooManyRequests,
                format!("{} limits the rate of requests", self.upstream.host),
            )
            .header("Retry-After", "60"),
            _ => ApiError::new(Code::Upstream, format!("{} did not answer: {error}", self.upstream.host)),
        }
    }

    /// A blob that is not here yet.
    pub(crate) async fn blob(&self, service: &Service, head: &Head, digest: &Digest) -> ApiResult<Response> {
        let Some((size, media_type)) = service.store.named_blob(&self.local, digest)? else {
            return Err(blobs::unknown(digest));
        };
        if head.method == crate::http::Method::Head {
            return Ok(blobs::headers(200, digest).payload(blobs::length_only(size)));
        }
        let part = blobs::range(head, digest, size)?;
        let descriptor = Descriptor::new(&media_type, digest.clone(), size);
        let fetch = self.fetch(service, descriptor).await?;
        let mut written = fetch.written.clone();
        let wanted = if fetch.file.is_some() { 1 } else { size };
        if written.wait_for(|there| *there >= wanted.min(size)).await.is_err() {
            let reason = fetch.failed.get().cloned().unwrap_or_default();
            return Err(ApiError::new(
                Code::Upstream,
                format!("{} did not deliver: {reason}", self.upstream.host),
            ));
        }
        let (offset, length) = part.unwrap_or((0, size));
        let mut response = blobs::headers(if part.is_some() { 206 } else { 200 }, digest);
        if part.is_some() {
            let last = offset + length - 1;
            response = response.header("Content-Range", format!("bytes {offset}-{last}/{size}"));
        }
        match &fetch.file {
            Some(file) => {
                Ok(response.payload(Payload::Tail(Tail { file: file.clone(), offset, length, written })))
            }
            None => {
                let bytes = service.store.blob(&self.local, digest)?.and_then(|blob| blob.inline);
                let bytes = bytes.ok_or_else(|| blobs::unknown(digest))?;
                let part = bytes.get(offset as usize..(offset + length) as usize).unwrap_or_default();
                Ok(response.payload(Payload::Bytes(part.to_vec())))
            }
        }
    }

    /// The fetch of that blob that is under way, begun if there is none.
    async fn fetch(&self, service: &Service, descriptor: Descriptor) -> ApiResult<Arc<Fetch>> {
        let key = (self.local.clone(), descriptor.digest.clone());
        let turn = self.caches.turn(&format!("{}@{}", self.local, descriptor.digest));
        let _turn = turn.lock().await;
        let running = self.caches.fetches.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(fetch) = running {
            return Ok(fetch);
        }
        let id = service.uploads.begin(&self.local)?;
        let session =
            service.uploads.find(&self.local, &id)?.ok_or_else(|| blobs::unknown(&descriptor.digest))?;
        let mut session = session.lock_owned().await;
        session.expect(descriptor.digest.algorithm());
        let file = match descriptor.size > INLINE_MAX as u64 {
            true => {
                let Content::File(file) = session.content()?;
                Some(Arc::new(file))
            }
            false => None,
        };
        let (progress, written) = watch::channel(0);
        let fetch = Arc::new(Fetch { file, written, failed: OnceLock::new() });
        self.caches.fetches.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), fetch.clone());
        let (repository, fetches) = (self.repository(), self.caches.fetches.clone());
        let uploads = service.uploads.clone();
        service.metrics().cache_misses.fetch_add(1, Ordering::Relaxed);
        service.metrics().cache_fetched.fetch_add(descriptor.size, Ordering::Relaxed);
        let running = fetch.clone();
        tokio::spawn(async move {
            let result = download(&repository, &descriptor, &mut session, &key.0, &progress).await;
            match result {
                Ok(()) => uploads.end(&mut session),
                Err(reason) => {
                    tracing::warn!(repository = %key.0, digest = %key.1, reason, "blob not fetched");
                    let _ = running.failed.set(reason);
                    uploads.cancel(&mut session);
                }
            }
            fetches.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
        Ok(fetch)
    }
}

fn unusable(cache: &Cache<'_>, what: &str) -> DistributionError {
    DistributionError::Protocol { url: cache.remote.name(), what: what.to_owned() }
}

/// Fetches a blob into an upload and makes it one of the repository's.
async fn download(
    repository: &Repository,
    descriptor: &Descriptor,
    session: &mut Session,
    local: &Name,
    progress: &watch::Sender<u64>,
) -> Result<(), String> {
    let in_file = descriptor.size > INLINE_MAX as u64;
    let mut stream = repository.blob(descriptor, 0);
    while let Some(piece) = stream.next().await.map_err(|e| e.to_string())? {
        tokio::task::block_in_place(|| session.append(&piece)).map_err(|e| e.to_string())?;
        // The last bytes are handed out once the digest was checked: a client that got all of them got the right ones.
        if in_file && session.offset() < descriptor.size {
            progress.send_replace(session.offset());
        }
    }
    tokio::task::block_in_place(|| session.seal(&descriptor.digest)).map_err(|e| e.to_string())?;
    session.publish(local, &descriptor.digest).await.map_err(|e| e.to_string())?;
    progress.send_replace(descriptor.size);
    Ok(())
}
