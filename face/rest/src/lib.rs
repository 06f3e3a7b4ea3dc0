//! The Docker Engine REST API turned into engine actions.
