//! What is said about a manifest: artifacts that name it as their subject, listed by the registry or under a tag.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{pull, push};
use super::error::{Fault, RegistryError};
use super::exchange::{Answer, Ask};
use super::image::Image;
use super::manifests::{Descriptor, MAX_MANIFEST, Manifest, OCI_INDEX, essence};
use super::pushing::{Pushed, Summary};
use super::{Patience, Registry, Repository};

/// How many pages of a list are read, and how many bytes of them all.
const PAGES: usize = 100;
const MAX_LIST: usize = 16 << 20;

/// How often a list under a tag is written, until what was written stays.
const ROUNDS: u32 = 10;

/// The least time until such a list counts as settled.
const SETTLED: Duration = Duration::from_millis(250);

/// An artifact about a manifest.
///
/// Rule: OCI distribution specification 1.1, "Listing Referrers".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The media type of its manifest.
    pub media_type: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The size of its manifest, in bytes.
    pub size: u64,
    /// What it is.
    #[serde(default)]
    pub artifact_type: String,
    /// Those of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What of a manifest counts here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    artifact_type: Option<String>,
    config: Option<Typed>,
    subject: Option<Subject>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: String,
}

#[derive(Deserialize)]
struct List {
    manifests: Vec<Referrer>,
}

/// One page of a list.
struct Page {
    referrers: Vec<Referrer>,
    /// In bytes.
    size: usize,
    next: Option<Url>,
}

impl Referrer {
    /// What an artifact's manifest says of itself, and what it is about.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Option<(Self, String)> {
        let said: Said = serde_json::from_slice(manifest.bytes()).ok()?;
        let of_config = || said.config.map(|config| config.media_type);
        let artifact_type = said.artifact_type.filter(|kind| !kind.is_empty()).or_else(of_config)?;
        let Descriptor { digest, media_type, size } = manifest.descriptor();
        let annotations = said.annotations;
        Some((Self { media_type, digest, size, artifact_type, annotations }, said.subject?.digest))
    }
}

impl Repository<'_> {
    /// The artifacts about a manifest, by its digest, of one type or of all: those that the registry lists, and where it
    /// lists none or keeps no lists, those under the tag that stands for such a list.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn referrers(
        &self,
        subject: &str,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        super::digest(subject)?;
        let scopes = [pull(&self.name)];
        let listed = self.registry.listed(&self.name, subject, &scopes).await?;
        let mut found = listed.unwrap_or_default();
        if found.is_empty() {
            found = self.registry.under_tag(&self.name, subject, &scopes).await?.1;
        }
        found.retain(|referrer| artifact_type.is_none_or(|wanted| referrer.artifact_type == wanted));
        Ok(found)
    }

    /// Pushes an artifact whose manifest names the manifest that it is about, and sees that it is listed. Where the registry
    /// keeps no lists, the list is an index under a tag: it is read, added to, written and, a moment later, read again, until
    /// what was added is in it. Registries know no better way to let several write it at the same time.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; of [`RegistryError::Name`] where the manifest is about nothing.
    pub async fn attach(
        &self,
        artifact: &Image,
        tell: impl Fn(Pushed<'_>),
    ) -> Result<Summary, RegistryError> {
        let Some((referrer, subject)) = Referrer::of(&artifact.manifest) else {
            let text = artifact.manifest.digest().to_owned();
            return Err(RegistryError::Name { what: "manifest of an artifact with a subject", text });
        };
        super::digest(&subject)?;
        if self.referrers(&subject, None).await?.iter().any(|known| known.digest == referrer.digest) {
            return Ok(Summary { digest: referrer.digest, ..Summary::default() });
        }
        artifact.blobs.iter().try_for_each(|blob| super::digest(&blob.digest))?;
        let mut summary = Summary { digest: referrer.digest.clone(), is_new: true, ..Summary::default() };
        self.registry.bring_blobs(&self.name, &artifact.blobs, &mut summary, &tell).await?;
        let said = self.registry.put_manifest(&self.name, &summary.digest, &artifact.manifest).await?;
        if said.is_none_or(|said| said != subject) && !self.is_listed(&subject, &referrer).await? {
            self.registry.list_under_tag(&self.name, &subject, &referrer).await?;
        }
        Ok(summary)
    }

    /// Whether the registry lists an artifact by itself.
    async fn is_listed(&self, subject: &str, referrer: &Referrer) -> Result<bool, RegistryError> {
        let listed = self.registry.listed(&self.name, subject, &[pull(&self.name)]).await?;
        Ok(listed.unwrap_or_default().iter().any(|known| known.digest == referrer.digest))
    }
}

/// The tag that stands for a list of referrers.
///
/// Rule: OCI distribution specification 1.1, "Referrers Tag Schema".
fn tag_of(subject: &str) -> String {
    let tag = subject.replacen(':', "-", 1);
    let (algorithm, digits) = tag.split_once('-').unwrap_or((&tag, ""));
    format!("{algorithm:.32}-{digits:.64}")
}

