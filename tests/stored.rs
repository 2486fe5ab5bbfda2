//! Images in files, as engines and other tools write them: what is read of their layers is what a container tells. A missing
//! engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use engine::{Image, ROOT, base, client_with_buildkit, docker, run, socket};
use ipybox::base::Base;
use ipybox::credentials::AuthFiles;
use ipybox::engine::{Choice, Engine, KnownEngines};
use ipybox::reference::Reference;
use ipybox::stored::{Files, MediaType, Stored};
use tokio_util::sync::CancellationToken;

/// The facts of an image of the engine, from a container.
fn asked(image: &str) -> Base {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let choice = Choice { host: Some(format!("unix://{}", socket())), ..Choice::default() };
    runtime.block_on(async {
        let known = KnownEngines::default();
        let interrupt = CancellationToken::new();
        let candidates = choice.candidates().unwrap();
        let engine = Engine::connect(candidates, AuthFiles::default(), &known, interrupt).await.unwrap();
        let cache = tempfile::tempdir().unwrap();
        let reference: Reference = image.parse().unwrap();
        Base::of(&engine, &reference, cache.path()).await.unwrap().unwrap()
    })
}

/// The facts of an image in files.
fn read(place: &str, image: &str) -> Base {
    let stored = Stored::open(&place.parse().unwrap(), None).unwrap();
    Base::of_stored(&stored, &image.parse().unwrap()).unwrap()
}

/// An interpreter tells its distributions in the order that the file system has their folders in.
fn sorted(mut base: Base) -> Base {
    for python in &mut base.pythons {
        python.distributions.sort_by(|one, other| one.name.cmp(&other.name));
    }
    base
}

fn saved(image: &str, folder: &Path) -> String {
    let file = folder.join("saved.tar");
    run(Command::new("docker").args(["save", "--output"]).arg(&file).arg(image));
    format!("docker-archive:{}", file.display())
}

/// What is read is what is asked, beside what is known to differ.
fn same(image: &str, read: Base) {
    let (mut asked, mut read) = (sorted(asked(image)), sorted(read));
    assert_eq!(read.id, asked.id);
    // Engines put empty files in place of these, whatever an image has.
    for (is_read, is_asked) in [
        (&mut read.lacks_hosts, &mut asked.lacks_hosts),
        (&mut read.lacks_resolv_conf, &mut asked.lacks_resolv_conf),
    ] {
        assert!(*is_asked || !*is_read, "{image}");
        is_read.clone_from(is_asked);
    }
    if image == "ipybox-test-base:several" {
        // Its `sitecustomize.py` adds a folder of packages, which only running it shows.
        let conda = asked.pythons.pop().unwrap();
        assert_eq!(conda.prefix, "/opt/conda");
        let broken = read.broken.pop().unwrap();
        assert!(
            broken.starts_with("/opt/conda/bin/python3 (`/opt/conda/lib/python3.11/sitecustomize.py` may"),
            "{broken}"
        );
    }
    assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&asked).unwrap(), "{image}");
}

#[test]
fn layers_tell_what_a_container_does() {
    let kinds = fs::read_dir(Path::new(ROOT).join("tests/bases")).unwrap();
    let kinds = kinds.map(|kind| kind.unwrap().file_name().into_string().unwrap());
    let mut images: Vec<_> = kinds.chain(["bare".into(), "trixie".into()]).collect();
    images.sort();
    let folder = tempfile::tempdir().unwrap();
    for image in images.iter().map(|kind| format!("ipybox-test-base:{kind}")).chain([base()]) {
        let place = saved(&image, folder.path());
        same(&image, read(&place, &image));
    }
}

/// Environments, files that name folders, and metadata of all kinds; what a layer hides is in none of them.
const ENVIRONMENTS: &str = r#"
RUN python3 -m venv --without-pip --system-site-packages /opt/both \
    && python3 -m venv --without-pip --copies /opt/copies \
    && site=$(/opt/copies/bin/python3 -c 'import site; print(site.getsitepackages()[0])') \
    && mkdir -p "$site/a.dist-info" "$site/b.dist-info" "$site/gone.dist-info" /srv/more/c.egg-info /srv/path/d.dist-info \
    && printf 'Name: a.A\nVersion: 1\nRequires-Dist: x>1 ;\n python_version>"3"\nProvides-Extra: y\n\nName: none\n' >"$site/a.dist-info/METADATA" \
    && printf 'Name: b\nVersion: 1\nAuthor: \344\n' >"$site/b.dist-info/METADATA" \
    && printf 'Name: gone\nVersion: 1\n' >"$site/gone.dist-info/METADATA" \
    && printf 'Name: e\nVersion: 1\n' >"$site/e.egg-info" \
    && printf 'Name: c\nVersion: 1\n' >/srv/more/c.egg-info/PKG-INFO \
    && printf 'Name: d\nVersion: 1\n' >/srv/path/d.dist-info/METADATA \
    && echo rpm >/srv/path/d.dist-info/INSTALLER \
    && printf '# more\n/srv/more\n/srv/none\nimport os\n../site-packages\n' >"$site/x.pth"
