//! The image `hello`: made by Hull out of its own static runtime program, so that it needs no network.
//!
//! The program of the image is `hull-runtime` itself under the name [`PROGRAM`]. It reports what isolates the
//! container it runs in ([`report`]). The engine makes the image's only layer with [`layer`] when the reference
//! `hello` is asked for and no such image is there.

mod facts;
mod rootfs;

use std::io::{self, Write};

pub use rootfs::layer;

/// The name under which `hull-runtime` is this program (the last part of argument 0).
pub const PROGRAM: &str = "hello";

/// The command that the image runs.
pub const COMMAND: [&str; 1] = ["/hello"];

/// The familiar name of the image.
pub const IMAGE: &str = "hello";

/// Whether argument 0 of this process asks for the program of the image.
#[must_use]
pub fn is_asked_for(argument_0: Option<&std::ffi::OsStr>) -> bool {
    let name = argument_0.and_then(|name| std::path::Path::new(name).file_name());
    name.is_some_and(|name| name == PROGRAM)
}

/// Writes what isolates this process, one fact a line.
///
/// # Errors
/// When the writer fails. A fact that cannot be read is reported as unknown.
pub fn report(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "Hello from Hull: a container runs on this machine.\n")?;
    writeln!(out, "What this program sees of its isolation:")?;
    for (name, fact) in facts::all() {
        writeln!(out, "  {name:<14}{fact}")?;
    }
    writeln!(
        out,
        "\nTo get here, the hull command asked its engine for a container of the image \"{IMAGE}\"; the engine made\n\
         that image from its own program, and a monitor started it and passed its output on to you."
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        let asked = |name: &str| is_asked_for(Some(std::ffi::OsStr::new(name)));
        assert!(asked("/hello") && asked("hello"));
        assert!(!asked("/usr/bin/hull-runtime") && !asked("/hello/x"));
        assert!(!is_asked_for(None));
    }

    #[test]
    fn the_report_names_every_kind_of_isolation() {
        let mut out = Vec::new();
        report(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for word in [
            "namespaces",
            "user",
            "capabilities",
            "seccomp",
            "cgroup",
            "limits",
            "root",
            "mounts",
            "addresses",
        ] {
            assert!(text.lines().any(|line| line.starts_with(&format!("  {word}"))), "{word}:\n{text}");
        }
    }
}
