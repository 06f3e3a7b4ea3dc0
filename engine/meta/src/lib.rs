//! The record of truth: an embedded database of containers, images, networks, volumes.
