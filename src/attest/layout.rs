//! Artifacts about an image in OCI layouts, as programs that sign them write and read them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::archive::{EPOCH, hexadecimal};
use crate::registry::{Blob, Descriptor, Image, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::ustar::{self, Ids};

/// The largest archive that is read, in bytes.
pub(super) const MOST: u64 = 16 << 20;

/// How many entries an archive has at most.
const MOST_ENTRIES: usize = 256;

/// How many layers an artifact has at most.
const MOST_LAYERS: usize = 32;

/// Rule: OCI image layout specification, "oci-layout file".
const LAYOUT: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);

const INDEX: &str = "index.json";

/// Where blobs are.
const BLOBS: &str = "blobs/sha256";

/// The bytes of the empty descriptor, which need not be in a layout.
///
/// Rule: OCI image specification 1.1, "Guidance for an Empty Descriptor".
const EMPTY: &[u8] = b"{}";

/// Why an archive has no artifact about an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It has more than is read.
    #[error("it has more than {0}")]
    Limit(&'static str),
    /// It is no archive.
    #[error("it is no tar archive: {0}")]
    Tar(String),
    /// An entry is nothing that a layout has.
    #[error("it has the entry `{path}`, {why}")]
    Entry {
        /// As it is written.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A part of it is not there.
    #[error("it lacks `{0}`")]
    Lacks(String),
    /// A part of it is not what the specification says.
    #[error("its `{part}` is {why}")]
    Part {
        /// The part.
        part: String,
        /// What it is.
        why: &'static str,
    },
    /// The artifact is about something else.
    #[error("it is about {0}")]
    Subject(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    config: Named,
    #[serde(default)]
    layers: Vec<Named>,
    #[serde(default)]
    subject: Option<Named>,
    /// What only an index has: nothing may be both.
    #[serde(default)]
    manifests: Option<IgnoredAny>,
}

/// Rule: OCI image specification, "Content Descriptors".
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    media_type: String,
    digest: String,
    size: u64,
}

/// Reads the one artifact of a layout in a tar archive, which has to be about the subject. Whatever it has is in memory, and
/// what it says of its parts is compared with them.
///
/// Rule: OCI image layout specification; OCI image specification 1.1, "Image Manifest".
///
/// # Errors
///
/// [`LayoutError`].
pub fn read_layout(tar: &[u8], subject: &Descriptor) -> Result<Image, LayoutError> {
    if tar.len() as u64 > MOST {
        return Err(LayoutError::Limit("16 MiB"));
    }
    let files = files(tar)?;
    let layout: serde_json::Value = json_of(LAYOUT.0, file(&files, LAYOUT.0)?)?;
    if layout["imageLayoutVersion"] != "1.0.0" {
        return Err(LayoutError::part(LAYOUT.0, "of another version"));
    }
    let Index { manifests } = json_of(INDEX, file(&files, INDEX)?)?;
    let [named] = manifests.as_slice() else {
        return Err(LayoutError::part(INDEX, "an index of none or of several manifests"));
    };
    if named.media_type != OCI_MANIFEST {
        return Err(LayoutError::part(INDEX, "an index of something else than a manifest"));
    }
    let manifest = blob(&files, named)?;
    let artifact: Written = json_of(&named.digest, &manifest)?;
    let is_other =
        artifact.manifests.is_some() || artifact.media_type.is_some_and(|kind| kind != OCI_MANIFEST);
    if artifact.schema_version != 2 || is_other {
        return Err(LayoutError::part(&named.digest, "no manifest"));
    }
    let artifact_type = artifact.artifact_type.unwrap_or_else(|| artifact.config.media_type.clone());
    if artifact_type.is_empty() {
        return Err(LayoutError::part(&named.digest, "of no type"));
    }
    match artifact.subject {
        None => return Err(LayoutError::Subject("nothing".to_owned())),
        Some(about) if about.is(subject) => {}
        Some(about) => return Err(LayoutError::Subject(format!("`{}`", about.digest.escape_debug()))),
    }
    if artifact.layers.len() > MOST_LAYERS {
        return Err(LayoutError::Limit("32 layers"));
    }
    let parts = artifact.layers.iter().chain([&artifact.config]);
    let blobs = parts.map(|part| Ok(Blob::of(&part.media_type, blob(&files, part)?)));
    let blobs = blobs.collect::<Result<Vec<_>, LayoutError>>()?;
    Ok(Image { manifest: Manifest::new(OCI_MANIFEST, manifest), blobs })
}

/// The same as a tar archive of a layout, with equal bytes for equal artifacts.
///
/// # Errors
///
/// Of what writes the blobs.
pub fn write_layout(artifact: &Image) -> io::Result<Vec<u8>> {
    let Descriptor { digest, media_type, size } = artifact.manifest.descriptor();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{ "mediaType": media_type, "digest": digest, "size": size }],
    });
    let mut blobs = BTreeMap::from([(digest, artifact.manifest.bytes().to_vec())]);
    for blob in &artifact.blobs {
        let mut bytes = Vec::new();
        (blob.content)(&mut bytes)?;
        blobs.insert(blob.digest.clone(), bytes);
    }
    let root = Ids { uid: 0, gid: 0 };
    let mut tar = Vec::new();
    let mut write = |path: &str, bytes: &[u8]| {
        ustar::file(&mut tar, path, 0o644, root, EPOCH, bytes.len() as u64, &mut &*bytes)
    };
    write(LAYOUT.0, LAYOUT.1.as_bytes())?;
    write(INDEX, index.to_string().as_bytes())?;
    for (digest, bytes) in &blobs {
        write(&format!("{BLOBS}/{}", digest.trim_start_matches("sha256:")), bytes)?;
    }
    tar.write_all(&ustar::END)?;
    Ok(tar)
}

