//! API versions: `/v1.43/containers/json` is version 1.43 of `/containers/json`.

use std::fmt;

use crate::error::HttpError;

/// The newest API version served.
pub const MAX_API_VERSION: &str = "1.50";

/// The oldest API version served.
pub const MIN_API_VERSION: &str = "1.24";

/// A served API version; all have major number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u32);

impl ApiVersion {
    pub(crate) const MIN: ApiVersion = ApiVersion(24);
    pub(crate) const MAX: ApiVersion = ApiVersion(50);

    /// Version `1.<minor>`, for comparisons in handlers.
    pub(crate) const fn minor(minor: u32) -> ApiVersion {
        ApiVersion(minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// Splits a leading `/v<major>.<minor>` off `path`. Without a prefix the newest version is meant.
///
/// A version outside of the served range is an error with docker's wording, status 400.
pub(crate) fn split(path: &str) -> Result<(ApiVersion, &str), HttpError> {
    let Some((major, minor, rest)) = prefix(path) else { return Ok((ApiVersion::MAX, path)) };
    let asked = (major, minor);
    if asked < (1, ApiVersion::MIN.0) {
        return Err(HttpError::bad_request(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is {}, please upgrade your \
             client to a newer version",
            ApiVersion::MIN
        )));
    }
    if asked > (1, ApiVersion::MAX.0) {
        return Err(HttpError::bad_request(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        )));
    }
    Ok((ApiVersion(minor), rest))
}

fn prefix(path: &str) -> Option<(u32, u32, &str)> {
    let tail = path.strip_prefix("/v")?;
    let (version, rest) = match tail.find('/') {
        Some(slash) => tail.split_at(slash),
        None => (tail, ""),
    };
    let (major, minor) = version.split_once('.')?;
    let digits = |s: &str| (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok());
    Some((digits(major)??, digits(minor)??, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_off() {
        assert_eq!(split("/v1.24/info").unwrap(), (ApiVersion(24), "/info"));
        assert_eq!(split("/v1.50/volumes/v1.2").unwrap(), (ApiVersion(50), "/volumes/v1.2"));
        assert_eq!(split("/info").unwrap(), (ApiVersion::MAX, "/info"));
        assert_eq!(split("/volumes").unwrap(), (ApiVersion::MAX, "/volumes"));
        assert_eq!(split("/version").unwrap(), (ApiVersion::MAX, "/version"));
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockers_words() {
        let old = split("/v1.23/info").unwrap_err();
        assert_eq!(old.status(), 400);
        assert!(
            old.message()
                .starts_with("client version 1.23 is too old. Minimum supported API version is 1.24")
        );
        let new = split("/v1.99/info").unwrap_err();
        assert_eq!(new.message(), "client version 1.99 is too new. Maximum supported API version is 1.50");
        assert!(split("/v2.0/info").unwrap_err().message().contains("too new"));
    }

    #[test]
    fn the_constants_agree() {
        assert_eq!(ApiVersion::MAX.to_string(), MAX_API_VERSION);
        assert_eq!(ApiVersion::MIN.to_string(), MIN_API_VERSION);
    }
}
