//! `--env`, `--env-file`, `--label`, `--label-file`.

use crate::error::Result;

/// Variables of files, then of flags. A name alone takes the caller's value, and is left out when there is none.
pub(crate) fn variables(files: &[&str], flags: &[&str]) -> Result<Vec<String>> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut variables = Vec::new();
    for file in files {
        variables.extend(parse_file(file, &read(file)?, Some(&lookup))?);
    }
    for flag in flags {
        match flag.contains('=') {
            true => variables.push((*flag).to_owned()),
            false => match lookup(flag) {
                Some(value) => variables.push(format!("{flag}={value}")),
                // Unset variables are sent by name: the engine removes them from the image's environment.
                None => variables.push((*flag).to_owned()),
            },
        }
    }
    Ok(variables)
}

/// Labels of files, then of flags.
pub(crate) fn labels(files: &[&str], flags: &[&str]) -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for file in files {
        labels.extend(parse_file(file, &read(file)?, None)?);
    }
    labels.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Ok(labels)
}

fn read(file: &str) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|error| format!("open {file}: {}", io_reason(&error)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The reason of an I/O error as Go prints it.
pub(crate) fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

fn parse_file(file: &str, content: &str, lookup: Option<Lookup<'_>>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in content.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.contains(char::is_whitespace) {
            return Err(format!("invalid env file ({file}): variable '{name}' contains whitespaces").into());
        }
        if name.is_empty() {
            return Err(format!("invalid env file ({file}): no variable name on line '{line}'").into());
        }
        match (value, lookup) {
            (Some(value), _) => lines.push(format!("{name}={value}")),
            (None, Some(lookup)) => lines.extend(lookup(name).map(|value| format!("{name}={value}"))),
            // As docker: a label file has no use for a name alone.
            (None, None) => {}
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_comments_and_names_of_the_callers_variables() {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let content = "# comment\n\nA=1\n  B=a b # kept\nHOME\nNOT_SET\nEMPTY=\n";
        let lines = parse_file("f", content, Some(&lookup)).unwrap();
        assert_eq!(lines, ["A=1", "B=a b # kept", "HOME=/root", "EMPTY="]);
        let error = parse_file("f", "a b=c", None).unwrap_err();
        assert_eq!(error.message, "invalid env file (f): variable 'a b' contains whitespaces");
        let error = parse_file("f", "=c", None).unwrap_err();
        assert_eq!(error.message, "invalid env file (f): no variable name on line '=c'");
    }
}
