//! From create to delete (runtime-spec: runtime.md).

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{Ran, wait};
use serde_json::{Value, json};

use crate::{bundle::Bundle, under_test::Runtime};

pub(crate) fn stdout_and_exit_code_are_the_process_s(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::sh(runtime, "echo out; echo err >&2; exit 7")?;
    let ran = runtime.run(&bundle)?;
    ensure!(ran.code == 7 && ran.stdout == "out\n", "{ran}");
    ensure!(ran.stderr.contains("err\n"), "{ran}");
    ensure!(runtime.state(&bundle).is_none(), "run left its container");
    Ok(())
}

pub(crate) fn standard_input_reaches_the_process(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::sh(runtime, "wc -c")?;
    let command = runtime.command(&["run", "--bundle", bundle.path(), bundle.id()]);
    let counted = Ran::with_input(command, &vec![b'x'; 1 << 20])?.ok()?;
    ensure!(counted.trim() == "1048576", "{counted}");
    Ok(())
}

pub(crate) fn created_waits_for_start(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::sh(runtime, "touch /ran; exec sleep 1000")?;
    runtime.create(&bundle)?;
    let state = runtime.state(&bundle).context("no state")?;
    ensure!(state["status"] == "created", "{state}");
    ensure!(state["id"] == bundle.id() && state["bundle"] == bundle.path(), "{state}");
    ensure!(state["ociVersion"].is_string() && state["pid"].as_u64() > Some(1), "{state}");
    ensure!(!bundle.rootfs().join("ran").exists(), "the process ran before start");
    runtime.start(&bundle)?;
    wait::until("the process to run", || bundle.rootfs().join("ran").exists().then_some(()))?;
    runtime.becomes(&bundle, "running")?;
    ensure!(runtime.state(&bundle).context("no state")?["pid"] == state["pid"], "the process changed its id");
    runtime.remove(&bundle)
}

pub(crate) fn kill_delivers_the_signal(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::sh(
        runtime,
        "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done",
    )?;
    runtime.up(&bundle)?;
    wait::until("the trap to be set", || bundle.said("stdout").contains("ready").then_some(()))?;
    runtime.call(&["kill", bundle.id(), "TERM"])?.ok()?;
    runtime.becomes(&bundle, "stopped")?;
    ensure!(bundle.said("stdout").contains("term"), "{}", bundle.said("stdout"));
    runtime.call(&["delete", bundle.id()])?.ok()?;
    ensure!(runtime.state(&bundle).is_none(), "deleted, yet there is a state");
    Ok(())
}

pub(crate) fn misuse_is_refused(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    let refused = |arguments: &[&str]| -> Result<()> {
        let ran = runtime.call(arguments)?;
        ensure!(ran.code != 0 && !ran.stderr.trim().is_empty(), "{ran}\nwas to be refused with a reason");
        Ok(())
    };
    refused(&["start", bundle.id()])?;
    refused(&["state", bundle.id()])?;
    refused(&["kill", bundle.id(), "KILL"])?;
    refused(&["delete", bundle.id()])?;
    runtime.up(&bundle)?;
    runtime.becomes(&bundle, "running")?;
    refused(&["create", "--bundle", bundle.path(), bundle.id()])?;
    refused(&["start", bundle.id()])?;
    refused(&["delete", bundle.id()])?;
    refused(&["create", "--bundle", bundle.path(), "../climbs"])?;
    runtime.call(&["kill", bundle.id(), "KILL"])?.ok()?;
    runtime.becomes(&bundle, "stopped")?;
    refused(&["exec", bundle.id(), "/bin/true"])?;
    refused(&["start", bundle.id()])?;
    runtime.call(&["delete", bundle.id()])?.ok().map(drop)
}

pub(crate) fn force_deletes_a_running_container(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let pid = runtime.pid(&bundle)?;
    runtime.remove(&bundle)?;
    let alive = || {
        fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
    };
    wait::until("the process to end", || (!alive()).then_some(()))?;
    ensure!(runtime.state(&bundle).is_none(), "deleted, yet there is a state");
    Ok(())
}

pub(crate) fn deleting_leaves_nothing(runtime: &Runtime) -> Result<()> {
    let mounts = || {
        fs::read_to_string(format!("/proc/{}/mountinfo", runtime.host.pid())).map(|text| text.lines().count())
    };
    let before = mounts()?;
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    ensure!(!cgroups(&bundle).is_empty(), "no cgroup was made at {}", bundle.cgroup());
    runtime.remove(&bundle)?;
    wait::until_is("cgroups left", &Vec::<String>::new(), || cgroups(&bundle))?;
    ensure!(mounts()? == before, "mounts were left on the host");
    let state = runtime.host.folder().join("state").join(bundle.id());
    ensure!(!state.exists(), "{} was left", state.display());
    Ok(())
}

