//! Bills of materials, for scanners and buyers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Inside;
use crate::archive::hexadecimal;

/// A part of an image.
struct Part<'a> {
    name: &'a str,
    version: &'a str,
    licence: Option<&'a str>,
    sha256: Option<&'a str>,
    /// Its address as a package.
    ///
    /// Rule: package-url, "Types".
    purl: String,
    /// The addresses of what it needs.
    needs: Vec<String>,
}

impl Inside {
    fn parts(&self) -> Vec<Part<'_>> {
        let purls: BTreeMap<_, String> = self
            .packages
            .iter()
            .map(|(name, package)| (name, format!("pkg:pypi/{name}@{}", encoded(&package.version))))
            .collect();
        let of_python = self.packages.iter().map(|(name, package)| Part {
            name: name.as_str(),
            version: &package.version,
            licence: package.licence.as_deref(),
            sha256: package.sha256.as_deref(),
            purl: purls[name].clone(),
            needs: package.needs.iter().map(|needed| purls[needed].clone()).collect(),
        });
        let of_debian = self.debian.iter().map(|(name, package)| Part {
            name,
            version: &package.version,
            licence: None,
            sha256: None,
            purl: format!(
                "pkg:deb/debian/{}@{}?arch={}",
                encoded(name),
                encoded(&package.version),
                encoded(&package.architecture)
            ),
            needs: Vec::new(),
        });
        of_python.chain(of_debian).collect()
    }

    /// The address of the image as a package.
    fn purl(&self) -> String {
        format!("pkg:oci/{}@{}", encoded(&self.short_name()), encoded(self.image.as_str()))
    }

    /// Its name without registry and tag.
    fn short_name(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or_default();
        last.split([':', '@']).next().unwrap_or_default().to_lowercase()
    }

    /// A UUID that follows from the image, so that the same image has the same bill.
    ///
    /// Rule: RFC 9562, "UUID Version 8".
    fn uuid(&self) -> String {
        let mut bytes: [u8; 16] =
            Sha256::digest(self.image.as_str())[..16].try_into().expect("16 of 32 bytes");
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let digits = hexadecimal(&bytes);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        parts.join("-")
    }
}

/// A `CycloneDX` bill, as JSON.
///
/// Rule: `CycloneDX` 1.6.
#[must_use]
pub fn cyclone_dx(inside: &Inside) -> Value {
    let parts = inside.parts();
    let component = |part: &Part<'_>| {
        let mut component = json!({
            "type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version, "purl": part.purl,
        });
        if let Some(licence) = part.licence {
            component["licenses"] = json!([{ "license": { "name": licence } }]);
        }
        if let Some(sha256) = part.sha256 {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        component
    };
    let depends = |part: &Part<'_>| json!({ "ref": part.purl, "dependsOn": part.needs });
    let asked = inside.packages.values().zip(&parts).filter(|(package, _)| package.asked.is_some());
    let asked: Vec<&str> = asked.map(|(_, part)| part.purl.as_str()).collect();
    let own = json!({ "ref": inside.purl(), "dependsOn": asked });
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", inside.uuid()),
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "ipybox", "version": env!("CARGO_PKG_VERSION") }] },
            "component": {
                "type": "container", "bom-ref": inside.purl(), "name": inside.name, "version": inside.image.as_str(), "purl": inside.purl(),
            },
        },
        "components": parts.iter().map(component).collect::<Vec<_>>(),
        "dependencies": std::iter::once(own).chain(parts.iter().map(depends)).collect::<Vec<_>>(),
    })
}

/// An SPDX bill, as JSON.
///
/// Rule: SPDX 2.3.
#[must_use]
pub fn spdx(inside: &Inside) -> Value {
    const NOTHING: &str = "NOASSERTION";
    let parts = inside.parts();
    let id = |purl: &str| format!("SPDXRef-{}", &hexadecimal(&Sha256::digest(purl))[..16]);
    let package = |name: &str, version: &str, purl: &str, licence: Option<&str>, purpose: &str| {
        let mut package = json!({
            "SPDXID": id(purl), "name": name, "versionInfo": version, "downloadLocation": NOTHING, "filesAnalyzed": false,
            "licenseConcluded": NOTHING, "licenseDeclared": NOTHING, "copyrightText": NOTHING, "primaryPackagePurpose": purpose,
            "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }],
        });
        if let Some(licence) = licence {
            package["licenseComments"] = licence.into();
        }
        package
    };
    let own = inside.purl();
    let mut packages = vec![package(&inside.name, inside.image.as_str(), &own, None, "CONTAINER")];
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": id(&own),
    })];
    for part in &parts {
        let mut described = package(part.name, part.version, &part.purl, part.licence, "LIBRARY");
        if let Some(sha256) = part.sha256 {
            described["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
        }
        packages.push(described);
        relations.push(json!({
            "spdxElementId": id(&own), "relationshipType": "CONTAINS", "relatedSpdxElement": id(&part.purl),
        }));
        relations.extend(part.needs.iter().map(|needed| {
            json!({
                "spdxElementId": id(&part.purl), "relationshipType": "DEPENDS_ON", "relatedSpdxElement": id(needed),
            })
        }));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": inside.name,
        "documentNamespace": format!("urn:uuid:{}", inside.uuid()),
        "creationInfo": {
            "created": inside.created.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
            "creators": [format!("Tool: ipybox-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relations,
    })
}

/// A part of a package's address.
///
/// Rule: package-url, "Character encoding".
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte);
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::inside;
    use super::*;

    #[test]
    fn a_bill_names_every_part_and_what_it_needs_and_is_the_same_each_time() {
        let inside = inside();
        let (cyclone, spdx) = (cyclone_dx(&inside), spdx(&inside));
        assert_eq!((&cyclone, &spdx), (&cyclone_dx(&inside), &super::spdx(&inside)));
        let count = inside.packages.len() + inside.debian.len();
        assert_eq!(cyclone["components"].as_array().unwrap().len(), count);
        assert_eq!(spdx["packages"].as_array().unwrap().len(), count + 1);
        let needs = cyclone["dependencies"].as_array().unwrap();
        let of = |purl: &str| needs.iter().find(|entry| entry["ref"] == purl).unwrap()["dependsOn"].clone();
        assert_eq!(of("pkg:pypi/requests@1.0"), json!(["pkg:pypi/pysocks@1.0", "pkg:pypi/urllib3@1.0"]));
        assert_eq!(spdx["creationInfo"]["created"], "2026-01-02T03:04:05Z");
        assert!(cyclone.to_string().contains("pkg:deb/debian/libc6@2.36-9?arch=amd64"));
    }
}
