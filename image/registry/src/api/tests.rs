use proptest::prelude::*;

use super::*;

const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

#[test]
fn paths() {
    let name = |text| Name::parse(text).unwrap();
    let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
    for (path, route) in [
        ("/v2/", Route::Base),
        ("/v2/a/b/tags/list", Route::Tags(name("a/b"))),
        ("/v2/a/blobs/uploads/", Route::Uploads(name("a"))),
        ("/v2/a/blobs/uploads", Route::Uploads(name("a"))),
        ("/v2/a/manifests/t", Route::Manifest(name("a"), Reference::Tag(Tag::parse("t").unwrap()))),
        // Words of the protocol are names, too.
        ("/v2/manifests/blobs/tags/list", Route::Tags(name("manifests/blobs"))),
        (
            "/v2/blobs/uploads/manifests/list",
            Route::Manifest(name("blobs/uploads"), Reference::Tag(Tag::parse("list").unwrap())),
        ),
    ] {
        assert_eq!(Route::parse(path).unwrap(), route, "{path}");
    }
    let blob = Route::parse(&format!("/v2/a/blobs/sha256:{HEX}")).unwrap();
    assert_eq!(blob, Route::Blob(name("a"), digest));
}

proptest! {
    #[test]
    fn what_is_accepted_cannot_climb(path in "(/v2)?(/(\\.|\\.\\.|[a-z._%-]{0,8}|blobs|uploads|manifests|tags|list))*/?") {
        if let Some(name) = Route::parse(&path).ok().as_ref().and_then(Route::repository) {
            let text = format!("/{name}/");
            prop_assert!(!text.contains("..") && !text.contains("/.") && !text.contains("//"), "{}", text);
        }
    }
}
