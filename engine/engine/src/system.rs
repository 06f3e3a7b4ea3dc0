//! Actions about the engine as a whole: info, version, disk usage.
