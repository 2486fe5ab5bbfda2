//! Layers that no step makes: the same files as a build's, few bytes for few changes, and a store that survives everything.
//! A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engine::{Image, base, docker, ipybox};
use ipybox::archive::Archive;
use ipybox::credentials::AuthFiles;
use ipybox::engine::{Build, Choice, Content, Engine, KnownEngines, Put, PutError};
use ipybox::reference::Reference;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A list with its lock, and a cache of its own.
struct Locked {
    folder: TempDir,
    tag: String,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.tag]).output();
    }
}

impl Locked {
    fn new(name: &str, list: &str) -> Self {
        let locked = Self { folder: tempfile::tempdir().unwrap(), tag: Image::tag(name) };
        locked.lock(list);
        locked
    }

    fn lock(&self, list: &str) {
        fs::write(self.list(), list).unwrap();
        let locked = self.command("lock").output().unwrap();
        assert!(locked.status.success(), "{}", said(&locked));
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("dependencies.txt")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn command(&self, command: &str) -> Command {
        let mut ipybox = ipybox();
        // Equal images are one in the engine, and each test removes its own.
        let label = format!("test={}", std::process::id());
        ipybox.args([command, "--base", &base(), "--uid", "1000", "--label", &label, "-d"]);
        ipybox.arg(self.list()).env("IPYBOX_CACHE_DIR", self.with_installer());
        ipybox
    }

    /// The cache, with the installer that other tests have fetched.
    fn with_installer(&self) -> PathBuf {
        let installer = PathBuf::from(engine::setting("IPYBOX_TEST_CLIENTS")).with_file_name("test-cache/uv");
        fs::create_dir_all(self.cache()).unwrap();
        fs::create_dir_all(&installer).unwrap();
        let _ = std::os::unix::fs::symlink(&installer, self.cache().join("uv"));
        self.cache()
    }

    fn build(&self) -> Command {
        let mut build = self.command("build");
        build.args(["--builder", "direct", "--tag", &self.tag]);
        build
    }

    fn built(&self) -> String {
        let built = self.build().output().unwrap();
        assert!(built.status.success(), "{}", said(&built));
        String::from_utf8(built.stdout).unwrap().trim().to_owned()
    }

    fn cached(&self, command: &str) -> Output {
        ipybox().args(["cache", command]).env("IPYBOX_CACHE_DIR", self.cache()).output().unwrap()
    }

    /// The largest segment of the store.
    fn segment(&self) -> PathBuf {
        let folder = self.cache().join("layers/segments");
        let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let tars = files.filter(|path| path.extension().is_some_and(|end| end == "tar"));
        tars.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn layers(image: &str) -> Vec<String> {
    serde_json::from_str(&docker(&["inspect", "--format", "{{json .RootFS.Layers}}", image])).unwrap()
}

/// Every file of an image's environment: what it is, whose, when, and its content.
const TREE: &str = "\
import hashlib, os
for folder, folders, files in os.walk('/opt'):
    for name in sorted(folders + files):
        path = os.path.join(folder, name)
        told = os.lstat(path)
        content = ''
        if os.path.islink(path):
            content = os.readlink(path)
        elif os.path.isfile(path):
            with open(path, 'rb') as file:
                content = hashlib.sha256(file.read()).hexdigest()
        print(path, oct(told.st_mode), told.st_uid, told.st_gid, told.st_mtime, content)
";

fn tree(image: &str) -> BTreeSet<String> {
    let command = ["run", "--rm", "--label", "ipybox.test", "--user", "0:0", image, "python", "-c", TREE];
    docker(&command).lines().map(str::to_owned).collect()
}

#[test]
fn layers_hold_what_a_build_installs_and_few_change_with_few_packages() {
    let locked = Locked::new("direct", "tomli-w = \"*\"\nnumpy = \"*\"\nrequests = \"*\"\n");
    let image = locked.built();
    let mut built = locked.command("build");
    built.args(["--builder", "buildkit", "--force", "--tag", &Image::tag("built")]);
    let output = built.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let (direct, steps) = (tree(&image), tree(&Image::tag("built")));
    docker(&["rmi", &Image::tag("built")]);
    let differ: Vec<_> = direct.symmetric_difference(&steps).take(10).collect();
    assert!(differ.is_empty() && direct.len() > 3000, "{differ:#?}");
    // It is known as what is asked for, also to whoever builds it otherwise.
    let check = locked.command("build").args(["--check", "--tag", &locked.tag]).output().unwrap();
    assert!(check.status.success(), "{}", said(&check));
    // And to another cache, which has never seen it.
    fs::remove_dir_all(locked.cache().join("images")).unwrap();
    let check = locked.command("build").args(["--check", "--tag", &locked.tag]).output().unwrap();
    assert!(check.status.success(), "{}", said(&check));

    let before = layers(&image);
    locked.lock("tomli-w = \"*\"\nnumpy = \"*\"\nrequests = \"*\"\nbottle = \"*\"\n");
    let output = locked
        .build()
        .args(["--metadata-file"])
        .arg(locked.folder.path().join("told.json"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let after = layers(&locked.tag);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
    let run = [
        "run",
        "--rm",
        "--label",
        "ipybox.test",
        &locked.tag,
        "python",
        "-c",
        "import bottle, numpy; print(numpy.ones(2).sum())",
    ];
    assert_eq!(docker(&run), "2.0\n");
    let verified = ipybox().args(["verify", &locked.tag]).output().unwrap();
    assert!(verified.status.success(), "{}{}", String::from_utf8_lossy(&verified.stdout), said(&verified));

    // Another host, another folder, at another time: the same image.
    let other = Locked::new("other", "");
    fs::copy(locked.list(), other.list()).unwrap();
    fs::copy(locked.folder.path().join("pylock.toml"), other.folder.path().join("pylock.toml")).unwrap();
    assert_eq!(other.built(), docker(&["inspect", "--format", "{{.Id}}", &locked.tag]).trim());

    let info = locked.cached("info");
    assert!(String::from_utf8_lossy(&info.stdout).contains("segments"), "{}", said(&info));
}

#[test]
fn what_is_spoilt_or_gone_is_made_again() {
    let locked = Locked::new("spoilt", "tomli-w = \"*\"\n");
    let image = locked.built();
    let again = |spoil: &dyn Fn(&Path)| {
        docker(&["rmi", "-f", &locked.tag]);
        spoil(&locked.segment());
        assert_eq!(locked.built(), image);
    };
    again(&|segment| {
        let mut bytes = fs::read(segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(segment, bytes).unwrap();
    });
    again(&|segment| fs::File::options().write(true).open(segment).unwrap().set_len(1000).unwrap());
    again(&|segment| fs::remove_file(segment).unwrap());
    again(&|_| {
        // What packages are put on is gone.
        for name in docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "ipybox-foundation"]).lines() {
            // Others may build on it at this moment.
            let _ = Command::new("docker").args(["rmi", name]).output();
        }
    });
    again(&|segment| fs::remove_file(segment.with_extension("paths")).unwrap());
    let all = |kind: &str| {
        let entries = locked.cache().join("layers").join(kind).read_dir().unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    // Many at once.
    again(&|_| {
        let segments =
            all("segments").into_iter().filter(|path| path.extension().is_some_and(|end| end == "tar"));
        for segment in segments.take(5) {
            let mut bytes = fs::read(&segment).unwrap();
            bytes[700] ^= 1;
            fs::write(&segment, bytes).unwrap();
        }
    });
    // What is known of layers is not what they are, or is nothing.
    let other: fn(String) -> String = |text| {
        let (before, digest) = text.split_once("sha256:").unwrap();
        format!("{before}sha256:{}{}", if digest.starts_with('0') { '1' } else { '0' }, &digest[1..])
    };
    for spoil in [
        other,
        |text| text.replace("sha256:", "sha256:0"),
        |text| text.replace("\"size\":", "\"size\":1"),
        |text| text.replace("\"size\":", "\"size\":1,\"was\":"),
        |_| "[]".to_owned(),
    ] {
        again(&|_| {
            for file in all("layers") {
                fs::write(&file, spoil(fs::read_to_string(&file).unwrap())).unwrap();
            }
        });
    }
    // Wheels are what the lock says, whatever lies in their place.
    again(&|_| {
        for (number, wheel) in all("wheels").into_iter().enumerate() {
            let bytes = fs::read(&wheel).unwrap();
            fs::write(wheel, &bytes[..bytes.len() - number % 2]).unwrap();
        }
        fs::remove_dir_all(locked.cache().join("layers/segments")).unwrap();
    });
    fs::write(&all("wheels")[0], "no wheel").unwrap();
    let verified = locked.cached("verify");
    assert!(String::from_utf8_lossy(&verified.stdout).contains("is forgotten"), "{}", said(&verified));
    assert!(locked.cached("prune").status.success());
    docker(&["rmi", "-f", &locked.tag]);
    assert_eq!(locked.built(), image);
    is_killed(&locked, &image, 12);
}

#[test]
fn versions_are_resolved_for_one_build_where_there_is_no_lock() {
    let locked = Locked::new("resolved", "tomli-w = \"*\"\n");
    let with_lock = locked.built();
    fs::remove_file(locked.folder.path().join("pylock.toml")).unwrap();
    let built = locked.build().output().unwrap();
    assert!(said(&built).contains("versions are those of today"), "{}", said(&built));
    let image = String::from_utf8(built.stdout).unwrap();
    assert_ne!(image.trim(), with_lock, "it does not say what was asked for");
    assert_eq!(layers(image.trim()), layers(&with_lock));
    let again = locked.build().output().unwrap();
    assert!(said(&again).contains("up to date"), "{}", said(&again));
}

/// Builds that are killed leave the tag old or new, and nothing that does harm to what comes after them.
fn is_killed(locked: &Locked, old: &str, times: u64) {
    locked.lock("tomli-w = \"*\"\nbottle = \"*\"\nsix = \"*\"\n");
    let new = locked.built();
    for number in 0..times {
        if number % 2 == 0 {
            assert!(locked.cached("prune").status.success());
        }
        docker(&["tag", old, &locked.tag]);
        let mut killed = locked.build().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(number * 1237 % 6000));
        let _ = killed.kill();
        killed.wait().unwrap();
        let tagged = docker(&["inspect", "--format", "{{.Id}}", &locked.tag]).trim().to_owned();
        assert!([old, &new].contains(&tagged.as_str()));
        if number % 5 == 0 {
            assert_eq!(locked.built(), new);
            let verified = locked.cached("verify");
            assert!(verified.status.success() && verified.stdout.is_empty());
        }
    }
}

#[test]
#[ignore = "takes a quarter of an hour; scripts/test --all runs it"]
fn two_hundred_kills_do_no_harm() {
    let locked = Locked::new("killed", "tomli-w = \"*\"\n");
    let image = locked.built();
    is_killed(&locked, &image, 200);
}

/// Builds on a disk that is full, and that gets larger until the image fits.
#[test]
fn a_full_disk_fails_builds_and_spoils_nothing() {
    let locked = Locked::new("full", "rich = \"*\"\n");
    let script = "\
        mount -t tmpfs -o size=64k none \"$IPYBOX_CACHE_DIR\"
        ln -s \"$INSTALLER\" \"$IPYBOX_CACHE_DIR/uv\"
        for size in 64k 256k 512k 1m 2m 3m 4m 6m 8m 10m 12m 16m 24m 256m; do
            mount -o remount,size=$size none \"$IPYBOX_CACHE_DIR\"
            code=0
            \"$@\" >/dev/null 2>>said || code=$?
            echo \"$code $(docker image inspect --format built \"$TAG\" 2>/dev/null)\"
        done
        \"$1\" cache verify";
    let build = locked.build();
    let mut full = Command::new("unshare");
    full.args(["-rm", "sh", "-c", script, "sh"]).arg(build.get_program()).args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => full.env(name, value),
            None => full.env_remove(name),
        };
    }
    let installer = fs::canonicalize(locked.with_installer().join("uv")).unwrap();
    full.env("INSTALLER", installer).env("TAG", &locked.tag).current_dir(&locked.folder);
    let printed = engine::run(&mut full);
    let told = fs::read_to_string(locked.folder.path().join("said")).unwrap();
    let (last, others) =
        printed.lines().collect::<Vec<_>>().split_last().map(|(last, all)| (*last, all.to_vec())).unwrap();
    assert_eq!(last, "0 built", "{printed}\n{told}");
    let failed = others.iter().filter(|line| **line == "1 ").count();
    assert!(failed > 3, "{printed}\n{told}");
    assert_eq!(
        failed + others.iter().filter(|line| **line == "0 built").count(),
        others.len(),
        "{printed}\n{told}"
    );
    assert!(told.contains("No space left on device"), "{told}");
}

#[test]
fn an_image_of_layers_is_built_again_as_one() {
    let locked = Locked::new("again", "tomli-w = \"*\"\n");
    locked.built();
    let again = ipybox().args(["verify", "--rebuild", &locked.tag]).output().unwrap();
    assert!(again.status.success(), "{}", said(&again));
    let told = String::from_utf8_lossy(&again.stdout);
    // The engine writes the layers of the foundation in one way or the other.
    assert!(told.contains("layers are equal") || told.contains("all files are equal"), "{told}");
}

#[test]
fn builds_at_once_do_the_work_once() {
    let locked = Locked::new("once", "tomli-w = \"*\"\n");
    let mut building: Vec<_> = (0..3)
        .map(|_| locked.build().arg("--force").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    // What is made twice takes the place of what was there, and is another file.
    let mut made: BTreeMap<PathBuf, BTreeSet<u64>> = BTreeMap::new();
    while building.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        for kind in ["wheels", "segments"] {
            let folder = locked.cache().join("layers").join(kind);
            for file in folder.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()) {
                if let Ok(found) = fs::metadata(&file) {
                    made.entry(file).or_default().insert(found.ino());
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    assert!(made.values().all(|files| files.len() == 1), "{made:#?}");
    let ids: BTreeSet<String> = building
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert_eq!(ids.len(), 1);
    let count = |is: &dyn Fn(&Path) -> bool| made.keys().filter(|file| is(file)).count();
    let wheels = count(&|file| file.parent().is_some_and(|folder| folder.ends_with("wheels")));
    let segments = count(&|file| file.extension().is_some_and(|end| end == "tar"));
    assert!(wheels > 0 && segments == wheels, "{made:#?}");
}

/// A layer that is nothing but a file of this text.
fn layer(text: &str) -> (String, Vec<u8>) {
    let mut archive = Archive::default();
    archive.add("file-of-a-layer", text);
    let bytes = archive.to_tar().unwrap();
    (digest(&bytes), bytes)
}

fn digest(bytes: &[u8]) -> String {
    let hex = |text, byte: &u8| format!("{text}{byte:02x}");
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), hex)
}

#[tokio::test]
async fn what_an_engine_refuses_leaves_nothing_in_it() {
    let choice = Choice { docker_host: Some(format!("unix://{}", engine::socket())), ..Choice::default() };
    let (candidates, known) = (choice.candidates().unwrap(), KnownEngines::default());
    let engine = Engine::connect(candidates, AuthFiles::default(), &known, CancellationToken::new());
    let engine = engine.await.unwrap();
    let below = engine.image(&base()).await.unwrap().unwrap().id;
    let label = format!("ipybox.test.refused-{}", std::process::id());
    let labels = BTreeMap::from([(label.clone(), String::new())]);
    let put = async |layers: &[(String, Vec<u8>, u64)]| {
        let put = |(diff_id, bytes, size): &(String, Vec<u8>, u64)| {
            let (diff_id, bytes) = (diff_id.clone(), bytes.clone());
            let content: Arc<Content> = Arc::new(move |out| out.write_all(&bytes));
            Put { diff_id, size: *size, title: "a layer".to_owned(), content }
        };
        let layers: Vec<Put> = layers.iter().map(put).collect();
        engine.with_layers(&below, &below, &layers, (&labels, "LABEL of a test"), &[]).await
    };
    let left = || docker(&["images", "-aq", "--filter", &format!("label={label}")]);
    let sized = |(diff_id, bytes): (String, Vec<u8>)| {
        let size = bytes.len() as u64;
        (diff_id, bytes, size)
    };
    let good = sized(layer("good"));

    let odd = b"this is no tar stream; engines find out when they unpack it".repeat(20);
    let refused = put(&[good.clone(), sized((digest(&odd), odd))]).await;
    assert!(refused.is_err());
    assert_eq!(left(), "");
    let (bytes, other) = (layer("other").1, layer("something else").0);
    let refused = put(&[good.clone(), sized((other.clone(), bytes))]).await;
    assert!(matches!(&refused, Err(PutError::Digest(digest)) if *digest == other), "{refused:?}");
    assert_eq!(left(), "");
    let (diff_id, bytes) = layer("short");
    let longer = bytes.len() as u64 + 512;
    assert!(matches!(put(&[good.clone(), (diff_id, bytes, longer)]).await, Err(PutError::Layer(_))));
    assert_eq!(left(), "");

    let (image, _) = put(&[good.clone(), sized(layer("also good"))]).await.unwrap();
    let run = ["run", "--rm", "--label", "ipybox.test", image.as_str(), "cat", "/file-of-a-layer"];
    assert_eq!(docker(&run), "also good");
    // Once more it is there already.
    assert_eq!(put(&[good, sized(layer("also good"))]).await.unwrap().0, image);
    assert_eq!(left().lines().count(), 1);

    // What is built upon has to be whole, and not only to run.
    let tag: Reference = Image::tag("whole").parse().unwrap();
    engine.tag(&image, &tag).await.unwrap();
    let mut context = Archive::default();
    context.add("Dockerfile", format!("FROM {tag}\nLABEL ipybox.test=upon\nCOPY Dockerfile /upon\n"));
    let upon = engine.build(Build::of(context), drop).await.unwrap();
    let run = ["run", "--rm", "--label", "ipybox.test", upon.as_str(), "cat", "/file-of-a-layer", "/upon"];
    assert!(docker(&run).starts_with("also goodFROM "));
    docker(&["rmi", upon.as_str(), &tag.to_string()]);
    assert_eq!(left(), "");
}

#[test]
fn what_cannot_be_put_into_layers_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("dependencies.txt");
    fs::write(&list, "tomli-w = \"*\"\n").unwrap();
    let refused = |arguments: &[&str]| {
        let mut build = ipybox();
        build
            .args(["build", "--builder", "direct", "--tag", &Image::tag("none"), "--base", &base(), "-d"])
            .arg(&list);
        let output = build.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let lock = |arguments: &[&str]| {
        let mut lock = ipybox();
        lock.args(["lock", "--base", &base(), "-d"]).arg(&list);
        let output = lock.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let executor = ["-V", "any-base", "--name", "x"];
    lock(&executor);
    assert!(refused(&executor).contains("among those of its base"));
    fs::write(folder.path().join("file"), "1").unwrap();
    let copy = format!("{}:/app/file", folder.path().join("file").display());
    lock(&["--copy", &copy]);
    assert!(refused(&["--copy", &copy]).contains("after its packages"));
}
