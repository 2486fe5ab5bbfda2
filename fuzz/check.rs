//! What must hold for every text: shared by the fuzz targets and by `tests/corpus.rs`.

use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ipybox::archive::Archive;
use ipybox::attest::{read_layout, write_layout};
use ipybox::base::{Base, Interpreter, Platform};
use ipybox::compose::{Composition, Facts, Service, Wishes, networks_of};
use ipybox::deps::{Constraint, Form, Marker, Selection, Source, Spec, Surroundings, pep508};
use ipybox::diagnostic::{Diagnostic, Document, Fix};
use ipybox::fleet::{Fleet, Values};
use ipybox::lock::{Lock, Tags, versions};
use ipybox::oci::blobs::Packed;
use ipybox::oci::shared::{self, Offer};
use ipybox::oci::store::{Owned, Store};
use ipybox::oci::wheel::{Environment, Wheel};
use ipybox::plan::Requirement;
use ipybox::registry::{Blob, Descriptor, Manifest, OCI_MANIFEST};
use ipybox::stored::{Comparison, Files, Place, Stored};
use ipybox::ustar::Ids;
use sha2::{Digest, Sha256};

/// Reads a list in a form and as the command line reads it, and checks what that gives.
pub(crate) fn list(form: Form, text: &str) {
    for read in [form.read(text), Spec::parse(text)] {
        match read {
            Ok(spec) => right(&spec, text),
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                for mistake in &mistakes {
                    explained(mistake, text);
                }
            }
        }
    }
}

/// Reads a requirements file in an environment where every variable is set.
pub(crate) fn requirements(text: &str) {
    list(Form::Requirements, text);
    // An option makes it a requirements file, whatever follows.
    let text = format!("--pre\n{text}");
    let mut documents = Document::new("list", text.clone()).into();
    let read = |_: &Path| Ok(Document::new("other", "a<2 ; os_name == '${X}'\n"));
    let variable = |_: &str| Some("€ >=1 --hash='".to_owned());
    let surroundings = Surroundings { read: &read, variable: &variable };
    for mistake in Spec::read(&mut documents, &Selection::default(), surroundings).err().unwrap_or_default() {
        let place = documents.find(mistake.at.as_ref().unwrap_or_else(|| panic!("{mistake:?}")));
        let place = place.unwrap_or_else(|| panic!("{mistake:?}"));
        assert!(place.document.text.get(place.at).is_some());
    }
}

/// Reads a text as requirement, as constraint and as marker.
pub(crate) fn requirement(text: &str) {
    match pep508::parse(text) {
        Ok(dependency) => {
            assert!(text.get(dependency.at.clone()).is_some());
            same_when_printed(&dependency);
        }
        Err(mistake) => explained(&mistake, text),
    }
    match Constraint::parse(text) {
        Ok(constraint) => {
            let printed = constraint.to_string();
            assert_eq!(Constraint::parse(&printed).as_ref(), Ok(&constraint), "{printed}");
        }
        Err(error) => assert!(text.get(error.at).is_some()),
    }
    match Marker::parse(text) {
        Ok(marker) => {
            let printed = marker.to_string();
            assert_eq!(Marker::parse(&printed).as_ref(), Ok(&marker), "{printed}");
            let _ = marker.holds(&|_| None);
        }
        Err(error) => assert!(text.get(error.at).is_some()),
    }
}

/// Reads a text as a lock; what is one is read as it is written.
pub(crate) fn lock(text: &str) {
    let interpreter = Interpreter {
        path: "/usr/bin/python3".to_owned(),
        version: "3.12.8".to_owned(),
        implementation: "cpython".to_owned(),
        libc: Some("glibc 2.36".to_owned()),
    };
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() };
    let tags = Tags::of(&interpreter, &platform).unwrap();
    match Lock::parse(text) {
        Ok(lock) => {
            let written = lock.write(&tags);
            assert_eq!(Lock::parse(&written).unwrap(), lock, "{written}");
            for entry in lock.entries.values() {
                let _ = tags.rank(&entry.wheel.file);
            }
        }
        Err(error) => assert!(!error.diagnostic("pylock.toml").what.is_empty()),
    }
    let _ = versions(text);
    let _ = tags.rank(text);
}

