//! Images in files: what other tools read, written once and found again. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod served;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use engine::{Image, base, docker, ipybox, run};
use serde_json::Value;
use tempfile::TempDir;

/// A list with its lock, and files that images are written to.
struct Written {
    folder: TempDir,
}

impl Written {
    fn new(list: &str) -> Self {
        let written = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(written.path("dependencies.txt"), list).unwrap();
        let locked = written.command("lock").output().unwrap();
        assert!(locked.status.success(), "{}", said(&locked));
        written
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn command(&self, command: &str) -> Command {
        let mut ipybox = ipybox();
        ipybox.args([command, "--base", &base(), "--uid", "1000", "-d", "dependencies.txt"]);
        ipybox.current_dir(self.folder.path());
        ipybox
    }

    fn built(&self, arguments: &[&str]) -> Output {
        let built = self.command("build").args(arguments).output().unwrap();
        assert!(built.status.success(), "{}", said(&built));
        built
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What every file of a folder is, by its path.
fn found(folder: &Path) -> BTreeMap<String, (u64, i64, u64)> {
    let mut all = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                left.push(entry.path());
            }
            all.insert(
                entry.path().display().to_string(),
                (metadata.ino(), metadata.mtime_nsec(), metadata.len()),
            );
        }
    }
    all
}

/// What an engine may call an image that is alone in a layout: the digest of its configuration, or that of its manifest where
/// manifests are kept.
fn names_in_engines(layout: &Path, id: &str) -> [String; 2] {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    [id.to_owned(), index["manifests"][0]["digest"].as_str().unwrap().to_owned()]
}

const TRY: [&str; 3] = ["python", "-c", "import tomli_w; print('runs')"];

#[test]
fn files_hold_the_image_and_are_left_alone_where_they_do() {
    let written = Written::new("tomli-w = \"*\"\n");
    // Equal images are one in the engine, and this one is to be nobody else's.
    let label = format!("of={}", std::process::id());
    let mut outputs = vec!["--label", &label, "-o", "type=oci,dest=layout/", "-o", "type=oci,dest=oci.tar"];
    outputs.extend(["-o", "type=docker,dest=docker.tar"]);
    let built = written.built(&outputs);
    let id = printed(&built);
    let is_there = Command::new("docker").args(["image", "inspect", &id]).output().unwrap();
    assert!(!is_there.status.success(), "nobody has asked for it in the engine");

    let before = found(written.folder.path());
    let again = written.built(&outputs);
    assert!(said(&again).contains("up to date"), "{}", said(&again));
    assert_eq!((printed(&again), found(written.folder.path())), (id.clone(), before));

    // What others make of it: digests are right, layers can be unpacked, names are none.
    let inspect = |place: &str| -> Value {
        serde_json::from_str(&run(Command::new("skopeo")
            .args(["inspect", place])
            .current_dir(&written.folder)))
        .unwrap()
    };
    let layers = inspect("oci:layout")["Layers"].clone();
    assert!(layers.as_array().unwrap().len() > 5);
    assert_eq!(inspect("oci-archive:oci.tar")["Layers"], layers);
    for place in ["oci:layout", "oci-archive:oci.tar", "docker-archive:docker.tar"] {
        let copy = written.path("copy");
        run(Command::new("skopeo")
            .args(["copy", "-q", place, &format!("dir:{copy}")])
            .current_dir(&written.folder));
        fs::remove_dir_all(copy).unwrap();
    }
    let bundle = ["raw", "unpack", "--rootless", "--image", "named:1", "bundle"];
    written.built(&["-t", "some.test/name:1", "-o", "type=oci,dest=named/"]);
    run(Command::new("umoci").args(bundle).current_dir(&written.folder));
    assert!(fs::read_dir(written.path("bundle/opt/venv/lib")).unwrap().next().is_some());

    docker(&["rmi", "some.test/name:1"]);
    let loaded = docker(&["load", "-q", "-i", &written.path("docker.tar")]);
    let loaded = loaded.trim().strip_prefix("Loaded image ID: ").unwrap();
    let names = names_in_engines(Path::new(&written.path("layout")), &id);
    assert!(names.contains(&loaded.to_owned()), "{loaded}");
    let ran = docker(&[&["run", "--rm", "--label", "ipybox.test", loaded], &TRY[..]].concat());
    assert_eq!(ran, "runs\n");
    docker(&["rmi", loaded]);
}

