//! Bills of materials, for scanners and buyers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Base, Published};
use crate::archive::hexadecimal;
use crate::inside::Inside;
use crate::plan::Plan;
use crate::reference::Reference;

/// What addresses of Python packages begin with.
///
/// Rule: package-url, "Types", `pypi`.
const PYTHON: &str = "pkg:pypi/";

/// What an image consists of, as bills tell it: the same each time for the same image.
#[derive(Debug)]
pub struct Bill<'a> {
    image: Part<'a>,
    created: Option<&'a str>,
    /// The image that it is built on, where that is known.
    base: Option<Part<'a>>,
    /// Its packages.
    parts: Vec<Part<'a>>,
}

/// An image or a part of one.
#[derive(Debug)]
struct Part<'a> {
    name: &'a str,
    version: Option<&'a str>,
    licence: Option<&'a str>,
    sha256: Option<&'a str>,
    /// Its address as a package.
    ///
    /// Rule: package-url, "Types".
    purl: String,
    /// The addresses of what it needs.
    needs: Vec<String>,
    /// The image id that an engine calls it by.
    id: Option<&'a str>,
}

impl<'a> Bill<'a> {
    /// That of an image that an engine has.
    #[must_use]
    pub fn of(inside: &'a Inside) -> Self {
        let id = inside.image.as_str();
        let purl = format!("pkg:oci/{}@{}", encoded(&short_name(&inside.name)), encoded(id));
        let name: Option<Reference> = inside.base.as_deref().and_then(|base| base.parse().ok());
        let base = name.map(|name| {
            let purl = Base { reference: &name, digest: None }.purl();
            Part { purl, ..Part::named(inside.base.as_deref().unwrap_or_default()) }
        });
        let mut image = Part { version: Some(id), purl, ..Part::named(&inside.name) };
        let parts = image.has_installed(inside);
        Self { image, created: inside.created.as_deref(), base, parts }
    }

    /// That of an image in a registry. Where nobody has looked inside, its packages are those of its lock, and the Debian
    /// packages that were asked for.
    #[must_use]
    pub fn of_published(published: &Published<'a>, plan: &'a Plan, inside: Option<&'a Inside>) -> Self {
        let digest = published.manifest.digest.as_str();
        let purl = published.purl();
        let mut image = Part { version: Some(digest), purl, ..Part::named(published.repository) };
        let parts = match inside {
            Some(inside) => image.has_installed(inside),
            None => image.has_planned(plan),
        };
        let planned = &plan.foundation.base;
        let base = Base::of(published, plan);
        let base = Part {
            version: base.digest(),
            id: Some(planned.id.as_str()),
            purl: base.purl(),
            ..Part::named(base.reference.repository())
        };
        Self { image, created: published.created, base: Some(base), parts }
    }

    /// The Python packages that a bill of `CycloneDX` names, with their versions.
    #[must_use]
    pub fn packages(bill: &[u8]) -> BTreeMap<String, String> {
        let said: Value = serde_json::from_slice(bill).unwrap_or_default();
        let components = said["components"].as_array().into_iter().flatten();
        let package = |component: &Value| {
            component["purl"].as_str().filter(|purl| purl.starts_with(PYTHON))?;
            Some((component["name"].as_str()?.to_owned(), component["version"].as_str()?.to_owned()))
        };
        components.filter_map(package).collect()
    }

