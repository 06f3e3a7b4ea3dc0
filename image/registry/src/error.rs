//! What a request can end with other than success, in the codes of the distribution specification.

use std::io;

use crate::store::StoreError;

/// Code of an error answer (distribution-spec, "Error Codes"), its HTTP status with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Blob unknown to the registry.
    BlobUnknown,
    /// The upload cannot be done like this.
    BlobUploadInvalid,
    /// No such upload.
    BlobUploadUnknown,
    /// Content does not have the digest that was said, or it is no digest.
    DigestInvalid,
    /// A manifest names a blob or manifest that is not here.
    ManifestBlobUnknown,
    /// Not a manifest.
    ManifestInvalid,
    /// No such manifest.
    ManifestUnknown,
    /// Larger than this registry takes.
    ManifestTooLarge,
    /// Larger than this registry takes.
    BlobTooLarge,
    /// More in an address than this registry takes.
    UriTooLong,
    /// Not a repository's name.
    NameInvalid,
    /// No such repository.
    NameUnknown,
    /// Length and content differ.
    SizeInvalid,
    /// Not a tag.
    TagInvalid,
    /// A chunk that does not follow the last one.
    RangeInvalid,
    /// Not a number of entries.
    PaginationInvalid,
    /// Who is it?
    Unauthorized,
    /// Known, but without the right.
    Denied,
    /// Not done here.
    Unsupported,
    /// Slow down.
    TooManyRequests,
    /// No such page.
    NotFound,
    /// The request itself is broken.
    BadRequest,
    /// Something here failed.
    Internal,
    /// No space left.
    Full,
    /// The upstream of a cache failed.
    Upstream,
}

impl Code {
    /// The code's text and status.
    pub fn parts(self) -> (&'static str, u16) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", 404),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", 400),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", 404),
            Self::DigestInvalid => ("DIGEST_INVALID", 400),
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", 400),
            Self::ManifestInvalid => ("MANIFEST_INVALID", 400),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", 404),
            Self::ManifestTooLarge => ("MANIFEST_INVALID", 413),
            Self::BlobTooLarge => ("SIZE_INVALID", 413),
            Self::UriTooLong => ("UNSUPPORTED", 414),
            Self::NameInvalid => ("NAME_INVALID", 400),
            Self::NameUnknown => ("NAME_UNKNOWN", 404),
            Self::SizeInvalid => ("SIZE_INVALID", 400),
            Self::TagInvalid => ("TAG_INVALID", 400),
            Self::RangeInvalid => ("BLOB_UPLOAD_INVALID", 416),
            Self::PaginationInvalid => ("PAGINATION_NUMBER_INVALID", 400),
            Self::Unauthorized => ("UNAUTHORIZED", 401),
            Self::Denied => ("DENIED", 403),
            Self::Unsupported => ("UNSUPPORTED", 405),
            Self::TooManyRequests => ("TOOMANYREQUESTS", 429),
            Self::NotFound => ("UNSUPPORTED", 404),
            Self::BadRequest => ("UNSUPPORTED", 400),
            Self::Internal => ("UNKNOWN", 500),
            Self::Full => ("UNKNOWN", 507),
            Self::Upstream => ("UNKNOWN", 502),
        }
    }
}

/// An error answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: Code,
    /// For a person.
    pub message: String,
    /// For a program, if anything.
    pub detail: Option<Box<serde_json::Value>>,
    /// Headers of the answer: name and value.
    pub headers: Vec<(&'static str, String)>,
    /// Why, for the log; not told to the client.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What requests return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, headers: Vec::new(), source: None }
    }

    /// With something for programs.
    pub fn detail(mut self, detail: impl Into<serde_json::Value>) -> Self {
        self.detail = Some(Box::new(detail.into()));
        self
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Something here failed; the client is told no more than that.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(Code::Internal, "the registry failed; its log says why")
        }
    }

    /// The answer's body.
    pub fn body(&self) -> Vec<u8> {
        let mut error = serde_json::json!({ "code": self.code.parts().0, "message": self.message });
        if let Some(detail) = &self.detail {
            error["detail"] = (**detail).clone();
        }
        serde_json::json!({ "errors": [error] }).to_string().into_bytes()
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
            return Self {
                source: Some(error.into()),
                ..Self::new(Code::Full, "the registry's disk is full")
            };
        }
        Self::internal(error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(error) => *error,
            error if error.is_full() => {
                Self { source: Some(error.into()), ..Self::new(Code::Full, "the registry's disk is full") }
            }
            error => Self::internal(error),
        }
    }
}
