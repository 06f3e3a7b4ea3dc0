//! Links `hull-runtime` as a static executable with fixed addresses.
//!
//! There is one monitor per container, and a position-independent executable relocates itself at its start: 290 KiB of
//! tables become private memory of every monitor. With fixed addresses they stay shared pages of the file. Stack, heap
//! and mappings are randomised as before.
//!
//! Its entry point is [`hull_sys::early`]'s, which protects the program before the C library starts.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-no-pie", "-static", "-Wl,-e,hull_entry"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
