//! Flags as docker's: long and short names, clusters (`-it`), `--name=value`, switches that take `=false`, flags
//! after arguments unless the command forwards them, and docker's error texts.
//!
//! A table per command is plain data: nothing is built at start, and help and completion come from the same table.

use crate::error::{Failure, Result};

/// A check of a value; the error is the reason for refusing it.
type Check = fn(&str) -> Result<(), String>;

/// A kind of value: its name in help texts and its check.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    check: Check,
    switch: bool,
}

/// One flag of a command.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) default: &'static str,
    pub(crate) hidden: bool,
    /// The flag this one is another name of.
    alias_of: Option<&'static str>,
    check: Option<Check>,
}

impl Flag {
    pub(crate) const fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self { name, short: None, kind, help, default: "", hidden: false, alias_of: None, check: None }
    }

    pub(crate) const fn switch(name: &'static str, help: &'static str) -> Self {
        Self::new(BOOL, name, help)
    }

    pub(crate) const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// The value when the flag is not given.
    pub(crate) const fn default(mut self, value: &'static str) -> Self {
        self.default = value;
        self
    }

    /// Another, hidden name of a flag.
    pub(crate) const fn alias(kind: Kind, name: &'static str, of: &'static str) -> Self {
        Self { alias_of: Some(of), hidden: true, ..Self::new(kind, name, "") }
    }

    /// A flag docker still takes and does not use any more.
    pub(crate) const fn retired(kind: Kind, name: &'static str) -> Self {
        Self { hidden: true, ..Self::new(kind, name, "") }
    }

    /// Checks each value when it is parsed.
    pub(crate) const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    fn validate(&self, value: &str) -> Result<(), String> {
        (self.kind.check)(value)?;
        self.check.map_or(Ok(()), |check| check(value)).map_err(|reason| reason.to_string())
    }

    fn title(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

const fn kind(name: &'static str, check: Check) -> Kind {
    Kind { name, check, switch: false }
}

pub(crate) const BOOL: Kind = Kind { name: "", check: |value| parse_bool(value).map(drop), switch: true };
pub(crate) const STRING: Kind = kind("string", |_| Ok(()));
pub(crate) const LIST: Kind = kind("list", |_| Ok(()));
pub(crate) const STRINGS: Kind = kind("strings", |_| Ok(()));
pub(crate) const MAP: Kind = kind("map", |_| Ok(()));
pub(crate) const INT: Kind = kind("int", |value| parse_int(value).map(drop));
pub(crate) const UINT: Kind = kind("uint", |value| parse_uint(value, u64::MAX).map(drop));
pub(crate) const UINT16: Kind = kind("uint16", |value| parse_uint(value, 65535).map(drop));
pub(crate) const DURATION: Kind = kind("duration", |value| crate::opts::duration(value).map(drop));
pub(crate) const BYTES: Kind = kind("bytes", |value| crate::opts::bytes(value).map(drop));
pub(crate) const DECIMAL: Kind = kind("decimal", |value| crate::opts::nano_cpus(value).map(drop));
pub(crate) const FILTER: Kind = kind("filter", |value| match value.contains('=') || value.is_empty() {
    true => Ok(()),
    false => Err("bad format of filter (expected name=value)".to_owned()),
});

/// A kind that differs from another by its name only.
pub(crate) const fn named(kind: Kind, name: &'static str) -> Kind {
    Kind { name, ..kind }
}

pub(crate) fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {value:?}: invalid syntax")),
    }
}

pub(crate) fn parse_int(value: &str) -> Result<i64, String> {
    let digits = value.trim_start_matches(['+', '-']);
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16).map(|n| if value.starts_with('-') { -n } else { n }),
        None => value.parse(),
    };
    parsed.map_err(|error| format!("strconv.ParseInt: parsing {value:?}: {}", number_error(&error)))
}

fn parse_uint(value: &str, max: u64) -> Result<u64, String> {
    let fail = |reason: &str| format!("strconv.ParseUint: parsing {value:?}: {reason}");
    let number: u64 = value.parse().map_err(|error| fail(number_error(&error)))?;
    if number > max { Err(fail("value out of range")) } else { Ok(number) }
}

fn number_error(error: &std::num::ParseIntError) -> &'static str {
    match error.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// The flags and arguments of one invocation.