/// Puts an executor into a text. What comes of it has it already, and all lines that were there, in their order; where one is
/// refused, a place in the text is told.
pub(crate) fn composition(text: &str) {
    let networks = networks_of(text, "api");
    let wishes = Wishes { networks, memory: Some(1 << 30), ..Wishes::default() };
    let image = Service::image_of("vision").unwrap();
    let service = Service { name: "vision".to_owned(), image, facts: Facts::of_executor(), wishes };
    let composition = Composition::of(&[service]);
    for replace in [false, true] {
        match composition.merge(text, "api", replace) {
            Ok(merged) => {
                let again = composition.merge(&merged.text, "api", replace).map(|again| again.text);
                assert_eq!(again.as_ref(), Ok(&merged.text));
                let mut lines = merged.text.lines();
                let kept = text.lines().all(|line| lines.any(|new| new == line));
                assert!(replace || kept, "{}", merged.text);
            }
            Err(error) => {
                if let Some(at) = error.diagnostic().at {
                    assert!(text.get(at).is_some(), "{error:?}");
                }
            }
        }
    }
}

/// Reads a text as the file of a fleet. Each image comes behind the one it is built on, and names are told apart.
pub(crate) fn fleet(text: &str) {
    let values = Values {
        version: Some("1.0".to_owned()),
        date: Some("2026-01-31".to_owned()),
        git: Some("0123456789ab".to_owned()),
        ..Values::default()
    };
    let mistakes = match Fleet::parse(text, Path::new("there")) {
        Ok(fleet) => {
            for (index, image) in fleet.images.iter().enumerate() {
                assert!(image.from.is_none_or(|parent| parent < index));
                assert!(
                    fleet.select(std::slice::from_ref(&image.id)).is_ok_and(|chosen| chosen.contains(&index))
                );
            }
            let all = fleet.select(&[]).unwrap_or_default();
            match fleet.names(&all, &values) {
                Ok(names) => {
                    let mut local: Vec<_> =
                        names.iter().flat_map(|names| &names.local).map(ToString::to_string).collect();
                    let count = local.len();
                    local.sort();
                    local.dedup();
                    assert!(count >= all.len() && local.len() == count);
                    let _ = fleet.matrix(&all, &names);
                    Vec::new()
                }
                Err(mistakes) => mistakes,
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            mistakes
        }
    };
    for mistake in &mistakes {
        explained(mistake, text);
    }
}

/// Reads bytes as a wheel. What it has stays in the environment, and has the size that was told.
pub(crate) fn wheel(bytes: &[u8]) {
    let environment = Environment {
        prefix: "/opt/venv".to_owned(),
        python: "3.12".to_owned(),
        cache_tag: Some("cpython-312".to_owned()),
    };
    match Wheel::open(Cursor::new(bytes), "a_b-1.0-py3-none-any.whl", &environment, None) {
        Ok(mut wheel) => {
            let paths: Vec<_> = wheel.files().iter().map(|file| (file.path.clone(), file.size)).collect();
            assert!(paths.is_sorted());
            for (index, (path, size)) in paths.iter().enumerate() {
                let is_plain = |part: &str| !matches!(part, "" | "." | "..");
                assert!(path.starts_with("opt/venv/") && path.split('/').all(is_plain), "{path}");
                let mut written = Counted(0);
                match wheel.write(index, &mut written) {
                    Ok(()) => assert_eq!(written.0, *size, "{path}"),
                    Err(error) => assert!(written.0 <= *size && !error.diagnostic().why.is_empty(), "{path}"),
                }
            }
        }
        Err(error) => assert!(!error.diagnostic().why.is_empty()),
    }
}

/// Reads bytes as an image in a file, and as the upper layer of one. What is read is what its digests say.
pub(crate) fn stored(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let path = || file.path().to_owned();
    for place in
        [Place::DockerArchive { file: path(), name: None }, Place::OciArchive { file: path(), name: None }]
    {
        image(&place);
    }
    let digest = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    };
    let mut lower = Archive::default();
    lower.add_program("bin/sh", "");
    lower.add_program("usr/bin/python3", "\x7fELF\x003.12.1\0");
    lower.add("usr/lib/python3.12/os.py", "");
    lower.add("usr/lib/python3.12/site-packages/a.dist-info/METADATA", "Name: a\nVersion: 1\n");
    lower.add_link("lib", "usr/lib");
    let lower = lower.to_tar().unwrap();
    let layered = |upper: &[u8]| {
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{}","{}"]}}}}"#,
            digest(&lower),
            digest(upper)
        );
        let mut archive = Archive::default();
        archive.add("config", config);
        archive.add("lower", lower.clone());
        archive.add("upper", upper);
        archive.add("manifest.json", r#"[{"Config":"config","Layers":["lower","upper"]}]"#);
        let file = tempfile::NamedTempFile::new().unwrap();
        archive.write_to(&mut file.as_file()).unwrap();
        file
    };
    let (upper, nothing) = (layered(bytes), layered(&[0; 1024]));
    let place =
        |file: &tempfile::NamedTempFile| Place::DockerArchive { file: file.path().to_owned(), name: None };
    image(&place(&upper));
    compared(&place(&upper), &place(&nothing));
}

