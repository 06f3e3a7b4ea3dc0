//! How the program starts: from an image nobody can write, with its standard streams open. Needs root and a static busybox;
//! says so and passes where one is missing.

#[allow(dead_code, reason = "other suites use the rest")]
mod suite;

use suite::{Bundle, runnable};

#[test]
fn a_waiting_containers_program_is_a_protected_image() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/bin/true"], |_| ());
    bundle.ok(&["create", "-b", bundle.path(), bundle.id()]);
    let state: serde_json::Value = serde_json::from_str(&bundle.ok(&["state", bundle.id()])).expect("state");
    let exe = format!("/proc/{}/exe", state["pid"]);
    let error = std::fs::OpenOptions::new().write(true).open(&exe).expect_err("must not be writable");
    // Not ETXTBSY, which it would be for as long as it runs only.
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
}

#[test]
fn a_closed_standard_stream_is_not_taken_by_a_file() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/bin/sh", "-c", "for n in 0 2; do readlink /proc/self/fd/$n; done"], |_| ());
    let command = bundle.command(&["run", "-b", bundle.path(), bundle.id(), "<&-", "2>&-"]);
    let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("run");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/dev/null\n/dev/null\n");
}
