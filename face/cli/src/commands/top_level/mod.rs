//! Commands that are in no management group.

pub(crate) mod completion;
pub(crate) mod inspect;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod search;
pub(crate) mod version;
