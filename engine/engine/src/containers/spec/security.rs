//! Capabilities, seccomp and no-new-privileges of a container, from `CapAdd`, `CapDrop`, `Privileged`, `SecurityOpt`.

use hull_confine::label::{Module, enabled};
use hull_confine::{CapSet, seccomp};
use hull_docker_api::HostConfig;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, LinuxSeccomp};

use crate::{Config, Error, Result};

/// What a container may do.
#[derive(Debug, Clone)]
pub(crate) struct Security {
    granted: CapSet,
    pub(crate) seccomp: Option<LinuxSeccomp>,
    pub(crate) no_new_privileges: bool,
    /// AppArmor profile for its processes; none is applied unless one is asked for.
    pub(crate) apparmor: Option<String>,
}

impl Security {
    /// Reads the host configuration; the errors are docker's.
    pub(crate) fn new(host: &HostConfig, engine: &Config) -> Result<Security> {
        let granted = capabilities(host)?;
        let options = parse(host.security_opt.as_deref().unwrap_or_default())?;
        let seccomp = match options.seccomp {
            _ if host.privileged => None,
            Seccomp::Unconfined => None,
            Seccomp::Default => Some(seccomp::docker_default(granted)),
            Seccomp::Profile(json) => Some(
                seccomp::from_docker_profile(json.as_bytes(), granted)
                    .map_err(|error| Error::invalid(format!("Decoding seccomp profile failed: {error}")))?,
            ),
        };
        let no_new_privileges = options.no_new_privileges.unwrap_or(engine.no_new_privileges);
        // Without AppArmor there is nothing to apply; dockerd accepts the option there too.
        let apparmor = options.apparmor.filter(|_| enabled(Module::AppArmor));
        Ok(Security { granted, seccomp, no_new_privileges, apparmor })
    }

    /// For an exec with `--privileged`: everything the engine may grant.
    pub(crate) fn all_capabilities(mut self) -> Security {
        self.granted = CapSet::bounding_of_caller();
        self
    }

    /// The five sets for a user. For another user than root only the bounding set, as execve would leave it.
    pub(crate) fn capabilities(&self, uid: u32) -> LinuxCapabilities {
        let set: Capabilities = self
            .granted
            .names()
            .filter_map(|name| serde_json::from_value(serde_json::Value::String(name)).ok())
            .collect();
        let mut sets = LinuxCapabilities::default();
        let held = (uid == 0).then(|| set.clone());
        sets.set_effective(held.clone())
            .set_permitted(held)
            .set_bounding(Some(set))
            .set_inheritable(None)
            .set_ambient(None);
        sets
    }
}

fn capabilities(host: &HostConfig) -> Result<CapSet> {
    if host.privileged {
        return Ok(CapSet::bounding_of_caller());
    }
    let list = |words: &Option<hull_docker_api::StrSlice>| words.clone().unwrap_or_default().0;
    let (add, drop) = (list(&host.cap_add), list(&host.cap_drop));
    let wanted = CapSet::DOCKER_DEFAULT
        .tweak(&add, &drop, false)
        .map_err(|error| Error::invalid(error.to_string()))?;
    // `ALL` means all there are to give; a capability named on its own that this engine lacks fails at start.
    if add.iter().any(|name| name.eq_ignore_ascii_case("ALL")) {
        let available = CapSet::bounding_of_caller();
        return Ok(CapSet::from_bits(wanted.bits() & available.bits()));
    }
    Ok(wanted)
}

#[derive(Debug, PartialEq)]
enum Seccomp {
    Default,
    Unconfined,
    Profile(String),
}

#[derive(Debug, PartialEq)]
struct Options {
    seccomp: Seccomp,
    no_new_privileges: Option<bool>,
    apparmor: Option<String>,
}

fn parse(options: &[String]) -> Result<Options> {
    let mut parsed = Options { seccomp: Seccomp::Default, no_new_privileges: None, apparmor: None };
    for option in options {
        if option == "no-new-privileges" {
            parsed.no_new_privileges = Some(true);
            continue;
        }
        // `key=value`, or the older `key:value`.
        let split = option.split_once('=').or_else(|| option.split_once(':'));
        let Some((key, value)) = split else {
            return Err(Error::invalid(format!("invalid --security-opt 1: \"{option}\"")));
        };
        match key {
            "seccomp" if value == "unconfined" => parsed.seccomp = Seccomp::Unconfined,
            "seccomp" if value == "builtin" => parsed.seccomp = Seccomp::Default,
            "seccomp" => parsed.seccomp = Seccomp::Profile(value.to_owned()),
            "no-new-privileges" => match value {
                "true" | "1" => parsed.no_new_privileges = Some(true),
                "false" | "0" => parsed.no_new_privileges = Some(false),
                _ => return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            },
            // What starts a container is not confined itself: nothing has to be asked of the kernel.
            "apparmor" => parsed.apparmor = (value != "unconfined").then(|| value.to_owned()),
            // Hull labels nothing for SELinux; dockerd accepts these without it too.
            "label" => {}
            "writable-cgroups" => return Err(Error::not_implemented("--security-opt writable-cgroups")),
            _ => return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Result<Options, String> {
        let list: Vec<String> = list.iter().map(|option| (*option).to_owned()).collect();
        parse(&list).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn security_options_are_dockers() {
        let parsed = options(&["no-new-privileges", "seccomp=unconfined", "label=disable"]).expect("valid");
        let no_new_privileges = Some(true);
        assert_eq!(parsed, Options { seccomp: Seccomp::Unconfined, no_new_privileges, apparmor: None });
        let profile = |list: &[&str]| options(list).expect("valid").apparmor;
        assert_eq!(profile(&["apparmor=mine"]).as_deref(), Some("mine"));
        assert_eq!(profile(&["apparmor:mine", "apparmor=unconfined"]), None);
        assert_eq!(options(&["nonsense"]), Err("invalid --security-opt 1: \"nonsense\"".to_owned()));
        assert_eq!(options(&["a=b"]), Err("invalid --security-opt 2: \"a=b\"".to_owned()));
    }

    #[test]
    fn only_root_holds_capabilities() {
        let engine = Config::new("/d".into(), "/e".into(), "/r".into());
        let security = Security::new(&HostConfig::default(), &engine).expect("security");
        let root = security.capabilities(0);
        assert_eq!(root.effective().as_ref().map(|set| set.len()), Some(14));
        let other = security.capabilities(1000);
        assert!(other.effective().is_none() && other.bounding().as_ref().is_some_and(|set| set.len() == 14));
        let bad = HostConfig { cap_add: Some(vec!["NOPE".to_owned()].into()), ..HostConfig::default() };
        let error = Security::new(&bad, &engine).expect_err("unknown");
        assert!(error.message().contains("CAP_NOPE"), "{}", error.message());
    }
}
