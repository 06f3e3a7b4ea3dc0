//! cgroup v1, hybrid and v2: layout, limits, devices, freezer, statistics.