#[test]
fn a_layout_holds_several_images_and_what_is_missing_is_written_again() {
    let written = Written::new("bottle = \"*\"\n");
    let tags = [Image::tag("one"), Image::tag("two")];
    let build = |tag: &str, more: &[&str]| {
        printed(&written.built(&[&["-t", tag, "-o", "type=oci,tar=false,dest=layout"], more].concat()))
    };
    let one = build(&tags[0], &[]);
    let two = build(&tags[1], &["--label", "x=y"]);
    assert_ne!(one, two);
    let index: Value = serde_json::from_slice(&fs::read(written.path("layout/index.json")).unwrap()).unwrap();
    let names: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["annotations"]["io.containerd.image.name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, tags.clone().map(|tag| format!("docker.io/library/{tag}")));

    // One blob fewer, and one that was cut.
    let mut blobs: Vec<_> = found(Path::new(&written.path("layout/blobs/sha256"))).into_iter().collect();
    blobs.sort_by_key(|(_, (_, _, size))| *size);
    fs::remove_file(&blobs[0].0).unwrap();
    fs::write(&blobs[blobs.len() - 1].0, "cut").unwrap();
    let check = written
        .command("build")
        .args(["-t", &tags[0], "-o", "type=oci,dest=layout", "--check"])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(3), "{}", said(&check));
    assert_eq!((build(&tags[0], &[]), build(&tags[1], &["--label", "x=y"])), (one, two));
    run(Command::new("skopeo")
        .args(["copy", "-q", "oci:layout:one", "dir:copy"])
        .current_dir(&written.folder));

    // Somebody's folder is no layout.
    fs::create_dir(written.path("mine")).unwrap();
    fs::write(written.path("mine/file"), "").unwrap();
    let refused = written.command("build").args(["-o", "type=oci,dest=mine"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("there are other files in the folder"), "{}", said(&refused));
    for tag in &tags {
        docker(&["rmi", tag]);
    }
}

/// The layout of a base that has all that variants want.
fn layout() -> String {
    format!("oci:{}", engine::setting("IPYBOX_TEST_LAYOUT"))
}

/// A build that no engine has a part in, with a cache of its own but for the installer.
fn without_engine(folder: &Path, base: &str, cache: &str) -> Command {
    let cache = folder.join(cache);
    let installer = Path::new(&engine::setting("IPYBOX_TEST_CLIENTS")).with_file_name("test-cache/uv");
    fs::create_dir_all(&cache).unwrap();
    let _ = std::os::unix::fs::symlink(installer, cache.join("uv"));
    let mut ipybox = ipybox();
    ipybox.args(["build", "--base", base, "--uid", "1000", "-d", "dependencies.txt"]);
    ipybox.env("DOCKER_HOST", "unix:///nowhere/docker.sock").env("IPYBOX_CACHE_DIR", cache);
    ipybox.current_dir(folder);
    ipybox
}

#[test]
fn an_image_that_no_engine_made_is_proved_in_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dependencies.txt"), "tomli-w = \"*\"\n").unwrap();
    let tag = Image::tag("here");
    let build = |cache: &str, arguments: &[&str]| {
        let built = without_engine(folder.path(), &layout(), cache)
            .args(["-t", &tag, "-o", "type=docker,dest=docker.tar", "-o", "type=oci,dest=layout/"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", said(&built));
        built
    };
    let built = build("cache", &[]);
    let id = printed(&built);
    assert!(said(&built).contains("`ipybox lock` keeps them"), "{}", said(&built));
    let again = build("cache", &[]);
    assert!(said(&again).contains("up to date"), "{}", said(&again));
    // Nothing but the inputs decides what it is.
    assert_eq!([printed(&again), printed(&build("other", &["--force"]))], [id.clone(), id.clone()]);
    // Whatever is spoilt in the cache is made again by whoever finds out: packed layers, and what they are packed from.
    let spoil = |kind: &str, end: &str| {
        let files = folder.path().join("cache/layers").join(kind).read_dir().unwrap();
        for file in
            files.map(|file| file.unwrap().path()).filter(|file| file.to_string_lossy().ends_with(end))
        {
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).unwrap();
        }
    };
    spoil("blobs", "");
    assert_eq!(printed(&build("cache", &["--force"])), id);
    fs::remove_dir_all(folder.path().join("cache/layers/blobs")).unwrap();
    spoil("segments", ".tar");
    assert_eq!(printed(&build("cache", &["--force"])), id);

    docker(&["load", "-q", "-i", &folder.path().join("docker.tar").display().to_string()]);
    let loaded = docker(&["inspect", "--format", "{{.Id}}", &tag]).trim().to_owned();
    assert!(names_in_engines(&folder.path().join("layout"), &id).contains(&loaded), "{loaded}");
    let verified = ipybox().args(["verify", &tag]).output().unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
    docker(&["rmi", &tag]);
    run(Command::new("skopeo").args(["copy", "-q", "oci:layout:here", "dir:copy"]).current_dir(&folder));
    run(Command::new("umoci")
        .args(["raw", "unpack", "--rootless", "--image", "layout:here", "bundle"])
        .current_dir(&folder));
}

