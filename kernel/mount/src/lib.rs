//! Mounts through descriptors: overlay, bind, attributes, mountinfo.
