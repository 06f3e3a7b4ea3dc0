use std::fmt;

/// A valid volume name: safe as one path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A text that is no volume name, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// One character only.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    TooShort,
    /// Characters a name cannot have.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )]
    Characters(String),
}

impl Name {
    /// Parses a name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes (the longest file name).
    ///
    /// # Errors
    /// [`InvalidName`] with docker's wording.
    pub fn parse(text: &str) -> Result<Name, InvalidName> {
        if text.len() == 1 {
            return Err(InvalidName::TooShort);
        }
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= 240 {
            Ok(Name(text.to_owned()))
        } else {
            Err(InvalidName::Characters(text.to_owned()))
        }
    }

    /// A name for an anonymous volume: 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> std::io::Result<Name> {
        let mut bytes = [0_u8; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Name(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_safe_path_component() {
        for good in ["ab", "a.b", "A_1-2", "00"] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "..", ".a", "a/b", "a b", "-a", "a\0", "ä1", "../x"] {
            assert!(matches!(Name::parse(bad), Err(InvalidName::Characters(_))), "{bad:?}");
        }
        assert_eq!(Name::parse("a"), Err(InvalidName::TooShort));
        assert!(Name::parse(&"x".repeat(300)).is_err());
    }

    #[test]
    fn random_names_are_64_digits_and_differ() {
        let (a, b) = (Name::random().unwrap(), Name::random().unwrap());
        assert_eq!(a.as_str().len(), 64);
        assert_ne!(a, b);
        assert_eq!(Name::parse(a.as_str()), Ok(a.clone()));
    }
}
