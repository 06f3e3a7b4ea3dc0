//! The registry as its connections see it: a request in, an answer out.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::access_log::AccessLog;
use crate::api;
use crate::auth::{Auth, Caller};
use crate::cache::Caches;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Body, BodyError, Head, Response};
use crate::metrics::Metrics;
use crate::store::{Rules, Store, Uploads};

/// What requests are answered by.
#[derive(Debug)]
pub struct Service {
    /// What is kept.
    pub store: Arc<Store>,
    /// Uploads under way.
    pub uploads: Arc<Uploads>,
    /// Who may do what.
    pub auth: Auth,
    /// Upstreams.
    pub caches: Caches,
    /// What is allowed.
    pub policy: Policy,
    /// How collections decide.
    pub rules: Rules,
    /// Where requests are written down.
    pub access_log: AccessLog,
    metrics: Metrics,
    date: Mutex<(Option<Instant>, String)>,
}

/// What is allowed, beside rights.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Nothing is changed.
    pub read_only: bool,
    /// Manifests, tags and blobs may be removed.
    pub delete: bool,
    /// Largest manifest in bytes.
    pub manifest_size: usize,
    /// Largest blob in bytes.
    pub blob_size: u64,
    /// A manifest may name blobs and manifests that are not here.
    pub sparse: bool,
    /// Address of this registry as clients know it, without a slash at the end; by the `Host` header if not said.
    pub url: Option<String>,
    /// Whether the registry itself speaks TLS.
    pub tls: bool,
    /// Whether `/metrics` is served beside the registry.
    pub metrics: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            read_only: false,
            delete: true,
            manifest_size: 4 << 20,
            blob_size: u64::MAX,
            sparse: false,
            url: None,
            tls: false,
            metrics: true,
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Request<'h> {
    /// Line and headers.
    pub head: &'h Head,
    /// From where.
    pub peer: SocketAddr,
    /// Who asks.
    pub caller: Caller,
}

impl<'h> Request<'h> {
    pub(crate) fn new(head: &'h Head, peer: SocketAddr) -> Self {
        Self { head, peer, caller: Caller::Anonymous }
    }
}

impl Service {
    /// Puts the parts together.
    pub fn new(
        store: Arc<Store>,
        uploads: Arc<Uploads>,
        auth: Auth,
        caches: Caches,
        policy: Policy,
        rules: Rules,
        access_log: AccessLog,
    ) -> Self {
        let (metrics, date) = Default::default();
        Self { store, uploads, auth, caches, policy, rules, access_log, metrics, date }
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers a request. What failed here is logged.
    pub(crate) async fn handle(&self, request: &mut Request<'_>, body: &mut Body<'_>) -> Response {
        self.metrics.active.fetch_add(1, Ordering::Relaxed);
        let answer = api::answer(self, request, body).await;
        self.metrics.active.fetch_sub(1, Ordering::Relaxed);
        answer.unwrap_or_else(|error| self.refuse(request, &error))
    }

    fn refuse(&self, request: &Request<'_>, error: &ApiError) -> Response {
        if let Some(source) = &error.source {
            let path = &request.head.path;
            tracing::error!(path, error = &**source as &dyn std::error::Error, "{}", error.message);
        }
        let status = error.code.parts().1;
        if matches!(error.code, Code::Unauthorized | Code::Denied) {
            self.metrics.denied.fetch_add(1, Ordering::Relaxed);
        }
        let mut response = Response::new(status);
        for (name, value) in &error.headers {
            response = response.header(name, value);
        }
        response.bytes("application/json; charset=utf-8", error.body())
    }

    /// Counts and writes down a request that was answered.
    pub(crate) fn done(
        &self,
        request: &Request<'_>,
        status: u16,
        received: u64,
        sent: u64,
        time: Duration,
        whole: bool,
    ) {
        self.metrics.count(request.head.method, status, time);
        self.metrics.received.fetch_add(received, Ordering::Relaxed);
        self.metrics.sent.fetch_add(sent, Ordering::Relaxed);
        self.access_log.write(request, status, received, sent, time, whole);
    }

    /// Now, for an HTTP header.
    pub(crate) fn date(&self) -> String {
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.0.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
            let now = jiff::Timestamp::now();
            let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
            *date = (Some(Instant::now()), text.unwrap_or_default());
        }
        date.1.clone()
    }

    /// This registry's address as the client knows it.
    pub(crate) fn base(&self, head: &Head) -> String {
        if let Some(url) = &self.policy.url {
            return url.clone();
        }
        let scheme = match head.header("x-forwarded-proto") {
            Some("https") => "https",
            _ if self.policy.tls => "https",
            _ => "http",
        };
        let host = head.header("x-forwarded-host").or(head.header("host")).unwrap_or("localhost");
        format!("{scheme}://{host}")
    }

    /// Removes what nobody needs.
    pub async fn collect(&self) -> crate::store::Result<crate::store::Collected> {
        let done = self.store.collect(&self.rules, &self.uploads).await?;
        self.metrics.collected.fetch_add(done.bytes, Ordering::Relaxed);
        Ok(done)
    }

    /// The page of numbers.
    pub(crate) fn metrics_page(&self) -> ApiResult<Response> {
        let page = self.metrics.page(self.store.totals()?, self.uploads.open());
        Ok(Response::new(200).bytes("text/plain; version=0.0.4; charset=utf-8", page))
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => {
                ApiError::new(Code::ManifestTooLarge, "the body is larger than this registry takes")
            }
            error => ApiError::new(Code::SizeInvalid, error.to_string()),
        }
    }
}