impl Registry {
    /// What a registry lists; `None` where it keeps no lists.
    async fn listed(
        &self,
        repository: &str,
        subject: &str,
        scopes: &[String],
    ) -> Result<Option<Vec<Referrer>>, RegistryError> {
        let what = format!("list what is said about `{subject}` of `{repository}`");
        let path = format!("referrers/{subject}");
        let mut url = self.line.patience.insist(async || self.url(repository, &path).await).await?;
        let (mut found, mut left) = (Vec::new(), MAX_LIST);
        for _ in 0..PAGES {
            let read = async || self.page(&what, url.clone(), left, scopes).await;
            let Page { referrers, size, next } = match self.line.patience.insist(read).await {
                Ok(Some(page)) => page,
                // Some deny what they do not know; whoever may read nothing hears it from the tag.
                Ok(None) | Err(RegistryError::Denied { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            found.extend(referrers);
            left -= size;
            match next {
                Some(next) => url = next,
                None => return Ok(Some(found)),
            }
        }
        Err(self.line.nonsense(&what, "its list does not end"))
    }

    /// One page of a list, of which so many bytes are left to read.
    async fn page(
        &self,
        what: &str,
        url: Url,
        left: usize,
        scopes: &[String],
    ) -> Result<Option<Page>, Fault> {
        let mut ask = Ask::new(self, what, Method::GET, url, scopes);
        ask.headers.insert(ACCEPT, HeaderValue::from_static(OCI_INDEX));
        let mut answer = self.ask(&ask).await?;
        let is_list = answer.text(&CONTENT_TYPE).is_some_and(|kind| essence(kind) == OCI_INDEX);
        if answer.status.is_client_error() || (answer.status.is_success() && !is_list) {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(answer.refused(&self.line, what).into());
        }
        let bytes = answer.bytes(&self.line, MAX_MANIFEST.min(left)).await?;
        let too_long = if left < MAX_MANIFEST {
            "its list has more than 16 MiB"
        } else {
            "a page of its list has more than 4 MiB"
        };
        let bytes = bytes.ok_or_else(|| self.line.nonsense(what, too_long))?;
        let list: List =
            serde_json::from_slice(&bytes).map_err(|_| self.line.nonsense(what, "it is no list"))?;
        let next = self.next_page(&answer, what)?;
        Ok(Some(Page { referrers: list.manifests, size: bytes.len(), next }))
    }

    /// Where the next page of a list is.
    ///
    /// Rule: OCI distribution specification 1.1, "Listing Referrers".
    fn next_page(&self, answer: &Answer, what: &str) -> Result<Option<Url>, RegistryError> {
        let headers = answer.headers.get_all(LINK).iter();
        let Some(target) = headers.filter_map(|header| header.to_str().ok()).find_map(linked) else {
            return Ok(None);
        };
        let next = answer.url.join(target);
        let next = next.map_err(|_| self.line.nonsense(what, "its next page has no address"))?;
        if next.origin() != answer.url.origin() {
            return Err(self.line.elsewhere(&next, "the next page of a list is not read at another place"));
        }
        Ok(Some(next))
    }

    /// The index under the tag that stands for a list, as it is and as a list.
    async fn under_tag(
        &self,
        repository: &str,
        subject: &str,
        scopes: &[String],
    ) -> Result<(Value, Vec<Referrer>), RegistryError> {
        let tag = tag_of(subject);
        let Some(manifest) = self.get_manifest(repository, &tag, scopes).await? else {
            return Ok((json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }), Vec::new()));
        };
        let what = format!("list what is said about `{subject}` of `{repository}`");
        let no_list = || self.line.nonsense(&what, format!("what it has as `{tag}` is no list of artifacts"));
        let index = serde_json::from_slice(manifest.bytes()).map_err(|_| no_list())?;
        let list: List = serde_json::from_slice(manifest.bytes()).map_err(|_| no_list())?;
        Ok((index, list.manifests))
    }

    /// The same for who writes it: a registry may have nothing for a moment, while somebody else writes it.
    async fn surely_under_tag(
        &self,
        repository: &str,
        subject: &str,
        scopes: &[String],
    ) -> Result<(Value, Vec<Referrer>), RegistryError> {
        let mut found = self.under_tag(repository, subject, scopes).await?;
        for _ in 0..2 {
            if !found.1.is_empty() {
                break;
            }
            tokio::time::sleep(SETTLED / 5).await;
            found = self.under_tag(repository, subject, scopes).await?;
        }
        Ok(found)
    }

    /// Adds an artifact to the index under the tag that stands for a list, and keeps what others have added. Artifacts that
    /// were added earlier are added again where others have lost them.
    async fn list_under_tag(
        &self,
        repository: &str,
        subject: &str,
        referrer: &Referrer,
    ) -> Result<(), RegistryError> {
        let scopes = [push(repository)];
        let tag = tag_of(subject);
        let mut settling = None;
        for round in 0..=ROUNDS {
            if let Some(took) = settling {
                // Who read it before this was written, has written by then; who waits differently long does not meet them
                // again.
                let Patience { pause, longest, .. } = self.line.patience;
                let most = pause.saturating_mul(1 << round).min(longest);
                let jitter = if round > 1 { most.mul_f64(rand::random()) } else { Duration::ZERO };
                tokio::time::sleep(SETTLED.max(took * 2) + jitter).await;
            }
            let mut listing = self.listing.lock().await;
            let own = listing.entry(format!("{repository}:{tag}")).or_default();
            if !own.contains(referrer) {
                own.push(referrer.clone());
            }
            let began = Instant::now();
            let (mut index, list) = self.surely_under_tag(repository, subject, &scopes).await?;
            let lacking = own.iter().filter(|one| list.iter().all(|known| known.digest != one.digest));
            let lacking: Vec<Value> = lacking.map(|one| json!(one)).collect();
            if lacking.is_empty() {
                return Ok(());
            }
            if round == ROUNDS {
                break;
            }
            if let Some(entries) = index["manifests"].as_array_mut() {
                entries.extend(lacking);
            }
            self.put_manifest(repository, &tag, &Manifest::new(OCI_INDEX, index.to_string())).await?;
            settling = Some(began.elapsed());
        }
        let why = format!("others write `{tag}` of `{repository}` at the same time");
        Err(RegistryError::Busy { registry: self.line.registry.clone(), why })
    }
}

/// What a `Link` header calls the next.
///
/// Rule: RFC 8288, "The Link Header Field".
fn linked(header: &str) -> Option<&str> {
    parts(header, ',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let mut relations = value.trim().trim_matches('"').split_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|one| one.eq_ignore_ascii_case("next"))
        };
        parts(parameters, ';').any(is_next).then_some(target)
    })
}

