//! Images in folders and archives, as other tools read them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::blobs::Packed;
use super::image::{Descriptor, Image, MANIFEST};
use super::store::Store;
use crate::archive::EPOCH;
use crate::reference::Reference;
use crate::ustar::{self, Ids};

/// The annotations of an index that name an image: its tag for most tools, its whole name for containerd and Docker.
///
/// Rule: OCI image specification, "Pre-Defined Annotation Keys"; containerd, `images.AnnotationImageName`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Rule: OCI image layout specification, "oci-layout file".
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Where blobs are.
pub(super) const BLOBS: &str = "blobs/sha256";

/// The largest index that is read, in bytes.
const MAX_INDEX: u64 = 4 << 20;

/// Puts an image into a folder, beside those that are there already under other names. What the folder has whole is not
/// read, and not written again.
///
/// Rule: OCI image layout specification.
///
/// # Errors
///
/// Of the file system and the store, as [`Store::write_packed`]; of [`io::ErrorKind::InvalidInput`] where the folder holds
/// something else; and of whoever has given up, as `is_over` says.
pub fn write_folder(
    image: &Image,
    store: &Store,
    folder: &Path,
    names: &[Reference],
    is_over: &dyn Fn() -> bool,
) -> io::Result<()> {
    fs::create_dir_all(folder.join(BLOBS))?;
    let _alone = alone(folder)?;
    let mut index = index_of(folder)?;
    let manifest = image.manifest();
    for layer in &image.layers {
        put(folder, &layer.digest, layer.size, |out| {
            store.write_packed(layer, &mut Until { to: out, is_over })
        })?;
    }
    for (descriptor, bytes) in
        [(image.config(), &image.config), (Descriptor::of(MANIFEST, &manifest), &manifest)]
    {
        put(folder, &descriptor.digest, descriptor.size, |out| out.write_all(bytes))?;
    }
    write(folder, "oci-layout", LAYOUT.as_bytes())?;
    add(&mut index, &Descriptor::of(MANIFEST, &manifest), names);
    write(folder, "index.json", index.to_string().as_bytes())
}

/// Puts the manifest of an image whose other blobs are there into a folder, where it is found by its digest.
///
/// # Errors
///
/// As [`write_folder`].
pub fn write_manifest(folder: &Path, media_type: &str, digest: &str, manifest: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder.join(BLOBS))?;
    let _alone = alone(folder)?;
    let mut index = index_of(folder)?;
    put(folder, digest, manifest.len() as u64, |out| out.write_all(manifest))?;
    write(folder, "oci-layout", LAYOUT.as_bytes())?;
    let Some(entries) = index["manifests"].as_array_mut() else { return Ok(()) };
    if entries.iter().all(|entry| entry["digest"] != digest) {
        entries.push(json!({ "mediaType": media_type, "digest": digest, "size": manifest.len() }));
        write(folder, "index.json", index.to_string().as_bytes())?;
    }
    Ok(())
}

/// Keeps others from the folder until this is dropped.
fn alone(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// The index of a folder; an empty one where it has none.
fn index_of(folder: &Path) -> io::Result<Value> {
    let unfit = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    match File::open(folder.join("index.json")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // What is unfinished was left by one that was killed.
            let is_ours = |name: &OsStr| {
                name == "blobs" || name == "oci-layout" || name.as_encoded_bytes().starts_with(UNFINISHED)
            };
            if fs::read_dir(folder)?.filter_map(Result::ok).any(|entry| !is_ours(&entry.file_name())) {
                return Err(unfit("there are other files in the folder, and it is no layout of images"));
            }
            Ok(
                json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] }),
            )
        }
        Err(error) => Err(error),
        Ok(file) => {
            let mut text = Vec::new();
            file.take(MAX_INDEX).read_to_end(&mut text)?;
            let index: Value =
                serde_json::from_slice(&text).map_err(|_| unfit("its `index.json` is no index of images"))?;
            if index["manifests"].is_array() {
                Ok(index)
            } else {
                Err(unfit("its `index.json` is no index of images"))
            }
        }
    }
}

