//! `process.execCPUAffinity`: on which CPUs a further process begins, and on which it goes on.

use crate::Error;
use crate::error::StepExt;
use oci_spec::runtime::ExecCPUAffinity;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Both sets, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Affinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

/// The caller's own CPUs, set back when dropped.
pub(crate) struct Before(Option<CpuSet>);

impl Drop for Before {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // They were allowed a moment ago; a CPU taken offline since is not worth an error.
            let _ = sched_setaffinity(None, before);
        }
    }
}

impl Affinity {
    pub(crate) fn new(wanted: &ExecCPUAffinity) -> Result<Self, Error> {
        let set = |field: &str, list: &Option<String>| -> Result<Option<CpuSet>, Error> {
            let Some(text) = list.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
            let mask = crate::lists::bits(text).filter(|mask| mask.len() * 64 <= CpuSet::MAX_CPU);
            let mask = mask.ok_or_else(|| {
                let field = format!("process.execCPUAffinity.{field}");
                Error::spec(field, format!("{text:?} is no list of CPUs"))
            })?;
            let mut set = CpuSet::new();
            let is_set = |cpu: &usize| mask[cpu / 64] & 1 << (cpu % 64) != 0;
            (0..mask.len() * 64).filter(is_set).for_each(|cpu| set.set(cpu));
            Ok(Some(set))
        };
        Ok(Self {
            initial: set("initial", wanted.initial())?,
            last: set("final", wanted.cpu_affinity_final())?,
        })
    }

    /// Brings the caller, and so the child it makes next, to the first CPUs, until what is returned is dropped.
    pub(crate) fn begin(&self) -> Result<Before, Error> {
        let Some(initial) = &self.initial else { return Ok(Before(None)) };
        let step = || "set process.execCPUAffinity.initial".to_owned();
        let before = sched_getaffinity(None).step(step)?;
        sched_setaffinity(None, initial).step(step)?;
        Ok(Before(Some(before)))
    }

    /// Brings this process to the CPUs it is to go on with.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        match (&self.last, &self.initial) {
            (Some(set), _) => {
                sched_setaffinity(None, set).step(|| "set process.execCPUAffinity.final".into())
            }
            (None, Some(_)) => Ok(()),
            (None, None) => reset(),
        }
    }
}

/// To all CPUs that the cpuset has: the caller's own affinity (a service's, a terminal's) is none of the container's.
pub(crate) fn reset() -> Result<(), Error> {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    match sched_setaffinity(None, &all) {
        // No CPU of these is in the cpuset, or somebody forbids the call: nothing is lost.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error).step(|| "reset the CPU affinity".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_sets() {
        let wanted = serde_json::from_str(r#"{"initial":"0","final":"1,3-4"}"#).expect("json");
        let affinity = Affinity::new(&wanted).expect("valid");
        assert_eq!(affinity.initial.map(|set| set.count()), Some(1));
        assert!(affinity.last.is_some_and(|set| set.is_set(3) && !set.is_set(2) && set.count() == 3));
        let wanted = serde_json::from_str(r#"{"final":"4-1"}"#).expect("json");
        assert!(Affinity::new(&wanted).expect_err("backwards").to_string().contains("execCPUAffinity.final"));
    }
}
