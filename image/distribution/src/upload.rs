use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hull_model::{Descriptor, Digest, Reference};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};

use crate::auth::escape;
use crate::error::{Connection, DistributionError};
use crate::repository::{Endpoint, Repository, join, pause, protocol};
use crate::transport::{Body, go_method, shown};

const PIECE: usize = 256 << 10;

/// Repositories a blob is looked for in.
const MAX_MOUNTS: usize = 3;

/// Bytes of a chunk where a registry, or what is before it, refuses the blob in one piece.
const CHUNK: u64 = 16 << 20;

/// What is sent: opened anew for each attempt.
pub type BlobSource<'a> = &'a (dyn Fn() -> io::Result<File> + Sync);

/// How a blob got into the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Existed,
    /// Taken over from another repository of the registry.
    Mounted(Reference),
    /// Sent.
    Sent,
}

/// What came of asking for a mount.
enum Mount {
    Done,
    /// The registry began an upload there.
    Begun(Uri),
    Refused,
}

/// What a request carries.
enum Payload<'a> {
    Nothing,
    Bytes(Bytes),
    File { source: BlobSource<'a>, offset: u64, length: u64 },
}

/// What of a blob is still to be sent.
struct Rest<'a> {
    digest: &'a Digest,
    offset: u64,
    size: u64,
    /// Bytes a request, where all at once is too much.
    chunk: Option<u64>,
    source: BlobSource<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
}

struct Send<'a> {
    method: Method,
    uri: Uri,
    headers: Vec<(hyper::header::HeaderName, String)>,
    payload: Payload<'a>,
    scopes: Vec<String>,
    progress: &'a (dyn Fn(u64) + Sync),
}

fn silent(_: u64) {}

impl Repository {
    /// Brings a blob into the registry: nothing to do if it has it, taken over from one of the `from` repositories of
    /// the same registry if it may, else sent. `progress` is called with the bytes sent so far.
    pub async fn push_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: BlobSource<'_>,
        from: &[Reference],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Uploaded, DistributionError> {
        if self.has_blob(digest).await? {
            return Ok(Uploaded::Existed);
        }
        let endpoint = self.upload_endpoint()?;
        let mut location = None;
        let elsewhere =
            |r: &&Reference| r.domain() == self.reference().domain() && r.path() != self.reference().path();
        for from in from.iter().filter(elsewhere).take(MAX_MOUNTS) {
            match self.mount(endpoint, digest, from).await? {
                Mount::Done => return Ok(Uploaded::Mounted(from.clone())),
                // An upload was begun instead: the last one is used, the others time out.
                Mount::Begun(begun) => location = Some(begun),
                Mount::Refused => {}
            }
        }
        self.upload(endpoint, location, digest, size, source, progress).await?;
        Ok(Uploaded::Sent)
    }

    /// Takes a blob over from another repository of the registry; whether that was possible.
    pub async fn mount_blob(&self, digest: &Digest, from: &Reference) -> Result<bool, DistributionError> {
        if self.has_blob(digest).await? {
            return Ok(true);
        }
        let mounted = self.mount(self.upload_endpoint()?, digest, from).await?;
        Ok(matches!(mounted, Mount::Done))
    }