/// Names a manifest in an index; whatever had one of the names before loses it. An image without a name is the only such.
fn add(index: &mut Value, manifest: &Descriptor, names: &[Reference]) {
    let Some(entries) = index["manifests"].as_array_mut() else { return };
    let whole: BTreeSet<String> = names.iter().map(whole_name).collect();
    entries.retain(|entry| match entry["annotations"][IMAGE_NAME].as_str() {
        Some(name) => !whole.contains(name),
        None => !names.is_empty() || entry["annotations"][REF_NAME].is_string(),
    });
    let mut entry = json!(manifest);
    if names.is_empty() {
        entries.push(entry);
        return;
    }
    for name in names {
        // Tools find images by this one, so no two have the same.
        let is_taken = entries.iter().any(|other| other["annotations"][REF_NAME] == tag(name));
        let whole = whole_name(name);
        let short = if is_taken { whole.as_str() } else { tag(name) };
        entry["annotations"] = json!({ REF_NAME: short, IMAGE_NAME: whole });
        entries.push(entry.clone());
    }
}

fn whole_name(name: &Reference) -> String {
    format!("{}:{}", name.canonical(), tag(name))
}

fn tag(name: &Reference) -> &str {
    name.tag().unwrap_or("latest")
}

/// Puts a blob into a folder of blobs, unless it is there.
fn put(
    folder: &Path,
    digest: &str,
    size: u64,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let blobs = folder.join(BLOBS);
    let place = blobs.join(digest.trim_start_matches("sha256:"));
    if fs::metadata(&place).is_ok_and(|found| found.is_file() && found.len() == size) {
        return Ok(());
    }
    let mut file = unfinished(&blobs)?;
    let mut out = BufWriter::with_capacity(256 << 10, &mut file);
    content(&mut out)?;
    out.flush()?;
    drop(out);
    file.persist(place)?;
    Ok(())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = unfinished(folder)?;
    file.write_all(bytes)?;
    file.persist(folder.join(name))?;
    Ok(())
}

/// What the names of unfinished files begin with.
const UNFINISHED: &[u8] = b".tmp";

/// A file that others may read once it is there.
///
/// # Errors
///
/// Of the file system.
pub fn unfinished(folder: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}

/// Writes an image as one archive: a layout, which Docker and podman load, too, where it has what they look for.
///
/// Rule: OCI image layout specification; for Docker "Combined Image JSON + Filesystem Changeset Format", whose `manifest.json`
/// may name any file of the archive.
///
/// # Errors
///
/// Of writing and of the store, as [`Store::write_packed`], and of whoever has given up, as `is_over` says.
pub fn write_archive(
    image: &Image,
    store: &Store,
    to: &mut dyn Write,
    names: &[Reference],
    is_for_docker: bool,
    is_over: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut to = Until { to, is_over };
    let root = Ids { uid: 0, gid: 0 };
    let manifest = image.manifest();
    let mut index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [],
    });
    let of_manifest = Descriptor::of(MANIFEST, &manifest);
    add(&mut index, &of_manifest, names);
    let mut files = vec![("oci-layout".to_owned(), LAYOUT.as_bytes().to_vec())];
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    if is_for_docker {
        let layers: Vec<String> = image.layers.iter().map(|layer| blob(&layer.digest)).collect();
        let tags: Vec<String> =
            names.iter().map(|name| format!("{}:{}", name.repository(), tag(name))).collect();
        let manifest = json!([{ "Config": blob(image.id().as_str()), "RepoTags": tags, "Layers": layers }]);
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    }
    for (path, bytes) in files {
        ustar::file(&mut to, &path, 0o644, root, EPOCH, bytes.len() as u64, &mut bytes.as_slice())?;
    }
    for folder in ["blobs", BLOBS] {
        ustar::folder(&mut to, folder, 0o755, root, EPOCH)?;
    }
    for (digest, bytes) in [(of_manifest.digest, &manifest), (image.config().digest, &image.config)] {
        ustar::file(&mut to, &blob(&digest), 0o644, root, EPOCH, bytes.len() as u64, &mut bytes.as_slice())?;
    }
    let mut written: BTreeSet<&str> = BTreeSet::new();
    for layer in &image.layers {
        if written.insert(&layer.digest) {
            let content = |out: &mut dyn Write| store.write_packed(layer, out);
            ustar::written_file(&mut to, &blob(&layer.digest), 0o644, root, EPOCH, layer.size, content)?;
        }
    }
    to.write_all(&ustar::END)?;
    to.flush()
}

/// A writer that fails once somebody has given up.
struct Until<'a> {
    to: &'a mut dyn Write,
    is_over: &'a dyn Fn() -> bool,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.is_over)() { Err(io::Error::other("somebody has given up")) } else { self.to.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The path of a blob.
fn blob(digest: &str) -> String {
    format!("{BLOBS}/{}", digest.trim_start_matches("sha256:"))
}

