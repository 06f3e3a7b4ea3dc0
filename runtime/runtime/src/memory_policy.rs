//! `linux.memoryPolicy`: from which memory nodes the container's memory comes. Numbers of `<linux/mempolicy.h>`.

use crate::Error;
use crate::error::StepExt;
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};

const STATIC_NODES: i32 = 1 << 15;
const RELATIVE_NODES: i32 = 1 << 14;
const NUMA_BALANCING: i32 = 1 << 13;

/// A policy, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    mode: i32,
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// Checks what the kernel would refuse on any machine.
    pub(crate) fn new(wanted: &LinuxMemoryPolicy) -> Result<Self, Error> {
        let invalid =
            |field: &str, reason: String| Error::spec(format!("linux.memoryPolicy.{field}"), reason);
        let mut mode = match wanted.mode() {
            Mode::MpolDefault => 0,
            Mode::MpolPreferred => 1,
            Mode::MpolBind => 2,
            Mode::MpolInterleave => 3,
            Mode::MpolLocal => 4,
            Mode::MpolPreferredMany => 5,
            Mode::MpolWeightedInterleave => 6,
        };
        for flag in wanted.flags().iter().flatten() {
            mode |= match flag {
                Flag::MpolFStaticNodes => STATIC_NODES,
                Flag::MpolFRelativeNodes => RELATIVE_NODES,
                Flag::MpolFNumaBalancing => NUMA_BALANCING,
            };
        }
        if mode & STATIC_NODES != 0 && mode & RELATIVE_NODES != 0 {
            return Err(invalid("flags", "static and relative nodes exclude each other".into()));
        }
        let text = wanted.nodes().as_deref().unwrap_or_default().trim();
        let nodes = match text {
            "" => Vec::new(),
            text => crate::lists::bits(text)
                .ok_or_else(|| invalid("nodes", format!("{text:?} is no list of numbers")))?,
        };
        match (wanted.mode(), nodes.is_empty()) {
            (Mode::MpolDefault | Mode::MpolLocal, false) => {
                Err(invalid("nodes", format!("{} takes none", wanted.mode())))
            }
            (
                Mode::MpolBind
                | Mode::MpolInterleave
                | Mode::MpolWeightedInterleave
                | Mode::MpolPreferredMany,
                true,
            ) => Err(invalid("nodes", format!("{} needs some", wanted.mode()))),
            _ => Ok(Self { mode, nodes }),
        }
    }

    /// Puts it in force for this thread and what it executes.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        hull_sys::memory::set_memory_policy(self.mode, &self.nodes).step(|| "set linux.memoryPolicy".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<MemoryPolicy, Error> {
        MemoryPolicy::new(&serde_json::from_str(text).expect("json"))
    }

    #[test]
    fn modes_and_nodes_must_fit() {
        let bound =
            policy(r#"{"mode":"MPOL_BIND","nodes":"0-1","flags":["MPOL_F_STATIC_NODES"]}"#).expect("valid");
        assert_eq!(bound, MemoryPolicy { mode: 2 | STATIC_NODES, nodes: vec![3] });
        for bad in [
            r#"{"mode":"MPOL_BIND"}"#,
            r#"{"mode":"MPOL_DEFAULT","nodes":"0"}"#,
            r#"{"mode":"MPOL_INTERLEAVE","nodes":"x"}"#,
            r#"{"mode":"MPOL_PREFERRED","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
        ] {
            assert_eq!(policy(bad).expect_err(bad).kind(), crate::ErrorKind::InvalidSpec);
        }
    }

    #[test]
    fn the_kernel_takes_the_first_node() {
        let policy = policy(r#"{"mode":"MPOL_BIND","nodes":"0"}"#).expect("valid");
        // For this test's thread only; a kernel without NUMA says so.
        match policy.apply() {
            Ok(()) | Err(Error::Step { source: rustix::io::Errno::NOSYS | rustix::io::Errno::PERM, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
