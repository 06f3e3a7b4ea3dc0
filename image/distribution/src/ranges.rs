//! One large blob over several connections.
//!
//! A blob begins on one connection. Only where that connection is what everybody waits for, and the registry serves
//! ranges, is the rest fetched in parts: where unpacking is the bottleneck, more connections would cost and not help.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use hull_model::Descriptor;

use crate::DistributionError;
use crate::repository::Repository;

/// Bytes of a part: large beside a round trip, small beside the memory of an engine.
const PART: u64 = 4 << 20;
/// With less to come, more connections do not pay.
const WORTH: u64 = 4 * PART;
/// The first judgement of a connection.
const TRIAL: Duration = Duration::from_millis(400);
/// A connection this fast, in bytes a second, is not helped by others.
const FAST: f64 = 64e6;

/// How a single connection does.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { begun: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// Bytes came after waiting since `asked`.
    pub(crate) fn came(&mut self, asked: Instant, bytes: usize) {
        // The time to the first byte says nothing about the rest.
        if self.begun.is_some() {
            self.waited += asked.elapsed();
            self.bytes += bytes as u64;
        }
        self.begun.get_or_insert_with(Instant::now);
    }

    /// Whether the connection is slow and its reader waits for it nearly all the time.
    pub(crate) fn is_bottleneck(&self, remaining: u64) -> bool {
        let Some(total) = self.begun.map(|begun| begun.elapsed()) else { return false };
        remaining >= WORTH
            && total >= TRIAL
            && self.waited.as_secs_f64() > 0.8 * total.as_secs_f64()
            && (self.bytes as f64) < FAST * total.as_secs_f64()
    }
}

type Part<'a> = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, DistributionError>> + Send + 'a>>;

/// The rest of a blob in parts, several at once, handed out in order.
pub(crate) struct Parts<'a> {
    repository: &'a Repository,
    descriptor: Descriptor,
    running: FuturesOrdered<Part<'a>>,
    /// Where the next part begins.
    next: u64,
    ready: VecDeque<Bytes>,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(
        repository: &'a Repository,
        descriptor: &Descriptor,
        from: u64,
        connections: usize,
    ) -> Self {
        let descriptor = descriptor.clone();
        let mut parts = Self {
            repository,
            descriptor,
            running: FuturesOrdered::new(),
            next: from,
            ready: VecDeque::new(),
        };
        (0..connections).for_each(|_| parts.ask());
        parts
    }

    fn ask(&mut self) {
        let (start, end) = (self.next, (self.next + PART).min(self.descriptor.size));
        if start < end {
            let (repository, descriptor) = (self.repository, self.descriptor.clone());
            self.running.push_back(Box::pin(async move {
                let mut stream = repository.blob_part(&descriptor, start, end);
                let mut pieces = Vec::new();
                while let Some(piece) = stream.next_single().await? {
                    pieces.push(piece);
                }
                Ok(pieces)
            }));
            self.next = end;
        }
    }

    /// The next piece; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, DistributionError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            match self.running.next().await {
                None => return Ok(None),
                Some(part) => self.ready.extend(part?),
            }
            self.ask();
        }
    }
}