RUN rm -r /opt/copies/lib/python3*/site-packages/gone.dist-info /etc/alternatives && mkdir /etc/alternatives
ENV PYTHONPATH=/srv/path:/nowhere/site-packages PATH=/opt/copies/bin:/usr/bin:/bin
"#;

#[test]
fn environments_and_metadata_of_all_kinds_are_told() {
    let client = client_with_buildkit().join("docker");
    let image = Image { tag: Image::tag("environments"), id: String::new(), said: String::new() };
    let mut build = Command::new(client);
    build.args(["build", "--quiet", "--label", "ipybox.test", "--tag", &image.tag, "-"]);
    let mut build =
        build.env("DOCKER_BUILDKIT", "1").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let text = format!("FROM {}\n{ENVIRONMENTS}", base());
    build.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(build.wait().unwrap().success());
    let folder = tempfile::tempdir().unwrap();
    let read = read(&saved(&image.tag, folder.path()), &image.tag);
    let paths: Vec<_> = read.pythons.iter().map(|python| python.interpreter.path.as_str()).collect();
    assert_eq!(paths, ["/opt/copies/bin/python3", "/usr/bin/python3", "/opt/both/bin/python3"]);
    assert_eq!(read.pythons[0].distributions.len(), 4);
    same(&image.tag, read);
}

/// The digests of an engine's image: of its layers, uncompressed.
fn diff_ids(image: &str) -> Vec<String> {
    let layers = docker(&["inspect", "--format", "{{json .RootFS.Layers}}", image]);
    serde_json::from_str(&layers).unwrap()
}

#[test]
#[ignore = "other tools write the same bases; scripts/test --all runs it"]
fn what_other_tools_write_is_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for image in ["ipybox-test-base:links", "ipybox-test-base:venv"] {
        let from = format!("docker-daemon:{image}");
        let to = [
            format!("oci:{}:name", at("layout")),
            format!("oci-archive:{}:docker.io/library/name:1", at("oci.tar")),
            format!("docker-archive:{}:{image}", at("docker.tar")),
        ];
        for place in &to {
            let daemon = format!("unix://{}", socket());
            run(Command::new("skopeo").args([
                "copy",
                "--quiet",
                "--insecure-policy",
                "--src-daemon-host",
                &daemon,
                &from,
                place,
            ]));
            let stored = Stored::open(&place.parse().unwrap(), None).unwrap();
            let media_type = if place.starts_with("docker") { MediaType::Tar } else { MediaType::TarGzip };
            assert!(stored.layers.iter().all(|layer| layer.media_type == media_type), "{place}");
            assert_eq!(
                stored.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>(),
                diff_ids(image)
            );
            let mut read = read(place, image);
            // An archive's configuration is the engine's own, byte for byte; layouts have one of their own.
            assert!(read.id == asked(image).id || !place.starts_with("docker"));
            read.id = asked(image).id;
            same(image, read);
        }
        // A layer that umoci adds, with what it hides.
        let (layout, file) = (at("layout"), at("added"));
        fs::write(&file, "added").unwrap();
        let insert = |arguments: &[&str]| {
            run(Command::new("umoci").args(["insert", "--image", &format!("{layout}:name")]).args(arguments));
        };
        insert(&[&file, "/etc/added"]);
        insert(&["--whiteout", "/etc/os-release"]);
        insert(&["--whiteout", "/usr/share"]);
        let place = format!("oci:{layout}:name");
        let stored = Stored::open(&place.parse().unwrap(), None).unwrap();
        let files = Files::of(&stored).unwrap();
        assert_eq!(files.read("etc/added", 99).unwrap().unwrap(), b"added");
        assert!(files.entry("/etc/os-release").is_none() && files.entry("/usr/share").is_none());
        let changed = Base::of_stored(&stored, &image.parse().unwrap()).unwrap();
        assert_eq!((changed.codename, &changed.pythons), (None, &read(&to[1], image).pythons));
        fs::remove_dir_all(&layout).unwrap();
        for archive in ["oci.tar", "docker.tar"] {
            fs::remove_file(at(archive)).unwrap();
        }
    }
}
