//! What is said about an image: what it consists of, how it was built, and who signs for it.
//!
//! Bills and provenance follow from a plan and an image, byte for byte. Nobody has signed them, and all that names them says
//! so. Signatures are made and checked by programs of others ([`Signer`]).

mod bill;
mod layout;
mod provenance;
mod signer;

use std::collections::BTreeMap;

use serde_json::Value;

pub use bill::Bill;
pub use layout::{LayoutError, read_layout, write_layout};
pub use provenance::{BUILD_TYPE, Inputs};
pub use signer::{Signer, SignerError};

use crate::inside::Inside;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Blob, Descriptor, Image};
use bill::{encoded, short_name};

/// An image for one platform, as a registry has it.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// Where it is: registry and repository, as in `registry.example/team/sandbox`.
    pub repository: &'a str,
    /// Its manifest.
    pub manifest: &'a Descriptor,
    /// What it runs on.
    pub platform: &'a Platform,
    /// When it was made, as RFC 3339 has it, where that is known.
    pub created: Option<&'a str>,
    /// The image that it is built on, where more is known of it than the plan says.
    pub base: Option<Base<'a>>,
}

/// What can be said about an image that anybody may have said: nobody has signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attestation {
    /// What it consists of: `CycloneDX` 1.6.
    Bill,
    /// How it was built: a statement of in-toto 1 with a provenance of SLSA 1.
    Provenance,
}

/// The annotation of attestations that says whether somebody has signed them.
pub const SIGNED: &str = "ipybox.signed";

/// A bill of materials of `CycloneDX`, in JSON. What is installed comes from `inside`; where nobody has looked there, from the
/// lock in the plan.
#[must_use]
pub fn bill(published: &Published<'_>, plan: &Plan, inside: Option<&Inside>) -> Vec<u8> {
    Bill::of_published(published, plan, inside).cyclone_dx().to_string().into_bytes()
}

/// A statement of in-toto with a provenance of SLSA, in JSON: which image this is, what it was asked to be, and what it was
/// made of. It tells no values of `--env`, no secrets, no commands, and no addresses of files.
#[must_use]
pub fn provenance(published: &Published<'_>, plan: &Plan, inputs: Inputs<'_>) -> Vec<u8> {
    provenance::of(published, plan, inputs).to_string().into_bytes()
}

impl Attestation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bill, Self::Provenance];

    /// Its type as an artifact, and its media type.
    ///
    /// Rule: IANA, "Media Types", `vnd.cyclonedx+json`, `vnd.in-toto+json`.
    #[must_use]
    pub fn artifact_type(self) -> &'static str {
        match self {
            Self::Bill => "application/vnd.cyclonedx+json",
            Self::Provenance => "application/vnd.in-toto+json",
        }
    }

    /// What it is called.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Bill => "bill of materials",
            Self::Provenance => "provenance",
        }
    }

    /// One of such an artifact type.
    #[must_use]
    pub fn of(artifact_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.artifact_type() == artifact_type)
    }

    /// The artifact that says it about a manifest, as [`crate::registry::Repository::attach`] takes it.
    #[must_use]
    pub fn artifact(self, subject: &Descriptor, bytes: Vec<u8>) -> Image {
        let (what, predicate) = match self {
            Self::Bill => ("unsigned bill of materials, CycloneDX 1.6", None),
            Self::Provenance => ("unsigned provenance, SLSA 1", Some(provenance::PREDICATE)),
        };
        let mut notes = BTreeMap::from([
            ("org.opencontainers.image.description".to_owned(), what.to_owned()),
            (SIGNED.to_owned(), "no".to_owned()),
        ]);
        notes.extend(predicate.map(|kind| ("in-toto.io/predicate-type".to_owned(), kind.to_owned())));
        let blob = Blob::of(self.artifact_type(), bytes);
        Image::artifact(subject, self.artifact_type(), vec![blob], &notes)
    }

    /// Whether a text is one of this kind and about a manifest of this digest.
    ///
    /// # Errors
    ///
    /// What it is instead, as a clause.
    pub fn check(self, bytes: &[u8], digest: &str) -> Result<(), String> {
        let said: Value = serde_json::from_slice(bytes).map_err(|_| "it is no JSON".to_owned())?;
        let is = |pointer: &str, value: &str| said.pointer(pointer).is_some_and(|found| found == value);
        let about = match self {
            Self::Bill => {
                if !is("/bomFormat", "CycloneDX") || !said["components"].is_array() {
                    return Err("it is no bill of CycloneDX".to_owned());
                }
                is("/metadata/component/version", digest)
            }
            Self::Provenance => {
                let statement = provenance::Statement::read(&said)?;
                statement.is_about(digest)
            }
        };
        if about { Ok(()) } else { Err("it is about something else".to_owned()) }
    }
}

impl Published<'_> {
    /// Its address as a package.
    ///
    /// Rule: package-url, "Types", `oci`.
    fn purl(&self) -> String {
        let Self { repository, manifest, platform, .. } = self;
        let (name, digest) = (encoded(&short_name(repository)), encoded(&manifest.digest));
        let (architecture, place) = (encoded(&platform.architecture), encoded(repository));
        format!("pkg:oci/{name}@{digest}?arch={architecture}&repository_url={place}")
    }
}

/// An image that another one is built on.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    reference: &'a Reference,
    /// The digest of its manifest or index, where somebody knows it.
    digest: Option<&'a str>,
}

impl<'a> Base<'a> {
    /// One that is published: its name, and the digest of its manifest or index.
    #[must_use]
    pub fn known(reference: &'a Reference, digest: &'a str) -> Self {
        Self { reference, digest: Some(digest) }
    }

