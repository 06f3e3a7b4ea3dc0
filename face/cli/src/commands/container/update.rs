//! `hull update`.

use hull_client::{Query, path_part};
use hull_docker_api::{ContainerUpdateRequest, ContainerUpdateResponse};

use crate::command::{Args, Command, Invocation};
use crate::error::{Result, for_each_in_order};
use crate::flags::{BYTES, DECIMAL, Flag, INT, STRING, UINT16};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "update",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    aliases: &["container update", "update"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(
        UINT16,
        "blkio-weight",
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    Flag::new(INT, "cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::new(INT, "cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::new(INT, "cpu-rt-period", "Limit the CPU real-time period in microseconds"),
    Flag::new(INT, "cpu-rt-runtime", "Limit the CPU real-time runtime in microseconds"),
    Flag::new(INT, "cpu-shares", "CPU shares (relative weight)").short('c'),
    Flag::new(DECIMAL, "cpus", "Number of CPUs"),
    Flag::new(STRING, "cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::new(STRING, "cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::new(BYTES, "memory", "Memory limit").short('m'),
    Flag::new(BYTES, "memory-reservation", "Memory soft limit"),
    Flag::new(BYTES, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
    Flag::new(INT, "pids-limit", "Tune container pids limit (set -1 for unlimited)"),
    Flag::new(STRING, "restart", "Restart policy to apply when a container exits"),
    Flag::retired(BYTES, "kernel-memory"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    if !FLAGS.iter().any(|flag| matches.is_set(flag.name)) {
        return Err("you must provide one or more flags when using this command".into());
    }
    let request = ContainerUpdateRequest {
        blkio_weight: u16::try_from(matches.int("blkio-weight")).unwrap_or_default(),
        cpuset_cpus: matches.text("cpuset-cpus").to_owned(),
        cpuset_mems: matches.text("cpuset-mems").to_owned(),
        cpu_shares: matches.int("cpu-shares"),
        memory: matches.bytes("memory")?,
        memory_reservation: matches.bytes("memory-reservation")?,
        memory_swap: matches.bytes("memory-swap")?,
        cpu_period: matches.int("cpu-period"),
        cpu_quota: matches.int("cpu-quota"),
        cpu_realtime_period: matches.int("cpu-rt-period"),
        cpu_realtime_runtime: matches.int("cpu-rt-runtime"),
        nano_cpus: crate::opts::nano_cpus(matches.text("cpus"))?,
        pids_limit: matches.is_set("pids-limit").then(|| matches.int("pids-limit")),
        restart_policy: crate::opts::restart_policy(matches.text("restart"))?,
        ..ContainerUpdateRequest::default()
    };
    let client = invocation.engine.client().await?;
    let warnings = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let result = for_each_in_order(&matches.args, |name| {
        let (client, request, warnings) = (client.clone(), request.clone(), warnings.clone());
        async move {
            let path = format!("/containers/{}/update", path_part(&name));
            let response: ContainerUpdateResponse = client.post(&path, &Query::new(), &request).await?;
            warnings.borrow_mut().extend(response.warnings.into_iter().flatten());
            Ok(Some(name))
        }
    })
    .await;
    warnings.borrow().iter().for_each(|warning: &String| output::line(warning));
    result
}