    /// As `CycloneDX` has it, in JSON.
    ///
    /// Rule: `CycloneDX` 1.6.
    #[must_use]
    pub fn cyclone_dx(&self) -> Value {
        let component = |kind: &str, part: &Part<'_>| {
            let mut component =
                json!({ "type": kind, "bom-ref": part.purl, "name": part.name, "purl": part.purl });
            if let Some(version) = part.version {
                component["version"] = version.into();
            }
            if let Some(licence) = part.licence {
                component["licenses"] = json!([{ "license": { "name": licence } }]);
            }
            if let Some(sha256) = part.sha256 {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
            }
            if let Some(id) = part.id {
                component["properties"] = json!([{ "name": "ipybox:image-id", "value": id }]);
            }
            component
        };
        let depends = |part: &Part<'_>| json!({ "ref": part.purl, "dependsOn": part.needs });
        let mut own = depends(&self.image);
        if let (Some(base), Some(needs)) = (&self.base, own["dependsOn"].as_array_mut()) {
            needs.insert(0, base.purl.as_str().into());
        }
        let base = self.base.iter().map(|base| component("container", base));
        let parts = self.parts.iter().map(|part| component("library", part));
        let all = self.base.iter().chain(&self.parts);
        let mut metadata = json!({
            "tools": { "components": [{ "type": "application", "name": "ipybox", "version": env!("CARGO_PKG_VERSION") }] },
            "component": component("container", &self.image),
        });
        if let Some(created) = self.created {
            metadata["timestamp"] = created.into();
        }
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": format!("urn:uuid:{}", self.uuid()),
            "version": 1,
            "metadata": metadata,
            "components": base.chain(parts).collect::<Vec<_>>(),
            "dependencies": std::iter::once(own).chain(all.map(depends)).collect::<Vec<_>>(),
        })
    }

    /// As SPDX has it, in JSON.
    ///
    /// Rule: SPDX 2.3.
    #[must_use]
    pub fn spdx(&self) -> Value {
        const NOTHING: &str = "NOASSERTION";
        let id = |purl: &str| format!("SPDXRef-{}", &hexadecimal(&Sha256::digest(purl))[..16]);
        let described = |part: &Part<'_>, purpose: &str| {
            let mut package = json!({
                "SPDXID": id(&part.purl), "name": part.name, "downloadLocation": NOTHING, "filesAnalyzed": false,
                "licenseConcluded": NOTHING, "licenseDeclared": NOTHING, "copyrightText": NOTHING, "primaryPackagePurpose": purpose,
                "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl }],
            });
            if let Some(version) = part.version {
                package["versionInfo"] = version.into();
            }
            if let Some(licence) = part.licence {
                package["licenseComments"] = licence.into();
            }
            if let Some(sha256) = part.sha256 {
                package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
            }
            package
        };
        let related = |from: &str, how: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to });
        let own = id(&self.image.purl);
        let mut packages = vec![described(&self.image, "CONTAINER")];
        let mut relations = vec![related("SPDXRef-DOCUMENT", "DESCRIBES", &own)];
        if let Some(base) = &self.base {
            packages.push(described(base, "CONTAINER"));
            relations.push(related(&own, "DESCENDANT_OF", &id(&base.purl)));
        }
        for part in &self.parts {
            packages.push(described(part, "LIBRARY"));
            relations.push(related(&own, "CONTAINS", &id(&part.purl)));
            relations.extend(part.needs.iter().map(|need| related(&id(&part.purl), "DEPENDS_ON", &id(need))));
        }
        json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": self.image.name,
            "documentNamespace": format!("urn:uuid:{}", self.uuid()),
            "creationInfo": {
                "created": self.created.unwrap_or("1970-01-01T00:00:00Z"),
                "creators": [format!("Tool: ipybox-{}", env!("CARGO_PKG_VERSION"))],
            },
            "packages": packages,
            "relationships": relations,
        })
    }

    /// A UUID that follows from the image, so that the same image has the same bill.
    ///
    /// Rule: RFC 9562, "UUID Version 8".
    fn uuid(&self) -> String {
        let digest = Sha256::digest(self.image.version.unwrap_or_default());
        let mut bytes: [u8; 16] = digest[..16].try_into().expect("16 of 32 bytes");
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let digits = hexadecimal(&bytes);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        parts.join("-")
    }
}

impl<'a> Part<'a> {
    /// One of which nothing else is known.
    fn named(name: &'a str) -> Self {
        Self {
            name,
            version: None,
            licence: None,
            sha256: None,
            purl: String::new(),
            needs: Vec::new(),
            id: None,
        }
    }

    /// The packages of an image, of which it needs those that were asked for.
    fn has_installed(&mut self, inside: &'a Inside) -> Vec<Self> {
        let purls: BTreeMap<_, String> = inside
            .packages
            .iter()
            .map(|(name, package)| (name, python(name.as_str(), &package.version)))
            .collect();
        let asked = inside.packages.iter().filter(|(_, package)| package.asked.is_some());
        self.needs = asked.map(|(name, _)| purls[name].clone()).collect();
        let of_python = inside.packages.iter().map(|(name, package)| Part {
            version: Some(&package.version),
            licence: package.licence.as_deref(),
            sha256: package.sha256.as_deref(),
            purl: purls[name].clone(),
            needs: package.needs.iter().map(|needed| purls[needed].clone()).collect(),
            ..Part::named(name.as_str())
        });
        let of_debian = inside.debian.iter().map(|(name, package)| {
            let (version, architecture) = (encoded(&package.version), encoded(&package.architecture));
            let purl = format!("pkg:deb/debian/{}@{version}?arch={architecture}", encoded(name));
            Part { version: Some(&package.version), purl, ..Part::named(name) }
        });
        of_python.chain(of_debian).collect()
    }