    /// What is known of the base of a published image.
    fn of(published: &Published<'a>, plan: &'a Plan) -> Self {
        published.base.unwrap_or(Self { reference: &plan.foundation.base.reference, digest: None })
    }

    /// The digest of its manifest or index: as it was asked for by, or as is known otherwise.
    fn digest(&self) -> Option<&'a str> {
        self.digest.or(self.reference.digest())
    }

    /// Its address as a package.
    fn purl(&self) -> String {
        let whole = self.reference.canonical();
        let name = encoded(&short_name(&whole));
        let version = self.digest().map(|digest| format!("@{}", encoded(digest))).unwrap_or_default();
        let tag = self.reference.tag().map(|tag| format!("&tag={}", encoded(tag))).unwrap_or_default();
        format!("pkg:oci/{name}{version}?repository_url={}{tag}", encoded(&whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::User;
    use crate::base::Base as Facts;
    use crate::deps::{Name, Spec};
    use crate::plan::{Installer, Materials, Pin, Target};
    use crate::registry::{Manifest, OCI_MANIFEST};
    use crate::request::Request;
    use crate::variant::Variant;

    pub(super) fn plan() -> Plan {
        let base = Facts::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        let (spec, variant) =
            (Spec::parse("numpy = \"^2.2\"\n").unwrap(), Variant::read("minimal", None).unwrap());
        let mut request = Request::new(&variant.name, User::Root);
        request.env.insert("SETTING".to_owned(), "a-value-of-somebody".to_owned());
        let materials = Materials { installer: Installer::of(&base.platform), ..Materials::default() };
        let target = Target::choose(&request, &spec, &variant, &base, &materials).unwrap();
        let plan = Plan::resolve(&request, &spec, &variant, &base, target, materials).unwrap();
        let pin = |file: &str, version: &str, digits: &str| Pin {
            version: version.to_owned(),
            file: file.to_owned(),
            url: Some(format!("https://me:s3cret@files.invalid/{file}")),
            sha256: digits.repeat(32),
            size: Some(7),
            is_direct: false,
            generation: 0,
        };
        plan.with_lock(BTreeMap::from([
            (
                Name::parse("numpy").unwrap(),
                pin("numpy-2.2.0+cpu-cp312-cp312-linux_x86_64.whl", "2.2.0+cpu", "a1"),
            ),
            (Name::parse("six").unwrap(), pin("six-1.17.0-py2.py3-none-any.whl", "1.17.0", "b2")),
        ]))
    }

    pub(super) fn subject() -> Descriptor {
        Manifest::new(OCI_MANIFEST, "{}").descriptor()
    }

    pub(super) fn published(manifest: &Descriptor) -> Published<'_> {
        static PLATFORM: std::sync::OnceLock<Platform> = std::sync::OnceLock::new();
        Published {
            repository: "registry.invalid/team/sandbox",
            manifest,
            platform: PLATFORM.get_or_init(|| "linux/amd64".parse().unwrap()),
            created: Some("2026-01-02T03:04:05Z"),
            base: None,
        }
    }

    #[test]
    fn what_is_said_is_about_one_manifest_the_same_each_time_and_tells_no_secrets() {
        let (plan, subject) = (plan(), subject());
        let published = published(&subject);
        let other = Manifest::new(OCI_MANIFEST, "[]").descriptor();
        for kind in Attestation::ALL {
            let bytes = || match kind {
                Attestation::Bill => bill(&published, &plan, None),
                Attestation::Provenance => provenance(&published, &plan, Inputs::default()),
            };
            assert_eq!(bytes(), bytes());
            assert_eq!(kind.check(&bytes(), &subject.digest), Ok(()));
            assert_eq!(
                kind.check(&bytes(), &other.digest).unwrap_err(),
                "it is about something else",
                "{kind:?}"
            );
            let text = String::from_utf8(bytes()).unwrap();
            for secret in ["s3cret", "files.invalid", "a-value-of-somebody"] {
                assert!(!text.contains(secret), "{text}");
            }
            let artifact = kind.artifact(&subject, bytes());
            let said: Value = serde_json::from_slice(artifact.manifest.bytes()).unwrap();
            assert_eq!(said["annotations"][SIGNED], "no");
            assert_eq!(Attestation::of(said["artifactType"].as_str().unwrap()), Some(kind));
            for other in ["", "{}", "[]", "{\"bomFormat\": \"CycloneDX\"}", "{\"_type\": 1}"] {
                assert!(kind.check(other.as_bytes(), &subject.digest).is_err(), "{other}");
            }
        }
        assert!(Attestation::Bill.check(&provenance(&published, &plan, Inputs::default()), "").is_err());
    }

    #[test]
    fn a_base_is_named_by_its_digest_where_that_is_known() {
        let (tagged, digest) = ("python:3.12-slim".parse().unwrap(), format!("sha256:{}", "c3".repeat(32)));
        let pinned: Reference = format!("python@{digest}").parse().unwrap();
        let base = |reference, digest| Base { reference, digest }.purl();
        let place = "repository_url=docker.io%2Flibrary%2Fpython";
        assert_eq!(base(&tagged, None), format!("pkg:oci/python?{place}&tag=3.12-slim"));
        assert_eq!(base(&tagged, Some(&digest)), format!("pkg:oci/python@{digest}?{place}&tag=3.12-slim"));
        assert_eq!(base(&pinned, None), format!("pkg:oci/python@{digest}?{place}"));
    }
}