#[test]
fn builds_without_an_engine_that_are_killed_leave_files_and_cache_whole() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    fs::write(inside("dependencies.txt"), "tomli-w = \"*\"\n").unwrap();
    let build = || {
        let mut build = without_engine(folder.path(), &layout(), "cache");
        build.args(["-o", "type=oci,dest=oci.tar", "-o", "type=oci,dest=layout/"]);
        build.stdout(Stdio::piped()).stderr(Stdio::piped());
        build
    };
    let built = || {
        let built = build().output().unwrap();
        assert!(built.status.success(), "{}", said(&built));
        printed(&built)
    };
    let locked = ipybox()
        .args(["lock", "--base", &layout(), "--uid", "1000", "-d", "dependencies.txt"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(locked.status.success(), "{}", said(&locked));
    let forget = || {
        // Everything but the wheels is made anew.
        for kind in ["segments", "layers", "recipes", "blobs"] {
            let _ = fs::remove_dir_all(inside("cache/layers").join(kind));
        }
        let _ = fs::remove_file(inside("oci.tar"));
        let _ = fs::remove_dir_all(inside("layout"));
    };
    let image = built();
    forget();
    let began = Instant::now();
    assert_eq!(built(), image);
    let took = began.elapsed();
    let mut ended = 0;
    for number in 0..4 {
        forget();
        let mut killed = build().spawn().unwrap();
        thread::sleep(took * number / 4);
        let _ = killed.kill();
        ended += u32::from(killed.wait().unwrap().signal().is_some());
        if inside("oci.tar").exists() {
            run(Command::new("skopeo").args(["inspect", "oci-archive:oci.tar"]).current_dir(&folder));
        }
        assert_eq!(built(), image);
        run(Command::new("skopeo").args(["copy", "-q", "oci:layout", "dir:copy"]).current_dir(&folder));
        let mut files: Vec<_> =
            fs::read_dir(inside("layout")).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["blobs", "index.json", "oci-layout"]);
    }
    assert!(ended > 1, "{ended} of 4 were killed");
    let verified =
        ipybox().args(["cache", "verify"]).env("IPYBOX_CACHE_DIR", inside("cache")).output().unwrap();
    assert!(verified.status.success() && verified.stdout.is_empty(), "{}", printed(&verified));
}

