//! Labels of Linux security modules for the next `execve` of the calling thread.

use std::io::Write as _;
use std::path::Path;

/// Which security module a label belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Module {
    /// An AppArmor profile name.
    AppArmor,
    /// An SELinux process context.
    SeLinux,
}

/// A label could not be set.
#[derive(Debug, thiserror::Error)]
#[error("set the {module:?} label {label:?}")]
pub struct LabelError {
    /// The security module.
    pub module: Module,
    /// The label asked for.
    pub label: String,
    /// What the kernel answered.
    #[source]
    pub source: std::io::Error,
}

/// Whether the running kernel has `module` enabled.
pub fn enabled(module: Module) -> bool {
    match module {
        Module::AppArmor => std::fs::read("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.first() == Some(&b'Y')),
        Module::SeLinux => Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

/// Asks for `label` at the next `execve` of the calling thread (apparmor(7), selinux `setexeccon`).
///
/// # Errors
/// [`LabelError`] when the module is absent or refuses the label; a container must not start then.
pub fn write(module: Module, label: &str) -> Result<(), LabelError> {
    let (paths, text) = match module {
        // The first path is where a kernel with stacked modules has it, the second the historical one.
        Module::AppArmor => {
            (["/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"], format!("exec {label}"))
        }
        Module::SeLinux => {
            (["/proc/thread-self/attr/selinux/exec", "/proc/thread-self/attr/exec"], label.to_owned())
        }
    };
    write_first(&paths, &text).map_err(|source| LabelError { module, label: label.to_owned(), source })
}

fn write_first(paths: &[&str], text: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for path in paths {
        match std::fs::OpenOptions::new().write(true).open(path) {
            Ok(mut file) => return file.write_all(text.as_bytes()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
