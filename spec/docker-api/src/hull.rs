//! What Hull's API has beyond docker's.

use crate::go::go_struct;
use crate::image::{Descriptor, DescriptorPlatform};

go_struct! {
    /// An element of `GET /artifacts/json`: something in the store that is no image.
    pub struct ArtifactSummary {
        name: String = "Name",
        /// Digest of its manifest.
        digest: String = "Digest",
        /// What kind of thing it is.
        artifact_type: String = "ArtifactType",
        /// The manifest it is about.
        subject: String = "Subject" omitempty,
        /// Bytes of all it names.
        size: i64 = "Size",
    }

    /// An element of `GET /images/{name}/layers`, lowest first.
    pub struct LayerView {
        /// Digest of the uncompressed layer.
        diff_id: String = "DiffID",
        /// What made it.
        created_by: String = "CreatedBy",
        /// Bytes of its blob.
        compressed: i64 = "Compressed",
        /// Bytes of its files.
        size: i64 = "Size",
        /// Of these, bytes a higher layer replaces or removes.
        wasted: i64 = "Wasted",
        added: i64 = "Added",
        changed: i64 = "Changed",
        removed: i64 = "Removed",
        files: Vec<LayerFileView> = "Files" omitempty,
    }

    /// A path of a layer.
    pub struct LayerFileView {
        path: String = "Path",
        /// `A`, `C` or `D`, as in `docker diff`.
        effect: String = "Effect",
        /// As in the first column of `ls -l`.
        mode: String = "Mode",
        size: i64 = "Size",
    }

    /// `GET /distribution/{name}/manifest`.
    pub struct ManifestDocument {
        descriptor: Descriptor = "Descriptor",
        /// The document, base64.
        raw: String = "Raw",
        /// Of an image: what it runs on.
        platform: Option<DescriptorPlatform> = "Platform" omitempty,
    }

    /// `PUT /distribution/{name}/manifest`.
    pub struct ManifestUpload {
        media_type: String = "MediaType",
        /// The document, base64.
        raw: String = "Raw",
        /// References with digest of what it lists, in repositories of the same registry; what is in another than `name`
        /// is taken over first.
        sources: Vec<String> = "Sources" omitempty,
    }

    /// `GET /distribution/{name}/referrers`.
    pub struct ReferrerList {
        /// The manifest they are about.
        subject: String = "Subject",
        referrers: Vec<Descriptor> = "Referrers",
    }
}