/// Whether a folder has everything of the image that it has under a name, or without one, and what that is: the labels of its
/// configuration.
#[must_use]
pub fn whole(folder: &Path, name: Option<&Reference>) -> Option<(String, Value)> {
    let index = index_of(folder).ok()?;
    let name = name.map(whole_name);
    let is_named = |entry: &&Value| match &name {
        Some(name) => entry["annotations"][IMAGE_NAME] == name.as_str(),
        None => entry["annotations"][IMAGE_NAME].is_null() && entry["annotations"][REF_NAME].is_null(),
    };
    let manifest = index["manifests"].as_array()?.iter().find(is_named)?["digest"].as_str()?;
    let read = |digest: &str| -> Option<Value> {
        let digits = digest.strip_prefix("sha256:")?;
        let is_plain = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let file = File::open(folder.join(BLOBS).join(is_plain.then_some(digits)?)).ok()?;
        let mut text = Vec::new();
        file.take(MAX_INDEX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    };
    let manifest = read(manifest)?;
    let layers: Vec<Packed> = serde_json::from_value(manifest["layers"].clone()).ok()?;
    let is_there = |layer: &Packed| {
        let place = folder.join(blob(&layer.digest));
        fs::metadata(place).is_ok_and(|found| found.len() == layer.size)
    };
    let id = manifest["config"]["digest"].as_str()?;
    layers.iter().all(is_there).then_some((id.to_owned(), read(id)?["config"]["Labels"].clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(store: &Store, content: &[u8]) -> Image {
        let layers = vec![store.take(content).unwrap().1];
        Image { config: br#"{"config": {"Labels": {"a": "b"}}}"#.to_vec(), layers }
    }

    #[test]
    fn a_name_belongs_to_one_image_and_what_is_whole_is_known() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (store, folder) = (Store::in_cache(folders[0].path()), folders[1].path());
        let names = ["x:1", "host.invalid/y:2"].map(|name| name.parse::<Reference>().unwrap());
        let (one, other) = (image(&store, b"one"), image(&store, b"other"));
        write_folder(&one, &store, folder, &names, &|| false).unwrap();
        write_folder(&other, &store, folder, &names[..1], &|| false).unwrap();
        write_folder(&one, &store, folder, &[], &|| false).unwrap();
        let index = index_of(folder).unwrap();
        let told: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["annotations"][IMAGE_NAME].as_str(), entry["digest"].as_str().unwrap()))
            .collect();
        let digest = |image: &Image| Descriptor::of(MANIFEST, &image.manifest()).digest;
        let (of_one, of_other) = (digest(&one), digest(&other));
        assert_eq!(
            told,
            [
                (Some("host.invalid/y:2"), of_one.as_str()),
                (Some("docker.io/library/x:1"), of_other.as_str()),
                (None, of_one.as_str())
            ]
        );
        let (id, labels) = whole(folder, Some(&names[0])).unwrap();
        assert_eq!((id.as_str(), &labels["a"]), (other.id().as_str(), &json!("b")));
        fs::write(folder.join(blob(&other.layers[0].digest)), "").unwrap();
        assert!(whole(folder, Some(&names[0])).is_none() && whole(folder, Some(&names[1])).is_some());
        for text in ["", "{}", r#"{"manifests": [{"digest": "sha256:../../x"}]}"#] {
            fs::write(folder.join("index.json"), text).unwrap();
            assert!(whole(folder, None).is_none(), "{text}");
        }
    }

    #[test]
    fn a_folder_of_one_that_was_killed_is_taken_and_one_of_others_is_not() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (store, folder) = (Store::in_cache(folders[0].path()), folders[1].path());
        let image = image(&store, b"one");
        let write = || write_folder(&image, &store, folder, &[], &|| false);
        fs::write(folder.join("own.txt"), "").unwrap();
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_file(folder.join("own.txt")).unwrap();
        unfinished(folder).unwrap().keep().unwrap();
        write().unwrap();
        assert!(whole(folder, None).is_some());
    }

    #[test]
    fn archives_have_equal_bytes_and_each_blob_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let mut twice = image(&store, b"one");
        twice.layers.push(twice.layers[0].clone());
        let names = ["x".parse::<Reference>().unwrap()];
        let mut archives = [Vec::new(), Vec::new()];
        for archive in &mut archives {
            write_archive(&twice, &store, archive, &names, true, &|| false).unwrap();
        }
        assert_eq!(archives[0], archives[1]);
        let mut archive = tar::Archive::new(archives[0].as_slice());
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths[..3], ["oci-layout", "index.json", "manifest.json"]);
        assert_eq!(paths.len(), 3 + 2 + 3);
    }
}
