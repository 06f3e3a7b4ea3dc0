//! Volumes: create, list, inspect, remove, prune; and what containers mount of them.
//!
//! A record in the table `volumes` says that a volume exists; its directory is made before the record and removed
//! before it, so that a cut in between leaves no volume without a directory. An anonymous volume that a container is
//! made with is recorded together with the container: a creation that was cut off leaves none. Which containers refer
//! to a volume is known by the containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use hull_docker_api::{
    Filters, Volume, VolumeCreateRequest, VolumeList, VolumeUsage, VolumesPruned, rfc3339_nano,
};
use hull_meta::Durability;
use hull_volume::{Local, MountOptions, Name};
use serde::{Deserialize, Serialize};

use crate::{Config, Engine, Error, Kind, Result};

const TABLE: &str = "volumes";

/// The label docker gives to volumes that were created without a name.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What is recorded of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: String,
    /// RFC 3339, whole seconds as docker's.
    created: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

impl Record {
    fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// The volumes of an engine.
#[derive(Debug)]
pub struct Volumes {
    local: Local,
    /// Held over a change of directory and record together.
    changing: tokio::sync::Mutex<()>,
    records: Mutex<BTreeMap<String, Record>>,
}

impl Volumes {
    /// Loads the records of volumes.
    pub(crate) fn open(config: &Config, store: &hull_meta::Store) -> Result<Volumes> {
        let root = config.data_root.join("volumes");
        let local = Local::open(root).map_err(|error| Error::system("open volumes", error))?;
        let mut records = BTreeMap::new();
        let mut stale = hull_meta::Batch::new();
        for (name, record) in store.load::<Record>(TABLE)? {
            match Name::parse(&name) {
                Ok(valid) if local.exists(&valid) => {
                    records.insert(name, record);
                }
                // Its removal was cut off between directory and record.
                _ => {
                    stale.delete(TABLE, &name);
                }
            }
        }
        if !stale.is_empty() {
            store.write(stale, Durability::Process).detach();
        }
        settle_unfinished(&local, &records).map_err(|error| Error::system("open volumes", error))?;
        Ok(Volumes { local, changing: tokio::sync::Mutex::default(), records: Mutex::new(records) })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Actions of clients.
impl Engine {
    /// Makes a volume, or gives back the one that has this name already.
    ///
    /// # Errors
    /// A bad name or bad options (invalid), an unknown driver (not found).
    pub async fn volume_create(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let anonymous = request.name.is_empty();
        let (record, _) = self
            .volume_ensure(request, if anonymous { Durability::Process } else { Durability::Disk })
            .await?;
        Ok(self.volume_document(&record))
    }

    /// The volumes that pass the filters `name`, `driver`, `label` and `dangling`, by name.
    ///
    /// # Errors
    /// An unknown filter.
    pub async fn volume_list(&self, filters: &Filters) -> Result<VolumeList> {
        check_filters(filters, &["name", "driver", "label", "dangling"])?;
        let dangling = boolean(filters, "dangling")?;
        let records: Vec<Record> = self.0.volumes.known().values().cloned().collect();
        let volumes = records
            .iter()
            .filter(|record| {
                matches_part(filters, "name", &record.name)
                    && filters.matches_exact("driver", "local")
                    && filters.matches_labels("label", &record.labels)
                    && dangling
                        .is_none_or(|wanted| wanted == self.containers_of_volume(&record.name).is_empty())
            })
            .map(|record| self.volume_document(record))
            .collect();
        Ok(VolumeList { volumes, warnings: None })
    }

    /// One volume.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume> {
        let record = self.volume_record(name)?;
        Ok(self.volume_document(&record))
    }

    /// Removes a volume and its content. With `force`, one that does not exist is no error.
    ///
    /// # Errors
    /// When a container refers to it (conflict), or none has this name.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let removed = {
            let _changing = self.0.volumes.changing.lock().await;
            match self.volume_record(name) {
                Ok(record) => self.volume_destroy(&record).await,
                Err(error) => Err(error),
            }
        };
        match removed {
            Err(error) if force && error.kind() == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes volumes that no container refers to: anonymous ones, or with the filter `all` (and for API versions
    /// before 1.42) every one. Filters `label` and `label!` narrow the choice.
    ///
    /// # Errors
    /// An unknown filter.
    pub async fn volume_prune(&self, filters: &Filters, every: bool) -> Result<VolumesPruned> {
        check_filters(filters, &["label", "label!", "all"])?;
        let every = every || boolean(filters, "all")?.unwrap_or(false);
        let mut pruned = VolumesPruned { volumes_deleted: None, space_reclaimed: 0 };
        let _changing = self.0.volumes.changing.lock().await;
        let candidates: Vec<Record> = self.0.volumes.known().values().cloned().collect();
        for record in candidates {
            let chosen = (every || record.is_anonymous())
                && filters.matches_labels("label", &record.labels)
                && !has_any_label(filters, "label!", &record.labels);
            if !chosen || !self.containers_of_volume(&record.name).is_empty() {
                continue;
            }
            let size = self.volume_size(&record).await.unwrap_or(0);
            self.volume_destroy(&record).await?;
            pruned.space_reclaimed += size;
            pruned.volumes_deleted.get_or_insert_default().push(record.name);
        }
        let reclaimed = [("reclaimed".to_owned(), pruned.space_reclaimed.to_string())].into();
        self.events().emit("volume", "prune", "", reclaimed);
        Ok(pruned)
    }

    /// All volumes with their sizes and numbers of users, for `system df`.
    ///
    /// # Errors
    /// When a blocking task fails.
    pub async fn volumes_usage(&self) -> Result<Vec<Volume>> {
        let records: Vec<Record> = self.0.volumes.known().values().cloned().collect();
        let mut volumes = Vec::with_capacity(records.len());
        for record in records {
            let size =
                self.volume_size(&record).await.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
            let mut volume = self.volume_document(&record);
            let users = self.containers_of_volume(&record.name).len();
            volume.usage_data =
                Some(VolumeUsage { ref_count: i64::try_from(users).unwrap_or(i64::MAX), size });
            volumes.push(volume);
        }
        Ok(volumes)
    }
}

/// A volume as a container mounts it.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) struct MountableVolume {
    pub(crate) name: String,
    pub(crate) driver: String,
    /// Directory with its content.
    pub(crate) mountpoint: PathBuf,
    /// Whether this call made it.
    pub(crate) created: bool,
    /// It has to be recorded with the container it was made for.
    pub(crate) unrecorded: Option<Unrecorded>,
}

/// An anonymous volume that exists only on disk: it becomes real with the record of its container.
#[derive(Debug, Clone)]
pub(crate) struct Unrecorded(Record);

/// What containers need.
impl Engine {
    /// The volume of that name, made if it is not there; no name makes an anonymous one (64 hex digits, label
    /// `com.docker.volume.anonymous`). Driver empty: `local`. The file system that a volume's options name is mounted
    /// when this returns, so it is called at every start of a container.
    ///
    /// # Errors
    /// As [`Engine::volume_create`], and when the volume's file system cannot be mounted.
    #[allow(dead_code)]
    pub(crate) async fn volume_for_container(
        &self,
        name: Option<&str>,
        driver: &str,
        options: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<MountableVolume> {
        let request = VolumeCreateRequest {
            name: name.unwrap_or_default().to_owned(),
            driver: driver.to_owned(),
            driver_opts: options.clone(),
            labels: labels.clone(),
        };
        let (record, created, unrecorded) = if name.is_none() {
            let record = self.volume_begin(request).await?;
            (record.clone(), true, Some(Unrecorded(record)))
        } else {
            let (record, created) = self.volume_ensure(request, Durability::Process).await?;
            (record, created, None)
        };
        let mountpoint = self.volume_mounted(&record).await?;
        Ok(MountableVolume { name: record.name, driver: "local".to_owned(), mountpoint, created, unrecorded })
    }

    /// Adds the records of volumes to the batch that records their container.
    pub(crate) fn volumes_record(volumes: &[Unrecorded], batch: &mut hull_meta::Batch) -> Result<()> {
        for Unrecorded(record) in volumes {
            batch.put(TABLE, &record.name, record)?;
        }
        Ok(())
    }

    /// The batch is written: the volumes exist.
    pub(crate) async fn volumes_recorded(&self, volumes: Vec<Unrecorded>) {
        for Unrecorded(record) in volumes {
            self.0.volumes.known().insert(record.name.clone(), record.clone());
            self.volume_finish(&record.name).await;
            self.volume_event("create", &record.name);
        }
    }

    /// The container was not recorded: its volumes go.
    pub(crate) async fn volumes_abandoned(&self, volumes: Vec<Unrecorded>) {
        for Unrecorded(record) in volumes {
            let removed = match valid(&record.name) {
                Ok(name) => self.volume_remove_directory(name).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(volume = record.name, %error, "undo of a volume");
            }
        }
    }

    /// Removes an anonymous volume whose container goes away, unless another container uses it.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    #[allow(dead_code)]
    pub(crate) async fn volume_discard(&self, name: &str) -> Result<()> {
        let _changing = self.0.volumes.changing.lock().await;
        match self.volume_record(name) {
            Ok(record) if record.is_anonymous() && self.containers_of_volume(name).is_empty() => {
                self.volume_destroy(&record).await
            }
            _ => Ok(()),
        }
    }

    async fn volume_mounted(&self, record: &Record) -> Result<PathBuf> {
        let name = valid(&record.name)?;
        if record.options.is_empty() {
            return Ok(self.0.volumes.local.mountpoint(&name));
        }
        let (local, options) = (self.0.volumes.local.clone(), record.options.clone());
        let mounted = tokio::task::spawn_blocking(move || local.mount(&name, &options)).await?;
        mounted.map_err(|error| Error::internal(crate::chain(&error)).because(error))
    }

    /// The volume asked for, and whether it was made now.
    async fn volume_ensure(
        &self,
        request: VolumeCreateRequest,
        durability: Durability,
    ) -> Result<(Record, bool)> {
        check_driver(&request)?;
        let _changing = self.0.volumes.changing.lock().await;
        if let Some(record) = self.0.volumes.known().get(&request.name) {
            return Ok((record.clone(), false));
        }
        let record = self.volume_begin(request).await?;
        self.store().put(TABLE, &record.name, &record, durability).await?;
        self.0.volumes.known().insert(record.name.clone(), record.clone());
        self.volume_finish(&record.name).await;
        self.volume_event("create", &record.name);
        Ok((record, true))
    }

    /// Makes the directories of a new volume; its record is the caller's to write.
    async fn volume_begin(&self, request: VolumeCreateRequest) -> Result<Record> {
        check_driver(&request)?;
        let (name, labels) = named(&request)?;
        MountOptions::parse(&request.driver_opts)
            .map_err(|error| Error::invalid(format!("create {name}: {error}")))?;
        let now = jiff::Timestamp::now();
        let record = Record {
            name: name.to_string(),
            created: rfc3339_nano(now.round(jiff::Unit::Second).unwrap_or(now)),
            labels,
            options: request.driver_opts,
        };
        let local = self.0.volumes.local.clone();
        tokio::task::spawn_blocking(move || local.begin(&name))
            .await?
            .map_err(|error| Error::system("volume", error))?;
        Ok(record)
    }

    /// What stays when this fails is looked at when an engine opens.
    async fn volume_finish(&self, name: &str) {
        let (local, Ok(name)) = (self.0.volumes.local.clone(), valid(name)) else { return };
        let finished = tokio::task::spawn_blocking(move || local.finish(&name)).await;
        if let Ok(Err(error)) = finished {
            tracing::warn!(%error, "finish volume");
        }
    }

    async fn volume_remove_directory(&self, name: Name) -> Result<()> {
        let (local, text) = (self.0.volumes.local.clone(), name.to_string());
        tokio::task::spawn_blocking(move || local.unmount(&name).and_then(|()| local.remove(&name)))
            .await?
            .map_err(|error| Error::system(format_args!("remove {text}"), error))
    }

    /// Directory first, then the record. The caller holds `changing`.
    async fn volume_destroy(&self, record: &Record) -> Result<()> {
        let users = self.containers_of_volume(&record.name);
        if !users.is_empty() {
            let users = users.join(", ");
            return Err(Error::conflict(format!("remove {}: volume is in use - [{users}]", record.name)));
        }
        self.volume_remove_directory(valid(&record.name)?).await?;
        let durability = if record.is_anonymous() { Durability::Process } else { Durability::Disk };
        self.store().delete(TABLE, &record.name, durability).await?;
        self.0.volumes.known().remove(&record.name);
        self.volume_event("destroy", &record.name);
        Ok(())
    }

    async fn volume_size(&self, record: &Record) -> Result<u64> {
        let (local, name) = (self.0.volumes.local.clone(), valid(&record.name)?);
        tokio::task::spawn_blocking(move || local.size(&name))
            .await?
            .map_err(|error| Error::system("volume", error))
    }

    fn volume_record(&self, name: &str) -> Result<Record> {
        let record = self.0.volumes.known().get(name).cloned();
        record.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    fn volume_event(&self, action: &str, name: &str) {
        self.events().emit("volume", action, name, [("driver".to_owned(), "local".to_owned())].into());
    }

    fn volume_document(&self, record: &Record) -> Volume {
        let mountpoint = match Name::parse(&record.name) {
            Ok(name) => self.0.volumes.local.mountpoint(&name).display().to_string(),
            Err(_) => String::new(),
        };
        Volume {
            created_at: record.created.clone(),
            driver: "local".to_owned(),
            labels: (!record.labels.is_empty()).then(|| record.labels.clone()),
            mountpoint,
            name: record.name.clone(),
            options: (!record.options.is_empty()).then(|| record.options.clone()),
            scope: "local".to_owned(),
            ..Volume::default()
        }
    }
}

/// Volumes that are on disk with their mark: recorded ones only lose it, others belong to a creation that was cut off.
fn settle_unfinished(
    local: &Local,
    records: &BTreeMap<String, Record>,
) -> std::result::Result<(), hull_volume::Error> {
    for name in local.unfinished()? {
        if records.contains_key(name.as_str()) {
            local.finish(&name)?;
        } else {
            local.unmount(&name)?;
            local.remove(&name)?;
        }
    }
    Ok(())
}

fn check_driver(request: &VolumeCreateRequest) -> Result<()> {
    let (name, driver) = (&request.name, &request.driver);
    if matches!(driver.as_str(), "" | "local" | "default") {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
    )))
}

/// The name and labels of a volume to be made; no name makes it anonymous.
fn named(request: &VolumeCreateRequest) -> Result<(Name, BTreeMap<String, String>)> {
    let mut labels = request.labels.clone();
    if request.name.is_empty() {
        labels.insert(ANONYMOUS.to_owned(), String::new());
        let name = Name::random().map_err(|error| Error::system("name a volume", error))?;
        return Ok((name, labels));
    }
    Ok((valid(&request.name)?, labels))
}

fn valid(name: &str) -> Result<Name> {
    Name::parse(name).map_err(|error| Error::invalid(format!("create {name}: {error}")))
}

/// Refuses filters that an action does not know, in docker's words.
pub(crate) fn check_filters(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.unknown_field(known) {
        None => Ok(()),
        Some(unknown) => Err(Error::invalid(format!("invalid filter '{unknown}'"))),
    }
}

/// A filter that must be a boolean.
pub(crate) fn boolean(filters: &Filters, field: &str) -> Result<Option<bool>> {
    filters.boolean(field).map_err(|values| Error::invalid(format!("invalid filter '{field}=[{values}]'")))
}

/// Whether any of the filter's values is part of `text`; `^` and `$` anchor it. No value passes everything.
pub(crate) fn matches_part(filters: &Filters, field: &str, text: &str) -> bool {
    let values = filters.values(field);
    values.is_empty()
        || values.iter().any(|value| {
            let (start, value) = value.strip_prefix('^').map_or((false, value.as_str()), |rest| (true, rest));
            let (end, value) = value.strip_suffix('$').map_or((false, value), |rest| (true, rest));
            match (start, end) {
                (true, true) => text == value,
                (true, false) => text.starts_with(value),
                (false, true) => text.ends_with(value),
                (false, false) => text.contains(value),
            }
        })
}

/// Whether one of the filter's `key` or `key=value` is among the labels.
pub(crate) fn has_any_label(filters: &Filters, field: &str, labels: &BTreeMap<String, String>) -> bool {
    filters.values(field).iter().any(|wanted| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn engine() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let engine = tokio::task::spawn_blocking(|| Engine::open(config)).await.expect("join").expect("open");
        (dir, engine)
    }

    fn request(name: &str) -> VolumeCreateRequest {
        VolumeCreateRequest { name: name.to_owned(), ..VolumeCreateRequest::default() }
    }

    fn filters(json: &str) -> Filters {
        Filters::parse(json).expect("filters")
    }

    #[tokio::test]
    async fn volumes_live_until_they_are_removed() {
        let (dir, engine) = engine().await;
        let made = engine.volume_create(request("data")).await.expect("create");
        assert_eq!(made.mountpoint, dir.path().join("data/volumes/data/_data").display().to_string());
        assert_eq!(engine.volume_create(request("data")).await.expect("again"), made);
        drop(engine);
        let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let engine = tokio::task::spawn_blocking(|| Engine::open(config)).await.expect("join").expect("open");
        assert_eq!(engine.volume_inspect("data").await.expect("inspect").created_at, made.created_at);
        engine.volume_remove("data", false).await.expect("remove");
        let gone = engine.volume_remove("data", false).await.expect_err("twice");
        assert_eq!((gone.kind(), gone.message()), (Kind::NotFound, "get data: no such volume"));
        engine.volume_remove("data", true).await.expect("forced");
    }

    #[tokio::test]
    async fn a_containers_volume_is_made_once_and_discarded_when_anonymous() {
        let (_dir, engine) = engine().await;
        let none = BTreeMap::new();
        let first = engine.volume_for_container(Some("data"), "", &none, &none).await.expect("create");
        let again = engine.volume_for_container(Some("data"), "local", &none, &none).await.expect("again");
        assert_eq!((first.created, again.created, first.mountpoint), (true, false, again.mountpoint));
        let made = engine.volume_for_container(None, "", &none, &none).await.expect("create");
        let anonymous = made.name;
        assert!(engine.volume_inspect(&anonymous).await.is_err(), "real only with its container");
        engine.volumes_recorded(made.unrecorded.into_iter().collect()).await;
        assert!(engine.volume_inspect(&anonymous).await.is_ok());
        engine.volume_discard("data").await.expect("a named volume stays");
        engine.volume_discard(&anonymous).await.expect("discard");
        assert!(engine.volume_inspect(&anonymous).await.is_err());
        assert!(engine.volume_inspect("data").await.is_ok());
    }

    #[tokio::test]
    async fn a_volume_whose_container_was_never_recorded_is_gone_with_the_next_engine() {
        let (dir, engine) = engine().await;
        let none = BTreeMap::new();
        engine.volume_create(request("kept")).await.expect("create");
        let cut = engine.volume_for_container(None, "", &none, &none).await.expect("create");
        let before_its_mark = dir.path().join("data/volumes/cut");
        std::fs::create_dir(&before_its_mark).expect("mkdir");
        std::fs::create_dir_all(dir.path().join("data/volumes/foreign/_data")).expect("mkdir");
        drop(engine);
        let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let again = tokio::task::spawn_blocking(|| Engine::open(config)).await.expect("join").expect("open");
        assert!(!cut.mountpoint.exists() && !before_its_mark.exists());
        assert!(again.volume_inspect("kept").await.is_ok());
        assert!(dir.path().join("data/volumes/kept/_data").exists());
        assert!(dir.path().join("data/volumes/foreign/_data").exists(), "never touched without a mark");
    }

    #[tokio::test]
    async fn pruning_takes_anonymous_volumes_unless_told_otherwise() {
        let (_dir, engine) = engine().await;
        engine.volume_create(request("named")).await.expect("create");
        let anonymous = engine.volume_create(request("")).await.expect("create");
        std::fs::write(std::path::Path::new(&anonymous.mountpoint).join("f"), [0; 7]).expect("write");
        let pruned = engine.volume_prune(&filters(""), false).await.expect("prune");
        assert_eq!((pruned.volumes_deleted, pruned.space_reclaimed), (Some(vec![anonymous.name]), 7));
        let pruned = engine.volume_prune(&filters(r#"{"all":["true"]}"#), false).await.expect("prune");
        assert_eq!(pruned.volumes_deleted, Some(vec!["named".to_owned()]));
    }

    #[tokio::test]
    async fn lists_are_filtered() {
        let (_dir, engine) = engine().await;
        let mut labelled = request("one");
        labelled.labels.insert("tier".into(), "db".into());
        engine.volume_create(labelled).await.expect("create");
        engine.volume_create(request("two")).await.expect("create");
        for (filter, names) in [
            (r#"{"label":["tier=db"]}"#, vec!["one"]),
            (r#"{"dangling":["true"]}"#, vec!["one", "two"]),
            (r#"{"dangling":["0"]}"#, vec![]),
            (r#"{"name":["o"]}"#, vec!["one", "two"]),
            (r#"{"name":["^o"]}"#, vec!["one"]),
            (r#"{"driver":["nfs"]}"#, vec![]),
        ] {
            let list = engine.volume_list(&filters(filter)).await.expect("list").volumes;
            assert_eq!(list.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), names, "{filter}");
        }
        let unknown = engine.volume_list(&filters(r#"{"colour":["red"]}"#)).await.expect_err("unknown");
        assert_eq!(unknown.kind(), Kind::InvalidParameter);
    }

    #[tokio::test]
    async fn bad_requests_are_refused_in_dockers_words() {
        let (_dir, engine) = engine().await;
        let error = engine.volume_create(request("../x")).await.expect_err("name");
        assert!(error.message().starts_with("create ../x: \"../x\" includes invalid characters"), "{error}");
        let mut driver = request("ok");
        driver.driver = "rexray".into();
        let error = engine.volume_create(driver).await.expect_err("driver");
        assert_eq!(
            (error.kind(), error.message()),
            (Kind::NotFound, "create ok: error looking up volume plugin rexray: plugin \"rexray\" not found")
        );
        let mut options = request("ok");
        options.driver_opts.insert("colour".into(), "red".into());
        let error = engine.volume_create(options).await.expect_err("options");
        assert_eq!(error.message(), "create ok: invalid option: \"colour\"");
    }
}
