//! `hull stats`.

use std::collections::BTreeMap;
use std::rc::Rc;

use hull_client::{Client, JsonLines, Query, empty, path_part};
use hull_docker_api::{Event, Filters, StatsResponse};

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::{Failure, Result};
use crate::flags::Flag;
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "stats",
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    aliases: &["container stats", "stats"],
    args: Args::Any,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Show all containers (default shows just running)").short('a'),
    formats::LIST,
    Flag::switch("no-stream", "Disable streaming stats and only pull the first result"),
    Flag::switch("no-trunc", "Do not truncate output"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let format = match matches.text("format") {
        "" => invocation.engine.config().text("statsFormat").to_owned(),
        format => format.to_owned(),
    };
    let trunc = !matches.on("no-trunc");
    if matches.on("no-stream") {
        let names = targets(&client, &invocation).await?;
        // The engine takes a second for each: they are asked for at the same time.
        let samples = names.iter().map(|name| sample(&client, name, trunc));
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        for result in futures_util::future::join_all(samples).await {
            match result {
                Ok(row) => rows.push(row),
                Err(failure) => failures.push(failure.message),
            }
        }
        if !failures.is_empty() {
            return Err(Failure::new(failures.join("\n")));
        }
        output::text(&listing().render(&rows, &format, false)?);
        return Ok(0);
    }
    stream(&client, &invocation, &format, trunc).await
}

/// The containers asked for, or the running ones (`--all`: all).
async fn targets(client: &Client, invocation: &Invocation) -> Result<Vec<String>> {
    if !invocation.matches.args.is_empty() {
        return Ok(invocation.matches.args.clone());
    }
    let query = Query::new().flag("all", invocation.matches.on("all"));
    Ok(client.container_list(&query).await?.into_iter().map(|container| container.id).collect())
}

async fn sample(client: &Client, name: &str, trunc: bool) -> Result<Row> {
    let path = format!("/containers/{}/stats", path_part(name));
    let query = Query::new().set("stream", "0");
    let stats: StatsResponse = client.get(&path, &query).await?;
    Ok(Row { asked: name.to_owned(), stats, trunc })
}

/// The newest sample of each container, by the order the containers came in.
type Samples = Rc<std::cell::RefCell<BTreeMap<usize, Row>>>;

/// Redraws the table twice a second from the streams of all containers. Without names, containers that start later
/// are shown too; with names, the command ends when all of them are gone.
async fn stream(client: &Rc<Client>, invocation: &Invocation, format: &str, trunc: bool) -> Result<u8> {
    let samples = Samples::default();
    let named = !invocation.matches.args.is_empty();
    // Asked for before the list: what starts in between is not missed.
    let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
    if !named {
        let events = starts(client).await?;
        tokio::task::spawn_local(watch(events, sender));
    }
    let mut known = targets(client, invocation).await?;
    let begin = |index: usize, name: String| {
        tokio::task::spawn_local(follow(client.clone(), samples.clone(), index, name, trunc))
    };
    let mut followers: Vec<_> =
        known.iter().cloned().enumerate().map(|(index, name)| begin(index, name)).collect();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
    tick.tick().await;
    loop {
        tick.tick().await;
        while let Ok(id) = started.try_recv() {
            // One that was listed may be started again: its stream ended when it stopped.
            let index = known.iter().position(|known| *known == id).unwrap_or(known.len());
            match followers.get_mut(index) {
                Some(follower) if follower.is_finished() => *follower = begin(index, id),
                Some(_) => {}
                None => {
                    followers.push(begin(index, id.clone()));
                    known.push(id);
                }
            }
        }
        draw(&samples, format)?;
        if named && followers.iter().all(|follower| follower.is_finished()) {
            for follower in followers {
                follower.await.map_err(|error| Failure::new(error.to_string()))??;
            }
            return Ok(0);
        }
    }
}

fn draw(samples: &Samples, format: &str) -> Result<()> {
    let rows: Vec<Row> = samples.borrow().values().cloned().collect();
    let text = listing().render(&rows, format, false)?;
    match crate::terminal::stdout_is_terminal() {
        true => output::text(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))),
        false => output::text(&text),
    }
    Ok(())
}

/// Events of containers that start.
async fn starts(client: &Client) -> Result<JsonLines> {
    let mut filters = Filters::new();
    filters.add("type", "container");
    filters.add("event", "start");
    let query = Query::new().filters(&filters);
    Ok(JsonLines::new(client.send(hull_client::Method::GET, "/events", &query, empty(), &[]).await?))
}

async fn watch(mut events: JsonLines, started: tokio::sync::mpsc::UnboundedSender<String>) {
    while let Ok(Some(event)) = events.next::<Event>().await {
        if started.send(event.actor.id).is_err() {
            return;
        }
    }
}

