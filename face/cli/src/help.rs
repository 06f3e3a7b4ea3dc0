//! Help texts laid out as docker's: columns of flags wrapped like pflag wraps them.

use crate::command::{Command, Group, SECTIONS, TOP};
use crate::flags::Flag;

/// Help of one command; `path` is how it was called (`hull container ls`).
pub(crate) fn command(path: &str, command: &Command, width: usize) -> String {
    let mut text = format!("Usage:  {}\n\n{}\n", usage(path, command), command.about);
    if command.aliases.len() > 1 {
        let program = path.split(' ').next().unwrap_or_default();
        let names: Vec<String> = command.aliases.iter().map(|alias| format!("{program} {alias}")).collect();
        text += &format!("\nAliases:\n  {}\n", names.join(", "));
    }
    let flags = flags(command.flags, width);
    if !flags.is_empty() {
        text += &format!("\nOptions:\n{flags}");
    }
    text
}

/// `hull container ls [OPTIONS]`.
pub(crate) fn usage(path: &str, command: &Command) -> String {
    command
        .usage
        .split('\n')
        .map(|line| format!("{path} {line}").trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n\t")
}

/// Help of a management command.
pub(crate) fn group(path: &str, group: &Group) -> String {
    let rows: Vec<(&str, &str)> =
        group.commands.iter().map(|command| (command.name, first_sentence(command.about))).collect();
    format!(
        "Usage:  {path} COMMAND\n\n{}\n\nCommands:\n{}\nRun '{path} COMMAND --help' for more information on a command.\n",
        group.about,
        commands(&rows)
    )
}

/// Help of `hull` itself.
pub(crate) fn top(program: &str, global: &'static [Flag], width: usize) -> String {
    let mut text = format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nA container engine: images, containers, networks, volumes\n"
    );
    for section in SECTIONS {
        let mut rows: Vec<(&str, &str)> = TOP
            .iter()
            .filter(|entry| entry.section == *section)
            .map(|entry| (entry.name, first_sentence(entry.about())))
            .collect();
        if *section != "Common Commands" {
            rows.sort_by_key(|row| row.0);
        }
        text += &format!("\n{section}:\n{}", commands(&rows));
    }
    text += &format!("\nGlobal Options:\n{}", flags(global, width));
    text += &format!("\nRun '{program} COMMAND --help' for more information on a command.\n");
    text
}

/// What a list of commands says about one whose own help says more.
fn first_sentence(about: &str) -> &str {
    let end = about.find(". ").or_else(|| about.find(".\n")).unwrap_or(about.len());
    let sentence = about[..end].lines().next().unwrap_or_default();
    sentence.trim_end_matches('.')
}

fn commands(rows: &[(&str, &str)]) -> String {
    rows.iter().map(|(name, about)| format!("  {name:<11} {about}\n")).collect()
}

/// The table of flags, wrapped at `width` columns.
fn flags(flags: &[Flag], width: usize) -> String {
    let mut rows: Vec<(String, &Flag)> =
        flags.iter().filter(|flag| !flag.hidden).map(|flag| (flag_column(flag), flag)).collect();
    rows.sort_by_key(|(_, flag)| flag.name);
    let column = rows.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    rows.iter()
        .map(|(name, flag)| {
            let spacing = " ".repeat(column - name.len());
            format!("{name} {spacing} {}\n", wrap(column + 2, width.saturating_sub(1), flag.help))
        })
        .collect()
}

fn flag_column(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let kind = match flag.kind.name {
        "" => String::new(),
        name => format!(" {name}"),
    };
    format!("  {short}--{}{kind}", flag.name)
}

/// pflag's `wrap`: text in a column that begins at `indent`, not wider than `width`, with up to five columns of
/// tolerance so that a line does not consist of an orphan word.
fn wrap(indent: usize, width: usize, text: &str) -> String {
    const SLOP: usize = 5;
    let (mut indent, mut room) = (indent, width.saturating_sub(indent));
    let mut result = String::new();
    if room < 24 {
        indent = 16;
        room = width.saturating_sub(indent);
        result = format!("\n{}", " ".repeat(indent));
    }
    let margin = format!("\n{}", " ".repeat(indent));
    if room < 24 {
        return text.replace('\n', &margin);
    }
    let mut rest = text;
    let mut first = true;
    while first || !rest.is_empty() {
        let (line, left) = cut(room - SLOP, SLOP, rest);
        if !first {
            result += &margin;
        }
        result += &line.replace('\n', &margin);
        rest = left;
        first = false;
    }
    result
}

fn cut(at: usize, slop: usize, text: &str) -> (&str, &str) {
    if at + slop > text.len() {
        return (text, "");
    }
    let head = &text[..text.floor_char_boundary(at)];
    let Some(space) = head.rfind([' ', '\t', '\n']).filter(|space| *space > 0) else {
        return (text, "");
    };
    let split = match head.rfind('\n') {
        Some(line) if line > 0 && line < space => line,
        _ => space,
    };
    (&text[..split], &text[split + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_help_is_laid_out_as_dockers() {
        let text = command("docker ps", &crate::commands::container::ls::COMMAND, 80);
        assert_eq!(
            text,
            r#"Usage:  docker ps [OPTIONS]

List containers

Aliases:
  docker container ls, docker container list, docker container ps, docker ps

Options:
  -a, --all             Show all containers (default shows just running)
  -f, --filter filter   Filter output based on conditions provided
      --format string   Format output using a custom template:
                        'table':            Print output in table format
                        with column headers (default)
                        'table TEMPLATE':   Print output in table format
                        using the given Go template
                        'json':             Print in JSON format
                        'TEMPLATE':         Print output using the given
                        Go template.
                        Refer to https://docs.docker.com/go/formatting/
                        for more information about formatting output with
                        templates
  -n, --last int        Show n last created containers (includes all
                        states) (default -1)
  -l, --latest          Show the latest created container (includes all
                        states)
      --no-trunc        Don't truncate output
  -q, --quiet           Only display container IDs
  -s, --size            Display total file sizes
"#
        );
    }
}
