use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hull_content::Hasher;
use hull_model::Descriptor;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use hyper::{Method, Response, StatusCode, Uri};

use crate::error::{Connection, DistributionError};
use crate::ranges::{Pace, Parts};
use crate::repository::{Ask, Repository, pause, protocol};
use crate::transport::shown;

/// A blob's bytes as they arrive, whole and once, whatever happens to the connections below: after a broken or silent
/// one the transfer goes on where it stopped. Its size is checked; its digest is for whoever stores the bytes.
pub struct BlobStream<'a> {
    repository: &'a Repository,
    descriptor: Descriptor,
    source: Option<Source>,
    /// Next byte to hand out.
    position: u64,
    /// Where to stop: the size, or the end of a part.
    end: u64,
    /// Attempts since the last byte.
    failures: u32,
    pace: Pace,
    /// Whether the registry serves ranges, as far as it has said.
    ranges: bool,
    /// Never shared: the lock only lets a stream be borrowed between threads.
    parts: Option<Mutex<Parts<'a>>>,
}

struct Source {
    body: Incoming,
    uri: Uri,
    /// Bytes to throw away: the registry sent all although a part was asked for.
    skip: u64,
}

impl Repository {
    /// Reads a blob from `offset` on; nothing is asked for before the first [`BlobStream::next`].
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> BlobStream<'_> {
        self.blob_part(descriptor, offset, descriptor.size)
    }

    /// Bytes from `start` to `end` of a blob.
    pub(crate) fn blob_part(&self, descriptor: &Descriptor, start: u64, end: u64) -> BlobStream<'_> {
        BlobStream {
            repository: self,
            descriptor: descriptor.clone(),
            source: None,
            position: start,
            end,
            failures: 0,
            pace: Pace::new(),
            ranges: false,
            parts: None,
        }
    }

    /// A whole small blob, digest and size checked.
    pub async fn blob_bytes(
        &self,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, DistributionError> {
        if descriptor.size > limit {
            let (digest, size) = (descriptor.digest.clone(), descriptor.size);
            return Err(hull_content::ContentError::TooLarge { digest, size, limit }.into());
        }
        let mut stream = self.blob(descriptor, 0);
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        let mut bytes = Vec::with_capacity(descriptor.size as usize);
        while let Some(piece) = stream.next().await? {
            hasher.update(&piece);
            bytes.extend_from_slice(&piece);
        }
        let (expected, actual) = (descriptor.digest.clone(), hasher.finish());
        if actual != expected {
            return Err(DistributionError::DigestMismatch { what: "blob".into(), expected, actual });
        }
        Ok(bytes)
    }

    /// Whether the registry has that blob.
    pub async fn has_blob(&self, digest: &hull_model::Digest) -> Result<bool, DistributionError> {
        let path = format!("blobs/{digest}");
        let (uri, answer) = self
            .ask_any(&Ask { method: Method::HEAD, path: &path, headers: Vec::new(), retry: true })
            .await?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.status_error(&Method::HEAD, (uri, answer)).await),
        }
    }
}

