//! The place where a registry collects the bytes of a blob.

use reqwest::Url;
use reqwest::header::HeaderName;

use super::Registry;
use super::address::may_lead;
use super::error::RegistryError;
use super::exchange::Answer;

/// The least that a body of a part may have, by what the registry answers at the beginning.
///
/// Rule: OCI distribution specification 1.1, "Pushing a blob in chunks".
const LEAST: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A place where a registry collects the bytes of a blob.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) place: Url,
    /// How many bytes it has.
    pub(super) offset: u64,
    /// The least that a part has but the last, in bytes; none where the registry asks for no parts.
    pub(super) least: u64,
}

impl Registry {
    /// The session that an answer opens.
    pub(super) fn opened(&self, answer: &Answer, what: &str) -> Result<Session, RegistryError> {
        let place = answer.location().ok_or_else(|| self.line.nonsense(what, "it says no place for it"))?;
        may_lead(&answer.url, &place).map_err(|why| self.line.elsewhere(&place, why))?;
        let least = answer.text(&LEAST).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(Session { place, offset: 0, least })
    }

    /// The session as an answer says that it goes on behind so many bytes.
    pub(super) fn moved(
        &self,
        session: &Session,
        answer: &Answer,
        offset: u64,
    ) -> Result<Session, RegistryError> {
        let place = match answer.location() {
            Some(place) => {
                may_lead(&answer.url, &place).map_err(|why| self.line.elsewhere(&place, why))?;
                place
            }
            None => session.place.clone(),
        };
        Ok(Session { place, offset, least: session.least })
    }
}