    /// Stores a manifest or index under a tag or its digest; returns the digest the registry gave it.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, DistributionError> {
        let digest = hull_content::sha256(bytes);
        let name = match (reference.tag(), reference.digest()) {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => hull_model::DEFAULT_TAG.to_owned(),
        };
        // The endpoint may not have been asked for anything yet.
        let _ = self.has_manifest(&digest).await?;
        let endpoint = self.upload_endpoint()?;
        let uri = self.address(endpoint, &format!("manifests/{name}"))?;
        let headers = vec![(CONTENT_TYPE, media_type.to_owned())];
        let payload = || Payload::Bytes(Bytes::copy_from_slice(bytes));
        let answer = self.send_retrying(endpoint, Method::PUT, &uri, &headers, payload).await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => {
                let pushed = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
                self.note_subject(answer.headers(), &pushed, bytes).await?;
                Ok(digest)
            }
            _ => Err(self.status_error(&Method::PUT, (uri, answer)).await),
        }
    }

    /// The registry itself, over whichever protocol answered.
    fn upload_endpoint(&self) -> Result<&Endpoint, DistributionError> {
        self.check_blocked()?;
        let found = self.endpoints().iter().find(|e| !e.is_down()).or(self.endpoints().last());
        found.ok_or_else(|| DistributionError::Setup("no endpoint".into()))
    }

    async fn mount(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        from: &Reference,
    ) -> Result<Mount, DistributionError> {
        let path = format!("blobs/uploads/?mount={}&from={}", escape(digest.as_str()), escape(from.path()));
        let uri = self.address(endpoint, &path)?;
        let scopes = vec![format!("repository:{}:pull", from.path())];
        let send = Send {
            method: Method::POST,
            uri: uri.clone(),
            headers: zero_length(),
            payload: Payload::Nothing,
            scopes,
            progress: &silent,
        };
        // Refused or not, sending remains possible.
        match self.send(endpoint, send).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(Mount::Done),
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                Ok(upload_location(&answer, &uri).map_or(Mount::Refused, Mount::Begun))
            }
            Ok(_) | Err(DistributionError::PushDenied { .. }) => Ok(Mount::Refused),
            Err(e) => Err(e),
        }
    }

    /// First in one piece; if that breaks, on from where the registry says it stopped, else from the start. A blob too
    /// large for one request goes in chunks.
    async fn upload(
        &self,
        endpoint: &Endpoint,
        begun: Option<Uri>,
        digest: &Digest,
        size: u64,
        source: BlobSource<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DistributionError> {
        let mut location = match begun {
            Some(location) => location,
            None => self.start_upload(endpoint).await?,
        };
        let (mut offset, mut attempt, mut chunk) = (0, 0, None);
        loop {
            let rest = Rest { digest, offset, size, chunk, source, progress };
            let result = self.put_rest(endpoint, &location, &rest).await;
            let error = match result {
                Ok(()) => return Ok(()),
                Err(DistributionError::Status { status: 413, .. }) if chunk.is_none() && size > CHUNK => {
                    chunk = Some(CHUNK);
                    (location, offset) = (self.start_upload(endpoint).await?, 0);
                    continue;
                }
                Err(e) if e.is_passing() && attempt < self.client().config().retries => e,
                Err(e) => return Err(e),
            };
            pause(self.client().config(), attempt, error.wait()).await;
            attempt += 1;
            (location, offset) = match self.upload_status(endpoint, &location).await {
                Some((location, offset)) if offset <= size => (location, offset),
                _ => (self.start_upload(endpoint).await.map_err(|_| error)?, 0),
            };
        }
    }

    async fn start_upload(&self, endpoint: &Endpoint) -> Result<Uri, DistributionError> {
        let uri = self.address(endpoint, "blobs/uploads/")?;
        let answer =
            self.send_retrying(endpoint, Method::POST, &uri, &zero_length(), || Payload::Nothing).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.status_error(&Method::POST, (uri, answer)).await);
        }
        upload_location(&answer, &uri)
    }

    async fn put_rest(
        &self,
        endpoint: &Endpoint,
        location: &Uri,
        rest: &Rest<'_>,
    ) -> Result<(), DistributionError> {
        let mut location = location.clone();
        let (mut offset, size) = (rest.offset, rest.size);
        // What follows a beginning, as chunks; PUT with a range is not something every registry takes.
        while (offset > 0 || rest.chunk.is_some()) && offset < size {
            let length = rest.chunk.unwrap_or(size).min(size - offset);
            location = self.patch(endpoint, &location, offset, length, rest).await?;
            offset += length;
        }
        let (offset, length) = if offset > 0 { (size, 0) } else { (0, size) };
        let text = location.to_string();
        let join = if text.contains('?') { '&' } else { '?' };
        let uri: Uri = format!("{text}{join}digest={}", escape(rest.digest.as_str()))
            .parse()
            .map_err(|_| protocol(&location, "upload location".into()))?;
        let headers =
            vec![(CONTENT_TYPE, "application/octet-stream".into()), (CONTENT_LENGTH, length.to_string())];
        let payload = Payload::File { source: rest.source, offset, length };
        let (method, scopes, progress) = (Method::PUT, Vec::new(), rest.progress);
        let send = Send { method, uri: uri.clone(), headers, payload, scopes, progress };
        let answer = self.send(endpoint, send).await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.status_error(&Method::PUT, (uri, answer)).await),
        }
    }

    /// One chunk; where the upload goes on.
    async fn patch(
        &self,
        endpoint: &Endpoint,
        location: &Uri,
        offset: u64,
        length: u64,
        rest: &Rest<'_>,
    ) -> Result<Uri, DistributionError> {
        let headers = vec![
            (CONTENT_TYPE, "application/octet-stream".into()),
            (CONTENT_RANGE, format!("{offset}-{}", offset + length - 1)),
            (CONTENT_LENGTH, length.to_string()),
        ];
        let payload = Payload::File { source: rest.source, offset, length };
        let sent = |bytes: u64| (rest.progress)(offset + bytes);
        let (method, uri, scopes) = (Method::PATCH, location.clone(), Vec::new());
        let send = Send { method, uri, headers, payload, scopes, progress: &sent };
        let answer = self.send(endpoint, send).await?;
        match answer.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                upload_location(&answer, location)
            }
            _ => Err(self.status_error(&Method::PATCH, (location.clone(), answer)).await),
        }
    }

    /// Where an interrupted upload stands, if the registry still knows it.
    async fn upload_status(&self, endpoint: &Endpoint, location: &Uri) -> Option<(Uri, u64)> {
        let send = Send {
            method: Method::GET,
            uri: location.clone(),
            headers: Vec::new(),
            payload: Payload::Nothing,
            scopes: Vec::new(),
            progress: &silent,
        };
        let answer = self.send(endpoint, send).await.ok()?;
        if answer.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let next = upload_location(&answer, location).unwrap_or_else(|_| location.clone());
        let range = answer.headers().get("range")?.to_str().ok()?;
        let last: u64 = range.rsplit('-').next()?.parse().ok()?;
        Some((next, if last == 0 { 0 } else { last + 1 }))
    }

    async fn send_retrying<'a>(
        &self,
        endpoint: &Endpoint,
        method: Method,
        uri: &Uri,
        headers: &[(hyper::header::HeaderName, String)],
        payload: impl Fn() -> Payload<'a>,
    ) -> Result<Response<Incoming>, DistributionError> {
        let config = self.client().config();
        let mut attempt = 0;
        loop {
            let send = Send {
                method: method.clone(),
                uri: uri.clone(),
                headers: headers.to_vec(),
                payload: payload(),
                scopes: Vec::new(),
                progress: &silent,
            };
            let result = match self.send(endpoint, send).await {
                Ok(answer) if matches!(answer.status().as_u16(), 429 | 500 | 502 | 503 | 504) => {
                    Err(self.status_error(&method, (uri.clone(), answer)).await)
                }
                result => result,
            };
            match result {
                Err(e) if e.is_passing() && attempt < config.retries => {
                    pause(config, attempt, e.wait()).await
                }
                result => return result,
            }
            attempt += 1;
        }
    }

    /// One request, sent a second time when the registry wants authorization first.
    async fn send(
        &self,
        endpoint: &Endpoint,
        send: Send<'_>,
    ) -> Result<Response<Incoming>, DistributionError> {
        let own = send.uri.authority().is_some_and(|a| a.as_str() == endpoint.domain());
        let mut authorization = if own { self.authorization(endpoint).await } else { None };
        for attempt in 0.. {
            let mut request = Request::builder()
                .method(send.method.clone())
                .uri(send.uri.clone())
                .header(USER_AGENT, &self.client().config().user_agent);
            for (name, value) in &send.headers {
                request = request.header(name, value);
            }
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, crate::repository::sensitive(authorization)?);
            }
            let sent = Arc::new(AtomicU64::new(0));
            let body = body(&send.payload, &sent).map_err(DistributionError::Read)?;
            let request = request.body(body).map_err(|e| protocol(&send.uri, e.to_string()))?;
            let answer = self.watched(endpoint, own, request, &sent, send.progress).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || !own || attempt > 0 {
                return Ok(answer);
            }
            if !self.reauthorize(endpoint, &answer, &send.uri, authorization, &send.scopes).await? {
                return Ok(answer);
            }
            authorization = self.authorization(endpoint).await;
        }
        Err(protocol(&send.uri, "no answer".into()))
    }

    /// Reports progress while a body is sent, and gives up when it stands still for too long.
    async fn watched(
        &self,
        endpoint: &Endpoint,
        own: bool,
        request: Request<Body>,
        sent: &AtomicU64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Response<Incoming>, DistributionError> {
        let idle = self.client().config().idle_timeout;
        let (method, url) = (go_method(request.method()), shown(request.uri()));
        let insecure = match own {
            true => endpoint.insecure(),
            false => {
                request.uri().authority().is_some_and(|a| self.client().config().is_insecure(a.as_str()))
            }
        };
        let domain = own.then(|| endpoint.domain());
        let answer = self.client().transport().send(request, domain, insecure);
        tokio::pin!(answer);
        let mut last = (0, tokio::time::Instant::now());
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100).min(idle));
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = tick.tick() => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if now != last.0 {
                progress(now);
                last = (now, tokio::time::Instant::now());
            } else if last.1.elapsed() > idle {
                return Err(DistributionError::Connection { method, url, cause: Connection::Timeout(idle) });
            }
        }
    }
}

