//! The `--format` flags of lists and of inspecting commands.

use crate::flags::{Flag, STRING};

/// `--format` of lists.
pub(crate) const LIST: Flag = Flag::new(STRING, "format", LIST_HELP);

/// `--format` of commands that show objects.
pub(crate) const INSPECT: Flag = Flag::new(STRING, "format", INSPECT_HELP).short('f');

/// `--format` of commands that show objects and use `-f` for something else.
pub(crate) const INSPECT_LONG: Flag = Flag::new(STRING, "format", INSPECT_HELP);

const LIST_HELP: &str = "Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

const INSPECT_HELP: &str = "Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";