/// Compares the upper layers of two images. What is alike makes the same files, and a layer is like itself.
fn compared(one: &Place, other: &Place) {
    let (Ok(one), Ok(other)) = (Stored::open(one, None), Stored::open(other, None)) else { return };
    if let Ok(difference) = Comparison::new(&one, &one).of_layer(1) {
        assert_eq!(difference, None);
    }
    if let Ok(None) = Comparison::new(&one, &other).of_layer(1) {
        let (one, other) = (Files::of(&one).unwrap(), Files::of(&other).unwrap());
        assert_eq!(tree(&one, "/"), tree(&other, "/"));
    }
}

/// What is below a folder, as far as its names are UTF-8.
fn tree(files: &Files, path: &str) -> Vec<String> {
    let Some(file) = files.entry(path) else { return Vec::new() };
    let mut all = vec![format!("{path} {:?} {:o} {} {}", file.kind(), file.mode(), file.uid(), file.gid())];
    for name in file.names() {
        all.extend(tree(files, &format!("{}/{name}", path.trim_end_matches('/'))));
    }
    all
}

fn image(place: &Place) {
    let read = || -> Result<(), Diagnostic> {
        let stored = Stored::open(place, None).map_err(|error| error.diagnostic())?;
        for layer in &stored.layers {
            let blob = io::copy(&mut layer.blob().take(1 << 24), &mut io::sink());
            assert!(blob.is_err() || blob.is_ok_and(|read| read == layer.size));
        }
        let files = Files::of(&stored).map_err(|error| error.diagnostic())?;
        for path in ["/", "usr/lib", "lib/python3.12/..", "a/../../b"] {
            if let Some(file) = files.find(path) {
                let place = file.path();
                let again = files.entry(&place).map(ipybox::stored::File::path);
                assert!(again == Some(place.clone()) || place.contains('\u{fffd}'));
            }
        }
        Base::of_stored(&stored, &"x".parse().unwrap()).map_err(|error| error.diagnostic())?;
        Ok(())
    };
    if let Err(refused) = read() {
        assert!(!refused.what.is_empty() && !refused.why.is_empty() && refused.fix.is_some(), "{refused:?}");
    }
}

