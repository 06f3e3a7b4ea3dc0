//! Hooks (runtime-spec: config.md, POSIX-platform hooks).

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use hull_fixtures::wait;
use serde_json::{Value, json};

use crate::{
    bundle::{Bundle, push},
    under_test::Runtime,
};

pub(crate) fn run_in_order_with_the_state(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "echo process >> /log/order; exec sleep 1000")?;
    let log = bundle.folder().join("log");
    fs::create_dir(&log)?;
    let log = log.to_str().context("path")?.to_owned();
    let outside = |name: &str| {
        let script = format!("cat > {log}/{name}.json; echo {name} $A >> {log}/order");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=env", "PATH=/usr/bin:/bin"], "timeout": 30}])
    };
    bundle.change(|spec| {
        spec["hooks"] = json!({
            "createRuntime": outside("createRuntime"),
            "createContainer": outside("createContainer"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /log/order"], "env": ["PATH=/bin"]}],
            "poststart": outside("poststart"),
            "poststop": outside("poststop"),
        });
        let mount = json!({"destination": "/log", "type": "bind", "source": log, "options": ["rbind", "rw"]});
        push(&mut spec["mounts"], mount);
    })?;
    let order = || bundle.said("log/order").lines().map(str::to_owned).collect::<Vec<_>>();
    runtime.create(&bundle)?;
    ensure!(order() == ["createRuntime env", "createContainer env"], "{:?}", order());
    let state: Value = serde_json::from_str(&bundle.said("log/createRuntime.json"))?;
    ensure!(state["id"] == bundle.id() && state["bundle"] == bundle.path(), "{state}");
    ensure!(state["pid"] == runtime.pid(&bundle)? && state["status"].is_string(), "{state}");
    runtime.start(&bundle)?;
    wait::until("five lines", || (order().len() == 5).then_some(()))?;
    ensure!(order()[2] == "startContainer", "{:?}", order());
    ensure!(order()[3..].iter().any(|line| line == "process"), "{:?}", order());
    ensure!(order()[3..].iter().any(|line| line == "poststart env"), "{:?}", order());
    runtime.remove(&bundle)?;
    ensure!(order().last().is_some_and(|line| line == "poststop env"), "{:?}", order());
    Ok(())
}

pub(crate) fn a_failing_hook_fails_the_container(runtime: &Runtime) -> Result<()> {
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let mut bundle = Bundle::sh(runtime, "touch /ran")?;
        let hook = bundle.rootfs().join("bin/fail");
        fs::write(&hook, "#!/bin/sh\necho no-good >&2\nexit 4\n")?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        let path = if kind == "startContainer" { "/bin/fail" } else { hook.to_str().context("path")? };
        let path = path.to_owned();
        bundle.change(|spec| spec["hooks"][kind] = json!([{"path": path}]))?;
        let ran = runtime.run(&bundle)?;
        ensure!(ran.code != 0, "{kind}: {ran}");
        ensure!(!bundle.rootfs().join("ran").exists(), "{kind} failed and the process ran");
        ensure!(runtime.state(&bundle).is_none(), "{kind} failed and the container stayed");
    }
    Ok(())
}
