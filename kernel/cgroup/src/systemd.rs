//! The systemd driver: a container's cgroup is a transient scope of the service manager, which then knows of it and leaves
//! it alone (`Delegate=`).
//!
//! Limits are told to the manager as properties of the unit, so that a reload of the manager does not undo them, and are then
//! written into the cgroup as without systemd: not everything is a property. Source: systemd's org.freedesktop.systemd1(5),
//! systemd.resource-control(5).

use crate::dbus::{self, Call, Connection, Message, Value, Writer};
use crate::{Error, Mode, Result, v2};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How long a job may take: the manager is busy when a machine boots.
const JOB_PATIENCE: Duration = Duration::from_secs(60);
/// How long the manager may take to forget a unit of that name that has ended.
const FORGETTING: Duration = Duration::from_secs(3);
/// `CPUQuotaPerSecUSec` and limits: none.
const INFINITY: u64 = u64::MAX;

/// Whose service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The system's.
    System,
    /// An ordinary user's, found in their `XDG_RUNTIME_DIR`.
    User(PathBuf),
}

/// The unit that a `cgroupsPath` of the form `slice:prefix:name` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Slice it goes into.
    pub slice: String,
    /// Its name, with `.scope` or `.slice`.
    pub name: String,
}

/// A property of a unit from an annotation `org.systemd.property.<name>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    name: String,
    value: Value,
}

impl Unit {
    /// Reads `slice:prefix:name`; each part may be empty. `user` chooses the default slice.
    pub fn parse(path: &str, user: bool) -> Result<Self> {
        let invalid = |reason: &str| Error::Invalid {
            field: "cgroupsPath".into(),
            reason: format!("{path:?} {reason}"),
        };
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(invalid("is not slice:prefix:name, which the systemd driver takes"));
        };
        if path.contains(['/', '\0', '\n']) {
            return Err(invalid("holds a character that names of units have not"));
        }
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            "-" => "-.slice",
            named => named,
        };
        if slice != "-.slice" {
            slice_path(slice).ok_or_else(|| invalid("names no slice"))?;
        }
        if name.is_empty() {
            return Err(invalid("names no unit"));
        }
        let name = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        Ok(Self { slice: slice.to_owned(), name })
    }

    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Its cgroup below the manager's own.
    fn path_below(&self, root: &str) -> String {
        let root = root.trim_end_matches('/');
        if self.is_slice() {
            return format!("{root}{}", slice_path(&self.name).unwrap_or_else(|| format!("/{}", self.name)));
        }
        format!("{root}{}/{}", slice_path(&self.slice).unwrap_or_default(), self.name)
    }
}

/// `a-b.slice` is below `a.slice`: `/a.slice/a-b.slice`. `None` for what is no slice's name.
fn slice_path(slice: &str) -> Option<String> {
    if slice == "-.slice" {
        return Some(String::new());
    }
    let name = slice.strip_suffix(".slice")?;
    if name.is_empty() || name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return None;
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Some(ends.map(|end| format!("/{}.slice", &name[..end])).collect())
}

impl Property {
    /// A property from an annotation's name behind `org.systemd.property.` and its value in GVariant text: booleans, numbers
    /// with or without their type before them, strings, arrays of strings.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let invalid = |reason: &str| {
            let field = format!("annotations.org.systemd.property.{name}");
            Error::Invalid { field, reason: format!("{text:?} {reason}") }
        };
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(invalid("belongs to no property's name"));
        }
        let value =
            variant(text.trim()).ok_or_else(|| invalid("is no value in GVariant text that is understood"))?;
        // As in unit files: the bus has microseconds where files have seconds.
        let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
            return Ok(Self { name: name.into(), value });
        };
        let microseconds = match value {
            Value::U64(seconds) => seconds.checked_mul(1_000_000),
            Value::U32(seconds) => Some(u64::from(seconds) * 1_000_000),
            Value::I32(seconds) => u64::try_from(seconds).ok().map(|seconds| seconds * 1_000_000),
            Value::I64(seconds) => u64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000_000)),
            Value::Double(seconds) if (0.0..1e12).contains(&seconds) => Some((seconds * 1e6) as u64),
            _ => None,
        };
        let microseconds = microseconds.ok_or_else(|| invalid("is no number of seconds"))?;
        Ok(Self { name: format!("{stem}USec"), value: Value::U64(microseconds) })
    }
}

