//! Commands about the engine as a whole.

pub(crate) mod check;
pub(crate) mod df;
pub(crate) mod df_verbose;
pub(crate) mod events;
pub(crate) mod info;
pub(crate) mod prune;

use crate::command::Group;

/// `hull system`.
pub(crate) static GROUP: Group = Group {
    about: "Manage the engine",
    commands: &[&check::COMMAND, &df::COMMAND, &events::COMMAND, &info::COMMAND, &prune::COMMAND],
};
