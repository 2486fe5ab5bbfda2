//! How an image was built: a statement of in-toto with a provenance of SLSA.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bill::{encoded, python};
use super::{Base, Published};
use crate::freshness::Stamp;
use crate::plan::Plan;

/// What a build of this program is, as `docs/trust.md` describes it; counted up where its parameters change.
pub const BUILD_TYPE: &str = "urn:ipybox:build:v1";

/// Who has built it: this program, on a host that nobody vouches for.
const BUILDER: &str = "urn:ipybox:builder:unsigned";

/// Rule: in-toto attestation framework, "Statement layer", version 1.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Rule: SLSA 1.0, "Provenance".
pub(super) const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// The files that a build read, by SHA-256 over each, in hexadecimal digits; `None` where there was none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// The dependency list.
    pub list: Option<&'a str>,
    /// The lock.
    pub lock: Option<&'a str>,
}

/// Rule: in-toto attestation framework, "Statement layer".
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Resource>,
    predicate_type: String,
    predicate: Value,
}

/// Rule: SLSA 1.0, "Provenance", "Schema".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Provenance {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    build_type: &'static str,
    external_parameters: Value,
    internal_parameters: Value,
    resolved_dependencies: Vec<Resource>,
}

#[derive(Serialize)]
struct RunDetails {
    builder: Builder,
}

#[derive(Serialize)]
struct Builder {
    id: &'static str,
    version: BTreeMap<&'static str, String>,
}

/// Rule: in-toto attestation framework, "`ResourceDescriptor`".
#[derive(Serialize, Deserialize, Default)]
struct Resource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, Value>,
}

impl Resource {
    fn new(name: &str, uri: Option<String>, sha256: Option<&str>) -> Self {
        let digest = sha256.map(|digits| ("sha256".to_owned(), digits_of(digits).to_owned()));
        Self { name: Some(name.to_owned()), uri, digest: digest.into_iter().collect(), ..Self::default() }
    }
}

fn digits_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

impl Statement {
    /// One of a provenance.
    pub(super) fn read(said: &Value) -> Result<Self, String> {
        let statement = Self::deserialize(said).map_err(|_| "it is no statement of in-toto".to_owned())?;
        if statement.kind != STATEMENT {
            return Err("it is no statement of in-toto 1".to_owned());
        }
        if statement.predicate_type != PREDICATE || !statement.predicate["buildDefinition"].is_object() {
            return Err("it is no provenance of SLSA 1".to_owned());
        }
        Ok(statement)
    }

    /// Whether it is about nothing but a manifest of this digest.
    pub(super) fn is_about(&self, digest: &str) -> bool {
        let is_it = |resource: &Resource| {
            resource.digest.get("sha256").is_some_and(|digits| digits_of(digest) == digits)
        };
        !self.subject.is_empty() && self.subject.iter().all(is_it)
    }
}

pub(super) fn of(published: &Published<'_>, plan: &Plan, inputs: Inputs<'_>) -> Value {
    let mut asked = json!({
        "variant": plan.variant,
        "platform": published.platform.to_string(),
        "base": Base::of(published, plan).reference,
    });
    for (name, sha256) in [("list", inputs.list), ("lock", inputs.lock)] {
        if let Some(sha256) = sha256 {
            asked[name] = json!({ "sha256": digits_of(sha256) });
        }
    }
    let provenance = Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE,
            external_parameters: asked,
            internal_parameters: json!({
                "fingerprint": Stamp::of(plan).fingerprint(),
                "templates": plan.foundation.templates,
                "locked": plan.packages.locked.is_some(),
            }),
            resolved_dependencies: dependencies(published, plan),
        },
        run_details: RunDetails {
            builder: Builder { id: BUILDER, version: BTreeMap::from([("ipybox", plan.ipybox.clone())]) },
        },
    };
    let statement = Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![Resource::new(published.repository, None, Some(&published.manifest.digest))],
        predicate_type: PREDICATE.to_owned(),
        predicate: json!(provenance),
    };
    json!(statement)
}

