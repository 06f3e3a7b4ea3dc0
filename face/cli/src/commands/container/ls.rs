//! `hull ps`.

use hull_client::Query;
use hull_docker_api::{ListedContainer, Port};

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::{FILTER, Flag, INT};
use crate::output;
use crate::output::human;
use crate::output::listing::{Column, Listing, joined_labels};

pub(crate) static COMMAND: Command = Command {
    name: "ls",
    usage: "[OPTIONS]",
    about: "List containers",
    aliases: &["container ls", "container list", "container ps", "ps"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Show all containers (default shows just running)").short('a'),
    Flag::new(FILTER, "filter", "Filter output based on conditions provided").short('f'),
    formats::LIST,
    Flag::new(INT, "last", "Show n last created containers (includes all states) (default -1)")
        .short('n')
        .default("-1"),
    Flag::switch("latest", "Show the latest created container (includes all states)").short('l'),
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::switch("quiet", "Only display container IDs").short('q'),
    Flag::switch("size", "Display total file sizes").short('s'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let (quiet, trunc, size) = (matches.on("quiet"), !matches.on("no-trunc"), matches.on("size"));
    let format = match matches.text("format") {
        "" => invocation.engine.config().text("psFormat"),
        format => format,
    };
    let limit = if matches.on("latest") { 1 } else { matches.int("last") };
    let mut query = Query::new().flag("all", matches.on("all"));
    if limit > 0 {
        query = query.set("limit", limit.to_string());
    }
    query = query.flag("size", size || (!quiet && (format.contains(".Size") || format.contains("json ."))));
    query = query.filters(&matches.filters("filter"));
    let client = invocation.engine.client().await?;
    let containers: Vec<ListedContainer> = client.container_list_as(&query).await?;
    let rows: Vec<Row> = containers.into_iter().map(|container| Row { container, trunc }).collect();
    output::text(&listing(size).render(&rows, format, quiet)?);
    Ok(0)
}

/// A container to list.
pub(crate) struct Row {
    pub(crate) container: ListedContainer,
    /// Shorten ids, commands and names.
    pub(crate) trunc: bool,
}

fn listing(size: bool) -> Listing<Row> {
    let mut default = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if size {
        default.push("Size");
    }
    Listing { columns: COLUMNS, default, quiet: "ID", labels: Some(|row| &row.container.labels) }
}

pub(crate) const COLUMNS: &[Column<Row>] = &[
    Column { name: "Command", header: "COMMAND", value: command },
    Column { name: "CreatedAt", header: "CREATED AT", value: |row| human::timestamp(row.container.created) },
    Column { name: "ID", header: "CONTAINER ID", value: id },
    Column { name: "Image", header: "IMAGE", value: image },
    Column { name: "Labels", header: "LABELS", value: |row| joined_labels(&row.container.labels) },
    Column { name: "LocalVolumes", header: "LOCAL VOLUMES", value: local_volumes },
    Column { name: "Mounts", header: "MOUNTS", value: mounts },
    Column { name: "Names", header: "NAMES", value: names },
    Column { name: "Networks", header: "NETWORKS", value: networks },
    Column { name: "Ports", header: "PORTS", value: |row| ports(&row.container.ports) },
    Column { name: "RunningFor", header: "CREATED", value: |row| human::ago(row.container.created) },
    Column { name: "Size", header: "SIZE", value: size },
    Column { name: "State", header: "STATE", value: |row| row.container.state.clone() },
    Column { name: "Status", header: "STATUS", value: |row| row.container.status.clone() },
];

fn id(row: &Row) -> String {
    if row.trunc { human::short_id(&row.container.id) } else { row.container.id.clone() }
}

fn image(row: &Row) -> String {
    let image = &row.container.image;
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    // The engine names a container's image by its id when the tag it was made from has moved.
    let moved = row.trunc && image.starts_with("sha256:");
    if moved { human::short_id(image) } else { image.clone() }
}

fn command(row: &Row) -> String {
    let command = &row.container.command;
    let shown = if row.trunc { human::ellipsis(command, 20) } else { command.clone() };
    format!(
        "\"{}\"",
        shown.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
    )
}

fn names(row: &Row) -> String {
    let names = row.container.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
    // Names with another slash are aliases of links.
    names.filter(|name| !row.trunc || !name.contains('/')).collect::<Vec<_>>().join(",")
}

fn networks(row: &Row) -> String {
    row.container.network_settings.networks.keys().cloned().collect::<Vec<_>>().join(",")
}

fn mounts(row: &Row) -> String {
    let name = |name: &String| if row.trunc { human::ellipsis(name, 15) } else { name.clone() };
    let mounts = row.container.mounts.iter();
    mounts
        .map(|mount| name(if mount.name.is_empty() { &mount.source } else { &mount.name }))
        .collect::<Vec<_>>()
        .join(",")
}

fn local_volumes(row: &Row) -> String {
    row.container.mounts.iter().filter(|mount| mount.driver == "local").count().to_string()
}

fn size(row: &Row) -> String {
    let (written, whole) = (row.container.size_rw, row.container.size_root_fs);
    match whole {
        0 => human::size3(written as f64),
        whole => format!("{} (virtual {})", human::size3(written as f64), human::size3(whole as f64)),
    }
}

/// Ports as docker shows them: published ones first to last, consecutive ports as one range.
pub(crate) fn ports(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.kind).cmp(&(b.private_port, &b.ip, b.public_port, &b.kind))
    });
    let mut groups: Vec<(String, String, u16, u16)> = Vec::new();
    let (mut ranges, mut single) = (Vec::new(), Vec::new());
    for port in sorted {
        if !port.ip.is_empty() && port.public_port != port.private_port {
            single.push(format!(
                "{}:{}->{}/{}",
                bracketed(&port.ip),
                port.public_port,
                port.private_port,
                port.kind
            ));
            continue;
        }
        match groups.iter_mut().find(|(ip, kind, _, _)| *ip == port.ip && *kind == port.kind) {
            Some(group) if port.private_port == group.3.saturating_add(1) => group.3 = port.private_port,
            Some(group) => {
                ranges.push(range(group));
                (group.2, group.3) = (port.private_port, port.private_port);
            }
            None => groups.push((port.ip.clone(), port.kind.clone(), port.private_port, port.private_port)),
        }
    }
    ranges.extend(groups.iter().map(range));
    ranges.extend(single);
    ranges.join(", ")
}

