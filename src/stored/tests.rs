use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::archive::Archive;

/// The files of a layout or an archive by path.
type Contents = BTreeMap<String, Vec<u8>>;

fn digest(bytes: &[u8]) -> String {
    digest_of(Sha256::new_with_prefix(bytes))
}

fn blob(digest: &str) -> String {
    digest.replace("sha256:", "blobs/sha256/")
}

/// A tar archive of entries: kind, path, where it leads, content.
fn layer(entries: &[(u8, &str, &str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, path, target, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(if *kind == b'5' { 0o750 } else { 0o640 });
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(architecture: &str, tars: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = tars.iter().map(|tar| digest(tar)).collect();
    json!({ "os": "linux", "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids } })
        .to_string()
        .into_bytes()
}

fn add(to: &mut Contents, bytes: Vec<u8>, media_type: &str) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    to.insert(blob(&digest), bytes);
    descriptor
}

/// Adds an image, and returns its manifest's descriptor.
fn add_image(to: &mut Contents, architecture: &str, tars: &[Vec<u8>], packed: bool) -> Value {
    let config = add(to, config(architecture, tars), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> = tars
        .iter()
        .map(|tar| {
            let media_type = if packed { MediaType::TarGzip } else { MediaType::Tar };
            add(to, if packed { gzip(tar) } else { tar.clone() }, media_type.as_str())
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    add(to, manifest.to_string().into_bytes(), manifest::OCI_MANIFEST)
}

fn layout(to: &mut Contents, manifests: &[Value]) {
    to.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    to.insert("index.json".to_owned(), index.to_string().into_bytes());
}

fn image(tars: &[Vec<u8>], packed: bool) -> Contents {
    let mut contents = Contents::new();
    let manifest = add_image(&mut contents, "amd64", tars, packed);
    layout(&mut contents, &[manifest]);
    contents
}

fn docker_image(tars: &[Vec<u8>]) -> Contents {
    let mut contents = Contents::new();
    let config = config("amd64", tars);
    let name = digest(&config).replace("sha256:", "") + ".json";
    let layers: Vec<_> = (0..tars.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{ "Config": name, "RepoTags": ["x:1"], "Layers": layers }]);
    contents.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    contents.insert(name, config);
    contents.extend(layers.into_iter().zip(tars.iter().cloned()));
    contents
}

fn archive(contents: &Contents) -> tempfile::NamedTempFile {
    let mut archive = Archive::default();
    for (path, bytes) in contents {
        archive.add(path, bytes.clone());
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    archive.write_to(&mut file).unwrap();
    file
}

fn open(contents: &Contents, name: Option<&str>, platform: Option<&str>) -> Result<Stored, StoredError> {
    let archive = archive(contents);
    let (file, name) = (archive.path().to_owned(), name.map(str::to_owned));
    let place = if contents.contains_key("manifest.json") {
        Place::DockerArchive { file, name }
    } else {
        Place::OciArchive { file, name }
    };
    Stored::open(&place, platform.map(|platform| platform.parse().unwrap()).as_ref())
}

/// What is said where all of it is read.
fn refused(contents: &Contents) -> String {
    let read = open(contents, None, None).and_then(|stored| Files::of(&stored));
    let error = read.expect_err("it was taken");
    let diagnostic = error.diagnostic();
    assert!(!diagnostic.why.is_empty() && diagnostic.fix.is_some());
    diagnostic.why
}

fn all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    { reader }.read_to_end(&mut bytes).map(|_| bytes)
}

/// The path of everything, with what it is and which layer's content it has.
fn listing(tars: &[Vec<u8>]) -> String {
    let stored = open(&image(tars, true), None, None).unwrap();
    let files = Files::of(&stored).unwrap();
    let mut lines = String::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        let names: Vec<_> = files.entry(&folder).unwrap().names().collect();
        for name in names {
            let path = format!("{}/{name}", folder.trim_end_matches('/'));
            let file = files.entry(&path).unwrap();
            assert_eq!(file.path(), path);
            let what = match file.kind() {
                Kind::Folder => {
                    folders.push(path.clone());
                    format!("{:o} {}", file.mode(), file.uid())
                }
                Kind::File(_) => String::from_utf8(files.read(&path, 99).unwrap().unwrap()).unwrap(),
                Kind::Link(target) => format!("-> {}", String::from_utf8_lossy(target)),
                Kind::Device => "device".to_owned(),
            };
            lines += &format!("{path}: {what}\n");
        }
    }
    lines
}

#[test]
fn an_image_is_the_same_wherever_it_lies() {
    let tars =
        [layer(&[(b'5', "etc/", "", ""), (b'0', "etc/a", "", "first")]), layer(&[(b'0', "b", "", "second")])];
    let (plain, packed, docker) = (image(&tars, false), image(&tars, true), docker_image(&tars));
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in &packed {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let place = Place::Layout { folder: folder.path().to_owned(), name: None };
    for (stored, media_type) in [
        (open(&plain, None, None).unwrap(), MediaType::Tar),
        (open(&packed, None, None).unwrap(), MediaType::TarGzip),
        (open(&docker, None, None).unwrap(), MediaType::Tar),
        (open(&docker, Some("docker.io/library/x:1"), Some("linux/amd64")).unwrap(), MediaType::Tar),
        (Stored::open(&place, None).unwrap(), MediaType::TarGzip),
    ] {
        assert_eq!(stored.config, config("amd64", &tars));
        assert_eq!(stored.config_digest, digest(&stored.config));
        assert_eq!(stored.platform.to_string(), "linux/amd64");
        for (stored, tar) in stored.layers.iter().zip(&tars) {
            assert_eq!((&stored.diff_id, stored.media_type), (&digest(tar), media_type));
            assert_eq!(&all(stored.tar()).unwrap(), tar);
            let blob = all(stored.blob()).unwrap();
            assert_eq!((&stored.digest, stored.size), (&digest(&blob), blob.len() as u64));
        }
        let files = Files::of(&stored).unwrap();
        let read = files.read_all(&["/b", "etc/a", "/etc", "/etc/none", "b"], 6).unwrap();
        assert_eq!(
            read,
            [Some(b"second".to_vec()), Some(b"first".to_vec()), None, None, Some(b"second".to_vec())]
        );
        assert_eq!(files.read("/b", 5).unwrap(), None);
    }
}

#[test]
fn layers_make_one_tree() {
    let lower = layer(&[
        (b'5', "./", "", ""),
        (b'5', "a/", "", ""),
        (b'0', "a/kept", "", "1"),
        (b'0', "a/gone", "", "1"),
        (b'5', "opaque/", "", ""),
        (b'5', "opaque/sub/", "", ""),
        (b'0', "opaque/sub/old", "", "1"),
        (b'0', "opaque/old", "", "1"),
        (b'0', "file", "", "1"),
        (b'5', "folder/", "", ""),
        (b'0', "folder/x", "", "1"),
        (b'2', "link", "a", ""),
        (b'0', "both", "", "1"),
        (b'6', "fifo", "", ""),
    ]);
    let upper = layer(&[
        (b'0', "a/.wh.gone", "", ""),
        (b'0', "a/.wh.never", "", ""),
        (b'5', "opaque/sub/", "", ""),
        (b'0', "opaque/sub/new", "", "2"),
        (b'0', "opaque/.wh..wh..opq", "", ""),
        (b'0', "opaque/late", "", "2"),
        (b'5', "file/", "", ""),
        (b'0', "file/in", "", "2"),
        (b'0', "folder", "", "2"),
        // As the lower layer had it, this is a link; here it is a folder.
        (b'0', "link/in", "", "2"),
        (b'0', ".wh..wh.plnk/1.2", "", "x"),
        (b'0', "both", "", "2"),
        (b'1', "hard", "both", ""),
        (b'0', ".wh.both", "", ""),
        (b'2', "own", "a", ""),
        (b'0', "own/through", "", "2"),
    ]);
    insta::assert_snapshot!(listing(&[lower, upper]), @r"
    /a: 750 1
    /both: 2
    /fifo: device
    /file: 750 1
    /folder: 2
    /hard: 2
    /link: 755 0
    /opaque: 750 1
    /own: -> a
    /opaque/late: 2
    /opaque/sub: 750 1
    /opaque/sub/new: 2
    /link/in: 2
    /file/in: 2
    /a/kept: 1
    /a/through: 2
    ");
}

#[test]
fn links_lead_inside_of_the_root_and_end() {
    let tars = [layer(&[
        (b'5', "etc/", "", ""),
        (b'0', "etc/passwd", "", "theirs"),
        (b'2', "out", "../../../etc/passwd", ""),
        (b'2', "absolute", "/etc", ""),
        (b'2', "loop", "loop", ""),
        (b'2', "one", "two/x", ""),
        (b'2', "two", "one", ""),
        (b'2', "nowhere", "none", ""),
        (b'2', "empty", "", ""),
    ])];
    let files = Files::of(&open(&image(&tars, false), None, None).unwrap()).unwrap();
    for (path, found) in [
        ("out", Some("/etc/passwd")),
        ("/absolute/passwd", Some("/etc/passwd")),
        ("absolute/../out", Some("/etc/passwd")),
        ("../..", Some("/")),
        ("etc/", Some("/etc")),
        ("etc/passwd/", None),
        ("etc/passwd/..", None),
        ("loop", None),
        ("one", None),
        ("nowhere", None),
        ("empty", Some("/")),
    ] {
        assert_eq!(files.find(path).map(File::path).as_deref(), found, "{path}");
    }
    assert!(matches!(files.entry("loop").unwrap().kind(), Kind::Link(b"loop")));
}

#[test]
fn hard_links_have_one_content() {
    let tars = [layer(&[(b'0', "a", "", "text"), (b'1', "b", "a", ""), (b'1', "c", "/b", "")])];
    for packed in [true, false] {
        let files = Files::of(&open(&image(&tars, packed), None, None).unwrap()).unwrap();
        let read = files.read_all(&["c", "a", "b"], 4).unwrap();
        assert_eq!(read, vec![Some(b"text".to_vec()); 3]);
        assert_eq!(files.find("c").unwrap().mode(), 0o640);
    }
}

#[test]
fn layers_that_nobody_could_unpack_are_refused_by_name() {
    for (entries, why) in [
        (&[(b'0', "../x", "", "")][..], "`../x`: its path leads elsewhere"),
        (&[(b'0', "a/../../x", "", "")], "`a/../../x`: its path leads elsewhere"),
        (&[(b'0', "a", "", ""), (b'0', "a/b", "", "")], "`a/b`: its path is in what is no folder"),
        (&[(b'2', "a", "../none", ""), (b'0', "a/b", "", "")], "`a/b`: its path is in what is no folder"),
        (&[(b'1', "a", "none", "")], "`a`: its path is a hard link to what is no file"),
        (&[(b'5', "d/", "", ""), (b'1', "a", "d", "")], "`a`: its path is a hard link to what is no file"),
        (&[(b'1', "a", "../../etc/passwd", "")], "`a`: its path is a hard link"),
        (&[(b'0', "a/.wh.", "", "")], "`a/.wh.`: its path hides nothing"),
        (&[(b'0', ".wh...", "", "")], "`.wh...`: its path hides nothing"),
        (&[(b'0', ".", "", "x")], "`.`: its path is that of the root"),
    ] {
        let said = refused(&image(&[layer(entries)], true));
        assert!(said.starts_with(why), "{said}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let tars = [layer(&[(b'0', "a", "", "text")])];
    let (good, packed) = (image(&tars, false), image(&tars, true));
    let (tar, tgz) = (digest(&tars[0]), digest(&gzip(&tars[0])));
    let change = |contents: &Contents, path: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut contents = contents.clone();
        change(contents.get_mut(path).unwrap());
        contents
    };
    let without = |path: &str| {
        let mut contents = good.clone();
        contents.remove(path).unwrap();
        contents
    };
    // An index with another manifest, made of the good one.
    let manifest = |edit: &dyn Fn(&mut Value, &mut Value)| {
        let mut contents = good.clone();
        let index: Value = serde_json::from_slice(&contents["index.json"]).unwrap();
        let old = index["manifests"][0]["digest"].as_str().unwrap();
        let mut text: Value = serde_json::from_slice(&contents[&blob(old)]).unwrap();
        let mut descriptor = json!({});
        edit(&mut text, &mut descriptor);
        let mut new = add(&mut contents, text.to_string().into_bytes(), manifest::OCI_MANIFEST);
        new.as_object_mut().unwrap().append(descriptor.as_object_mut().unwrap());
        layout(&mut contents, &[new]);
        contents
    };
    let media_type =
        |name: &'static str| manifest(&move |text, _| text["layers"][0]["mediaType"] = name.into());
    for (contents, why) in [
        (
            change(&good, &blob(&tar), &|bytes| bytes[600] ^= 1),
            format!("`{tar}`: its content is another one"),
        ),
        (change(&packed, &blob(&tgz), &|bytes| bytes.truncate(bytes.len() - 1)), format!("`{tgz}`: it has ")),
        (without(&blob(&tar)), format!("`{}`: it is not there", blob(&tar))),
        (without("oci-layout"), "`oci-layout`: it is not there".into()),
        (without("index.json"), "`index.json`: it is not there".into()),
        (
            change(&good, "index.json", &|bytes| bytes.truncate(bytes.len() - 1)),
            "`index.json`: it is not well-formed".into(),
        ),
        (
            change(&good, "index.json", &|bytes| bytes.resize(5_000_000, b' ')),
            "`index.json`: it has more than 4 MB".into(),
        ),
        (
            change(&good, "index.json", &|bytes| *bytes = vec![b'['; 1_000_000]),
            "`index.json`: it is not well-formed".into(),
        ),
        (
            change(&good, "oci-layout", &|bytes| *bytes = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec()),
            "`oci-layout`: it is not well-formed".into(),
        ),
        (
            media_type("application/vnd.oci.image.layer.v1.tar+gzip"),
            format!("`{tar}`: it is a tar archive or something else"),
        ),
        (
            media_type("application/vnd.oci.image.layer.v1.tar+zstd"),
            format!("`{tar}`: it is compressed with zstd"),
        ),
        (media_type("text/plain"), format!("`{tar}`: it is of the kind `text/plain`")),
        (manifest(&|text, _| text["manifests"] = json!([])), "it can be read as something else".into()),
        (manifest(&|text, _| text["mediaType"] = "x".into()), "it can be read as something else".into()),
        (manifest(&|text, _| text["config"]["mediaType"] = "x/y".into()), "no image is in it".into()),
        (
            manifest(&|text, _| text["layers"] = json!([])),
            "it has 0 layers, and its configuration speaks of 1".into(),
        ),
        (
            manifest(&|text, _| text["layers"] = vec![text["layers"][0].clone(); 513].into()),
            "it has more than 512 layers".into(),
        ),
        (
            manifest(&|text, _| text["layers"][0]["digest"] = "sha256:../../etc/passwd".into()),
            "`sha256:../../etc/passwd`: `sha256:../../etc/passwd` is no SHA-256".into(),
        ),
        (manifest(&|text, _| text["layers"][0]["size"] = 7.into()), "it has 2048 bytes, and not 7".into()),
        (manifest(&|_, descriptor| descriptor["size"] = 7.into()), "bytes, and not 7".into()),
        (manifest(&|_, descriptor| descriptor["mediaType"] = "x/y".into()), "no image is in it".into()),
        (
            manifest(&|_, descriptor| {
                descriptor["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
            }),
            "no image is in it".into(),
        ),
    ] {
        let said = refused(&contents);
        assert!(said.contains(&why), "{why}: {said}");
    }
}

#[test]
fn archives_of_docker_are_taken_as_its_versions_write_them() {
    let tars =
        [layer(&[(b'0', "a", "", "1")]), layer(&[(b'0', "b", "", "2")]), layer(&[(b'0', "a", "", "1")])];
    let contents = docker_image(&tars);
    // Version 20.10 writes a layer once, and links to it.
    let mut linked = Archive::default();
    for (path, bytes) in &contents {
        linked.add(&format!("deep/{path}"), bytes.clone());
    }
    linked.add_link("deep/2/layer.tar", "../0/layer.tar");
    linked.add("manifest.json", {
        let manifest: Value = serde_json::from_slice(&contents["manifest.json"]).unwrap();
        let name = format!("deep/{}", manifest[0]["Config"].as_str().unwrap());
        let layers = ["./deep/0/layer.tar", "deep/1/layer.tar", "deep/2/layer.tar"];
        json!([{ "Config": name, "RepoTags": null, "Layers": layers }]).to_string()
    });
    let open = |archive: &Archive| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        archive.write_to(&mut file).unwrap();
        Stored::open(&Place::DockerArchive { file: file.path().to_owned(), name: None }, None)
    };
    let stored = open(&linked).unwrap();
    assert_eq!(stored.layers.iter().map(|layer| all(layer.tar()).unwrap()).collect::<Vec<_>>(), tars);
    for (target, why) in [
        ("../../../etc/passwd", "it is no regular file"),
        ("/etc/passwd", "it is no regular file"),
        ("layer.tar", "its path is a link without an end"),
        ("../3/layer.tar", "it is not there"),
        ("..", "it is no regular file"),
    ] {
        linked.add_link("deep/2/layer.tar", target);
        let said = open(&linked).unwrap_err();
        assert_eq!(said.at.as_deref(), Some("deep/2/layer.tar"));
        assert!(said.to_string().contains(why), "{target}: {said}");
    }
    // Others compress.
    let mut packed = contents.clone();
    packed.insert("0/layer.tar".to_owned(), gzip(&tars[0]));
    let stored = self::open(&packed, None, None).unwrap();
    assert_eq!(stored.layers[0].digest, digest(&gzip(&tars[0])));
    Files::of(&stored).unwrap();

    let mut other = contents.clone();
    let name = other.keys().find(|name| name.len() == 69).unwrap().clone();
    other.get_mut(&name).unwrap().push(b'\n');
    assert!(refused(&other).contains("its content is another one"));
    let mut other = contents.clone();
    other.insert("1/layer.tar".to_owned(), tars[0].clone());
    assert!(refused(&other).contains("its content is another one"));
    let mut other = contents.clone();
    other.insert("1/layer.tar".to_owned(), [source::ZSTD, b"rest"].concat());
    assert!(refused(&other).starts_with("`1/layer.tar`: it is compressed with zstd"));
    let mut cut = gzip(&tars[1]);
    cut.truncate(cut.len() - 6);
    other.insert("1/layer.tar".to_owned(), cut);
    assert!(refused(&other).contains("it cannot be read"));
}

#[test]
fn an_archive_may_be_of_both_kinds() {
    // Docker writes this since version 25.
    for packed in [false, true] {
        let tars = [layer(&[(b'0', "a", "", "1")]), layer(&[(b'0', ".wh.a", "", "")])];
        let mut contents = image(&tars, packed);
        let blobs = tars.iter().map(|tar| blob(&digest(&if packed { gzip(tar) } else { tar.clone() })));
        let config = blob(&digest(&config("amd64", &tars)));
        let manifest =
            json!([{ "Config": config, "RepoTags": ["x:latest"], "Layers": blobs.collect::<Vec<_>>() }]);
        contents.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
        let file = archive(&contents);
        let path = || file.path().to_owned();
        let docker =
            Stored::open(&Place::DockerArchive { file: path(), name: Some("x".to_owned()) }, None).unwrap();
        let oci = Stored::open(&Place::OciArchive { file: path(), name: None }, None).unwrap();
        assert_eq!(docker.config_digest, oci.config_digest);
        for (one, other) in docker.layers.iter().zip(&oci.layers) {
            assert_eq!((&one.digest, &one.diff_id, one.size), (&other.digest, &other.diff_id, other.size));
        }
        assert!(Files::of(&docker).unwrap().find("a").is_none());
    }
}

#[test]
fn archives_that_readers_differ_in_are_refused() {
    let tars = [layer(&[(b'0', "a", "", "1")])];
    let contents = docker_image(&tars);
    let place =
        |file: &tempfile::NamedTempFile| Place::DockerArchive { file: file.path().to_owned(), name: None };
    let mut twice = tempfile::NamedTempFile::new().unwrap();
    let bytes = fs::read(archive(&contents).path()).unwrap();
    twice.write_all(&bytes[..bytes.len() - 1024]).unwrap();
    twice.write_all(&bytes).unwrap();
    let said = Stored::open(&place(&twice), None).unwrap_err();
    assert!(matches!((said.at.as_deref(), &said.refusal), (Some("manifest.json"), Refusal::Twice)), "{said}");

    let mut packed = tempfile::NamedTempFile::new().unwrap();
    packed.write_all(&gzip(&bytes)).unwrap();
    assert!(matches!(Stored::open(&place(&packed), None).unwrap_err().refusal, Refusal::Packed));
    let mut cut = tempfile::NamedTempFile::new().unwrap();
    cut.write_all(&bytes[..bytes.len() - 2000]).unwrap();
    assert!(matches!(Stored::open(&place(&cut), None).unwrap_err().refusal, Refusal::Tar(_)));
    let folder = tempfile::tempdir().unwrap();
    let told = |place: Place| Stored::open(&place, None).unwrap_err().refusal;
    let file = folder.path().to_owned();
    assert!(matches!(told(Place::DockerArchive { file: file.clone(), name: None }), Refusal::Special));
    assert!(matches!(told(Place::OciArchive { file: file.join("none"), name: None }), Refusal::Read(_)));
    assert!(matches!(told(Place::Layout { folder: file.clone(), name: None }), Refusal::Missing));
    // Links of a layout are not followed, and nothing waits for a FIFO.
    symlink("/etc/hostname", file.join("oci-layout")).unwrap();
    assert!(matches!(told(Place::Layout { folder: file.clone(), name: None }), Refusal::Special));
    fs::remove_file(file.join("oci-layout")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        file.join("oci-layout"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(told(Place::Layout { folder: file, name: None }), Refusal::Special));
}

#[test]
fn one_image_of_several_is_taken_by_name_and_platform() {
    let mut contents = Contents::new();
    let mut images = Vec::new();
    for (architecture, text) in [("amd64", "1"), ("arm64", "2"), ("riscv64", "3")] {
        let tars = [layer(&[(b'0', "a", "", text)])];
        let mut image = add_image(&mut contents, architecture, &tars, true);
        if architecture != "riscv64" {
            image["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
        images.push(image);
    }
    let mut attestation = images[0].clone();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    images.push(attestation);
    let nested = |contents: &mut Contents| {
        let index = json!({ "schemaVersion": 2, "manifests": images });
        add(contents, index.to_string().into_bytes(), "application/vnd.oci.image.index.v1+json")
    };
    let mut index = nested(&mut contents);
    index["annotations"] = json!({ "org.opencontainers.image.ref.name": "all" });
    let mut one = images[1].clone();
    one["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/one:1" });
    layout(&mut contents, &[index.clone(), one]);
    let opened = |name, platform| open(&contents, name, platform).map(|stored| stored.platform.to_string());
    let told = |name, platform| opened(name, platform).unwrap_err().to_string();
    for (name, platform, is) in [
        (Some("all"), None, Platform::here().to_string().as_str()),
        (Some("all"), Some("linux/arm64"), "linux/arm64"),
        (Some("all"), Some("linux/riscv64"), "linux/riscv64"),
        (Some("one:1"), None, "linux/arm64"),
    ] {
        assert_eq!(opened(name, platform).unwrap(), is);
    }
    assert!(told(None, None).ends_with("several images are in it: `all`, `docker.io/library/one:1`"));
    assert!(
        told(Some("x"), None)
            .ends_with("`x`: no image of this name is in it; there is `all`, `docker.io/library/one:1`")
    );
    assert!(
        told(Some("all"), Some("linux/s390x"))
            .ends_with("it is not for linux/s390x, but for `linux/amd64`, `linux/arm64`, `linux/riscv64`")
    );

    // An index in itself has no digest; but many may lie in each other.
    let mut deep = index;
    for _ in 0..5 {
        let index = json!({ "schemaVersion": 2, "manifests": [deep] });
        deep = add(&mut contents, index.to_string().into_bytes(), "application/vnd.oci.image.index.v1+json");
    }
    layout(&mut contents, &[deep]);
    assert!(refused(&contents).contains("it has more than 4 indexes in each other"));

    // What a descriptor says of the platform is not what the image says.
    let mut contents = Contents::new();
    let mut wrong = add_image(&mut contents, "arm64", &[], false);
    wrong["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    layout(&mut contents, &[wrong]);
    let said = open(&contents, None, Some("linux/amd64")).unwrap_err().to_string();
    assert!(said.ends_with("it is not for linux/amd64, but for `linux/arm64`"), "{said}");
}

#[test]
fn a_bomb_of_links_and_whiteouts_ends() {
    let mut entries = vec![(b'5', "d/", "", ""), (b'0', "d/.wh..wh..opq", "", "")];
    let names: Vec<String> = (0..300).map(|number| format!("d/{number}")).collect();
    let targets: Vec<String> = (1..=300).map(|number| format!("{number}/../{number}")).collect();
    for (name, target) in names.iter().zip(&targets) {
        entries.push((b'2', name, target, ""));
    }
    let files = Files::of(&open(&image(&[layer(&entries)], true), None, None).unwrap()).unwrap();
    assert!(files.find("d/0").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_image_is_refused_or_the_same(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
        is_docker in any::<bool>(),
        packed in any::<bool>(),
    ) {
        let tars = [layer(&[(b'5', "a/", "", ""), (b'0', "a/b", "", "1"), (b'2', "l", "a", "")]), layer(&[(b'0', "a/.wh.b", "", "")])];
        let contents = if is_docker { docker_image(&tars) } else { image(&tars, packed) };
        let mut bytes = fs::read(archive(&contents).path()).unwrap();
        for (index, byte) in changes {
            let length = bytes.len();
            bytes[index.index(length)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let file = file.path().to_owned();
        let place = if is_docker { Place::DockerArchive { file, name: None } } else { Place::OciArchive { file, name: None } };
        match Stored::open(&place, None).and_then(|stored| Files::of(&stored).map(|files| (stored, files))) {
            Ok((stored, files)) => {
                prop_assert_eq!(stored.layers.len(), tars.len());
                prop_assert!(files.find("l").unwrap().is_folder() && files.find("a/b").is_none());
            }
            Err(error) => prop_assert!(!error.diagnostic().why.is_empty()),
        }
    }

    #[test]
    fn no_layer_makes_it_panic(
        entries in proptest::collection::vec((
            prop::sample::select(b"01256".to_vec()),
            "[ab.]?(/?(a|b|\\.\\.|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)){1,4}",
            "(/?(a|b|\\.\\.)){0,3}",
        ), 0..30),
        split in any::<prop::sample::Index>(),
    ) {
        let entries: Vec<_> = entries.iter().map(|(kind, path, target)| (*kind, path.as_str(), target.as_str(), "")).collect();
        let (lower, upper) = entries.split_at(split.index(entries.len() + 1));
        let stored = open(&image(&[layer(lower), layer(upper)], false), None, None).unwrap();
        if let Ok(files) = Files::of(&stored) {
            for (_, path, _, _) in &entries {
                if let Some(file) = files.find(path) {
                    // What is found is where it says.
                    let place = file.path();
                    prop_assert!(files.entry(&place).is_some_and(|other| other.path() == place));
                }
            }
        }
    }
}