impl Named {
    fn is(&self, other: &Descriptor) -> bool {
        self.digest == other.digest && self.size == other.size && self.media_type == other.media_type
    }
}

impl LayoutError {
    fn part(part: &str, why: &'static str) -> Self {
        Self::Part { part: part.escape_debug().to_string(), why }
    }
}

/// The files of an archive that count, by their paths. Nothing of it gets to the file system.
fn files(tar: &[u8]) -> Result<BTreeMap<String, Bytes>, LayoutError> {
    let broken = |error: io::Error| LayoutError::Tar(error.to_string());
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for (number, entry) in archive.entries().map_err(broken)?.enumerate() {
        if number == MOST_ENTRIES {
            return Err(LayoutError::Limit("256 entries"));
        }
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let written = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |why| LayoutError::Entry { path: written.escape_debug().to_string(), why };
        let path = written.strip_prefix("./").unwrap_or(&written).trim_end_matches('/');
        let leads_out = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\\', '\0']);
        if written.starts_with('/') || (!path.is_empty() && path != "." && path.split('/').any(leads_out)) {
            return Err(refused("whose path leads elsewhere"));
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(refused("which is neither a file nor a folder"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 != entry.size() {
            return Err(LayoutError::Tar("it is cut off".to_owned()));
        }
        if files.insert(path.to_owned(), bytes.into()).is_some() {
            return Err(refused("which it has twice"));
        }
    }
    Ok(files)
}

fn file<'a>(files: &'a BTreeMap<String, Bytes>, path: &str) -> Result<&'a Bytes, LayoutError> {
    files.get(path).ok_or_else(|| LayoutError::Lacks(path.to_owned()))
}

fn json_of<'a, T: Deserialize<'a>>(part: &str, bytes: &'a [u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|_| LayoutError::part(part, "not what the specification says"))
}

/// The bytes of a blob, which are what names it says.
fn blob(files: &BTreeMap<String, Bytes>, named: &Named) -> Result<Bytes, LayoutError> {
    let digits = named.digest.strip_prefix("sha256:").filter(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let Some(digits) = digits else {
        return Err(LayoutError::part(&named.digest, "no digest by SHA-256"));
    };
    let is_empty = || digits == hexadecimal(&Sha256::digest(EMPTY));
    let bytes = match files.get(&format!("{BLOBS}/{digits}")) {
        Some(bytes) => bytes.clone(),
        None if is_empty() => Bytes::from_static(EMPTY),
        None => return Err(LayoutError::Lacks(named.digest.clone())),
    };
    if bytes.len() as u64 != named.size {
        return Err(LayoutError::part(&named.digest, "of another size than it is said to have"));
    }
    if hexadecimal(&Sha256::digest(&bytes)) != digits {
        return Err(LayoutError::part(&named.digest, "something else than its digest says"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::tests::subject;
    use super::*;

    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

    fn signature(about: &Descriptor, text: &str) -> Image {
        let notes = BTreeMap::from([("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned())]);
        Image::artifact(about, BUNDLE, vec![Blob::of(BUNDLE, text.to_owned())], &notes)
    }

    fn described(image: &Image) -> (&Bytes, Vec<Descriptor>) {
        (image.manifest.bytes(), image.blobs.iter().map(Blob::descriptor).collect())
    }

    /// An archive of these files, each with its kind.
    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            // Builders refuse paths that lead out.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    /// The files of a layout, and then others.
    fn layout(artifact: &Image, change: impl FnOnce(&mut BTreeMap<String, Bytes>)) -> Vec<u8> {
        let mut files = files(&write_layout(artifact).unwrap()).unwrap();
        change(&mut files);
        let entries: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), tar::EntryType::Regular, bytes.as_ref()))
            .collect();
        archive(&entries)
    }

    #[test]
    fn an_artifact_is_read_as_it_was_written() {
        let (subject, artifact) = (subject(), signature(&subject(), "{\"a\": 1}"));
        let read = read_layout(&write_layout(&artifact).unwrap(), &subject).unwrap();
        assert_eq!(described(&read), described(&artifact));
        // The empty configuration need not be there.
        let (_, blobs) = described(&artifact);
        let empty = format!("{BLOBS}/{}", &blobs[1].digest[7..]);
        let without = layout(&artifact, |files| drop(files.remove(&empty).unwrap()));
        assert_eq!(described(&read_layout(&without, &subject).unwrap()), described(&artifact));
    }

    #[test]
    fn an_artifact_about_something_else_is_refused() {
        let (subject, other) = (subject(), Manifest::new(OCI_MANIFEST, "[]").descriptor());
        let told = |artifact: &Image, subject: &Descriptor| {
            read_layout(&write_layout(artifact).unwrap(), subject).err().unwrap().to_string()
        };
        assert_eq!(told(&signature(&other, "{}"), &subject), format!("it is about `{}`", other.digest));
        let larger = Descriptor { size: subject.size + 1, ..subject.clone() };
        assert!(told(&signature(&subject, "{}"), &larger).starts_with("it is about"));
        let mut manifest: Value = serde_json::from_slice(signature(&subject, "{}").manifest.bytes()).unwrap();
        manifest.as_object_mut().unwrap().remove("subject");
        let nothing = Image {
            manifest: Manifest::new(OCI_MANIFEST, manifest.to_string()),
            ..signature(&subject, "{}")
        };
        assert_eq!(told(&nothing, &subject), "it is about nothing");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (subject, artifact) = (subject(), signature(&subject(), "{\"a\": 1}"));
        let bundle = format!("{BLOBS}/{}", &artifact.blobs[0].digest[7..]);
        let put = |path: &str, text: &'static str| {
            let path = path.to_owned();
            layout(&artifact, |files| drop(files.insert(path, Bytes::from_static(text.as_bytes()))))
        };
        let refused = |tar: &[u8]| read_layout(tar, &subject).err().unwrap().to_string();
        let file = tar::EntryType::Regular;
        for (tar, why) in [
            (put(&bundle, "{\"a\": 2}"), "something else than its digest says"),
            (put(&bundle, "{}"), "of another size"),
            (put("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#), "of another version"),
            (put("index.json", "{}"), "not what the specification says"),
            (put("index.json", r#"{"manifests": []}"#), "none or of several"),
            (layout(&artifact, |files| drop(files.remove(&bundle))), "it lacks `sha256:"),
            (layout(&artifact, |files| drop(files.remove("index.json"))), "it lacks `index.json`"),
            (Vec::new(), "it lacks `oci-layout`"),
            (b"{\"error\": \"no key\"}".to_vec(), "no tar archive"),
            (archive(&[("../index.json", file, b"")]), "leads elsewhere"),
            (archive(&[("/index.json", file, b"")]), "leads elsewhere"),
            (archive(&[("blobs/../index.json", file, b"")]), "leads elsewhere"),
            (archive(&[("index.json", file, b"1"), ("./index.json", file, b"2")]), "which it has twice"),
            (archive(&[("index.json", tar::EntryType::Symlink, b"")]), "neither a file nor a folder"),
            (archive(&[("index.json", tar::EntryType::GNUSparse, b"")]), "no tar archive"),
            (archive(&vec![("blobs/", tar::EntryType::Directory, &b""[..]); 257]), "256 entries"),
            (vec![0; (16 << 20) + 1], "16 MiB"),
        ] {
            assert!(refused(&tar).contains(why), "{} instead of {why}", refused(&tar));
        }
        let whole = write_layout(&artifact).unwrap();
        for end in [whole.len() / 2, 700, 1] {
            assert!(read_layout(&whole[..end], &subject).is_err(), "{end}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_byte_that_changes_changes_nothing_that_is_read(at in 0_usize..6000, to: u8) {
            let (subject, artifact) = (subject(), signature(&subject(), "{\"a\": 1}"));
            let mut tar = write_layout(&artifact).unwrap();
            let at = at % tar.len();
            tar[at] = to;
            if let Ok(read) = read_layout(&tar, &subject) {
                prop_assert_eq!(read.manifest.bytes(), artifact.manifest.bytes());
                let descriptors = |image: &Image| image.blobs.iter().map(Blob::descriptor).collect::<Vec<_>>();
                prop_assert_eq!(descriptors(&read), descriptors(&artifact));
            }
        }

        #[test]
        fn whatever_is_read_is_about_the_subject(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            prop_assert!(read_layout(&bytes, &subject()).is_err());
        }
    }
}
