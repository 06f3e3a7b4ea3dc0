//! Registry client: resolve, pull, push, authentication, mirrors.
