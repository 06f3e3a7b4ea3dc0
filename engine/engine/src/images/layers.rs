//! What each layer of an image adds, changes, removes and wastes.

use hull_docker_api::{LayerFileView, LayerView};
use hull_images::{Effect, LayerFile};
use hull_layer::tar::Kind;

use super::record::select_platform;
use super::registry::image_error;
use crate::{Engine, Result};

impl Engine {
    /// The layers of an image, lowest first; with `files`, the paths in each.
    ///
    /// # Errors
    /// When there is none of this name, or a layer's blob is gone or damaged.
    pub async fn image_layers(
        &self,
        name: &str,
        files: bool,
        platform: Option<String>,
    ) -> Result<Vec<LayerView>> {
        let image = select_platform(&self.image_find(name)?, name, platform.as_deref().unwrap_or_default())?;
        let store = self.0.images.store.clone();
        let lease = store.lease();
        store.hold(&lease, &image.record.image);
        let made: Vec<String> = image
            .config
            .history
            .iter()
            .filter(|step| !step.empty_layer)
            .map(|step| step.created_by.clone())
            .collect();
        let read = move || {
            let contents = store.contents(&image.record.image);
            drop(lease);
            contents
        };
        let contents = tokio::task::spawn_blocking(read).await?.map_err(image_error)?;
        let view = |(at, layer): (usize, hull_images::LayerContents)| LayerView {
            diff_id: layer.diff_id.to_string(),
            created_by: made.get(at).cloned().unwrap_or_default(),
            compressed: signed(layer.compressed),
            size: signed(layer.size),
            wasted: signed(layer.wasted),
            added: signed(layer.counts[0]),
            changed: signed(layer.counts[1]),
            removed: signed(layer.counts[2]),
            files: if files { layer.files.iter().map(file_view).collect() } else { Vec::new() },
        };
        Ok(contents.into_iter().enumerate().map(view).collect())
    }
}

fn file_view(file: &LayerFile) -> LayerFileView {
    let effect = match file.effect {
        Effect::Added => "A",
        Effect::Changed => "C",
        Effect::Removed => "D",
    };
    LayerFileView {
        path: format!("/{}", file.path),
        effect: effect.to_owned(),
        mode: if file.effect == Effect::Removed { String::new() } else { mode(file) },
        size: signed(file.size),
    }
}

/// `-rwxr-sr-x`.
fn mode(file: &LayerFile) -> String {
    let kind = match file.kind {
        Kind::File | Kind::HardLink => '-',
        Kind::Symlink => 'l',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Directory => 'd',
        Kind::Fifo => 'p',
    };
    let mut text = String::from(kind);
    for (shift, special, small, large) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = file.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, file.mode & special != 0) {
            (true, true) => small,
            (false, true) => large,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_like_ls() {
        let file = |kind, mode| LayerFile { path: String::new(), effect: Effect::Added, kind, size: 0, mode };
        assert_eq!(mode(&file(Kind::File, 0o4755)), "-rwsr-xr-x");
        assert_eq!(mode(&file(Kind::Directory, 0o1777)), "drwxrwxrwt");
        assert_eq!(mode(&file(Kind::Symlink, 0o2640)), "lrw-r-S---");
    }
}
