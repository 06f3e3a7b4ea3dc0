//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "hull registry",
    bin_name = "hull registry",
    version,
    about = "A registry for container images"
)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the registry
    Serve(Serve),
    /// Remove what nobody needs, while the registry runs or not
    Gc(Gc),
    /// Read every blob and manifest and compare it with its digest, while the registry runs or not
    Check(Check),
    /// Print a line for the file of users; the password is read from standard input
    Passwd(Passwd),
}

#[derive(Args, Default)]
pub(crate) struct Common {
    /// Configuration file (default /etc/hull/registry.toml, if it is there)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept (default /var/lib/hull-registry)
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) root: Option<PathBuf>,
    /// Any setting of the file, for example --set gc.interval=1h
    #[arg(long, value_name = "SETTING=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args, Default)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Address to listen on, can be given several times (default 127.0.0.1:5000)
    #[arg(long, short, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// File of users and bcrypt passwords
    #[arg(long, value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// Be a cache of the registry at this address
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// Change nothing
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Write requests down: stdout, off or a file
    #[arg(long, value_name = "WHERE")]
    pub(crate) access_log: Option<String>,
    /// Check the configuration and end
    #[arg(long)]
    pub(crate) validate: bool,
}

#[derive(Args)]
pub(crate) struct Gc {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Take damaged blobs out of service; the next push of them heals every image that has them
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Args)]
pub(crate) struct Passwd {
    /// Name of the user
    pub(crate) user: String,
}
