//! Names and documents every part of Hull agrees on: digests, references, ids, OCI image documents.