/// GVariant text, of the types properties have.
fn variant(text: &str) -> Option<Value> {
    if let Some(list) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(quoted).collect::<Option<Vec<_>>>().map(Value::Strings);
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(string) = quoted(text) {
        return Some(Value::String(string));
    }
    match text.split_once(' ').map(|(kind, number)| (kind, number.trim())) {
        None if text.contains('.') => text.parse().ok().map(Value::Double),
        None => text.parse().ok().map(Value::I32),
        Some(("byte", number)) => number.parse().ok().map(Value::Byte),
        Some(("int16", number)) => number.parse().ok().map(Value::I16),
        Some(("uint16", number)) => number.parse().ok().map(Value::U16),
        Some(("int32", number)) => number.parse().ok().map(Value::I32),
        Some(("uint32", number)) => number.parse().ok().map(Value::U32),
        Some(("int64", number)) => number.parse().ok().map(Value::I64),
        Some(("uint64", number)) => number.parse().ok().map(Value::U64),
        Some(("double", number)) => number.parse().ok().map(Value::Double),
        Some(("boolean", "true")) => Some(Value::Bool(true)),
        Some(("boolean", "false")) => Some(Value::Bool(false)),
        Some(_) => None,
    }
}

fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)))?;
    (!inner.contains(['\'', '"', '\\'])).then(|| inner.to_owned())
}

/// A conversation with a service manager.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
    /// The manager's own cgroup.
    root: String,
    user: bool,
}

impl Systemd {
    /// Connects: to the manager's own socket, which spares the bus, else through the bus.
    pub fn connect(manager: &Manager) -> Result<Self> {
        let (direct, bus) = match manager {
            Manager::System => {
                (PathBuf::from("/run/systemd/private"), PathBuf::from("/run/dbus/system_bus_socket"))
            }
            Manager::User(directory) => (directory.join("systemd/private"), directory.join("bus")),
        };
        let connection = open(&direct, &bus)
            .map_err(|source| Error::Systemd { step: "connect to the service manager".into(), source })?;
        let mut systemd = Self { connection, root: String::new(), user: matches!(manager, Manager::User(_)) };
        systemd.subscribe()?;
        systemd.root = systemd.control_group()?;
        Ok(systemd)
    }

    /// Where the cgroup of that unit is, or will be.
    pub fn path_of(&self, unit: &Unit) -> String {
        unit.path_below(&self.root)
    }

    /// A bus sends signals to those who ask for them; the manager sends them when somebody listens.
    fn subscribe(&mut self) -> Result<()> {
        if !self.connection.is_bus() {
            return Ok(());
        }
        let mut rule = Writer::default();
        rule.string(&format!("type='signal',interface='{MANAGER}',member='JobRemoved'"));
        let bus = "org.freedesktop.DBus";
        let call = Call {
            destination: bus,
            path: "/org/freedesktop/DBus",
            interface: bus,
            member: "AddMatch",
            signature: "s",
            body: rule,
        };
        let failed = |source| Error::Systemd { step: "listen to the service manager".into(), source };
        self.connection.call(&call).map_err(failed)?;
        self.call("Subscribe", "", Writer::default()).map(drop)
    }

    fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<Message> {
        let call = Call { destination: NAME, path: OBJECT, interface: MANAGER, member, signature, body };
        self.connection
            .call(&call)
            .map_err(|source| Error::Systemd { step: format!("ask systemd for {member}"), source })
    }

    fn control_group(&mut self) -> Result<String> {
        let mut body = Writer::default();
        body.string(MANAGER);
        body.string("ControlGroup");
        let call = Call {
            destination: NAME,
            path: OBJECT,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body,
        };
        let failed = |source| Error::Systemd { step: "ask systemd for its cgroup".into(), source };
        let answer = self.connection.call(&call).map_err(failed)?;
        Ok(answer.reader().string_variant().map_err(failed)?.to_owned())
    }

