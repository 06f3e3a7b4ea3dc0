//! `hull completion`: scripts for shells, made from the tables of commands and flags.

use crate::command::{Args, Command, Invocation, TOP, Target};
use crate::error::Result;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "completion",
    usage: "bash|zsh|fish",
    about: "Generate the autocompletion script for the specified shell",
    aliases: &["completion"],
    args: Args::Exactly(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let script = match invocation.arg(0) {
        "bash" => bash(),
        "zsh" => format!("#compdef hull\nautoload -U +X bashcompinit && bashcompinit\n{}", bash()),
        "fish" => fish(),
        shell => return Err(format!("unknown shell {shell:?}: must be one of bash, zsh, fish").into()),
    };
    output::text(&script);
    Ok(0)
}

/// Every command with its path below `hull`.
fn paths() -> Vec<(String, &'static Command)> {
    let mut paths = Vec::new();
    for entry in TOP {
        match entry.target {
            Target::Command(command) => paths.push((entry.name.to_owned(), command)),
            Target::Group(group) => {
                paths.extend(
                    group
                        .commands
                        .iter()
                        .map(|command| (format!("{} {}", entry.name, command.name), *command)),
                );
            }
            Target::Program(_) => {}
        }
    }
    paths
}

/// The command that lists what a command's arguments name.
fn names_command(command: &Command) -> &'static str {
    let usage = command.usage;
    let canonical = command.aliases.first().copied().unwrap_or_default();
    if canonical.starts_with("network") && usage.contains("NETWORK") {
        "hull network ls --format '{{.Name}}'"
    } else if canonical.starts_with("volume") && usage.contains("VOLUME") {
        "hull volume ls -q"
    } else if usage.contains("CONTAINER") {
        "hull ps -a --format '{{.Names}}'"
    } else if usage.contains("IMAGE") {
        "hull images --format '{{.Repository}}:{{.Tag}}'"
    } else {
        ""
    }
}

fn flag_words(command: &Command) -> String {
    let flags = command.flags.iter().filter(|flag| !flag.hidden);
    flags.map(|flag| format!("--{}", flag.name)).chain(["--help".to_owned()]).collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    let top: Vec<&str> = TOP.iter().map(|entry| entry.name).collect();
    let mut script = format!(
        "_hull() {{\n  local cur=\"${{COMP_WORDS[COMP_CWORD]}}\" path=\"\" word flags=\"\" names=\"\" subs=\"\"\n  for word in \
         \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n    case \"$word\" in -*) ;; *) path=\"$path $word\" ;; esac\n  \
         done\n  case \"$path \" in\n    \" \") subs=\"{}\" ;;\n",
        top.join(" ")
    );
    for entry in TOP {
        if let Target::Group(group) = entry.target {
            let names: Vec<&str> = group.commands.iter().map(|command| command.name).collect();
            script += &format!("    \" {} \") subs=\"{}\" ;;\n", entry.name, names.join(" "));
        }
    }
    for (path, command) in paths() {
        script += &format!(
            "    \" {path} \"*) flags=\"{}\"; names={:?} ;;\n",
            flag_words(command),
            names_command(command)
        );
    }
    script
        + "  esac\n  if [[ \"$cur\" == -* ]]; then\n    COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n  else\n    [[ -n \
           \"$names\" ]] && subs=\"$subs $(eval \"$names\" 2>/dev/null)\"\n    COMPREPLY=($(compgen -W \"$subs\" -- \
           \"$cur\"))\n    [[ -z \"${COMPREPLY[*]}\" ]] && COMPREPLY=($(compgen -f -- \"$cur\"))\n  fi\n}\ncomplete -F \
           _hull hull\n"
}

fn fish() -> String {
    let quote = |text: &str| text.lines().next().unwrap_or_default().replace('\'', "\\'");
    let mut script = "complete -c hull -e\n".to_owned();
    for entry in TOP {
        script += &format!(
            "complete -c hull -f -n __fish_use_subcommand -a {} -d '{}'\n",
            entry.name,
            quote(entry.about())
        );
        if let Target::Group(group) = entry.target {
            for command in group.commands {
                script += &format!(
                    "complete -c hull -f -n '__fish_seen_subcommand_from {}' -a {} -d '{}'\n",
                    entry.name,
                    command.name,
                    quote(command.about)
                );
            }
        }
    }
    for (path, command) in paths() {
        let condition: Vec<String> =
            path.split(' ').map(|word| format!("__fish_seen_subcommand_from {word}")).collect();
        let condition = condition.join("; and ");
        for flag in command.flags.iter().filter(|flag| !flag.hidden) {
            let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
            let value = if flag.kind.name.is_empty() { "" } else { " -r" };
            script += &format!(
                "complete -c hull -n '{condition}' -l {}{short}{value} -d '{}'\n",
                flag.name,
                quote(flag.help)
            );
        }
        let names = names_command(command);
        if !names.is_empty() {
            script += &format!("complete -c hull -n '{condition}' -a '({})'\n", names.replace('\'', "\\'"));
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_script_has_every_command_and_parses() {
        let script = bash();
        for (path, _) in paths() {
            assert!(script.contains(&format!("\" {path} \"*)")), "{path}");
        }
        let mut shell =
            std::process::Command::new("bash").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut shell.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
}
