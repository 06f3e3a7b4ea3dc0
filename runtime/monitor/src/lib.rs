//! A container's parent: stdio, logs, attach, exec, exit record; and its client.