fn range((ip, kind, first, last): &(String, String, u16, u16)) -> String {
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match ip.is_empty() {
        true => format!("{ports}/{kind}"),
        false => format!("{}:{ports}->{ports}/{kind}", bracketed(ip)),
    }
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, public: u16, private: u16) -> Port {
        Port { ip: ip.to_owned(), private_port: private, public_port: public, kind: "tcp".to_owned() }
    }

    #[test]
    fn ports_of_a_container() {
        assert_eq!(
            ports(&[port("0.0.0.0", 8080, 80), port("::", 8080, 80)]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(ports(&[port("", 0, 443), port("", 0, 80)]), "80/tcp, 443/tcp");
        assert_eq!(ports(&[port("", 0, 80), port("", 0, 81), port("", 0, 82)]), "80-82/tcp");
        assert_eq!(ports(&[port("0.0.0.0", 90, 90), port("0.0.0.0", 91, 91)]), "0.0.0.0:90-91->90-91/tcp");
        assert_eq!(ports(&[]), "");
    }

    #[test]
    fn the_default_table() {
        let container = ListedContainer {
            id: "0123456789abcdef".into(),
            names: vec!["/web".into(), "/other/alias".into()],
            image: "busybox".into(),
            command: "sh -c 'echo \"hello world\"; sleep 100'".into(),
            created: jiff::Timestamp::now().as_second() - 130,
            state: "running".into(),
            status: "Up 2 minutes".into(),
            ..ListedContainer::default()
        };
        let rows = [Row { container, trunc: true }];
        let text = listing(false).render(&rows, "", false).unwrap_or_else(|f| f.message);
        assert_eq!(
            text,
            "CONTAINER ID   IMAGE     COMMAND                   CREATED         STATUS         PORTS     NAMES\n\
             0123456789ab   busybox   \"sh -c 'echo \\\"hello …\"   2 minutes ago   Up 2 minutes             web\n"
        );
        assert_eq!(
            listing(false).render(&rows, "{{.Names}} {{.State}}", false).unwrap_or_default_text(),
            "web running\n"
        );
    }

    trait Text {
        fn unwrap_or_default_text(self) -> String;
    }

    impl Text for Result<String> {
        fn unwrap_or_default_text(self) -> String {
            self.unwrap_or_else(|failure| failure.message)
        }
    }
}
