//! Another OCI runtime (runc, crun, runsc, …) driven by its command line.

use std::path::PathBuf;

use hull_oci::Stdio;

use crate::backend::{Backend, Process, failure};
use crate::config::MonitorConfig;
use crate::protocol::{Exec, Failure, FailureKind};

/// A runtime with runc's command line.
#[derive(Debug)]
pub(crate) struct Foreign {
    runtime: PathBuf,
}

impl Foreign {
    pub(crate) fn new(runtime: PathBuf) -> Self {
        Self { runtime }
    }

    fn missing(&self) -> Failure {
        let message = format!("not implemented: runtime {}", self.runtime.display());
        failure(FailureKind::NotImplemented, message)
    }
}

impl Backend for Foreign {
    fn create(&mut self, _: &MonitorConfig, _: Stdio) -> Result<Process, Failure> {
        Err(self.missing())
    }

    fn start(&mut self) -> Result<(), Failure> {
        Err(self.missing())
    }

    fn exec(&mut self, _: &Exec, _: Stdio) -> Result<Process, Failure> {
        Err(self.missing())
    }

    fn oom_kills(&self) -> u64 {
        0
    }

    fn end_others(&mut self) {}

    fn remove(&mut self) {}
}
