use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, TryStreamExt};
use hull_content::{ContentError, Ingest};
use hull_distribution::{DistributionError, Fetched, MAX_DOCUMENT, Repository};
use hull_layer::{LayerError, LayerRecord, Staged};
use hull_model::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::image::ImageLayer;
use crate::store::check_is_image;
use crate::{Image, ImageError, ImageStore, Lease, Leased};

/// Pieces between the connection and the disk.
pub(crate) const DEPTH: usize = 32;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Tag or digest.
    pub reference: Reference,
    /// Platform asked for; the host's if none was.
    pub platform: Option<Platform>,
    /// Layers at once.
    pub concurrency: usize,
}

/// News of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// What the reference means: digest of manifest or index.
    Resolved(Digest),
    /// News of a layer (by its blob's digest).
    Layer(Digest, LayerStatus),
}

/// Where a layer stands; the words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerStatus {
    /// `Pulling fs layer`
    Pulling,
    /// `Waiting`
    Waiting,
    /// `Downloading`: bytes there, bytes in all.
    Downloading(u64, u64),
    /// `Verifying Checksum`
    Verifying,
    /// `Download complete`
    Downloaded,
    /// `Extracting`: compressed bytes read, in all.
    Extracting(u64, u64),
    /// `Pull complete`
    Complete,
    /// `Already exists`
    Exists,
}

/// Receives news; must not block.
pub type PullProgress = Arc<dyn Fn(PullEvent) + Send + Sync>;

impl ImageStore {
    /// Pulls an image: manifest, configuration, and those layers that are not there, several at once, each verified
    /// and unpacked while it arrives. When it returns, everything is on disk.
    ///
    /// Dropped before its end, it stops; what was downloaded stays for the next attempt.
    pub async fn pull(
        &self,
        repository: &Repository,
        request: &PullRequest,
        progress: &PullProgress,
    ) -> Result<Leased<Image>, ImageError> {
        let lease = self.lease();
        let (index, fetched) = self.resolve(repository, request, &lease).await?;
        let top = index.as_ref().unwrap_or(&fetched.descriptor);
        progress(PullEvent::Resolved(top.digest.clone()));
        let mut image = self.fetch_documents(repository, &fetched, &lease).await?;
        image.index = index;
        check_platform(request, &image)?;
        self.hold(&lease, &image);
        self.fetch_layers(repository, &image, request.concurrency.max(1), progress).await?;
        image.size = self.size(&image)?;
        let (store, made) = (self.clone(), image.clone());
        blocking("flushing", move || store.sync(&made)).await?;
        Ok(Leased { value: image, lease })
    }

    /// Follows the reference, through indexes to the manifest of the platform.
    async fn resolve(
        &self,
        repository: &Repository,
        request: &PullRequest,
        lease: &Lease,
    ) -> Result<(Option<Descriptor>, Fetched), ImageError> {
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let mut fetched = repository.manifest(&request.reference).await?;
        let mut index = None;
        for _ in 0..3 {
            let descriptor = &mut fetched.descriptor;
            let document = ManifestOrIndex::parse(&descriptor.media_type, &fetched.bytes)?;
            descriptor.media_type = own_type(&document, &descriptor.media_type);
            lease.hold(&descriptor.digest);
            self.content().put_as(&descriptor.digest, &fetched.bytes)?;
            let list = match document {
                ManifestOrIndex::Manifest(_) => return Ok((index, fetched)),
                ManifestOrIndex::Index(list) => list,
            };
            let chosen = list.choose(&platform).ok_or_else(|| ImageError::NoPlatform(platform.clone()))?;
            let reference = request.reference.with_digest(chosen.digest.clone());
            index.get_or_insert(fetched.descriptor);
            fetched = repository.manifest(&reference).await?;
            if fetched.descriptor.media_type.is_empty() {
                fetched.descriptor.media_type = chosen.media_type.clone();
            }
        }
        Err(ImageError::Nested)
    }

    pub(crate) async fn fetch_documents(
        &self,
        repository: &Repository,
        fetched: &Fetched,
        lease: &Lease,
    ) -> Result<Image, ImageError> {
        let ManifestOrIndex::Manifest(manifest) =
            ManifestOrIndex::parse(&fetched.descriptor.media_type, &fetched.bytes)?
        else {
            return Err(ImageError::Nested);
        };
        check_is_image(&manifest)?;
        let digest = &manifest.config.digest;
        lease.hold(digest);
        if !self.content().contains(digest, manifest.config.size) {
            let bytes = repository.blob_bytes(&manifest.config, MAX_DOCUMENT).await?;
            self.content().put_as(digest, &bytes)?;
        }
        let config = ImageConfig::parse(&self.content().read(digest, MAX_DOCUMENT)?)?;
        config.check_layers(&manifest)?;
        Ok(Image::new(fetched.descriptor.clone(), &manifest, &config))
    }