/// What an image was made of: its base, the wheels of its lock, the installer, and an interpreter from elsewhere.
fn dependencies(published: &Published<'_>, plan: &Plan) -> Vec<Resource> {
    let planned = &plan.foundation.base;
    let base = Base::of(published, plan);
    let mut base = Resource::new(&base.reference.to_string(), Some(base.purl()), base.digest());
    base.annotations.insert("imageId".to_owned(), planned.id.as_str().into());
    let wheels = plan.packages.locked.iter().flatten().map(|(name, pin)| {
        let purl = format!("{}?file_name={}", python(name.as_str(), &pin.version), encoded(&pin.file));
        Resource::new(&pin.file, Some(purl), Some(&pin.sha256))
    });
    let installer = &plan.foundation.installer;
    let is_released = installer.version != "custom";
    let purl = is_released.then(|| python("uv", &installer.version));
    let installer = Resource::new("uv", purl, Some(&installer.sha256));
    let archive =
        plan.foundation.python_archive.iter().map(|archive| {
            Resource::new(&format!("cpython-{}", archive.version), None, Some(&archive.sha256))
        });
    std::iter::once(base).chain(wheels).chain([installer]).chain(archive).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, published, subject};
    use super::*;

    #[test]
    fn a_provenance_names_the_image_what_was_asked_and_what_it_is_made_of() {
        let (plan, subject) = (plan(), subject());
        let base = format!("sha256:{}", "c3".repeat(32));
        let name = plan.foundation.base.reference.clone();
        let published = Published { base: Some(Base::known(&name, &base)), ..published(&subject) };
        let inputs = Inputs { list: Some("1f"), lock: None };
        let said = of(&published, &plan, inputs);
        assert_eq!(said["_type"], STATEMENT);
        assert_eq!(
            said["subject"],
            json!([{
                "name": "registry.invalid/team/sandbox",
                "digest": { "sha256": digits_of(&subject.digest) },
            }])
        );
        let definition = &said["predicate"]["buildDefinition"];
        assert_eq!(definition["buildType"], BUILD_TYPE);
        let asked = &definition["externalParameters"];
        assert_eq!((&asked["variant"], &asked["platform"]), (&json!("minimal"), &json!("linux/amd64")));
        assert_eq!((&asked["list"]["sha256"], &asked["lock"]), (&json!("1f"), &Value::Null));
        let parts = definition["resolvedDependencies"].as_array().unwrap();
        assert_eq!(parts[0]["digest"]["sha256"], "c3".repeat(32));
        assert_eq!(parts[0]["annotations"]["imageId"], plan.foundation.base.id.as_str());
        assert_eq!(
            parts[1]["uri"],
            "pkg:pypi/numpy@2.2.0%2Bcpu?file_name=numpy-2.2.0%2Bcpu-cp312-cp312-linux_x86_64.whl"
        );
        assert_eq!(parts[3]["name"], "uv");
        let builder = &said["predicate"]["runDetails"]["builder"];
        assert_eq!(builder["version"]["ipybox"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_statement_about_several_images_is_about_none() {
        let subject = |digits: &str| Resource::new("x", None, Some(digits));
        let statement = |subject| Statement {
            kind: STATEMENT.to_owned(),
            subject,
            predicate_type: PREDICATE.to_owned(),
            predicate: json!({ "buildDefinition": {} }),
        };
        assert!(statement(vec![subject("1")]).is_about("sha256:1"));
        assert!(!statement(vec![subject("1"), subject("2")]).is_about("sha256:1"));
        assert!(!statement(Vec::new()).is_about("sha256:1"));
        assert!(Statement::read(&json!(statement(Vec::new()))).is_ok());
        let other = Statement {
            predicate_type: "https://slsa.dev/provenance/v0.2".to_owned(),
            ..statement(Vec::new())
        };
        assert!(Statement::read(&json!(other)).is_err());
    }
}