#[test]
fn a_base_of_a_registry_is_fetched_once_and_its_image_pushed_beside_it() {
    let registry = served::Registry::start();
    let proxy = served::Proxy::counting(&registry.address);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dependencies.txt"), "tomli-w = \"*\"\n").unwrap();
    let of_base = format!("docker://{}/team/base:1", registry.address);
    run(Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &layout(), &of_base]));
    let (base, tag) = (format!("docker://{}/team/base:1", proxy.address), Image::tag("of-registry"));
    let build = |arguments: &[&str]| {
        let mut build = without_engine(folder.path(), &base, "cache");
        let built =
            build.args(["-o", "type=docker,dest=docker.tar", "-t", &tag]).args(arguments).output().unwrap();
        (built.status.code(), printed(&built), said(&built))
    };
    let (code, id, told) = build(&[]);
    assert_eq!(code, Some(0), "{told}");
    let blobs =
        |requests: &[served::Request]| requests.iter().filter(|request| request.is("GET", "/blobs/")).count();
    assert!(blobs(&proxy.taken()) >= 2);
    let (_, again, told) = build(&[]);
    assert!(again == id && told.contains("up to date"), "{told}");
    assert_eq!(blobs(&proxy.taken()), 0);
    let checked =
        ipybox().args(["cache", "verify"]).env("IPYBOX_CACHE_DIR", folder.path().join("cache")).output();
    assert!(checked.unwrap().stdout.is_empty());
    docker(&["load", "-q", "-i", &folder.path().join("docker.tar").display().to_string()]);
    let ran =
        docker(&[&["run", "--rm", "--label", "ipybox.test", "--network", "none", &tag], &TRY[..]].concat());
    docker(&["rmi", &tag]);
    assert!(ran.contains("runs"), "{ran}");
    // What the cache has lost is fetched again.
    let kept = folder.path().join("cache/layers/bases/blobs/sha256");
    let largest =
        kept.read_dir().unwrap().flatten().max_by_key(|blob| blob.metadata().unwrap().len()).unwrap();
    fs::remove_file(largest.path()).unwrap();
    assert_eq!(build(&["--force"]).1, id);
    assert_eq!(blobs(&proxy.taken()), 1);
    // Where no engine answers, such a base needs no other name.
    let plain = base.replace("docker://", "");
    let mut build_alone = without_engine(folder.path(), &plain, "cache");
    build_alone.args(["-o", "type=docker,dest=alone.tar", "-t", &tag]);
    let mut alone = Command::new("unshare");
    alone.args(["-rm", "sh", "-c", "mount -t tmpfs none /run && exec \"$@\"", "sh"]);
    alone.arg(build_alone.get_program()).args(build_alone.get_args()).current_dir(folder.path());
    for (name, value) in build_alone.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    let alone = alone.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nonexistent").output().unwrap();
    assert!(said(&alone).contains("no engine answers: the image is made without one"), "{}", said(&alone));
    assert_eq!(printed(&alone), id, "{}", said(&alone));
    let (code, _, told) = build(&["--platform", "linux/s390x"]);
    assert!(code == Some(1) && told.contains("linux/s390x"), "{told}");
    let gone = base.replace("base:1", "base:2");
    let refused =
        without_engine(folder.path(), &gone, "cache").args(["-o", "type=oci,dest=x.tar"]).output().unwrap();
    assert!(
        refused.status.code() == Some(1) && said(&refused).contains("there is no image"),
        "{}",
        said(&refused)
    );
}

#[test]
fn what_cannot_be_made_without_an_engine_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dependencies.txt"), "").unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = |base: &str, arguments: &[&str], code: i32| {
        let refused = without_engine(folder.path(), base, "cache").args(arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(code), "{}", said(&refused));
        said(&refused)
    };
    let out = ["-o", "type=docker,dest=x.tar"];
    assert!(refused(&layout(), &[], 2).contains("has to go to a file or a registry"));
    assert!(
        refused(&layout(), &[&out[..], &["--verify"]].concat(), 2).contains("`--verify` needs an engine")
    );
    let copied = [&out[..], &["--copy", "file:/app/file"]].concat();
    assert!(refused(&layout(), &copied, 1).contains("come after its packages"));
    let executor = [&out[..], &["-V", "any-base", "--name", "x"]].concat();
    assert!(refused(&layout(), &executor, 1).contains("among those of its base"));
    assert!(refused("oci:nowhere", &out, 1).contains("nowhere"));

    // A base of an engine, in a file, without the system packages that minimal wants.
    let archive = folder.path().join("base.tar").display().to_string();
    docker(&["save", "-o", &archive, &base()]);
    let base = format!("docker-archive:{archive}");
    assert!(refused(&base, &out, 1).contains("lacks Debian packages: `iptables`"));
    assert!(!folder.path().join("x.tar").exists());
    let kernel =
        without_engine(folder.path(), &base, "cache").args(out).args(["-V", "kernel"]).output().unwrap();
    assert!(kernel.status.success(), "{}", said(&kernel));
    assert!(said(&kernel).contains("the base has no `procps`"), "{}", said(&kernel));
    // A layer that was changed is not built on.
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let other =
        without_engine(folder.path(), &base, "other").args(out).args(["-V", "kernel"]).output().unwrap();
    assert_eq!(other.status.code(), Some(1), "{}", said(&other));
}

