//! The service manager's unit of a container: the systemd cgroup driver.

use crate::Error;
use crate::plan::Plan;
use hull_cgroup::systemd::{Manager, Property, Systemd, Unit};
use hull_cgroup::{Cgroup, Cgroups};
use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Annotations that are properties of the unit.
const PROPERTY: &str = "org.systemd.property.";

/// A unit that exists, and whose manager's it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// Name of the unit.
    pub unit: String,
    /// `XDG_RUNTIME_DIR` of the user whose manager it is; absent for the system's.
    pub user: Option<PathBuf>,
}

/// A unit to be made.
#[derive(Debug)]
pub(crate) struct Wanted {
    systemd: Systemd,
    unit: Unit,
    scope: Scope,
    properties: Vec<Property>,
    pub(crate) cgroups: Cgroups,
    pub(crate) cgroup: Cgroup,
}

/// The properties among a configuration's annotations.
pub(crate) fn properties(spec: &Spec) -> Result<Vec<Property>, Error> {
    let annotations = spec.annotations().iter().flatten();
    let named = annotations.filter_map(|(key, value)| Some((key.strip_prefix(PROPERTY)?, value)));
    named.map(|(name, value)| Ok(Property::parse(name, value)?)).collect()
}

impl Wanted {
    /// Reaches the manager, before anything is made.
    pub(crate) fn new(manager: &Manager, unit: &Unit, spec: &Spec) -> Result<Self, Error> {
        let properties = properties(spec)?;
        let systemd = Systemd::connect(manager)?;
        let cgroups = Cgroups::detect()?;
        let cgroup = cgroups.open(&systemd.path_of(unit));
        let user = match manager {
            Manager::System => None,
            Manager::User(directory) => Some(directory.clone()),
        };
        let scope = Scope { unit: unit.name.clone(), user };
        Ok(Self { systemd, unit: unit.clone(), scope, properties, cgroups, cgroup })
    }

    /// Makes the unit around process `pid`, and sets limits that are no properties. On an error nothing is left of it.
    pub(crate) fn make(&mut self, id: &str, pid: i32, plan: &Plan) -> Result<(Cgroup, Scope), Error> {
        let description = format!("hull container {id}");
        let (mode, resources) = (self.cgroups.mode(), &plan.resources);
        self.systemd.start(&self.unit, pid, &description, mode, resources, &self.properties)?;
        match self.cgroups.adopt(self.cgroup.path(), resources) {
            Ok(cgroup) => Ok((cgroup, self.scope.clone())),
            Err(error) => {
                // The first error is what the caller must know.
                let _ = self.systemd.stop(&self.unit.name);
                Err(error.into())
            }
        }
    }
}

impl Scope {
    /// Whose service manager it is.
    pub(crate) fn manager(&self) -> Manager {
        self.user.clone().map_or(Manager::System, Manager::User)
    }

    fn connect(&self) -> Result<Systemd, Error> {
        Ok(Systemd::connect(&self.manager())?)
    }

    /// Changes limits, also those of the unit, which a reload of the manager would put back otherwise.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        Ok(self.connect()?.update(&self.unit, Cgroups::detect()?.mode(), resources)?)
    }

    /// Ends the unit; one that is gone is fine.
    pub fn stop(&self) -> Result<(), Error> {
        Ok(self.connect()?.stop(&self.unit)?)
    }
}