async fn follow(client: Rc<Client>, samples: Samples, index: usize, name: String, trunc: bool) -> Result<()> {
    let path = format!("/containers/{}/stats", path_part(&name));
    let query = Query::new().set("stream", "1");
    let reply = client.send(hull_client::Method::GET, &path, &query, empty(), &[]).await?;
    let mut lines = JsonLines::new(reply);
    while let Some(stats) = lines.next::<StatsResponse>().await? {
        samples.borrow_mut().insert(index, Row { asked: name.clone(), stats, trunc });
    }
    samples.borrow_mut().remove(&index);
    Ok(())
}

/// One container's sample.
#[derive(Clone)]
struct Row {
    asked: String,
    stats: StatsResponse,
    trunc: bool,
}

const DEFAULT: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

fn listing() -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "BlockIO", header: "BLOCK I/O", value: block_io },
        Column { name: "CPUPerc", header: "CPU %", value: |row| format!("{:.2}%", cpu_percent(&row.stats)) },
        Column { name: "Container", header: "CONTAINER", value: |row| row.asked.clone() },
        Column { name: "ID", header: "CONTAINER ID", value: id },
        Column { name: "MemPerc", header: "MEM %", value: memory_percent },
        Column { name: "MemUsage", header: "MEM USAGE / LIMIT", value: memory },
        Column { name: "Name", header: "NAME", value: name },
        Column { name: "NetIO", header: "NET I/O", value: net_io },
        Column { name: "PIDs", header: "PIDS", value: |row| row.stats.pids_stats.current.to_string() },
    ];
    Listing { columns: COLUMNS, default: DEFAULT.to_vec(), quiet: "ID", labels: None }
}

fn name(row: &Row) -> String {
    match row.stats.name.trim_start_matches('/') {
        "" => "--".to_owned(),
        name => name.to_owned(),
    }
}

fn id(row: &Row) -> String {
    if row.trunc { human::short_id(&row.stats.id) } else { row.stats.id.clone() }
}

/// Percent of one CPU: the container's share of the time all CPUs had between two samples.
fn cpu_percent(stats: &StatsResponse) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let system = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        cpus => f64::from(cpus),
    };
    if system > 0.0 && used > 0.0 { used / system * cpus * 100.0 } else { 0.0 }
}

/// Memory without the page cache that can be given back.
fn memory_used(stats: &StatsResponse) -> u64 {
    let memory = &stats.memory_stats;
    let cache = ["total_inactive_file", "inactive_file"].iter().find_map(|key| memory.stats.get(*key));
    match cache {
        Some(cache) if *cache < memory.usage => memory.usage - cache,
        _ => memory.usage,
    }
}

fn memory(row: &Row) -> String {
    let limit = row.stats.memory_stats.limit as f64;
    format!("{} / {}", human::binary_size(memory_used(&row.stats) as f64), human::binary_size(limit))
}

fn memory_percent(row: &Row) -> String {
    let percent = match row.stats.memory_stats.limit {
        0 => 0.0,
        limit => memory_used(&row.stats) as f64 / limit as f64 * 100.0,
    };
    format!("{percent:.2}%")
}

fn net_io(row: &Row) -> String {
    let networks = row.stats.networks.values();
    let (received, sent) = networks.fold((0, 0), |(rx, tx), net| (rx + net.rx_bytes, tx + net.tx_bytes));
    format!("{} / {}", human::size3(received as f64), human::size3(sent as f64))
}

fn block_io(row: &Row) -> String {
    let entries = row.stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
    let (mut read, mut written) = (0, 0);
    for entry in entries {
        match entry.op.as_bytes().first() {
            Some(b'r' | b'R') => read += entry.value,
            Some(b'w' | b'W') => written += entry.value,
            _ => {}
        }
    }
    format!("{} / {}", human::size3(read as f64), human::size3(written as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_as_a_row() {
        let stats: StatsResponse = serde_json::from_str(
            r#"{"id":"0123456789abcdef","name":"/web","pids_stats":{"current":3},
                "cpu_stats":{"cpu_usage":{"total_usage":200},"system_cpu_usage":2000,"online_cpus":2},
                "precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
                "memory_stats":{"usage":3145728,"limit":10485760,"stats":{"inactive_file":1048576}},
                "networks":{"eth0":{"rx_bytes":1500,"tx_bytes":10}}}"#,
        )
        .unwrap();
        let rows = [Row { asked: "web".into(), stats, trunc: true }];
        assert_eq!(
            listing()
                .render(
                    &rows,
                    "{{.ID}}|{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.PIDs}}",
                    false
                )
                .unwrap_or_else(|failure| failure.message),
            "0123456789ab|web|20.00%|2MiB / 10MiB|20.00%|1.5kB / 10B|3\n"
        );
    }
}
