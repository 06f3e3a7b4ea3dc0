use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a program needs to run: operating system and processor (OCI image-spec image-index.md, `platform`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// GOOS: `linux`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Required features of the operating system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor: `v7`, `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// The text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A component has characters that cannot be in it, or there are more than three.
    #[error("{0:?} is an invalid OS or architecture: platform must be os[/architecture[/variant]]")]
    Invalid(String),
    /// A single word that is neither a known operating system nor processor.
    #[error("{0:?}: unknown operating system or architecture")]
    Unknown(String),
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new("linux", architecture, if architecture == "arm" { "v7" } else { "" })
    }

    /// From its parts, normalised (`x86_64` is `amd64`, `arm64/v8` is `arm64`, …).
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normal_architecture(architecture, variant);
        Self { architecture, os: normal_os(os), variant, ..Self::default() }
    }

    /// The same platform in its normal form.
    pub fn normalized(&self) -> Self {
        Self {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Self::new(&self.os, &self.architecture, &self.variant)
        }
    }

    /// How well an image of `image`'s platform suits a request for `self`: `None` not at all, otherwise smaller
    /// is better and 0 exact. A later variant of a processor runs what was built for an earlier one (containerd
    /// platforms `Only`).
    pub fn rank(&self, image: &Platform) -> Option<u32> {
        let (want, have) = (self.normalized(), image.normalized());
        if want.os != have.os || (!want.os_version.is_empty() && want.os_version != have.os_version) {
            return None;
        }
        if want.architecture != have.architecture {
            return other_architecture(&want, &have);
        }
        if want.variant == have.variant {
            return Some(0);
        }
        let level = |p: &Platform| variant_level(&p.architecture, &p.variant);
        let (want, have) = (level(&want)?, level(&have)?);
        (have <= want).then(|| want - have)
    }

    /// Whether an image of that platform can serve a request for this one.
    pub fn accepts(&self, image: &Platform) -> bool {
        self.rank(image).is_some()
    }
}

/// 32-bit programs on 64-bit processors: worse than any own variant.
fn other_architecture(want: &Platform, have: &Platform) -> Option<u32> {
    match (want.architecture.as_str(), have.architecture.as_str()) {
        ("amd64", "386") => Some(100),
        ("arm64", "arm") => Some(100 + 8 - variant_level("arm", &have.variant).filter(|v| *v <= 8)?),
        _ => None,
    }
}

/// The number in `v8`, `v8.1` (as 8) or an architecture's default.
fn variant_level(architecture: &str, variant: &str) -> Option<u32> {
    match (architecture, variant) {
        ("amd64", "") => Some(1),
        ("arm64", "") => Some(8),
        ("arm", "") => Some(7),
        (_, v) => v.strip_prefix('v')?.split('.').next()?.parse().ok(),
    }
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".into(),
        other => other.into(),
    }
}

fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (a, v) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (a, v) => (a, v),
    };
    (a.into(), v.into())
}

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "macos",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const KNOWN_ARCHITECTURE: &[&str] = &[
    "386", "i386", "amd64", "x86_64", "x86-64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64",
    "mips", "mipsle", "mips64", "mips64le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x",
    "sparc", "sparc64", "wasm",
];

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os`, `architecture`, `os/architecture` or `os/architecture/variant`; what is left out is the host's.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid =
            |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if parts.len() > 3 || !parts.iter().all(valid) {
            return Err(PlatformError::Invalid(text.into()));
        }
        match parts[..] {
            [one] if KNOWN_OS.contains(&one.to_ascii_lowercase().as_str()) => {
                Ok(Self { os: normal_os(one), ..Self::host() })
            }
            [one] if KNOWN_ARCHITECTURE.contains(&one.to_ascii_lowercase().as_str()) => {
                Ok(Self::new("linux", one, ""))
            }
            [_] => Err(PlatformError::Unknown(text.into())),
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant, ..] => Ok(Self::new(os, architecture, variant)),
            [] => Err(PlatformError::Invalid(text.into())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_normalises() {
        for (text, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("Linux/AMD64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(p(text).to_string(), want);
        }
        assert_eq!(p("linux"), Platform::host());
        for bad in ["", "/", "linux/", "linux/amd64/v1/x", "wat", "linux/a md"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn better_images_rank_first() {
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64")), Some(0));
        assert_eq!(p("linux/amd64").rank(&p("linux/arm64")), None);
        assert_eq!(p("linux/amd64").rank(&p("windows/amd64")), None);
        assert_eq!(p("linux/arm/v7").rank(&p("linux/arm/v6")), Some(1));
        assert_eq!(p("linux/arm/v6").rank(&p("linux/arm/v7")), None);
        assert!(p("linux/amd64").rank(&p("linux/386")) > Some(0));
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64/v3")), None);
        assert_eq!(p("linux/arm64").rank(&p("linux/arm/v7")), Some(101));
    }

    #[test]
    fn json_has_the_dotted_names() {
        let mut windows = p("windows/amd64");
        windows.os_version = "10.0".into();
        assert_eq!(
            serde_json::to_string(&windows).unwrap(),
            r#"{"architecture":"amd64","os":"windows","os.version":"10.0"}"#
        );
    }
}
