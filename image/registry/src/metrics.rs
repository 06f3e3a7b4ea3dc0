//! Numbers for Prometheus (text exposition format 0.0.4).

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::http::Method;

/// Upper ends of the histogram of request times, in microseconds.
const BUCKETS: [u64; 9] = [500, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 60_000_000];
const METHODS: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Other];

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By method and hundred of the status.
    requests: [[AtomicU64; 6]; 7],
    times: [AtomicU64; BUCKETS.len() + 1],
    time: AtomicU64,
    /// Bytes of bodies received.
    pub received: AtomicU64,
    /// Bytes of bodies sent.
    pub sent: AtomicU64,
    /// Connections now.
    pub connections: AtomicU64,
    /// Requests now.
    pub active: AtomicU64,
    /// Requests that were none.
    pub malformed: AtomicU64,
    /// Connections whose TLS handshake failed.
    pub handshakes_failed: AtomicU64,
    /// Requests refused for want of a login or a right.
    pub denied: AtomicU64,
    /// Blobs pushed.
    pub blobs_pushed: AtomicU64,
    /// Manifests pushed.
    pub manifests_pushed: AtomicU64,
    /// Manifests pulled.
    pub manifests_pulled: AtomicU64,
    /// Answers of caches that needed no upstream.
    pub cache_hits: AtomicU64,
    /// Answers of caches that were fetched.
    pub cache_misses: AtomicU64,
    /// Answers of caches given although the upstream did not answer.
    pub cache_stale: AtomicU64,
    /// Bytes fetched from upstreams.
    pub cache_fetched: AtomicU64,
    /// Bytes of blobs that collections removed.
    pub collected: AtomicU64,
}

impl Metrics {
    /// Counts a request.
    pub(crate) fn count(&self, method: Method, status: u16, time: Duration) {
        let row = METHODS.iter().position(|m| *m == method).unwrap_or(METHODS.len() - 1);
        let column = usize::from(status / 100).min(5);
        self.requests[row][column].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|end| micros <= *end).unwrap_or(BUCKETS.len());
        self.times[bucket].fetch_add(1, Ordering::Relaxed);
        self.time.fetch_add(micros, Ordering::Relaxed);
    }

    /// The page; `totals` are repositories, manifests, tags, blobs and bytes of blobs, `uploads` those under way.
    pub(crate) fn page(&self, totals: [u64; 5], uploads: usize) -> String {
        let mut page = String::with_capacity(4096);
        self.write_requests(&mut page);
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("received_bytes_total", "counter", "Bytes of bodies received.", read(&self.received)),
            ("sent_bytes_total", "counter", "Bytes of bodies sent.", read(&self.sent)),
            ("connections", "gauge", "Connections now.", read(&self.connections)),
            ("requests_active", "gauge", "Requests being answered now.", read(&self.active)),
            ("malformed_requests_total", "counter", "Requests that were none.", read(&self.malformed)),
            ("tls_failures_total", "counter", "TLS handshakes that failed.", read(&self.handshakes_failed)),
            ("denied_total", "counter", "Requests without login or right.", read(&self.denied)),
            ("blobs_pushed_total", "counter", "Blobs pushed.", read(&self.blobs_pushed)),
            ("manifests_pushed_total", "counter", "Manifests pushed.", read(&self.manifests_pushed)),
            ("manifests_pulled_total", "counter", "Manifests pulled.", read(&self.manifests_pulled)),
            ("cache_hits_total", "counter", "Answers of caches from the store.", read(&self.cache_hits)),
            (
                "cache_misses_total",
                "counter",
                "Answers of caches that were fetched.",
                read(&self.cache_misses),
            ),
            (
                "cache_stale_total",
                "counter",
                "Answers of caches while the upstream failed.",
                read(&self.cache_stale),
            ),
            (
                "cache_fetched_bytes_total",
                "counter",
                "Bytes fetched from upstreams.",
                read(&self.cache_fetched),
            ),
            (
                "collected_bytes_total",
                "counter",
                "Bytes of blobs that collections removed.",
                read(&self.collected),
            ),
            ("repositories", "gauge", "Repositories.", totals[0]),
            ("manifests", "gauge", "Manifests.", totals[1]),
            ("tags", "gauge", "Tags.", totals[2]),
            ("blobs", "gauge", "Blobs, each counted once.", totals[3]),
            ("blob_bytes", "gauge", "Bytes of blobs, each counted once.", totals[4]),
            ("uploads", "gauge", "Uploads under way.", uploads as u64),
        ] {
            let _ = write!(
                page,
                "# HELP hull_registry_{name} {help}\n# TYPE hull_registry_{name} {kind}\nhull_registry_{name} {value}\n"
            );
        }
        page
    }

    fn write_requests(&self, page: &mut String) {
        page.push_str("# HELP hull_registry_requests_total Requests answered.\n# TYPE hull_registry_requests_total counter\n");
        for (row, method) in METHODS.iter().enumerate() {
            for (column, class) in ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
                let value = self.requests[row][column].load(Ordering::Relaxed);
                if value > 0 {
                    let method = method.as_str();
                    let _ = writeln!(
                        page,
                        "hull_registry_requests_total{{method=\"{method}\",code=\"{class}\"}} {value}"
                    );
                }
            }
        }
        let name = "hull_registry_request_seconds";
        let _ = write!(
            page,
            "# HELP {name} Time from a request's head to the end of its answer.\n# TYPE {name} histogram\n"
        );
        let mut sum = 0;
        for (at, end) in BUCKETS.iter().enumerate() {
            sum += self.times[at].load(Ordering::Relaxed);
            let _ = writeln!(page, "{name}_bucket{{le=\"{}\"}} {sum}", *end as f64 / 1e6);
        }
        sum += self.times[BUCKETS.len()].load(Ordering::Relaxed);
        let seconds = self.time.load(Ordering::Relaxed) as f64 / 1e6;
        let _ =
            write!(page, "{name}_bucket{{le=\"+Inf\"}} {sum}\n{name}_sum {seconds}\n{name}_count {sum}\n");
    }
}
