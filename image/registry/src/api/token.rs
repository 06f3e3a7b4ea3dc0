//! This registry's own token server (docker's "Token Authentication Specification").

use crate::auth::{Action, Caller, Grant, scopes};
use crate::error::{ApiError, ApiResult, Code};
use crate::http::Response;
use crate::name::Name;
use crate::service::{Request, Service};

/// `GET` of a token.
pub(super) fn issue(service: &Service, request: &Request<'_>) -> ApiResult<Response> {
    let Some(issuer) = &service.auth.issuer else {
        return Err(ApiError::new(Code::NotFound, "there is no such page"));
    };
    let asked = scopes(request.head.parameters("scope"));
    let access: Vec<Grant> = asked
        .into_iter()
        .map(|grant| granted(service, &request.caller, grant))
        .filter(|g| !g.actions.is_empty())
        .collect();
    let subject = match &request.caller {
        Caller::User(name) => name.as_str(),
        _ => "",
    };
    let token = issuer.issue(subject, &access)?;
    Ok(Response::new(200).header("Cache-Control", "no-store").bytes("application/json", token.to_string()))
}

/// What of the asked the caller may do.
fn granted(service: &Service, caller: &Caller, mut asked: Grant) -> Grant {
    match (asked.kind.split('(').next(), Name::parse(&asked.name)) {
        (Some("repository"), Some(name)) => {
            asked.actions.retain(|action| match Action::parse(action) {
                Some(action) => service.auth.allows(caller, &name, action),
                None => false,
            });
        }
        (Some("registry"), _) if asked.name == "catalog" && service.auth.allows_catalog(caller) => {}
        _ => asked.actions.clear(),
    }
    asked
}