    /// The same as far as a plan knows them.
    fn has_planned(&mut self, plan: &'a Plan) -> Vec<Self> {
        let locked = plan.packages.locked.iter().flatten();
        let pinned = locked.map(|(name, pin)| Part {
            version: Some(&pin.version),
            sha256: Some(&pin.sha256),
            purl: python(name.as_str(), &pin.version),
            ..Part::named(name.as_str())
        });
        let of_debian = plan
            .foundation
            .apt
            .iter()
            .map(|name| Part { purl: format!("pkg:deb/debian/{}", encoded(name)), ..Part::named(name) });
        let parts: Vec<Self> = pinned.chain(of_debian).collect();
        self.needs = parts.iter().map(|part| part.purl.clone()).collect();
        parts
    }
}

/// The address of a distribution, whose name is normalized.
pub(super) fn python(name: &str, version: &str) -> String {
    format!("{PYTHON}{name}@{}", encoded(version))
}

/// A name of an image without registry and tag.
pub(super) fn short_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split([':', '@']).next().unwrap_or_default().to_lowercase()
}

/// A part of a package's address.
///
/// Rule: package-url, "Character encoding".
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte);
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, published, subject};
    use super::*;
    use crate::inside::inside;

    #[test]
    fn a_bill_names_every_part_and_what_it_needs_and_is_the_same_each_time() {
        let inside = inside();
        let bill = Bill::of(&inside);
        let (cyclone, spdx) = (bill.cyclone_dx(), bill.spdx());
        assert_eq!((&cyclone, &spdx), (&Bill::of(&inside).cyclone_dx(), &Bill::of(&inside).spdx()));
        // The base is one more, and so is the image.
        let count = inside.packages.len() + inside.debian.len() + 1;
        assert_eq!(cyclone["components"].as_array().unwrap().len(), count);
        assert_eq!(spdx["packages"].as_array().unwrap().len(), count + 1);
        let needs = cyclone["dependencies"].as_array().unwrap();
        let of = |purl: &str| needs.iter().find(|entry| entry["ref"] == purl).unwrap()["dependsOn"].clone();
        assert_eq!(of("pkg:pypi/requests@1.0"), json!(["pkg:pypi/pysocks@1.0", "pkg:pypi/urllib3@1.0"]));
        assert_eq!(spdx["creationInfo"]["created"], "2026-01-02T03:04:05Z");
        assert_eq!(cyclone["metadata"]["timestamp"], "2026-01-02T03:04:05Z");
        assert!(cyclone.to_string().contains("pkg:deb/debian/libc6@2.36-9?arch=amd64"));
        let installed =
            inside.packages.iter().map(|(name, package)| (name.to_string(), package.version.clone()));
        assert_eq!(Bill::packages(cyclone.to_string().as_bytes()), installed.collect());
        assert!(Bill::packages(b"no bill").is_empty());
    }

    #[test]
    fn a_bill_of_a_published_image_names_its_manifest_and_its_base() {
        let (plan, subject) = (plan(), subject());
        let published = published(&subject);
        let inside = inside();
        for inside in [None, Some(&inside)] {
            let bill = Bill::of_published(&published, &plan, inside).cyclone_dx();
            let hexadecimal = &subject.digest["sha256:".len()..];
            let image = &bill["metadata"]["component"];
            assert_eq!(image["version"], subject.digest);
            assert_eq!(
                image["purl"],
                format!(
                    "pkg:oci/sandbox@sha256:{hexadecimal}?arch=amd64&repository_url=registry.invalid%2Fteam%2Fsandbox"
                )
            );
            assert_eq!(bill["components"][0]["type"], "container");
            assert_eq!(bill["dependencies"][0]["dependsOn"][0], bill["components"][0]["purl"]);
            let purls: Vec<&str> = bill["components"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|one| one["purl"].as_str())
                .collect();
            let known: std::collections::BTreeSet<_> = purls.iter().collect();
            assert_eq!(known.len(), purls.len());
        }
        let bill = Bill::of_published(&published, &plan, None).cyclone_dx();
        let numpy = bill["components"].as_array().unwrap().iter().find(|one| one["name"] == "numpy").unwrap();
        assert_eq!(numpy["hashes"][0]["content"], "a1".repeat(32));
        assert_eq!(numpy["purl"], "pkg:pypi/numpy@2.2.0%2Bcpu");
    }
}
