//! Layers and snapshots: applying, diffing and mounting file system trees.
