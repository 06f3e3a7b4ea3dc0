//! `init COMMAND [ARG…]`: the init on its own, for trying it without a container.

fn main() {
    let command: Vec<_> = std::env::args_os().skip(1).collect();
    let status = hull_init::run(&command).unwrap_or_else(|error| {
        eprintln!("init: {error}: {:?}", std::error::Error::source(&error));
        error.status()
    });
    std::process::exit(status);
}
