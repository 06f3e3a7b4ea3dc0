//! Names of containers: the rule for them, and random ones.

use crate::{Error, Result};

const MOODS: [&str; 96] = [
    "able", "agile", "airy", "alert", "amber", "ample", "apt", "ardent", "balmy", "bold", "brave", "breezy",
    "bright", "brisk", "calm", "candid", "chipper", "civil", "clever", "cosy", "crisp", "curious", "dapper",
    "daring", "deft", "earnest", "easy", "elated", "epic", "fair", "fancy", "festive", "firm", "fleet",
    "fluent", "fond", "frank", "gallant", "gentle", "glad", "golden", "grand", "handy", "hardy", "honest",
    "humble", "ideal", "jaunty", "jolly", "jovial", "keen", "kind", "lively", "lucid", "lucky", "mellow",
    "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "peppy", "placid", "plucky", "polite",
    "prime", "proud", "quick", "quiet", "rapid", "ready", "robust", "rosy", "sage", "serene", "sharp",
    "silent", "sleek", "smart", "snug", "solid", "spry", "steady", "stoic", "sturdy", "sunny", "swift",
    "tidy", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

/// Seafarers, shipbuilders, and people who made the world's work lighter.
const PEOPLE: [&str; 80] = [
    "abel",
    "ada",
    "agnesi",
    "amundsen",
    "archimedes",
    "babbage",
    "bardeen",
    "barents",
    "beaufort",
    "bering",
    "bly",
    "bougainville",
    "bowditch",
    "brahe",
    "brunel",
    "cabot",
    "cartier",
    "cassini",
    "cook",
    "curie",
    "darwin",
    "dias",
    "diderot",
    "drake",
    "earhart",
    "eratosthenes",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fourier",
    "franklin",
    "frobisher",
    "fulton",
    "galilei",
    "gama",
    "gauss",
    "germain",
    "goodall",
    "halley",
    "hamilton",
    "harrison",
    "herschel",
    "hopper",
    "hudson",
    "humboldt",
    "hypatia",
    "ibnbattuta",
    "johnson",
    "kepler",
    "kowalevski",
    "lovell",
    "magellan",
    "maury",
    "maxwell",
    "mercator",
    "morse",
    "nansen",
    "newton",
    "noether",
    "nordenskjold",
    "plimsoll",
    "polo",
    "ptolemy",
    "pytheas",
    "ramanujan",
    "ride",
    "ross",
    "scoresby",
    "shackleton",
    "slocum",
    "stevin",
    "tasman",
    "tereshkova",
    "turing",
    "vespucci",
    "volta",
    "watt",
    "weddell",
    "zhenghe",
];

/// A name for the `attempt`th try: from the third on with a digit, as names get rare.
pub(crate) fn random(attempt: u32) -> String {
    let mut bytes = [0u8; 5];
    crate::open::random(&mut bytes);
    let mood = MOODS[usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % MOODS.len()];
    let person = PEOPLE[usize::from(u16::from_le_bytes([bytes[2], bytes[3]])) % PEOPLE.len()];
    if attempt < 3 { format!("{mood}_{person}") } else { format!("{mood}_{person}{}", bytes[4] % 10) }
}

/// Takes the name out of a request (with or without a leading `/`) and checks it.
pub(crate) fn parse(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let head = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let mut tail = bytes.clone();
    let rest = bytes.len() > 0 && tail.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if head && rest {
        return Ok(bare);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({bare}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Docker's sentence about a name that is taken.
pub(crate) fn conflict(name: &str, owner: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove \
         (or rename) that container to be able to reuse that name."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_obey_the_rule() {
        for attempt in 0..50 {
            let name = random(attempt % 6);
            assert_eq!(parse(&name).expect("valid"), name);
            assert!(name.contains('_'));
        }
    }

    #[test]
    fn names_follow_dockers_rule() {
        assert_eq!(parse("/web-1.a_b").expect("valid"), "web-1.a_b");
        for bad in ["", "a", "/", "-ab", "a b", "ä1", "a/b", "ab:"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.message().starts_with("Invalid container name ("), "{bad}");
        }
    }
}
