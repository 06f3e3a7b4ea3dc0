//! Least privilege: capabilities, seccomp filters, no-new-privileges, LSM labels.