fn zero_length() -> Vec<(hyper::header::HeaderName, String)> {
    vec![(CONTENT_LENGTH, "0".into())]
}

fn upload_location(answer: &Response<Incoming>, base: &Uri) -> Result<Uri, DistributionError> {
    let location = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
    join(base, location.ok_or_else(|| protocol(base, "upload without location".into()))?)
}

/// A file is read in blocking threads, one piece ahead of the connection at most.
fn body(payload: &Payload<'_>, sent: &Arc<AtomicU64>) -> io::Result<Body> {
    let (source, offset, length) = match payload {
        Payload::Nothing => return Ok(Full::default().map_err(|e| match e {}).boxed_unsync()),
        Payload::Bytes(bytes) => return Ok(Full::new(bytes.clone()).map_err(|e| match e {}).boxed_unsync()),
        Payload::File { length: 0, .. } => return Ok(Full::default().map_err(|e| match e {}).boxed_unsync()),
        Payload::File { source, offset, length } => (source, *offset, *length),
    };
    let mut file = source()?;
    file.seek(SeekFrom::Start(offset))?;
    let start = (file.take(length), sent.clone());
    let pieces = stream::try_unfold(start, |(mut file, sent)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let mut filled = 0;
            while filled < PIECE {
                match file.read(&mut piece[filled..])? {
                    0 => break,
                    n => filled += n,
                }
            }
            piece.truncate(filled);
            Ok::<_, io::Error>((file, piece))
        });
        let (file, piece) = read.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(Some((Frame::data(Bytes::from(piece)), (file, sent))))
    });
    Ok(BodyExt::boxed_unsync(StreamBody::new(pieces)))
}