    /// Makes the unit with process `pid` in it, and waits until it is there. What is left of an earlier one of the same name
    /// that failed is forgotten first.
    pub fn start(
        &mut self,
        unit: &Unit,
        pid: i32,
        description: &str,
        mode: Mode,
        resources: &LinuxResources,
        properties: &[Property],
    ) -> Result<()> {
        let mut all = base_properties(unit, pid, description, mode);
        all.extend(limits(mode, resources)?);
        for extra in properties {
            all.retain(|(name, _)| *name != extra.name);
            all.push((extra.name.clone(), extra.value.clone()));
        }
        let deadline = Instant::now() + FORGETTING;
        loop {
            match self.start_unit(unit, &all) {
                Err(error) if is_there(&error) && Instant::now() < deadline => {
                    self.forget_failure(&unit.name)?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    fn start_unit(&mut self, unit: &Unit, properties: &[(String, Value)]) -> Result<()> {
        let mut body = Writer::default();
        body.string(&unit.name);
        body.string("replace");
        put_properties(&mut body, properties);
        body.array(8, |_| {});
        let job = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)?;
        self.finish(&job, &format!("start {}", unit.name))
    }

    /// Waits for the end of the job an answer names.
    fn finish(&mut self, answer: &Message, step: &str) -> Result<()> {
        let failed = |source| Error::Systemd { step: step.to_owned(), source };
        let job = answer.reader().string().map_err(failed)?.to_owned();
        let deadline = Instant::now() + JOB_PATIENCE;
        loop {
            let signal = self.connection.signal(deadline).map_err(failed)?;
            if !signal.is_signal(MANAGER, "JobRemoved") {
                continue;
            }
            let mut values = signal.reader();
            values.u32().map_err(failed)?;
            if values.string().map_err(failed)? != job {
                continue;
            }
            values.string().map_err(failed)?;
            return match values.string().map_err(failed)? {
                "done" | "skipped" => Ok(()),
                result => {
                    let (name, text) = ("result of the job".into(), format!("systemd says {result:?}"));
                    Err(failed(dbus::Error::Answer { name, text }))
                }
            };
        }
    }

    /// Changes limits of a unit until it ends.
    pub fn update(&mut self, unit: &str, mode: Mode, resources: &LinuxResources) -> Result<()> {
        let properties = limits(mode, resources)?;
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.string(unit);
        // Runtime only, not for units of that name to come.
        body.u32(1);
        put_properties(&mut body, &properties);
        self.call("SetUnitProperties", "sba(sv)", body).map(drop)
    }

    /// Ends the unit. One that is gone is fine.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        let mut body = Writer::default();
        body.string(unit);
        body.string("replace");
        match self.call("StopUnit", "ss", body) {
            Ok(job) => self.finish(&job, &format!("stop {unit}"))?,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.forget_failure(unit)
    }

    fn forget_failure(&mut self, unit: &str) -> Result<()> {
        let mut body = Writer::default();
        body.string(unit);
        match self.call("ResetFailedUnit", "s", body) {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether it is an ordinary user's.
    pub fn is_user(&self) -> bool {
        self.user
    }
}

fn open(direct: &Path, bus: &Path) -> std::result::Result<Connection, dbus::Error> {
    Connection::open(direct, false).or_else(|first| Connection::open(bus, true).map_err(|_| first))
}

fn is_there(error: &Error) -> bool {
    matches!(error, Error::Systemd { source: dbus::Error::Answer { name, .. }, .. } if name.ends_with(".UnitExists"))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Systemd { source: dbus::Error::Answer { name, .. }, .. } if name.ends_with(".NoSuchUnit"))
}

fn put_properties(body: &mut Writer, properties: &[(String, Value)]) {
    body.array(8, |array| {
        for (name, value) in properties {
            array.structure();
            array.string(name);
            array.variant(value);
        }
    });
}

fn base_properties(unit: &Unit, pid: i32, description: &str, mode: Mode) -> Vec<(String, Value)> {
    let yes = || Value::Bool(true);
    let mut properties = vec![("Description".to_owned(), Value::String(description.to_owned()))];
    if unit.is_slice() {
        properties.push(("Wants".into(), Value::Strings(vec![unit.slice.clone()])));
    } else {
        properties.push(("Slice".into(), Value::String(unit.slice.clone())));
        properties.push(("Delegate".into(), yes()));
        properties.push(("PIDs".into(), Value::U32s(vec![pid.unsigned_abs()])));
    }
    let io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        properties.push((name.into(), yes()));
    }
    // A container does not wait for, nor hold up, what a machine does when it boots and halts.
    properties.push(("DefaultDependencies".into(), Value::Bool(false)));
    properties
}

/// Limits as properties.
fn limits(mode: Mode, resources: &LinuxResources) -> Result<Vec<(String, Value)>> {
    let mut properties = Vec::new();
    let mut put = |name: &str, value: Value| properties.push((name.to_owned(), value));
    if let Some(memory) = resources.memory() {
        memory_limits(mode, memory, &mut put)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(mode, cpu, &mut put)?;
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        put("TasksMax", Value::U64(or_infinity(limit)));
    }
    if let Some(weight) =
        resources.block_io().as_ref().and_then(|io| io.weight()).filter(|weight| *weight != 0)
    {
        match mode {
            Mode::V2 => put("IOWeight", Value::U64(v2::io_weight(weight))),
            _ => put("BlockIOWeight", Value::U64(weight.into())),
        }
    }
    for (key, value) in resources.unified().iter().flatten() {
        unified_limit(key, value.trim(), &mut put)?;
    }
    Ok(properties)
}

fn or_infinity(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

fn memory_limits(mode: Mode, memory: &LinuxMemory, put: &mut impl FnMut(&str, Value)) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        put(if mode == Mode::V2 { "MemoryMax" } else { "MemoryLimit" }, Value::U64(or_infinity(limit)));
    }
    if mode != Mode::V2 {
        return Ok(());
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        put("MemoryLow", Value::U64(or_infinity(reservation)));
    }
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        let value = v2::swap_max(limit, swap)?;
        put("MemorySwapMax", Value::U64(value.parse().unwrap_or(INFINITY)));
    }
    Ok(())
}

fn cpu_limits(mode: Mode, cpu: &LinuxCpu, put: &mut impl FnMut(&str, Value)) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        match mode {
            Mode::V2 => put("CPUWeight", Value::U64(v2::weight_of_shares(shares))),
            _ => put("CPUShares", Value::U64(shares)),
        }
    }
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        put_quota(quota, period.unwrap_or(100_000), put);
    }
    for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            put(name, Value::Bytes(bit_mask(name, list)?));
        }
    }
    Ok(())
}

