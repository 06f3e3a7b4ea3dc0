//! Commands about volumes.

pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod rm;

use crate::command::Group;

/// `hull volume`.
pub(crate) static GROUP: Group = Group {
    about: "Manage volumes",
    commands: &[&create::COMMAND, &inspect::COMMAND, &ls::COMMAND, &prune::COMMAND, &rm::COMMAND],
};
