//! The running kernel's version, for what cannot be found out by trying (`uname(2)`).

/// Major and minor number of the running kernel; (0, 0) if its release does not begin with them.
pub fn version() -> (u32, u32) {
    let uname = rustix::system::uname();
    uname.release().to_str().ok().and_then(parse_version).unwrap_or((0, 0))
}

/// Major and minor number of a release like `6.1.0-56-cloud-amd64`.
pub fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        assert_eq!(parse_version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(parse_version("6.18.0-rc1"), Some((6, 18)));
        assert!(parse_version("6.10+") > parse_version("6.8.12"));
        assert_eq!(parse_version("odd"), None);
        assert!(version() > (4, 0));
    }
}
