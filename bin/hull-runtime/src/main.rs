//! OCI runtime command and container monitor.

// `hull_sys::program` defines it.
#![cfg_attr(not(test), no_main)]

mod args;
mod checkpoint;
mod commands;
mod console;
mod events;
mod exec;
mod log;
mod parse;
mod resources;
mod run;
mod template;

use args::{Cli, Command};

/// Room for a configuration and what is made of it, so that the heap grows once.
const HEAP_STEP: i32 = 1 << 20;

#[cfg(not(test))]
hull_sys::program!(start);

#[cfg_attr(test, expect(dead_code, reason = "the tests have a main of their own"))]
fn start() -> u8 {
    // Before any parsing of options: inside containers this program has other names, and the monitor is started for
    // every container of an engine.
    let name = std::env::args_os().next();
    if hull_hello::is_asked_for(name.as_deref()) {
        return hello();
    }
    if hull_init::is_asked_for(name.as_deref()) {
        return init();
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == "monitor") {
        return monitor();
    }
    hull_sys::memory::grow_in_steps_of(HEAP_STEP);
    let cli = parse::command_line();
    // Reading the configuration is another part of the program, as is making the container.
    hull_sys::memory::let_go_of_code();
    let log = log::Log::open(&cli.global);
    log.debug(|| format!("hull-runtime {}", std::env::args().skip(1).collect::<Vec<_>>().join(" ")));
    match protect(&cli.command).and_then(|()| dispatch(&cli, &log)) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error);
            if matches!(cli.command, Command::Exec(_)) { 255 } else { 1 }
        }
    }
}

/// The program of the image `hello`.
fn hello() -> u8 {
    match hull_hello::report(&mut std::io::stdout().lock()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// Process 1 of a container with `--init`: `docker-init -- COMMAND [ARG…]`.
fn init() -> u8 {
    let mut command: Vec<_> = std::env::args_os().skip(1).collect();
    if command.first().is_some_and(|first| first == "--") {
        command.remove(0);
    }
    let status = hull_init::run(&command).unwrap_or_else(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        eprintln!("{}: {error}{cause}", hull_init::PROGRAM);
        error.status()
    });
    u8::try_from(status).unwrap_or(1)
}

/// The container monitor: `hull-runtime monitor --config <file>`.
fn monitor() -> u8 {
    let mut arguments = std::env::args_os().skip(2);
    let (Some(flag), Some(config), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: hull-runtime monitor --config <file>");
        return 2;
    };
    if flag != "--config" {
        eprintln!("usage: hull-runtime monitor --config <file>");
        return 2;
    }
    // What goes wrong is told to the engine; there is nobody to read it here.
    match hull_monitor::run(config.as_ref()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn dispatch(cli: &Cli, log: &log::Log) -> anyhow::Result<u8> {
    let store = cli.global.store();
    match &cli.command {
        Command::Create(args) => run::create(&cli.global, log, args),
        Command::Run(args) => run::run(&cli.global, log, args),
        Command::Exec(args) => exec::exec(&store, args),
        Command::Start(args) => commands::start(&store, args),
        Command::State(args) => commands::state(&store, args),
        Command::Kill(args) => commands::kill(&store, args),
        Command::Delete(args) => commands::delete(&store, args),
        Command::Pause(args) => commands::pause(&store, args),
        Command::Resume(args) => commands::resume(&store, args),
        Command::List(args) => {
            cli.global.check_root()?;
            commands::list(&store, args)
        }
        Command::Ps(args) => commands::ps(&store, args),
        Command::Events(args) => events::events(&store, args),
        Command::Update(args) => resources::update(&store, args),
        Command::Spec(args) => template::spec(args),
        Command::Features => template::features(),
        Command::Checkpoint(args) => checkpoint::checkpoint(&cli.global, args),
        Command::Restore(args) => checkpoint::restore(&cli.global, log, args),
    }
}

/// Commands that enter a container's pid namespace must not run from a file the container could then write
/// (CVE-2019-5736): they start over from a read-only overlay of this program, or from a sealed copy in memory.
fn protect(command: &Command) -> anyhow::Result<()> {
    use anyhow::Context;
    use std::os::unix::ffi::OsStrExt;
    if !matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
        return Ok(());
    }
    if hull_sys::is_protected_image().context("look at the own program")? {
        return Ok(());
    }
    let image = match hull_sys::image::read_only_self() {
        Ok(image) => image,
        Err(_) => {
            let own = std::fs::File::open("/proc/self/exe").context("open the own program")?;
            hull_sys::sealed_copy(&own).context("copy the own program into memory")?
        }
    };
    let strings = |list: Vec<Vec<u8>>| {
        hull_sys::exec::CStrings::new(list).map_err(|_| anyhow::anyhow!("an argument holds a NUL byte"))
    };
    let argv = strings(std::env::args_os().map(|arg| arg.as_bytes().to_vec()).collect())?;
    let envp = strings(
        std::env::vars_os().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat()).collect(),
    )?;
    let errno = hull_sys::exec::fexecve(std::os::fd::AsFd::as_fd(&image), &argv, &envp);
    Err(errno).context("execute the protected copy of the own program")
}
