use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// Signed with the private half of `rsa.pem`, by openssl.
const TOKEN: &str = include_str!("testdata/rs256.token");
const THEN: i64 = 1_415_387_100;

fn tokens() -> Tokens {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), include_str!("testdata/rsa.pem")).unwrap();
    Tokens {
        realm: Some("https://auth.docker.com/token".into()),
        service: "registry.docker.com".into(),
        issuer: "auth.docker.com".into(),
        keys: read_keys(file.path()).unwrap(),
        leeway: Duration::ZERO,
    }
}

#[test]
fn a_token_signed_with_rsa() {
    let claims = tokens().verify_at(TOKEN, THEN).unwrap();
    assert_eq!(claims.subject, "jlhawn");
    assert!(claims.allows("repository", "samalba/my-app", "push"));
    assert!(!claims.allows("repository", "samalba/my-app", "delete"));
    assert!(!claims.allows("repository", "samalba/other", "push"));
}

#[test]
fn a_token_signed_with_a_key_of_a_set() {
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    let random = ring::rand::SystemRandom::new();
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let set = serde_json::json!({ "keys": [
        { "kty": "oct", "kid": "x", "k": "AAAA" },
        { "kty": "EC", "crv": "P-256", "kid": "k", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) }] });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), set.to_string()).unwrap();
    let tokens = Tokens { keys: read_keys(file.path()).unwrap(), ..tokens() };
    let body = TOKEN.split('.').nth(1).unwrap();
    for (header, genuine) in [
        (r#"{"alg":"ES256","kid":"k"}"#, true),
        (r#"{"alg":"ES256"}"#, true),
        (r#"{"alg":"ES384","kid":"k"}"#, false),
        (r#"{"alg":"ES256","crit":["x"]}"#, false),
    ] {
        let message = format!("{}.{body}", URL_SAFE_NO_PAD.encode(header));
        let signed = URL_SAFE_NO_PAD.encode(pair.sign(&random, message.as_bytes()).unwrap().as_ref());
        assert_eq!(tokens.verify_at(&format!("{message}.{signed}"), THEN).is_some(), genuine, "{header}");
    }
}

#[test]
fn tokens_that_are_not_for_us_or_not_genuine() {
    let token = tokens();
    assert!(token.verify_at(TOKEN, THEN + 86_400).is_none(), "too late");
    assert!(token.verify_at(TOKEN, THEN - 86_400).is_none(), "too early");
    assert!(Tokens { service: "other".into(), ..tokens() }.verify_at(TOKEN, THEN).is_none());
    assert!(Tokens { issuer: "other".into(), ..tokens() }.verify_at(TOKEN, THEN).is_none());
    let mut parts: Vec<String> = TOKEN.split('.').map(str::to_owned).collect();
    let body = URL_SAFE_NO_PAD.decode(&parts[1]).unwrap();
    let changed = String::from_utf8(body).unwrap().replace("my-app", "myapps");
    parts[1] = URL_SAFE_NO_PAD.encode(changed);
    assert!(token.verify_at(&parts.join("."), THEN).is_none(), "changed");
    for algorithm in ["none", "HS256", "RS256"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let text = format!("{header}.{}.{}", TOKEN.split('.').nth(1).unwrap(), "");
        assert!(token.verify_at(&text, THEN).is_none(), "{algorithm}");
    }
    for text in ["", ".", "..", "a.b.c", "é.é.é"] {
        assert!(token.verify_at(text, THEN).is_none());
    }
}

#[test]
fn own_tokens() {
    let issuer = Issuer::new(&[7; 32], "registry").unwrap();
    let grant =
        Grant { kind: "repository".into(), name: "a/b".into(), actions: vec!["pull".into(), "push".into()] };
    let answer = issuer.issue("user", &[grant]).unwrap();
    let claims = issuer.tokens(None).verify(answer["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims.subject, "user");
    assert!(claims.allows("repository", "a/b", "push") && !claims.allows("repository", "a/b", "delete"));
    let other = Issuer::new(&[8; 32], "registry").unwrap();
    assert!(other.tokens(None).verify(answer["token"].as_str().unwrap()).is_none());
}

#[test]
fn scopes_may_have_a_port_in_them() {
    let found =
        token::scopes(["repository:host:5000/a/b:pull,push registry:catalog:*"].into_iter().map(Into::into));
    assert_eq!(found[0].name, "host:5000/a/b");
    assert_eq!(found[0].actions, ["pull", "push"]);
    assert_eq!(found[1].kind, "registry");
    assert!(token::scopes([":", "", "a:b"].into_iter().map(Into::into)).is_empty());
}

fn rule(repositories: &str, users: &[&str], actions: &[Action]) -> Rule {
    Rule {
        repositories: repositories.into(),
        users: users.iter().map(|user| (*user).to_owned()).collect(),
        actions: actions.to_vec(),
    }
}

#[tokio::test]
async fn rights_by_rules() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("ann:{}\n# comment\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let auth = Auth {
        htpasswd: Some(Htpasswd::open(file.path()).unwrap()),
        rules: vec![
            rule("public/**", &["anonymous"], &[Action::Pull]),
            rule("team/*", &["ann"], &[Action::Pull, Action::Push]),
            rule("**", &["*"], &[Action::Pull]),
        ],
        ..Auth::default()
    };
    let (ann, bob) = (Caller::User("ann".into()), Caller::User("bob".into()));
    let allows =
        |caller: &Caller, name: &str, action| auth.allows(caller, &Name::parse(name).unwrap(), action);
    assert!(allows(&Caller::Anonymous, "public/a", Action::Pull));
    assert!(!allows(&Caller::Anonymous, "public/a", Action::Push));
    assert!(!allows(&Caller::Anonymous, "team/a", Action::Pull));
    assert!(allows(&ann, "team/a", Action::Push) && !allows(&ann, "team/a/b", Action::Push));
    assert!(!allows(&ann, "team/a", Action::Delete));
    assert!(allows(&bob, "team/a", Action::Pull) && !allows(&bob, "team/a", Action::Push));
    let htpasswd = auth.htpasswd.as_ref().unwrap();
    for (user, password, right) in
        [("ann", "secret", true), ("ann", "secret", true), ("ann", "Secret", false), ("bob", "secret", false)]
    {
        assert_eq!(htpasswd.check(user, password).await.unwrap(), right, "{user} {password}");
    }
}

#[test]
fn a_file_of_users_with_other_passwords_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "ann:$apr1$x$y\n").unwrap();
    assert!(Htpasswd::open(file.path()).unwrap_err().contains("line 1"));
    assert!(Htpasswd::open("/nonexistent".as_ref()).is_err());
}

#[test]
fn keys_of_certificates() {
    // Made by `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=x -nodes`.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), include_str!("testdata/certificate.pem")).unwrap();
    let keys = read_keys(file.path()).unwrap();
    assert_eq!(keys.len(), 1);
    let named = &keys[0].names[0];
    assert_eq!((named.len(), named.matches(':').count()), (59, 11));
    std::fs::write(file.path(), include_str!("testdata/public.pem")).unwrap();
    assert_eq!(read_keys(file.path()).unwrap()[0].names[0], *named);
    std::fs::write(file.path(), "nothing").unwrap();
    assert!(read_keys(file.path()).is_err());
}