impl<'a> BlobStream<'a> {
    /// The next piece; `None` when the announced size is complete. A slow transfer of a large blob is continued over
    /// several connections.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DistributionError> {
        if let Some(parts) = &mut self.parts {
            match parts.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).next().await {
                Ok(Some(piece)) => {
                    self.position += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Ok(None) => return Ok(None),
                // One connection may still do; it also finds the words for what is wrong.
                Err(error) => {
                    tracing::debug!(%error, digest = %self.descriptor.digest, "no parts");
                    self.parts = None;
                    self.ranges = false;
                }
            }
        }
        let piece = self.next_single().await?;
        let connections = self.repository.client().config().connections;
        if connections > 1 && self.ranges && self.pace.is_bottleneck(self.end - self.position.min(self.end)) {
            self.source = None;
            let parts = Parts::new(self.repository, &self.descriptor, self.position, connections);
            self.parts = Some(Mutex::new(parts));
        }
        Ok(piece)
    }

    /// The next piece over one connection.
    pub(crate) async fn next_single(&mut self) -> Result<Option<Bytes>, DistributionError> {
        loop {
            if self.position >= self.end {
                return self.check_end().await;
            }
            let asked = Instant::now();
            let result = match &mut self.source {
                Some(source) => read(source, self.repository.client().config().idle_timeout).await,
                None => self.open().await.map(|(source, ranges)| {
                    self.source = Some(source);
                    self.ranges |= ranges;
                    Some(Bytes::new())
                }),
            };
            match result {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    self.failures = 0;
                    self.pace.came(asked, piece.len());
                    self.position += piece.len() as u64;
                    self.check_size()?;
                    return Ok(Some(piece));
                }
                Ok(None) => self.again(self.short()).await?,
                Err(e) if e.is_passing() => self.again(e).await?,
                Err(e) => return Err(e),
            }
        }
    }

    fn is_part(&self) -> bool {
        self.end < self.descriptor.size
    }

    fn short(&self) -> DistributionError {
        let (digest, expected) = (self.descriptor.digest.clone(), self.descriptor.size);
        DistributionError::SizeMismatch { digest, expected, actual: self.position }
    }

    fn check_size(&self) -> Result<(), DistributionError> {
        if self.position > self.end { Err(self.short()) } else { Ok(()) }
    }

    /// All is there: one byte more would be a lie about the size.
    async fn check_end(&mut self) -> Result<Option<Bytes>, DistributionError> {
        if let Some(mut source) = self.source.take() {
            let idle = self.repository.client().config().idle_timeout;
            if let Ok(Some(more)) = read(&mut source, idle).await {
                self.position += more.len() as u64;
                self.check_size()?;
            }
        }
        Ok(None)
    }

    async fn again(&mut self, error: DistributionError) -> Result<(), DistributionError> {
        let config = self.repository.client().config();
        if self.failures >= config.retries {
            return Err(error);
        }
        self.source = None;
        pause(config, self.failures, error.wait()).await;
        self.failures += 1;
        Ok(())
    }

    async fn open(&self) -> Result<(Source, bool), DistributionError> {
        let path = format!("blobs/{}", self.descriptor.digest);
        let first = self.request(&path).await;
        match first {
            Err(DistributionError::BlobUnknown { .. }) if !self.descriptor.urls.is_empty() => {
                self.open_foreign().await
            }
            result => result,
        }
    }

    /// Addresses a manifest names for layers its registry may not hold; asked without credentials, since the address
    /// is not the registry's own.
    async fn open_foreign(&self) -> Result<(Source, bool), DistributionError> {
        let mut last = None;
        for url in
            self.descriptor.urls.iter().filter(|u| u.starts_with("https://") || u.starts_with("http://"))
        {
            let Ok(uri) = url.parse::<Uri>() else { continue };
            let anonymous = self.repository.client().anonymous(&uri);
            match anonymous.ask_foreign(url, self.range()).await.map(|(uri, answer)| self.source(uri, answer))
            {
                Ok(Ok(source)) => return Ok(source),
                Ok(Err(e)) | Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| self.unknown()))
    }

    fn range(&self) -> Vec<(hyper::header::HeaderName, String)> {
        match self.position {
            start if self.is_part() => vec![(RANGE, format!("bytes={start}-{}", self.end - 1))],
            0 => Vec::new(),
            position => vec![(RANGE, format!("bytes={position}-"))],
        }
    }

    async fn request(&self, path: &str) -> Result<(Source, bool), DistributionError> {
        let ask = Ask { method: Method::GET, path, headers: self.range(), retry: false };
        let (uri, answer) = self.repository.ask_any(&ask).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => self.source(uri, answer),
            StatusCode::NOT_FOUND => Err(self.unknown()),
            _ => Err(self.repository.status_error(&Method::GET, (uri, answer)).await),
        }
    }

    fn unknown(&self) -> DistributionError {
        let repository = self.repository.reference().familiar_name();
        DistributionError::BlobUnknown { repository, digest: self.descriptor.digest.clone() }
    }

    /// The body, and whether it came from somebody who serves ranges.
    fn source(&self, uri: Uri, answer: Response<Incoming>) -> Result<(Source, bool), DistributionError> {
        let start = match answer.status() {
            // All of it for each part would be a waste.
            StatusCode::OK if self.is_part() => return Err(protocol(&uri, "no ranges".into())),
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                range_start(&answer).ok_or_else(|| protocol(&uri, "wrong range".into()))?
            }
            status => {
                let (method, url, status) = ("Get".into(), shown(&uri), status.as_u16());
                return Err(DistributionError::Status { method, url, status, detail: String::new() });
            }
        };
        if start > self.position {
            return Err(protocol(&uri, format!("asked for byte {}, got {start}", self.position)));
        }
        let ranges = answer.status() == StatusCode::PARTIAL_CONTENT
            || answer.headers().get(ACCEPT_RANGES).is_some_and(|value| value == "bytes");
        Ok((Source { body: answer.into_body(), uri, skip: self.position - start }, ranges))
    }
}

/// First byte of `Content-Range: bytes a-b/n`.
fn range_start(answer: &Response<Incoming>) -> Option<u64> {
    let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim().split('-').next()?.parse().ok()
}

/// The next piece of a connection; `None` at its end.
async fn read(source: &mut Source, idle: Duration) -> Result<Option<Bytes>, DistributionError> {
    let failed =
        |cause| DistributionError::Connection { method: "Get".into(), url: shown(&source.uri), cause };
    loop {
        let frame = match tokio::time::timeout(idle, source.body.frame()).await {
            Err(_) => return Err(failed(Connection::Timeout(idle))),
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame.map_err(|e| failed(Connection::Broken(e.to_string())))?,
        };
        let Ok(mut data) = frame.into_data() else { continue };
        let skip = source.skip.min(data.len() as u64);
        source.skip -= skip;
        let data = data.split_off(skip as usize);
        if !data.is_empty() {
            return Ok(Some(data));
        }
    }
}
