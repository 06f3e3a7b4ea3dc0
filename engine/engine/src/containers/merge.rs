//! The image's configuration under the request's: what a container's configuration becomes.

use std::collections::BTreeMap;

use hull_docker_api::{ContainerConfig, Empty, HealthConfig, StrSlice};
use hull_model::{ContainerDefaults, Healthcheck};

use crate::{Error, Result};

/// Fills what `config` leaves open from the image, and checks that there is a command.
pub(crate) fn merge(config: &mut ContainerConfig, image: &ContainerDefaults) -> Result<()> {
    inherit(&mut config.user, &image.user);
    inherit(&mut config.working_dir, &image.working_dir);
    inherit(&mut config.stop_signal, &image.stop_signal);
    for port in image.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_insert(Empty {});
    }
    if !image.volumes.is_empty() {
        let volumes = config.volumes.get_or_insert_default();
        volumes.extend(image.volumes.keys().map(|path| (path.clone(), Empty {})));
    }
    merge_env(config, &image.env);
    let labels = config.labels.get_or_insert_default();
    for (key, value) in &image.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if config.shell.is_empty() {
        config.shell = StrSlice(image.shell.clone());
    }
    merge_health(&mut config.healthcheck, image.healthcheck.as_ref());
    merge_command(config, image)
}

fn inherit(own: &mut String, image: &str) {
    if own.is_empty() {
        image.clone_into(own);
    }
}

/// The request's variables first, then those of the image that it does not name.
fn merge_env(config: &mut ContainerConfig, image: &[String]) {
    let own = config.env.get_or_insert_default();
    let key =
        |variable: &str| variable.split_once('=').map_or(variable.to_owned(), |(key, _)| key.to_owned());
    let named: Vec<String> = own.iter().map(|variable| key(variable)).collect();
    own.extend(image.iter().filter(|variable| !named.contains(&key(variable))).cloned());
}

/// An entrypoint in the request, even an empty one, drops the image's command; `[""]` drops the image's entrypoint.
fn merge_command(config: &mut ContainerConfig, image: &ContainerDefaults) -> Result<()> {
    let none = |words: &Option<StrSlice>| words.as_ref().is_none_or(|words| words.is_empty());
    if none(&config.entrypoint) {
        if none(&config.cmd) {
            config.cmd = image.cmd.clone().map(StrSlice);
        }
        if config.entrypoint.is_none() {
            config.entrypoint = image.entrypoint.clone().map(StrSlice);
        }
    }
    if config.entrypoint.as_ref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
        config.entrypoint = None;
    }
    if none(&config.entrypoint) && none(&config.cmd) {
        return Err(Error::invalid("no command specified"));
    }
    Ok(())
}

fn merge_health(own: &mut Option<HealthConfig>, image: Option<&Healthcheck>) {
    let Some(image) = image else { return };
    let own = own.get_or_insert_default();
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    for (value, inherited) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *value == 0 {
            *value = inherited;
        }
    }
}

/// Variables with the later ones replacing earlier ones of the same name; a name without `=` removes it (docker's
/// `ReplaceOrAppendEnvValues`).
pub(crate) fn overlay_env(defaults: Vec<String>, overrides: &[String]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for variable in defaults.iter().chain(overrides) {
        match variable.split_once('=') {
            Some((key, value)) => {
                if values.insert(key.to_owned(), value.to_owned()).is_none() {
                    order.retain(|known| known != key);
                    order.push(key.to_owned());
                }
            }
            None => {
                values.remove(variable);
            }
        }
    }
    order.into_iter().filter_map(|key| values.get(&key).map(|value| format!("{key}={value}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn merged(
        entrypoint: Option<&[&str]>,
        cmd: Option<&[&str]>,
        image_entrypoint: Option<&[&str]>,
        image_cmd: Option<&[&str]>,
    ) -> Result<Vec<String>, String> {
        let mut config = ContainerConfig {
            entrypoint: entrypoint.map(|list| StrSlice(words(list))),
            cmd: cmd.map(|list| StrSlice(words(list))),
            ..ContainerConfig::default()
        };
        let image = ContainerDefaults {
            entrypoint: image_entrypoint.map(words),
            cmd: image_cmd.map(words),
            ..ContainerDefaults::default()
        };
        merge(&mut config, &image).map_err(|error| error.message().to_owned())?;
        let all =
            config.entrypoint.into_iter().flat_map(|e| e.0).chain(config.cmd.into_iter().flat_map(|c| c.0));
        Ok(all.collect())
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_rules() {
        let (image_ep, image_cmd): (Option<&[&str]>, Option<&[&str]>) = (Some(&["ep"]), Some(&["cmd"]));
        assert_eq!(merged(None, None, image_ep, image_cmd), Ok(words(&["ep", "cmd"])));
        assert_eq!(merged(None, Some(&["own"]), image_ep, image_cmd), Ok(words(&["ep", "own"])));
        assert_eq!(merged(Some(&["own"]), None, image_ep, image_cmd), Ok(words(&["own"])));
        assert_eq!(merged(Some(&[""]), Some(&["x"]), image_ep, image_cmd), Ok(words(&["x"])));
        assert_eq!(merged(Some(&[""]), None, image_ep, image_cmd), Err("no command specified".to_owned()));
        assert_eq!(merged(None, None, None, None), Err("no command specified".to_owned()));
        assert_eq!(merged(Some(&[]), None, image_ep, image_cmd), Ok(words(&["cmd"])));
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let mut config = ContainerConfig {
            env: Some(words(&["A=1", "B"])),
            user: "me".to_owned(),
            cmd: Some(StrSlice(words(&["x"]))),
            healthcheck: Some(HealthConfig { retries: 9, ..HealthConfig::default() }),
            ..ContainerConfig::default()
        };
        let image = ContainerDefaults {
            env: words(&["A=2", "B=3", "C=4"]),
            user: "you".to_owned(),
            working_dir: "/srv".to_owned(),
            healthcheck: Some(Healthcheck {
                test: words(&["CMD", "t"]),
                retries: 1,
                ..Healthcheck::default()
            }),
            ..ContainerDefaults::default()
        };
        merge(&mut config, &image).expect("merge");
        assert_eq!(config.env, Some(words(&["A=1", "B", "C=4"])));
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("me", "/srv"));
        let health = config.healthcheck.expect("health");
        assert_eq!((health.test, health.retries), (words(&["CMD", "t"]), 9));
    }

    #[test]
    fn later_variables_replace_and_bare_names_remove() {
        let env =
            overlay_env(words(&["PATH=/bin", "TERM=xterm"]), &words(&["A=1", "PATH=/x", "TERM", "A=2"]));
        assert_eq!(env, words(&["PATH=/x", "A=2"]));
    }
}