/// The manager thinks in microseconds per second, and rounds up to hundredths of a CPU.
fn put_quota(quota: i64, period: u64, put: &mut impl FnMut(&str, Value)) {
    let per_second = match u64::try_from(quota) {
        Ok(quota) => (quota.saturating_mul(1_000_000) / period.max(1)).div_ceil(10_000) * 10_000,
        Err(_) => INFINITY,
    };
    put("CPUQuotaPerSecUSec", Value::U64(per_second));
    put("CPUQuotaPeriodUSec", Value::U64(period));
}

/// `0-2,5` as a mask of bits, lowest byte first.
fn bit_mask(field: &str, list: &str) -> Result<Vec<u8>> {
    let invalid =
        || Error::Invalid { field: field.to_owned(), reason: format!("{list:?} is no list of numbers") };
    let mut mask = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < 8192).ok_or_else(invalid);
        for bit in number(first)?..=number(last)? {
            mask.resize(mask.len().max(bit / 8 + 1), 0);
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    if mask.is_empty() { Err(invalid()) } else { Ok(mask) }
}

/// Keys of `linux.resources.unified` that have a property; the others reach the cgroup's files only.
fn unified_limit(key: &str, value: &str, put: &mut impl FnMut(&str, Value)) -> Result<()> {
    let invalid = || Error::Invalid {
        field: format!("unified.{key}"),
        reason: format!("{value:?} is neither a number nor \"max\""),
    };
    let number = || match value {
        "max" => Ok(INFINITY),
        text => text.parse::<u64>().map_err(|_| invalid()),
    };
    match key {
        "memory.max" => put("MemoryMax", Value::U64(number()?)),
        "memory.high" => put("MemoryHigh", Value::U64(number()?)),
        "memory.low" => put("MemoryLow", Value::U64(number()?)),
        "memory.min" => put("MemoryMin", Value::U64(number()?)),
        "memory.swap.max" => put("MemorySwapMax", Value::U64(number()?)),
        "pids.max" => put("TasksMax", Value::U64(number()?)),
        "cpu.weight" => put("CPUWeight", Value::U64(number()?)),
        "cpu.idle" if value == "1" => put("CPUWeight", Value::U64(0)),
        "cpuset.cpus" => put("AllowedCPUs", Value::Bytes(bit_mask("unified.cpuset.cpus", value)?)),
        "cpuset.mems" => put("AllowedMemoryNodes", Value::Bytes(bit_mask("unified.cpuset.mems", value)?)),
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
            let period = period.trim().parse().map_err(|_| invalid())?;
            let quota = if quota == "max" { -1 } else { quota.parse().map_err(|_| invalid())? };
            put_quota(quota, period, put);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_a_unit_and_a_place() {
        let unit = |path: &str| Unit::parse(path, false).map(|unit| unit.path_below("/"));
        assert_eq!(unit("user-1000.slice:hull:a").expect("unit"), "/user.slice/user-1000.slice/hull-a.scope");
        assert_eq!(unit("::a").expect("unit"), "/system.slice/a.scope");
        assert_eq!(unit("-:p:a").expect("unit"), "/p-a.scope");
        assert_eq!(unit("system.slice:p:my-own.slice").expect("unit"), "/my.slice/my-own.slice");
        let user = Unit::parse(":p:a", true).expect("unit");
        assert_eq!(
            user.path_below("/user.slice/u@1.service"),
            "/user.slice/u@1.service/user.slice/p-a.scope"
        );
        for bad in ["a", "a:b", "x:p:n", "a/b.slice:p:n", "-a.slice:p:n", "a--b.slice:p:n", "system.slice:p:"]
        {
            assert!(unit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let text = r#"{"memory":{"limit":100,"swap":150,"reservation":50},"pids":{"limit":7},
            "cpu":{"shares":1024,"quota":25000,"period":50000,"cpus":"0-2,9"},"unified":{"memory.high":"80"}}"#;
        let resources: LinuxResources = serde_json::from_str(text).expect("resources");
        let found = limits(Mode::V2, &resources).expect("properties");
        let has =
            |name: &str, value: Value| assert!(found.contains(&(name.into(), value)), "{name}: {found:?}");
        has("MemoryMax", Value::U64(100));
        has("MemorySwapMax", Value::U64(50));
        has("MemoryLow", Value::U64(50));
        has("MemoryHigh", Value::U64(80));
        has("TasksMax", Value::U64(7));
        has("CPUWeight", Value::U64(39));
        has("CPUQuotaPerSecUSec", Value::U64(500_000));
        has("AllowedCPUs", Value::Bytes(vec![0b111, 0b10]));
        let found = limits(Mode::Hybrid, &resources).expect("properties");
        assert!(found.contains(&("MemoryLimit".into(), Value::U64(100))));
    }

    #[test]
    fn annotations_become_properties() {
        let parse = |name: &str, text: &str| Property::parse(name, text).map(|p| (p.name, p.value));
        assert_eq!(
            parse("TimeoutStopUSec", "uint64 5").expect("property"),
            ("TimeoutStopUSec".into(), Value::U64(5))
        );
        assert_eq!(
            parse("TimeoutStopSec", "uint64 5").expect("property"),
            ("TimeoutStopUSec".into(), Value::U64(5_000_000))
        );
        assert_eq!(
            parse("CollectMode", "'inactive-or-failed'").expect("property").1,
            Value::String("inactive-or-failed".into())
        );
        assert_eq!(
            parse("After", "['a.service', 'b.service']").expect("property").1,
            Value::Strings(vec!["a.service".into(), "b.service".into()])
        );
        for (name, text) in
            [("X", "true"), ("A.b", "true"), ("Name", "'open"), ("Name", "maybe"), ("KillSec", "'x'")]
        {
            assert!(parse(name, text).is_err(), "{name} {text}");
        }
    }
}
