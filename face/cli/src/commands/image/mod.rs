//! Commands about images.

mod artifacts;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod layers;
pub(crate) mod load;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod referrers;
pub(crate) mod rm;
pub(crate) mod save;
pub(crate) mod tag;
pub(crate) mod tree;

use crate::command::Group;

/// `hull image`.
pub(crate) static GROUP: Group = Group {
    about: "Manage images",
    commands: &[
        &history::COMMAND,
        &import::COMMAND,
        &inspect::COMMAND,
        &layers::COMMAND,
        &load::COMMAND,
        &ls::COMMAND,
        &prune::COMMAND,
        &pull::COMMAND,
        &push::COMMAND,
        &referrers::COMMAND,
        &rm::COMMAND,
        &save::COMMAND,
        &tag::COMMAND,
    ],
};