fn cgroups(bundle: &Bundle) -> Vec<String> {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = hierarchies.chain(["/sys/fs/cgroup".into()]);
    let places = roots.map(|root| root.join(bundle.cgroup().trim_start_matches('/')));
    places.filter(|place| place.is_dir()).map(|place| place.display().to_string()).collect()
}

fn fails_cleanly(runtime: &Runtime, bundle: &Bundle) -> Result<Ran> {
    let ran = runtime.run(bundle)?;
    ensure!(ran.code != 0 && !ran.stderr.is_empty(), "{ran}");
    ensure!(runtime.state(bundle).is_none(), "a container was left");
    wait::until_is("cgroups left", &Vec::<String>::new(), || cgroups(bundle))?;
    Ok(ran)
}

/// Its errors, with the quotes that a structured log escapes.
fn said(ran: &Ran) -> String {
    ran.stderr.replace("\\\"", "\"")
}

pub(crate) fn a_missing_command_is_told_and_leaves_nothing(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::new(runtime)?;
    bundle.change(|spec| spec["process"]["args"] = json!(["nosuch"]))?;
    let ran = fails_cleanly(runtime, &bundle)?;
    ensure!(said(&ran).contains("exec: \"nosuch\": executable file not found in $PATH"), "{ran}");
    Ok(())
}

pub(crate) fn a_file_that_cannot_be_executed_is_told(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::new(runtime)?;
    fs::write(bundle.rootfs().join("plain"), "x")?;
    fs::set_permissions(bundle.rootfs().join("plain"), fs::Permissions::from_mode(0o644))?;
    bundle.change(|spec| spec["process"]["args"] = json!(["/plain"]))?;
    let ran = fails_cleanly(runtime, &bundle)?;
    ensure!(said(&ran).contains("exec: \"/plain\": permission denied"), "{ran}");
    Ok(())
}

pub(crate) fn a_broken_configuration_is_refused(runtime: &Runtime) -> Result<()> {
    let changes: [fn(&mut Value); 4] = [
        |spec| spec["process"]["args"] = json!([]),
        |spec| spec["process"]["cwd"] = json!("relative"),
        |spec| spec["root"]["path"] = json!("no-such-folder"),
        |spec| spec["linux"]["namespaces"][0]["type"] = json!("no-such-kind"),
    ];
    for change in changes {
        let mut bundle = Bundle::new(runtime)?;
        bundle.change(change)?;
        fails_cleanly(runtime, &bundle)?;
    }
    let bundle = Bundle::new(runtime)?;
    fs::write(bundle.folder().join("config.json"), "{\"ociVersion\": ")?;
    fails_cleanly(runtime, &bundle)?;
    fs::remove_file(bundle.folder().join("config.json"))?;
    fails_cleanly(runtime, &bundle).map(drop)
}

pub(crate) fn list_tells_containers(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let listed: Value = serde_json::from_str(&runtime.call(&["list", "--format", "json"])?.ok()?)?;
    let ids: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|entry| entry["id"].as_str()).collect();
    ensure!(ids == [bundle.id()], "{listed}");
    ensure!(runtime.call(&["list", "--quiet"])?.ok()? == bundle.id());
    let table = runtime.call(&["list"])?.ok()?;
    ensure!(table.starts_with("ID") && table.contains(bundle.path()), "{table}");
    runtime.remove(&bundle)
}

pub(crate) fn ps_tells_processes(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let pids: Vec<u64> =
        serde_json::from_str(&runtime.call(&["ps", "--format", "json", bundle.id()])?.ok()?)?;
    ensure!(pids.contains(&runtime.pid(&bundle)?), "{pids:?}");
    runtime.remove(&bundle)
}

pub(crate) fn spec_writes_a_configuration_that_runs(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::new(runtime)?;
    fs::remove_file(bundle.folder().join("config.json"))?;
    runtime.call(&["spec", "--bundle", bundle.path()])?.ok()?;
    let written: Value = serde_json::from_str(&bundle.said("config.json"))?;
    bundle.change(|spec| {
        *spec = written;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/echo", "ran"]);
        // The limit on open files that it asks for may be above the machine's.
        spec["process"].as_object_mut().map(|process| process.remove("rlimits"));
    })?;
    ensure!(runtime.run(&bundle)?.ok()? == "ran");
    Ok(())
}

pub(crate) fn features_are_told(runtime: &Runtime) -> Result<()> {
    let features: Value = serde_json::from_str(&runtime.call(&["features"])?.ok()?)?;
    ensure!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{features}");
    let namespaces = features["linux"]["namespaces"].as_array().context("no namespaces")?;
    ensure!(namespaces.iter().any(|name| name == "pid"), "{features}");
    Ok(())
}

pub(crate) fn the_pid_file_is_written(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    let file = bundle.folder().join("pid").display().to_string();
    runtime.create_with(&bundle, &["--pid-file", &file])?;
    ensure!(bundle.said("pid").trim() == runtime.pid(&bundle)?.to_string(), "{}", bundle.said("pid"));
    runtime.remove(&bundle)
}