/// Reads bytes as what a signer writes about a manifest of `{}`. What is read is what its digests say, and the same when it was
/// written again.
pub(crate) fn signature(bytes: &[u8]) {
    let subject = Manifest::new(OCI_MANIFEST, "{}").descriptor();
    match read_layout(bytes, &subject) {
        Ok(read) => {
            let mut all = 0;
            for blob in &read.blobs {
                let mut content = Vec::new();
                (blob.content)(&mut content).unwrap();
                assert_eq!(Blob::of(&blob.media_type, content.clone()).digest, blob.digest);
                all += content.len();
            }
            assert!(all <= 64 * bytes.len() + 128);
            let again = read_layout(&write_layout(&read).unwrap(), &subject).unwrap();
            assert_eq!(again.manifest, read.manifest);
            let descriptors = |blobs: &[Blob]| blobs.iter().map(Blob::descriptor).collect::<Vec<_>>();
            assert_eq!(descriptors(&again.blobs), descriptors(&read.blobs));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Reads bytes as a segment that a cache offers, packed and as they are. What is taken is what was announced, below the folder
/// of the environment.
pub(crate) fn segment(bytes: &[u8]) {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    let packed = packed.finish().unwrap();
    let environment = Environment {
        prefix: "/opt/venv".to_owned(),
        python: "3.12".to_owned(),
        cache_tag: Some("cpython-312".to_owned()),
    };
    let ids = Ids { uid: 1000, gid: 0 };
    let owned = Owned { prefix: "opt/venv".to_owned(), ids, umask: 0o002 };
    let place = shared::Place { environment: &environment, owned: &owned };
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_cache(folder.path());
    let Descriptor { digest, size, .. } = Blob::of("", packed.clone()).descriptor();
    let offer = Offer {
        packed: Packed { digest, size },
        size: bytes.len() as u64,
        sha256: Blob::of("", bytes.to_vec()).digest.trim_start_matches("sha256:").to_owned(),
    };
    match store.take_segment("x", &offer, place, packed.as_slice()) {
        Ok(()) => {
            assert_eq!(store.segment("x").unwrap().size, bytes.len() as u64);
            for path in store.paths("x").unwrap() {
                let is_plain = |part: &str| !matches!(part, "" | "." | "..");
                assert!(path.starts_with("opt/venv/") && path.split('/').all(is_plain), "{path}");
            }
        }
        Err(error) => assert!(store.segment("x").is_none() && !error.to_string().is_empty()),
    }
    assert!(store.take_segment("y", &offer, place, bytes).is_err());
}

/// How many bytes were written.
struct Counted(u64);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn right(spec: &Spec, text: &str) {
    for dependency in spec.dependencies.iter().chain(&spec.bounds) {
        assert!(text.get(dependency.at.clone()).is_some());
        same_when_printed(dependency);
    }
    for (constraint, at) in &spec.python {
        assert!(text.get(at.clone()).is_some());
        assert!(!constraint.alternatives().is_empty());
    }
}

/// What a dependency is lowered to is a requirement of the same name, extras and marker.
fn same_when_printed(dependency: &ipybox::deps::Dependency) {
    let lowered = Requirement::lower(dependency);
    assert!(!lowered.alternatives.is_empty());
    // Paths and repositories become wheels before they are printed for an installer.
    let printable = matches!(dependency.source, Source::Registry { .. });
    for index in (0..lowered.alternatives.len()).filter(|_| printable) {
        let printed = lowered.alternative(index);
        let read = pep508::parse(&printed).unwrap_or_else(|mistake| panic!("{printed}: {mistake:?}"));
        assert_eq!(read.name, dependency.name);
        assert_eq!(read.extras, lowered.extras);
        assert_eq!(read.marker, dependency.marker);
    }
}

/// A mistake has words, a place inside the text, and a way out.
fn explained(mistake: &Diagnostic, text: &str) {
    assert!(!mistake.what.is_empty() && !mistake.why.is_empty(), "{mistake:?}");
    let at = mistake.at.clone().unwrap_or_else(|| panic!("{mistake:?}"));
    let written = text.get(at).unwrap_or_else(|| panic!("{mistake:?}"));
    match mistake.fix.as_ref().unwrap_or_else(|| panic!("{mistake:?}")) {
        Fix::Advice(advice) => assert!(!advice.is_empty()),
        Fix::Replace(replacement) => assert_ne!(replacement, written, "{mistake:?}"),
    }
}
