//! Docker's seccomp profile files (`--security-opt seccomp=<file>`), resolved for this machine and a container's
//! capabilities. Format: moby `profiles/seccomp`, a superset of the OCI one.

use std::path::PathBuf;

use hull_sys::kernel;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;

use crate::CapSet;

/// How docker calls the architecture Hull runs on.
const ARCHITECTURE: &str = "amd64";

/// A seccomp profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON of the right form.
    #[error("decode the seccomp profile")]
    Decode(#[source] serde_json::Error),
    /// Two ways of naming architectures at once.
    #[error("both 'architectures' and 'archMap' are specified in the seccomp profile, use either one")]
    BothArchitectures,
    /// Two ways of naming calls at once.
    #[error("both 'name' and 'names' are specified in the seccomp profile, use either one: {0:?}")]
    BothNames(String),
    /// A `minKernel` that is no kernel version.
    #[error("invalid minKernel in the seccomp profile: {0:?}")]
    MinKernel(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The rules of docker profile `json` that apply to a container granted `granted` on this machine.
///
/// # Errors
/// [`ProfileError`].
pub fn from_docker_profile(json: &[u8], granted: CapSet) -> Result<LinuxSeccomp, ProfileError> {
    let profile: Profile = serde_json::from_slice(json).map_err(ProfileError::Decode)?;
    let here = Machine { granted, kernel: kernel::version() };
    let mut rules = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        if here.meets(&rule)? {
            rules.push(into_oci(rule)?);
        }
    }
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(architectures(profile.architectures, profile.arch_map)?)
        .set_flags(profile.flags)
        .set_listener_path(profile.listener_path.filter(|path| !path.as_os_str().is_empty()))
        .set_listener_metadata(profile.listener_metadata.filter(|data| !data.is_empty()))
        .set_syscalls(Some(rules));
    Ok(seccomp)
}

fn architectures(
    named: Option<Vec<Arch>>,
    map: Option<Vec<ArchMap>>,
) -> Result<Option<Vec<Arch>>, ProfileError> {
    let named = named.filter(|named| !named.is_empty());
    let map = map.filter(|map| !map.is_empty());
    match (named, map) {
        (Some(_), Some(_)) => Err(ProfileError::BothArchitectures),
        (named, None) => Ok(named),
        (None, Some(map)) => Ok(map
            .into_iter()
            .find(|entry| entry.architecture == Arch::ScmpArchX86_64)
            .map(|entry| [vec![entry.architecture], entry.sub_architectures.unwrap_or_default()].concat())),
    }
}

fn into_oci(rule: Rule) -> Result<LinuxSyscall, ProfileError> {
    let names = match rule.names {
        Some(names) if !names.is_empty() && !rule.name.is_empty() => {
            return Err(ProfileError::BothNames(names.concat()));
        }
        Some(names) if rule.name.is_empty() => names,
        _ => vec![rule.name],
    };
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(names)
        .set_action(rule.action)
        .set_errno_ret(rule.errno_ret)
        .set_args(rule.args.filter(|args| !args.is_empty()));
    Ok(syscall)
}

struct Machine {
    granted: CapSet,
    kernel: (u32, u32),
}

impl Machine {
    fn meets(&self, rule: &Rule) -> Result<bool, ProfileError> {
        if let Some(excludes) = &rule.excludes {
            let any_cap = excludes.caps.iter().flatten().any(|name| self.has(name));
            if any_cap || here(&excludes.arches) == Some(true) || self.new_enough(excludes)? == Some(true) {
                return Ok(false);
            }
        }
        if let Some(includes) = &rule.includes {
            let every_cap = includes.caps.iter().flatten().all(|name| self.has(name));
            if !every_cap
                || here(&includes.arches) == Some(false)
                || self.new_enough(includes)? == Some(false)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A name this crate does not know is granted to nobody.
    fn has(&self, name: &str) -> bool {
        name.parse().is_ok_and(|set: CapSet| self.granted.contains(set))
    }

    fn new_enough(&self, condition: &Condition) -> Result<Option<bool>, ProfileError> {
        let Some(text) = condition.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let least = kernel::parse_version(text).ok_or_else(|| ProfileError::MinKernel(text.to_owned()))?;
        Ok(Some(self.kernel >= least))
    }
}

fn here(arches: &Option<Vec<String>>) -> Option<bool> {
    let arches = arches.as_deref().filter(|arches| !arches.is_empty())?;
    Some(arches.iter().any(|arch| arch == ARCHITECTURE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str, caps: CapSet) -> Vec<String> {
        let seccomp = from_docker_profile(json.as_bytes(), caps).unwrap();
        seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_select_rules() {
        let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {}, "excludes": {}},
            {"name": "b", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}},
            {"names": ["c"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN", "CAP_BPF"]}},
            {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"], "minKernel": "4.8"}},
            {"names": ["f"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
            {"names": ["g"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}}
        ]}"#;
        assert_eq!(rules(json, CapSet::ALL), ["a", "b", "e"]);
        assert_eq!(rules(json, "CHOWN".parse().unwrap()), ["a", "e"]);
        assert_eq!(rules(json, CapSet::EMPTY), ["a", "c", "e"]);
    }

    #[test]
    fn architectures_come_from_one_place() {
        let map = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": null}]}"#;
        let seccomp = from_docker_profile(map.as_bytes(), CapSet::EMPTY).unwrap();
        assert_eq!(seccomp.architectures(), &Some(vec![Arch::ScmpArchX86_64]));
        let both = map.replacen('{', r#"{"architectures": ["SCMP_ARCH_X86"], "#, 1);
        assert!(matches!(
            from_docker_profile(both.as_bytes(), CapSet::EMPTY),
            Err(ProfileError::BothArchitectures)
        ));
    }

    #[test]
    fn bad_profiles_are_refused() {
        for (json, part) in [
            ("{", "decode"),
            (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, "decode"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                    [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]}"#,
                "names",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                    [{"name": "a", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]}"#,
                "minKernel",
            ),
        ] {
            let error = from_docker_profile(json.as_bytes(), CapSet::EMPTY).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