    pub(crate) async fn fetch_layers(
        &self,
        repository: &Repository,
        image: &Image,
        concurrency: usize,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        for layer in &image.layers {
            progress(PullEvent::Layer(layer.blob.digest.clone(), LayerStatus::Pulling));
        }
        let parents = std::iter::once(None).chain(image.layers.iter().map(|layer| Some(&layer.chain_id)));
        let (workers, done) = Workers::new();
        let works = &workers;
        let result = stream::iter(image.layers.iter().zip(parents).map(Ok))
            .try_for_each_concurrent(concurrency, |(layer, parent)| async move {
                let fetch = Fetch { store: self, repository, layer, parent, progress, workers: works };
                fetch.run().await
            })
            .await;
        // After one layer's failure the others are given up: wait until their threads have cleaned up.
        drop(workers);
        done.wait().await;
        result
    }

    pub(crate) async fn flush(&self) -> Result<(), ImageError> {
        let content = self.content().clone();
        blocking("flushing", move || Ok(content.sync()?)).await
    }
}

/// Blocking threads of one pull.
pub(crate) struct Workers(Sender<()>);

/// Their end.
pub(crate) struct Done(Receiver<()>);

impl Workers {
    pub(crate) fn new() -> (Self, Done) {
        let (sender, receiver) = channel(1);
        (Self(sender), Done(receiver))
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let running = self.0.clone();
        blocking(what, move || {
            let result = work();
            drop(running);
            result
        })
        .await
    }
}

impl Done {
    pub(crate) async fn wait(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// One layer being fetched.
struct Fetch<'a> {
    store: &'a ImageStore,
    repository: &'a Repository,
    layer: &'a ImageLayer,
    parent: Option<&'a Digest>,
    progress: &'a PullProgress,
    workers: &'a Workers,
}

impl Fetch<'_> {
    fn tell(&self, status: LayerStatus) {
        (self.progress)(PullEvent::Layer(self.layer.blob.digest.clone(), status));
    }

    /// Whoever wants the same layer at the same time waits here and then finds it there.
    async fn run(&self) -> Result<(), ImageError> {
        let blob = &self.layer.blob;
        let lock = self.store.busy().get(&blob.digest);
        let _only = lock.lock().await;
        let there = self.store.content().contains(&blob.digest, blob.size);
        match (there, self.store.layers().contains(&self.layer.chain_id)) {
            (true, true) => {
                self.tell(LayerStatus::Exists);
                return Ok(());
            }
            (true, false) => self.unpack_stored().await?,
            (false, unpacked) => self.unpack_new(unpacked).await?,
        }
        self.tell(LayerStatus::Complete);
        Ok(())
    }

    async fn unpack_stored(&self) -> Result<(), ImageError> {
        self.tell(LayerStatus::Downloaded);
        let (store, layer, parent) = (self.store.clone(), self.layer.clone(), self.parent.cloned());
        let progress = self.progress.clone();
        let work = move || {
            let blob = store.content().open_blob(&layer.blob.digest)?;
            let counted = Counted { inner: blob, layer: layer.blob.clone(), read: 0, told: 0, progress };
            let staged = store.layers().stage(counted, Some(&layer.diff_id));
            commit(staged, &layer, parent.as_ref()).map(drop)
        };
        self.workers.run("unpacking", work).await
    }

    /// What an earlier attempt left may have been damaged since, by a power cut for one: then it is fetched whole.
    async fn unpack_new(&self, unpacked: bool) -> Result<(), ImageError> {
        let (offset, result) = self.unpack_arriving(unpacked, false).await?;
        match result {
            Err(error) if offset > 0 && error.is_content() => {
                tracing::warn!(blob = %self.layer.blob.digest, offset, %error, "fetched again from the start");
                self.unpack_arriving(unpacked, true).await?.1
            }
            result => result,
        }
    }

    /// Network on one side, disk on the other, a bounded channel between. The result comes with where it began.
    async fn unpack_arriving(
        &self,
        unpacked: bool,
        anew: bool,
    ) -> Result<(u64, Result<(), ImageError>), ImageError> {
        let (store, layer, parent) = (self.store.clone(), self.layer.clone(), self.parent.cloned());
        let (digest, size, content) = (layer.blob.digest.clone(), layer.blob.size, store.content().clone());
        let begin = move || {
            let mut ingest = content.ingest(&digest, Some(size))?;
            if anew {
                ingest.restart()?;
            }
            Ok(ingest)
        };
        let ingest = self.workers.run("reading", begin).await?;
        let offset = ingest.offset();
        let (sender, receiver) = channel(DEPTH);
        let progress = self.progress.clone();
        let disk = self.workers.run("unpacking", move || {
            let arriving = Arriving::new(ingest, receiver)?;
            store.write_layer(arriving, &layer, parent.as_ref(), unpacked, &progress)
        });
        let network = feed(self.repository, &self.layer.blob, offset, sender, self.progress);
        let (network, disk) = tokio::join!(network, disk);
        let result = match (network, disk) {
            // The disk side only saw the stream break.
            (Err(e), _) => Err(e.into()),
            (Ok(()), disk) => disk,
        };
        Ok((offset, result))
    }
}

