//! Who asks: passwords and tokens, which go to the registry and its token service and nowhere else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::address::may_lead;
use super::challenge::Challenge;
use super::error::{Fault, RegistryError};
use super::exchange::Line;
use crate::credentials::DockerCredential;

/// Largest answer of a token service that is read, in bytes.
const MAX_TOKEN: usize = 1 << 20;

/// What is known of who asks. Its text for debugging has no secrets.
pub(super) struct Auth {
    credential: Option<DockerCredential>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the registry wanted to know last.
    challenge: Option<Challenge>,
    /// What it thinks is needed beside scopes, by these.
    further: HashMap<String, String>,
    /// Tokens by the scopes they are for.
    tokens: HashMap<String, Token>,
}

struct Token {
    header: HeaderValue,
    fresh_until: Instant,
}

/// What a token service answers.
///
/// Rule: distribution, "Token Authentication Specification", "Token Response Fields".
#[derive(Deserialize)]
struct Issued {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Reading from a repository.
pub(super) fn pull(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

/// Reading from a repository and writing to it.
pub(super) fn push(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

/// Reading from a repository, and removing from it.
pub(super) fn remove(repository: &str) -> String {
    format!("repository:{repository}:pull,delete")
}

impl Auth {
    pub(super) fn new(credential: Option<DockerCredential>) -> Self {
        Self { credential, state: Mutex::default() }
    }

    pub(super) fn credential(&self) -> Option<&DockerCredential> {
        self.credential.as_ref()
    }

    /// Whether it is known who asks.
    pub(super) fn is_known(&self) -> bool {
        self.credential.is_some()
    }

    /// What a request to the registry carries, as far as the registry wants to know.
    pub(super) async fn header(
        &self,
        line: &Line,
        base: &Url,
        scopes: &[String],
    ) -> Result<Option<HeaderValue>, Fault> {
        let mut state = self.state.lock().await;
        match &state.challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.basic()),
            Some(challenge @ Challenge::Bearer { .. }) => {
                let key = scopes.join(" ");
                if let Some(token) = state.tokens.get(&key)
                    && token.fresh_until > Instant::now()
                {
                    return Ok(Some(token.header.clone()));
                }
                let further = state.further.get(&key).map_or("", String::as_str);
                let token = self.fetch(line, base, scopes, further, challenge).await?;
                let header = token.header.clone();
                state.tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// Whether there is something else to say to a registry that was not content with what a request carried.
    pub(super) async fn answer(
        &self,
        scopes: &[String],
        challenge: Option<Challenge>,
        carried: Option<&HeaderValue>,
    ) -> bool {
        let Some(challenge) = challenge else { return false };
        let mut state = self.state.lock().await;
        let differs = match &challenge {
            Challenge::Basic => self.basic().is_some_and(|basic| Some(&basic) != carried),
            Challenge::Bearer { scope, .. } => {
                let key = scopes.join(" ");
                // What one repository needs may be denied to who asks for another.
                if let Some(scope) = scope {
                    state.further.insert(key.clone(), scope.clone());
                }
                // Another request may have got a new one in the meantime.
                if state.tokens.get(&key).is_some_and(|token| Some(&token.header) == carried) {
                    state.tokens.remove(&key);
                }
                true
            }
        };
        state.challenge = Some(challenge);
        differs
    }

    fn basic(&self) -> Option<HeaderValue> {
        let Some(DockerCredential::UsernamePassword(user, password)) = &self.credential else { return None };
        secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// A token of the service.
    ///
    /// Rule: distribution, "Token Authentication Specification" and, for identity tokens, "`OAuth2` Token
    /// Authentication".
    async fn fetch(
        &self,
        line: &Line,
        base: &Url,
        scopes: &[String],
        further: &str,
        challenge: &Challenge,
    ) -> Result<Token, Fault> {
        let Challenge::Bearer { realm, service, .. } = challenge else {
            unreachable!("tokens are for bearers alone")
        };
        let registry = || line.registry.clone();
        if let Err(why) = may_lead(base, realm) {
            let place = realm.origin().ascii_serialization();
            return Err(RegistryError::Elsewhere { registry: registry(), place, why }.into());
        }
        let scopes = with_further(scopes, further);
        let mut place = realm.clone();
        if let Some(service) = service {
            place.query_pairs_mut().append_pair("service", service);
        }
        let request = if let Some(DockerCredential::IdentityToken(token)) = &self.credential {
            place
                .query_pairs_mut()
                .append_pair("scope", &scopes.join(" "))
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "ipybox")
                .append_pair("refresh_token", token);
            let form = place.query().unwrap_or_default().to_owned();
            place.set_query(realm.query());
            let request = line.http.request(Method::POST, place).body(form);
            request.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        } else {
            for scope in scopes {
                place.query_pairs_mut().append_pair("scope", scope);
            }
            let request = line.http.request(Method::GET, place);
            self.basic().into_iter().fold(request, |request, basic| request.header("Authorization", basic))
        };
        let response = line.send(request, line.patience.silence, None).await?;
        let mut answer = line.judged("give a token", self.is_known(), response).await?;
        if !answer.status.is_success() {
            return Err(answer.refused(line, "give a token").into());
        }
        let nonsense = |why: &str| {
            let what = "give a token".to_owned();
            Fault::from(RegistryError::Nonsense { registry: registry(), what, why: why.to_owned() })
        };
        let body = answer.bytes(line, MAX_TOKEN).await?.ok_or_else(|| nonsense("its answer is too long"))?;
        let issued: Issued =
            serde_json::from_slice(&body).map_err(|_| nonsense("its answer is not JSON with a token"))?;
        let token = issued.token.filter(|token| !token.is_empty()).or(issued.access_token);
        let token = token.filter(|token| !token.is_empty()).ok_or_else(|| nonsense("it gives none"))?;
        let header =
            secret(&format!("Bearer {token}")).ok_or_else(|| nonsense("what it gives is no token"))?;
        let lasts = Duration::from_secs(issued.expires_in.unwrap_or(60).clamp(1, 24 * 3600));
        // It has to reach the registry while it still counts.
        let margin = (lasts / 10).min(Duration::from_secs(10));
        Ok(Token { header, fresh_until: Instant::now() + lasts.saturating_sub(margin) })
    }
}

/// Scopes, and of further ones those of other names: a registry behind another may know a repository by another name.
fn with_further<'a>(scopes: &'a [String], further: &'a str) -> Vec<&'a str> {
    let name = |scope: &'a str| scope.rsplit_once(':').map_or(scope, |(name, _)| name);
    let mut all: Vec<&str> = scopes.iter().map(String::as_str).collect();
    for one in further.split_whitespace() {
        if !all.iter().any(|scope| name(scope) == name(one)) {
            all.push(one);
        }
    }
    all
}

/// A header that no text for debugging shows.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_further_scopes_only_those_of_other_names_are_asked_for() {
        let scopes = [push("team/app"), pull("team/base")];
        for (further, added) in [
            ("", &[][..]),
            ("repository:team/app:pull", &[]),
            ("repository:team/base:pull,push repository:team/app:*", &[]),
            ("repository:proxy/team/app:pull,push", &["repository:proxy/team/app:pull,push"]),
            (" repository:a:pull  repository:a:push repository:team/app:pull ", &["repository:a:pull"]),
        ] {
            let all = with_further(&scopes, further);
            assert_eq!(all[..2], scopes, "{further}");
            assert_eq!(all[2..], *added, "{further}");
        }
    }
}