#[test]
fn images_are_pushed_with_an_engine_and_without_and_run_after_a_pull() {
    let registry = served::Registry::with_password();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dependencies.txt"), "tomli-w = \"*\"\n").unwrap();
    let docker_config = folder.path().join("docker");
    fs::create_dir(&docker_config).unwrap();
    let login = ["login", "-u", served::USER, "-p", served::PASSWORD, &registry.address];
    run(Command::new("docker").args(["--config"]).arg(&docker_config).args(login));
    let name = |tag: &str| format!("{}/team/app:{tag}", registry.address);
    let path = format!("{}:{}", folder.path().display(), engine::setting("PATH"));
    let pushed = |tag: &str, login: Option<&Path>| {
        let mut build = without_engine(folder.path(), &layout(), "cache");
        build.args(["--push", "-t", &name(tag), "-t", &name("latest"), "-V", "kernel"]);
        if let Some(login) = login {
            build.env("DOCKER_CONFIG", login).env("PATH", &path);
        }
        build.output().unwrap()
    };
    let stranger = pushed("1", None);
    assert_eq!(stranger.status.code(), Some(1), "{}", said(&stranger));
    let first = pushed("1", Some(&docker_config));
    assert!(first.status.success(), "{}", said(&first));
    // A program that keeps the login is asked for it once.
    let helper = folder.path().join("docker-credential-counting");
    let answer = serde_json::json!({"ServerURL": "", "Username": served::USER, "Secret": served::PASSWORD});
    let asked = folder.path().join("asked");
    let script = format!("#!/bin/sh\ncat >> '{}'\necho '{answer}'\n", asked.display());
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let helpers = serde_json::json!({ "credHelpers": { &registry.address: "counting" } });
    let with_helper = folder.path().join("with-helper");
    fs::create_dir(&with_helper).unwrap();
    fs::write(with_helper.join("config.json"), helpers.to_string()).unwrap();
    let again = pushed("2", Some(&with_helper));
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(fs::read_to_string(&asked).unwrap().matches(&registry.address).count(), 1);
    assert!(said(&again).contains("0 B sent in 0 blobs"), "{}", said(&again));

    let pull = |tag: &str| {
        run(Command::new("docker").arg("--config").arg(&docker_config).args(["pull", "-q", &name(tag)]));
        let ran = docker(&[&["run", "--rm", "--label", "ipybox.test", &name(tag)], &TRY[..]].concat());
        docker(&["rmi", &name(tag)]);
        ran
    };
    assert_eq!([pull("2"), pull("latest")], ["runs\n", "runs\n"]);

    // What an engine's builder has made, under a name that is the registry's and the engine's.
    let mut build = ipybox();
    build.args([
        "build",
        "--base",
        &base(),
        "-d",
        "dependencies.txt",
        "-V",
        "kernel",
        "--push",
        "-t",
        &name("3"),
    ]);
    build.current_dir(&folder).env("DOCKER_CONFIG", &docker_config);
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", said(&built));
    docker(&["rmi", &name("3")]);
    assert_eq!(pull("3"), "runs\n");
    let unnamed = without_engine(folder.path(), &layout(), "cache").arg("--push").output().unwrap();
    assert_eq!(unnamed.status.code(), Some(2), "{}", said(&unnamed));
}