#[derive(Clone)]
pub(crate) struct Matches {
    flags: &'static [Flag],
    values: Vec<(&'static str, String)>,
    /// The arguments that are not flags.
    pub(crate) args: Vec<String>,
    /// `--help` was given.
    pub(crate) help: bool,
}

impl Matches {
    /// Parses arguments by a table. With `interspersed`, flags may follow arguments; otherwise the first argument
    /// ends them.
    pub(crate) fn parse(
        flags: &'static [Flag],
        interspersed: bool,
        arguments: &[String],
    ) -> Result<Self, String> {
        let mut parsed = Self { flags, values: Vec::new(), args: Vec::new(), help: false };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                parsed.args.extend(rest.cloned());
                break;
            }
            if let Some(long) = argument.strip_prefix("--") {
                parsed.long(long, &mut rest)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                parsed.shorts(&argument[1..], &mut rest)?;
            } else {
                parsed.args.push(argument.clone());
                if !interspersed {
                    parsed.args.extend(rest.cloned());
                    break;
                }
            }
        }
        Ok(parsed)
    }

    fn long(&mut self, text: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: --{text}"));
        }
        let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
            if name == "help" {
                self.help = value.map_or(Ok(true), parse_bool).map_err(|reason| {
                    format!("invalid argument {:?} for \"--help\" flag: {reason}", value.unwrap_or_default())
                })?;
                return Ok(());
            }
            return Err(format!("unknown flag: --{name}"));
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind.switch => "true",
            None => rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.add(flag, value)
    }

    fn shorts(&mut self, cluster: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), String> {
        let mut letters = cluster.chars();
        while let Some(letter) = letters.next() {
            let left = letters.as_str();
            let Some(flag) = self.flags.iter().find(|flag| flag.short == Some(letter)) else {
                if letter == 'h' {
                    self.help = true;
                    return Ok(());
                }
                return Err(format!("unknown shorthand flag: {letter:?} in -{letter}{left}"));
            };
            if let Some(value) = left.strip_prefix('=') {
                return self.add(flag, value);
            }
            if flag.kind.switch {
                self.add(flag, "true")?;
            } else if left.is_empty() {
                let missing = || format!("flag needs an argument: {letter:?} in -{letter}");
                return self.add(flag, rest.next().ok_or_else(missing)?);
            } else {
                return self.add(flag, left);
            }
        }
        Ok(())
    }

    fn add(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        flag.validate(value).map_err(|reason| {
            format!("invalid argument {value:?} for \"{}\" flag: {reason}", flag.title())
        })?;
        self.values.push((flag.alias_of.unwrap_or(flag.name), value.to_owned()));
        Ok(())
    }

    /// Whether a flag was given.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| *known == name)
    }

    /// The last value of a flag, or its default.
    pub(crate) fn text(&self, name: &str) -> &str {
        let given =
            self.values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        given.unwrap_or_else(|| {
            self.flags.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default)
        })
    }

    /// A switch.
    pub(crate) fn on(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    /// A number; 0 when not given.
    pub(crate) fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name)).unwrap_or(0)
    }

    /// All values of a flag in order.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.values.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// All values of a flag whose values may be joined by commas.
    pub(crate) fn comma_list(&self, name: &str) -> Vec<String> {
        self.list(name).iter().flat_map(|value| value.split(',')).map(str::to_owned).collect()
    }

    /// All values of a flag, owned.
    pub(crate) fn strings(&self, name: &str) -> Vec<String> {
        self.list(name).into_iter().map(str::to_owned).collect()
    }

    /// The values of filter flags as the API takes them.
    pub(crate) fn filters(&self, name: &str) -> hull_docker_api::Filters {
        let mut filters = hull_docker_api::Filters::new();
        for (field, value) in self.list(name).iter().filter_map(|filter| filter.split_once('=')) {
            filters.add(&field.trim().to_lowercase(), value.trim());
        }
        filters
    }

    /// Bytes with docker's units.
    pub(crate) fn bytes(&self, name: &str) -> Result<i64> {
        match self.text(name) {
            "" => Ok(0),
            text => crate::opts::bytes(text).map_err(Failure::from),
        }
    }

    /// Nanoseconds of a Go duration.
    pub(crate) fn duration(&self, name: &str) -> Result<i64> {
        match self.text(name) {
            "" => Ok(0),
            text => crate::opts::duration(text).map_err(Failure::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch("interactive", "").short('i'),
        Flag::switch("tty", "").short('t'),
        Flag::new(LIST, "publish", "").short('p'),
        Flag::new(BYTES, "memory", "").short('m'),
        Flag::new(STRING, "network", ""),
        Flag::alias(STRING, "net", "network"),
        Flag::new(INT, "time", "").default("10"),
    ];

    fn parse(interspersed: bool, line: &str) -> Result<Matches, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Matches::parse(FLAGS, interspersed, &words)
    }

    #[test]
    fn clusters_values_and_aliases() {
        let m = parse(false, "-it -p80:80 -p=81:81 -p 82:82 --memory=1g --net x busybox -t sh").ok().unwrap();
        assert!(m.on("interactive") && m.on("tty"));
        assert_eq!(m.list("publish"), ["80:80", "81:81", "82:82"]);
        assert_eq!((m.bytes("memory").ok(), m.text("network"), m.int("time")), (Some(1 << 30), "x", 10));
        assert_eq!(m.args, ["busybox", "-t", "sh"]);
        let m = parse(true, "a -t b -- -i").ok().unwrap();
        assert_eq!((m.args.join(" ").as_str(), m.on("tty"), m.on("interactive")), ("a b -i", true, false));
        assert!(!parse(true, "-it=false").ok().unwrap().on("tty"));
    }

    #[test]
    fn errors_are_dockers() {
        let fail = |line: &str| parse(true, line).err().unwrap();
        assert_eq!(fail("--foo"), "unknown flag: --foo");
        assert_eq!(fail("-ix"), "unknown shorthand flag: 'x' in -x");
        assert_eq!(fail("--memory"), "flag needs an argument: --memory");
        assert_eq!(fail("-im"), "flag needs an argument: 'm' in -m");
        assert_eq!(fail("--memory=x"), "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'");
        assert_eq!(
            fail("-it=zz"),
            "invalid argument \"zz\" for \"-t, --tty\" flag: strconv.ParseBool: parsing \"zz\": invalid syntax"
        );
        assert_eq!(
            fail("--time z"),
            "invalid argument \"z\" for \"--time\" flag: strconv.ParseInt: parsing \"z\": invalid syntax"
        );
    }
}
