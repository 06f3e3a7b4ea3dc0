//! Docker's command line for Hull: one file per command.
