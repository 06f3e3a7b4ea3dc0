//! The image that needs no registry: its one layer is the runtime's own static program.

use std::fs::File;
use std::time::SystemTime;

use hull_docker_api::{JsonMessage, rfc3339_nano};
use hull_model::{ContainerDefaults, History, ImageConfig, Platform, Reference};

use super::progress::Board;
use super::registry::image_error;
use crate::{Engine, Error, Result};

/// Whether a reference asks for the image that Hull makes itself: `hello`, with no other tag.
pub(super) fn is_asked_for(reference: &Reference) -> bool {
    reference.familiar_name() == hull_hello::IMAGE
        && matches!(reference.tag(), None | Some("latest"))
        && reference.digest().is_none()
}

impl Engine {
    /// Makes the image out of the runtime's program. The same program gives the same image.
    pub(super) async fn make_hello(&self, name: &Reference, board: &Board) -> Result<()> {
        let failed = |error| Error::system("read the runtime's program", error);
        let program = File::open(&self.config().runtime).map_err(failed)?;
        let about = program.metadata().map_err(failed)?;
        let made = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let config = config(jiff::Timestamp::try_from(made).ok().map(rfc3339_nano));
        let store = self.0.images.store.clone();
        let archive = hull_hello::layer(program, about.len());
        let image = tokio::task::spawn_blocking(move || store.import(archive, config)).await?;
        let name = name.with_tag("latest").map_err(|error| Error::internal(error.to_string()))?;
        let image = self.image_record(image.map_err(image_error)?, None, vec![name.clone()]).await?;
        self.image_event("pull", image.id(), &name.familiar());
        board.tell(JsonMessage::status("", COMMENT.to_owned()));
        board
            .tell(JsonMessage::status("", format!("Status: Downloaded newer image for {}", name.familiar())));
        Ok(())
    }
}

const COMMENT: &str = "Made of Hull's own program";

fn config(created: Option<String>) -> ImageConfig {
    let host = Platform::host();
    ImageConfig {
        created: created.clone(),
        architecture: host.architecture,
        variant: host.variant,
        os: host.os,
        config: ContainerDefaults {
            cmd: Some(hull_hello::COMMAND.map(str::to_owned).to_vec()),
            ..ContainerDefaults::default()
        },
        history: vec![History { created, comment: COMMENT.to_owned(), ..History::default() }],
        ..ImageConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::images::PullRequest;

    #[test]
    fn only_the_plain_name_is_hull_s_own() {
        let asked = |name: &str| is_asked_for(&name.parse().expect("reference"));
        assert!(asked("hello") && asked("hello:latest") && asked("docker.io/library/hello"));
        assert!(!asked("hello:v1") && !asked("me/hello") && !asked("registry.example/hello"));
        assert!(!asked("hello-world"));
    }

    #[tokio::test]
    async fn the_same_program_gives_the_same_image() {
        let dir = tempfile::tempdir().expect("temp dir");
        let program = dir.path().join("hull-runtime");
        std::fs::write(&program, [7; 3000]).expect("program");
        let config = crate::Config::new(dir.path().join("data"), dir.path().join("run"), program);
        let open = tokio::task::spawn_blocking(|| Engine::open(config));
        let engine = open.await.expect("join").expect("open");
        let mut ids = Vec::new();
        for tag in [None, Some("latest".to_owned())] {
            let request =
                PullRequest { image: "hello".to_owned(), tag, platform: None, referrers: false, auth: None };
            let messages: Vec<_> = engine.image_pull(request).await.expect("asked").collect().await;
            assert!(messages.iter().all(std::result::Result::is_ok), "{messages:?}");
            let image = engine.image_for_run("hello", "").await.expect("known");
            assert_eq!(image.config.config.cmd.as_deref(), Some(&["/hello".to_owned()][..]));
            let trees = engine.layers().trees(&image.layers).expect("layers");
            let made = std::fs::read(trees.paths()[0].join("hello")).expect("the program in the layer");
            assert_eq!(made, [7; 3000]);
            ids.push(image.id);
        }
        assert_eq!(ids[0], ids[1]);
    }
}
