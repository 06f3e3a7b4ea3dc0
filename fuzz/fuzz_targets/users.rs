//! Any passwd and group file, and any user asked for: ids stay in range, and the primary group is among the groups.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &str, Vec<String>)| {
    let (passwd, group, user, extra) = input;
    let Ok(found) = hull_oci::user::resolve_in(passwd, group, user, &extra) else { return };
    assert_eq!(found.additional.first(), Some(&found.gid));
    let mut sorted = found.additional.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), found.additional.len(), "a group is there twice");
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    // A number is that id, whatever the files say (CVE-2026-30892 made a 1 a 0).
    if let Ok(number) = uid.parse::<u32>() {
        assert_eq!(found.uid, number);
    }
    if let Ok(number) = gid.parse::<u32>() {
        assert_eq!(found.gid, number);
    }
    for id in [found.uid, found.gid].iter().chain(&found.additional) {
        assert!(i32::try_from(*id).is_ok(), "{id} is out of range");
    }
});
