//! Blobs by digest: verified, resumable, deduplicated.
