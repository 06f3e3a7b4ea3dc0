//! Paths inside a root that cannot leave it (openat2, RESOLVE_IN_ROOT).