/// The parts of a header between separators that stand neither in quotes nor in an address.
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped, mut is_address) = (false, false, false);
    text.split(move |next| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match next {
            _ if was_escaped => {}
            '\\' => is_escaped = is_quoted,
            '"' if !is_address => is_quoted = !is_quoted,
            '<' | '>' if !is_quoted => is_address = next == '<',
            _ => return next == separator && !is_quoted && !is_address,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::{Blob, OCI_MANIFEST};

    #[test]
    fn a_list_has_a_tag_of_its_own() {
        let digits = "a".repeat(64);
        assert_eq!(tag_of(&format!("sha256:{digits}")), format!("sha256-{digits}"));
        assert_eq!(tag_of(&format!("sha512:{}", "b".repeat(128))), format!("sha512-{}", "b".repeat(64)));
    }

    #[test]
    fn the_next_page_is_where_the_header_says() {
        for (header, next) in [
            ("</v2/a/referrers/x?n=2>; rel=\"next\"", Some("/v2/a/referrers/x?n=2")),
            ("</v2/x?types=a,b;c>; rel=next", Some("/v2/x?types=a,b;c")),
            ("<a>; title=\"<b>; \\\", rel=next\"; rel=prev, <c>; rel=\"last NEXT\"", Some("c")),
            ("nothing, <a>; rel = next", Some("a")),
            ("<a>; title=\"rel=next, <b>; rel=next", None),
            ("<a>; rel=prev, <b>;title=x; REL=Next", Some("b")),
            ("<a>; rel=prev", None),
            ("a; rel=next", None),
            ("", None),
        ] {
            assert_eq!(linked(header), next, "{header}");
        }
    }

    #[test]
    fn an_artifact_is_what_its_manifest_says() {
        let subject = Manifest::new(OCI_MANIFEST, "{}").descriptor();
        let notes = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let artifact = Image::artifact(&subject, "application/x", vec![Blob::of("text/plain", "x")], &notes);
        let (referrer, about) = Referrer::of(&artifact.manifest).unwrap();
        assert_eq!((referrer.artifact_type.as_str(), about), ("application/x", subject.digest));
        assert_eq!(referrer.annotations, Some(notes));
        // One without a type is what its config is; one about nothing is no referrer.
        let config = r#"{"config": {"mediaType": "c/d"}, "subject": {"digest": "sha256:1"}}"#;
        assert_eq!(Referrer::of(&Manifest::new(OCI_MANIFEST, config)).unwrap().0.artifact_type, "c/d");
        let nothing = r#"{"config": {"mediaType": "c/d"}}"#;
        assert!(Referrer::of(&Manifest::new(OCI_MANIFEST, nothing)).is_none());
    }

    proptest! {
        #[test]
        fn whatever_a_header_says_is_read(header in ".{0,60}", subject in ".{0,60}") {
            let _ = (linked(&header), tag_of(&subject));
        }

        #[test]
        fn whatever_an_address_has_in_it_is_found_among_others(
            target in "[!-;=?-~]{1,40}", other in "[!-;=?-~]{0,20}", title in "[ -!#-\\[\\]-~]{0,20}",
        ) {
            let header = format!("<{other}>; title=\"{title}\"; rel=prev , <{target}>; rel=\"next\"");
            prop_assert_eq!(linked(&header), Some(target.as_str()));
        }
    }
}
