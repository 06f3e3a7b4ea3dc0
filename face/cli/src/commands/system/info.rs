//! `hull info`.

use hull_client::Query;
use hull_docker_api::SystemInfo;
use serde_json::{Value, json};

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::Flag;
use crate::output::{self, human, template};

pub(crate) static COMMAND: Command = Command {
    name: "info",
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    aliases: &["system info", "info"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[formats::INSPECT];

async fn run(invocation: Invocation) -> Result<u8> {
    let (mut value, failure) = match server(&invocation).await {
        Ok(value) => (value, None),
        // What is known of this side is told before the failure.
        Err(failure) => (serde_json::to_value(SystemInfo::default())?, Some(failure)),
    };
    let format = invocation.matches.text("format");
    if format.is_empty() {
        let client = client_text(&invocation.engine.context_name());
        if let Some(failure) = failure {
            output::text(&client);
            return Err(failure);
        }
        let info: SystemInfo = serde_json::from_value(value)?;
        output::text(&(client + &text(&info)));
        info.warnings.iter().flatten().for_each(|warning| output::warn(warning));
        return Ok(0);
    }
    value["ClientInfo"] = json!({
        "Debug": false,
        "Version": env!("CARGO_PKG_VERSION"),
        "DefaultAPIVersion": hull_docker_api::API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": std::env::consts::OS,
        "Arch": crate::commands::top_level::version::go_arch(),
        "BuildTime": "",
        "Context": invocation.engine.context_name(),
        "Plugins": [],
        "Warnings": null,
    });
    match format {
        "json" => output::line(&value.to_string()),
        format => output::line(
            &template::Format::parse(format)?.render_json(&with_go_names(value.clone()), &value)?,
        ),
    }
    failure.map_or(Ok(0), Err)
}

async fn server(invocation: &Invocation) -> Result<Value> {
    let client = invocation.engine.client().await?;
    Ok(client.get("/info", &Query::new()).await?)
}

/// Adds the names templates know keys by that differ from those in JSON, and fields that JSON leaves out.
fn with_go_names(mut value: Value) -> Value {
    let names = [
        ("HTTPProxy", "HttpProxy"),
        ("HTTPSProxy", "HttpsProxy"),
        ("CPUCfsPeriod", "CpuCfsPeriod"),
        ("CPUCfsQuota", "CpuCfsQuota"),
    ];
    for (name, key) in names {
        if let Some(found) = value.get(key).cloned() {
            value[name] = found;
        }
    }
    let omitted = [
        ("Isolation", json!("")),
        ("KernelMemory", json!(false)),
        ("KernelMemoryTCP", json!(false)),
        ("ProductLicense", json!("")),
        ("DefaultAddressPools", Value::Null),
        ("FirewallBackend", Value::Null),
        ("CDISpecDirs", Value::Null),
        ("Containerd", Value::Null),
        ("DiscoveredDevices", Value::Null),
    ];
    for (name, nothing) in omitted {
        if value.get(name).is_none() {
            value[name] = nothing;
        }
    }
    value
}

fn client_text(context: &str) -> String {
    format!(
        "Client:\n Version:    {}\n Context:    {context}\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Lines of `key: value`; what the engine does not tell is left out.
struct Report(String);

impl Report {
    fn add(&mut self, key: &str, value: impl ToString) {
        let value = value.to_string();
        if !value.is_empty() {
            self.0 += &format!(" {key}: {value}\n");
        }
    }
}

fn text(info: &SystemInfo) -> String {
    let mut report = Report(String::new());
    report.add("Containers", info.containers);
    report.add(" Running", info.containers_running);
    report.add(" Paused", info.containers_paused);
    report.add(" Stopped", info.containers_stopped);
    report.add("Images", info.images);
    report.add("Server Version", &info.server_version);
    report.add("Storage Driver", &info.driver);
    for [key, value] in &info.driver_status {
        report.add(&format!(" {key}"), value);
    }
    report.add("Logging Driver", &info.logging_driver);
    report.add("Cgroup Driver", &info.cgroup_driver);
    report.add("Cgroup Version", &info.cgroup_version);
    report.0 += " Plugins:\n";
    let words = |list: &Option<Vec<String>>| list.as_ref().map(|list| list.join(" ")).unwrap_or_default();
    report.add(" Volume", words(&info.plugins.volume));
    report.add(" Network", words(&info.plugins.network));
    report.add(" Log", words(&info.plugins.log));
    if !info.cdi_spec_dirs.is_empty() {
        report.0 += " CDI spec directories:\n";
        info.cdi_spec_dirs.iter().for_each(|directory| report.0 += &format!("  {directory}\n"));
    }
    if !info.swarm.local_node_state.is_empty() {
        report.add("Swarm", &info.swarm.local_node_state);
    }
    report.add("Runtimes", info.runtimes.keys().cloned().collect::<Vec<_>>().join(" "));
    report.add("Default Runtime", &info.default_runtime);
    report.add("Init Binary", &info.init_binary);
    for (part, commit) in
        [("containerd", &info.containerd_commit), ("runc", &info.runc_commit), ("init", &info.init_commit)]
    {
        report.0 += &format!(" {part} version: {}\n", commit.id);
    }
    if !info.security_options.is_empty() {
        report.0 += " Security Options:\n";
        for option in &info.security_options {
            for (index, part) in option.split(',').enumerate() {
                let (key, value) = part.split_once('=').unwrap_or(("name", part));
                match index {
                    0 => report.0 += &format!("  {value}\n"),
                    _ => report.0 += &format!("   {}: {value}\n", key[..1].to_uppercase() + &key[1..]),
                }
            }
        }
    }
    report.add("Kernel Version", &info.kernel_version);
    report.add("Operating System", &info.operating_system);
    report.add("OSType", &info.os_type);
    report.add("Architecture", &info.architecture);
    report.add("CPUs", info.n_cpu);
    report.add("Total Memory", human::binary_size(info.mem_total as f64));
    report.add("Name", &info.name);
    report.add("ID", &info.id);
    report.add("Docker Root Dir", &info.docker_root_dir);
    report.add("Debug Mode", info.debug);
    report.add("HTTP Proxy", &info.http_proxy);
    report.add("HTTPS Proxy", &info.https_proxy);
    report.add("No Proxy", &info.no_proxy);
    if !info.labels.is_empty() {
        report.0 += " Labels:\n";
        info.labels.iter().for_each(|label| report.0 += &format!("  {label}\n"));
    }
    report.add("Experimental", info.experimental_build);
    if let Some(registries) = &info.registry_config {
        report.0 += " Insecure Registries:\n";
        let insecure =
            registries.index_configs.iter().filter(|(_, index)| !index.secure).map(|(name, _)| name);
        insecure
            .chain(&registries.insecure_registry_cidrs)
            .for_each(|name| report.0 += &format!("  {name}\n"));
        if let Some(mirrors) = registries.mirrors.as_ref().filter(|mirrors| !mirrors.is_empty()) {
            report.0 += " Registry Mirrors:\n";
            mirrors.iter().for_each(|mirror| report.0 += &format!("  {mirror}\n"));
        }
    }
    report.add("Live Restore Enabled", info.live_restore_enabled);
    report.add("Product License", &info.product_license);
    if !info.default_address_pools.is_empty() {
        report.0 += " Default Address Pools:\n";
        for pool in &info.default_address_pools {
            report.0 += &format!("   Base: {}, Size: {}\n", pool.base, pool.size);
        }
    }
    report.add(
        "Firewall Backend",
        info.firewall_backend.as_ref().map_or("", |firewall| firewall.driver.as_str()),
    );
    report.0 + "\n"
}