impl ImageStore {
    fn write_layer(
        &self,
        mut arriving: Arriving,
        layer: &ImageLayer,
        parent: Option<&Digest>,
        unpacked: bool,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        let tell = |status| progress(PullEvent::Layer(layer.blob.digest.clone(), status));
        let staged = match unpacked {
            true => None,
            false => Some(self.layers().stage(&mut arriving, Some(&layer.diff_id))),
        };
        // Bytes behind the compressed stream belong to the blob as well. After a failed decoder the rest tells whether
        // the transfer or the image is at fault.
        let worth = matches!(
            &staged,
            None | Some(
                Ok(_) | Err(LayerError::Tar(_) | LayerError::Decompress { .. } | LayerError::DiffId { .. })
            )
        );
        let drained = if worth { arriving.drain() } else { Ok(()) };
        if worth && drained.is_ok() {
            tell(LayerStatus::Verifying);
            arriving.ingest.commit()?;
            tell(LayerStatus::Downloaded);
        }
        if let Some(staged) = staged {
            commit(staged, layer, parent)?;
        }
        drained.map_err(|e| ImageError::Stored("layer", e))
    }
}

fn commit(
    staged: Result<Staged, LayerError>,
    layer: &ImageLayer,
    parent: Option<&Digest>,
) -> Result<LayerRecord, ImageError> {
    staged
        .and_then(|staged| staged.commit(&layer.chain_id, parent))
        .map_err(ImageError::layer(&layer.blob.digest))
}

pub(crate) fn own_type(document: &ManifestOrIndex, given: &str) -> String {
    let own = match document {
        ManifestOrIndex::Manifest(Manifest { media_type, .. }) => media_type,
        ManifestOrIndex::Index(index) => &index.media_type,
    };
    match (own, document) {
        (Some(own), _) if !own.is_empty() => own.clone(),
        _ if hull_model::media_type::is_manifest(given) || hull_model::media_type::is_index(given) => {
            given.into()
        }
        (_, ManifestOrIndex::Manifest(_)) => hull_model::media_type::OCI_MANIFEST.into(),
        (_, ManifestOrIndex::Index(_)) => hull_model::media_type::OCI_INDEX.into(),
    }
}

/// A platform somebody asked for must be the image's; an image without index may otherwise be of any.
fn check_platform(request: &PullRequest, image: &Image) -> Result<(), ImageError> {
    match &request.platform {
        Some(wanted) if !image.platform.os.is_empty() && !wanted.accepts(&image.platform) => {
            Err(ImageError::WrongPlatform {
                reference: request.reference.familiar(),
                wanted: Box::new(wanted.clone()),
                actual: Box::new(image.platform.clone()),
            })
        }
        _ => Ok(()),
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Thread(what))?
}

pub(crate) enum Piece {
    Data(Bytes),
    /// All is there; a channel that merely closes means the pull was given up.
    End,
}

/// Moves a blob from the registry into the channel; a receiver that is gone has an error of its own to tell.
pub(crate) async fn feed(
    repository: &Repository,
    blob: &Descriptor,
    offset: u64,
    sender: Sender<Piece>,
    progress: &PullProgress,
) -> Result<(), DistributionError> {
    let mut stream = repository.blob(blob, offset);
    let mut current = offset;
    let mut told = offset;
    // Often enough for a smooth bar, seldom enough not to matter.
    let step = (blob.size / 100).clamp(64 << 10, 4 << 20);
    while let Some(piece) = stream.next().await? {
        current += piece.len() as u64;
        if sender.send(Piece::Data(piece)).await.is_err() {
            return Ok(());
        }
        if current - told >= step || current == blob.size {
            told = current;
            progress(PullEvent::Layer(blob.digest.clone(), LayerStatus::Downloading(current, blob.size)));
        }
    }
    let _ = sender.send(Piece::End).await;
    Ok(())
}

/// Reads an arriving blob, writing what is new to its partial file.
pub(crate) struct Arriving {
    ingest: Ingest,
    before: Option<Box<dyn Read + Send>>,
    receiver: Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Arriving {
    pub(crate) fn new(ingest: Ingest, receiver: Receiver<Piece>) -> Result<Self, ContentError> {
        let before: Option<Box<dyn Read + Send>> = match ingest.offset() {
            0 => None,
            _ => Some(Box::new(ingest.reader()?)),
        };
        Ok(Self { ingest, before, receiver, piece: Bytes::new(), ended: false })
    }

    pub(crate) fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }
}

impl Arriving {
    pub(crate) fn commit(self) -> Result<(), ImageError> {
        Ok(self.ingest.commit().map(drop)?)
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(before) = &mut self.before {
            match before.read(buffer)? {
                0 => self.before = None,
                n => return Ok(n),
            }
        }
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Data(piece)) => {
                    self.ingest.append(&piece).map_err(io::Error::other)?;
                    self.piece = piece;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let n = self.piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

/// Tells how far a stored blob has been read.
struct Counted {
    inner: std::fs::File,
    layer: Descriptor,
    read: u64,
    told: u64,
    progress: PullProgress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        if self.read - self.told >= (self.layer.size / 50).max(64 << 10) {
            self.told = self.read;
            let status = LayerStatus::Extracting(self.read, self.layer.size);
            (self.progress)(PullEvent::Layer(self.layer.digest.clone(), status));
        }
        Ok(n)
    }
}
