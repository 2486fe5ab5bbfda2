//! Caches that machines share through real registries: the same images without a wheel, whatever is wrong with what comes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod served;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::{Image, base, docker, ipybox, setting};
use ipybox::registry::{Registry as Client, Repository};
use serde_json::Value;
use served::image::{REPOSITORY, client};
use served::{Fate, PASSWORD, Proxy, Registry, Request, USER, count, free_port};

const LIST: &str = "tomli-w = \"*\"\nbottle = \"*\"\nsix = \"*\"\n";

/// A list with its lock, for any number of machines that share nothing else.
struct Project {
    folder: tempfile::TempDir,
    tag: String,
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.tag]).output();
    }
}

impl Project {
    fn new(name: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), tag: Image::tag(name) };
        fs::write(project.folder.path().join("dependencies.txt"), LIST).unwrap();
        let locked = project.command("lock", "first").output().unwrap();
        assert!(locked.status.success(), "{}", said(&locked));
        project
    }

    /// The cache of a machine, with nothing but the installer in it at first.
    fn cache(&self, machine: &str) -> PathBuf {
        let cache = self.folder.path().join(machine);
        let installer = PathBuf::from(setting("IPYBOX_TEST_CLIENTS")).with_file_name("test-cache/uv");
        fs::create_dir_all(&cache).unwrap();
        fs::create_dir_all(&installer).unwrap();
        let _ = std::os::unix::fs::symlink(&installer, cache.join("uv"));
        cache
    }

    fn command(&self, command: &str, machine: &str) -> Command {
        let mut ipybox = ipybox();
        // Equal images are one in the engine, and each test removes its own.
        let label = format!("test={}", self.tag);
        ipybox.args([command, "-V", "kernel", "--base", &base(), "--uid", "1000", "--label", &label]);
        ipybox.args(["-d", "dependencies.txt"]).current_dir(&self.folder);
        // Whatever logins somebody has here.
        ipybox.env("DOCKER_CONFIG", "/nonexistent").env("REGISTRY_AUTH_FILE", "/nonexistent");
        ipybox.env("IPYBOX_CACHE_DIR", self.cache(machine));
        ipybox
    }

    fn build(&self, machine: &str, arguments: &[&str]) -> Command {
        let mut build = self.command("build", machine);
        build.args(["--builder", "direct", "--tag", &self.tag]).args(arguments);
        build
    }

    /// Builds where the engine does not have the image; its id, and what was said.
    fn built(&self, machine: &str, arguments: &[&str]) -> (String, String) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.tag]).output();
        let built = self.build(machine, arguments).output().unwrap();
        assert!(built.status.success(), "{}", said(&built));
        (String::from_utf8(built.stdout.clone()).unwrap().trim().to_owned(), said(&built))
    }

    /// How many files of a kind the store of a machine has.
    fn held(&self, machine: &str, kind: &str) -> u64 {
        let mut info = ipybox();
        let info = info.args(["cache", "info", "--json"]).env("IPYBOX_CACHE_DIR", self.cache(machine));
        let told: Value = serde_json::from_slice(&info.output().unwrap().stdout).unwrap();
        told[kind]["count"].as_u64().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn writes(requests: &[Request]) -> usize {
    ["POST", "PUT", "PATCH", "DELETE"].into_iter().map(|method| count(requests, method)).sum()
}

/// Where a registry keeps the bytes of a blob.
fn blob(registry: &Registry, digest: &str) -> PathBuf {
    let digits = digest.strip_prefix("sha256:").unwrap();
    let blobs = registry.folder.path().join("storage/docker/registry/v2/blobs/sha256");
    blobs.join(&digits[..2]).join(digits).join("data")
}

/// Asks a registry with a client of its own.
fn asked<T>(registry: &Registry, ask: impl AsyncFnOnce(Repository<'_>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client: Client = client(&registry.address);
    runtime.block_on(async { ask(client.repository(REPOSITORY).unwrap()).await })
}

/// What is under a tag.
fn manifest(registry: &Registry, tag: &str) -> Option<Value> {
    let found = asked(registry, async |repository| repository.manifest(tag).await.unwrap());
    found.map(|manifest| serde_json::from_slice(manifest.bytes()).unwrap())
}

#[test]
fn a_fresh_machine_takes_what_another_has_made() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let project = Project::new("shared");
    let name = format!("{}/{REPOSITORY}:main", proxy.address);
    let cache = format!("type=registry,ref={name}");
    let (from, to) = (["--cache-from", &cache], ["--cache-to", &cache]);

    // The first run of all finds nothing, and does not talk about it.
    let (image, told) = project.built("first", &[from, to].concat());
    assert!(!told.contains("warning") && told.contains(&format!("sharing packages as {name}")), "{told}");
    let packages = project.held("first", "wheels");
    assert!(packages > 3);
    let requests = proxy.taken();
    let asked = requests.iter().filter(|request| request.is("GET", "/manifests/main")).count();
    assert_eq!(asked, 2, "once to read it and once to write it: {requests:#?}");
    let shared = manifest(&registry, "main").unwrap();
    assert_eq!(shared["artifactType"], "application/vnd.ipybox.segments.v1");
    assert_eq!(shared["layers"].as_array().unwrap().len() as u64, packages);

    let (taken, told) = project.built("second", &from);
    assert_eq!(taken, image);
    assert!(told.contains(&format!("{name}: {packages} packages taken")), "{told}");
    assert_eq!((project.held("second", "wheels"), project.held("second", "segments")), (0, 3 * packages));
    let requests = proxy.taken();
    assert_eq!(writes(&requests), 0);
    let blobs = requests.iter().filter(|request| request.is("GET", "/blobs/")).count();
    assert_eq!(blobs as u64, packages, "{requests:#?}");

    // Where nothing lacks, nothing is asked; where nothing is new, nothing is written, nor packed.
    let (_, told) = project.built("second", &[from, to].concat());
    assert!(told.contains(&format!("{name}: has all {packages} packages already")), "{told}");
    let requests = proxy.taken();
    let of_manifest = |request: &&Request| request.is("GET", "/manifests/main");
    assert_eq!(requests.iter().filter(of_manifest).count(), 1, "{requests:#?}");
    assert!(requests.iter().all(|request| of_manifest(&request) || request.path == "/v2/"), "{requests:#?}");
    assert_eq!(project.held("second", "blobs"), 0);
    // An image that is up to date is made of the same.
    let again = project.build("second", &to).output().unwrap();
    assert!(said(&again).contains("has all") && said(&again).contains("up to date"), "{}", said(&again));
    assert_eq!(writes(&proxy.taken()), 0);
    // Who has taken all of it can give it to another registry.
    let other = Registry::start();
    let elsewhere = format!("{}/{REPOSITORY}", other.address);
    project.built("second", &["--cache-to", &elsewhere]);
    assert_eq!(manifest(&other, "latest"), Some(shared));

    // Several caches, of which the first has less.
    let mut less = manifest(&registry, "main").unwrap();
    less["layers"].as_array_mut().unwrap().truncate(2);
    let (kind, bytes) = (ipybox::registry::OCI_MANIFEST, less.to_string());
    asked_to_tag(&registry, "less", kind, &bytes);
    let first = format!("{}/{REPOSITORY}:less", proxy.address);
    let (taken, told) = project.built("third", &["--cache-from", &first, "--cache-from", &elsewhere]);
    assert_eq!((taken, project.held("third", "wheels")), (image.clone(), 0));
    assert!(told.contains("2 packages taken"), "{told}");
    // Who wants all of it anew takes nothing.
    proxy.taken();
    let (anew, _) = project.built("second", &["--cache-from", &cache, "--no-cache"]);
    assert_eq!((anew, project.held("second", "wheels")), (image, packages));
    assert_eq!(proxy.taken().len(), 0);
}

fn asked_to_tag(registry: &Registry, tag: &str, kind: &str, bytes: &str) {
    let manifest = ipybox::registry::Manifest::new(kind, bytes.to_owned());
    asked(registry, async |repository| repository.tag(tag, &manifest).await.unwrap());
}

#[test]
fn what_is_spoilt_is_named_and_made_here() {
    let registry = Registry::start();
    let project = Project::new("spoilt");
    let name = format!("{}/{REPOSITORY}:main", registry.address);
    let (image, _) = project.built("first", &["--cache-to", &name]);
    let shared = manifest(&registry, "main").unwrap();
    let layers = shared["layers"].as_array().unwrap();
    let place = |layer: &Value| blob(&registry, layer["digest"].as_str().unwrap());
    // No registry takes a manifest of what is gone.
    let mut lying = shared.clone();
    let key = "ipybox.segment.key";
    let [one, other] = [3, 4].map(|at| layers[at]["annotations"][key].clone());
    lying["layers"][3]["annotations"][key] = other;
    lying["layers"][4]["annotations"][key] = one;
    lying["layers"][5]["annotations"]["ipybox.segment.sha256"] = "0".repeat(64).into();
    lying["layers"][6]["annotations"]["ipybox.segment.size"] = "1".into();
    asked_to_tag(&registry, "lying", ipybox::registry::OCI_MANIFEST, &lying.to_string());
    // Changed, gone, longer.
    let change = |layer: &Value, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(place(layer)).unwrap();
        change(&mut bytes);
        fs::write(place(layer), bytes).unwrap();
    };
    change(&layers[0], &|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    fs::remove_file(place(&layers[1])).unwrap();
    change(&layers[2], &|bytes| bytes.extend(b"more"));
    let (taken, told) = project.built("second", &["--cache-from", &name]);
    assert_eq!(taken, image);
    assert_eq!(told.matches("is not used:").count(), 3, "{told}");
    assert_eq!(project.held("second", "wheels"), 3);

    // Segments under each other's keys, and some that say that they are others.
    let lying = format!("{}/{REPOSITORY}:lying", registry.address);
    let _ = Command::new("docker").args(["rmi", "-f", &project.tag]).output();
    let built = project.build("third", &["--cache-from", &lying]).output().unwrap();
    let told = said(&built);
    assert!(told.contains("another one than was announced") && told.contains("is not used:"), "{told}");
    assert!(built.status.success(), "{told}");
    // Whose segment is whose nobody can tell: that is why not everybody may write to a cache.
    assert_ne!(String::from_utf8(built.stdout).unwrap().trim(), "");

    // Nothing of that is anything but a cache.
    let verified =
        ipybox().args(["cache", "verify"]).env("IPYBOX_CACHE_DIR", project.cache("second")).output();
    assert!(verified.unwrap().stdout.is_empty());
}

#[test]
fn a_build_does_not_fail_with_its_caches() {
    let registry = Registry::with_password();
    let open = Registry::start();
    let project = Project::new("failing");
    let (image, _) = project.built("first", &[]);

    // Nobody is there.
    let gone = format!("127.0.0.1:{}/{REPOSITORY}", free_port());
    let (built, told) = project.built("second", &["--cache-from", &gone, "--cache-to", &gone]);
    assert_eq!(built, image);
    assert!(told.contains(&format!("nothing is taken from the cache `{gone}`")), "{told}");
    assert!(told.contains(&format!("the cache `{gone}` stays as it is")), "{told}");

    // Somebody who wants to know who asks.
    let closed = format!("{}/{REPOSITORY}", registry.address);
    let (_, told) = project.built("second", &["--cache-to", &closed]);
    assert!(told.contains("stays as it is") && told.contains("log in to it"), "{told}");
    let config = project.folder.path().join("config");
    fs::create_dir(&config).unwrap();
    let auths =
        serde_json::json!({ "auths": { &registry.address: { "username": USER, "password": PASSWORD } } });
    fs::write(config.join("config.json"), auths.to_string()).unwrap();
    let known = |machine: &str, option: &str| {
        let _ = Command::new("docker").args(["rmi", "-f", &project.tag]).output();
        let mut build = project.build(machine, &[option, &closed]);
        let built = build.env("DOCKER_CONFIG", &config).output().unwrap();
        let told = said(&built);
        assert!(built.status.success() && !told.contains("warning") && !told.contains(PASSWORD), "{told}");
    };
    known("second", "--cache-to");
    known("third", "--cache-from");
    assert_eq!(project.held("third", "wheels"), 0);

    // Something else has the name.
    let foreign = served::image::Image::of(&[1000]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(foreign.push(&client(&open.address), &["1"])).unwrap();
    let name = format!("{}/{REPOSITORY}:1", open.address);
    let (_, told) = project.built("fourth", &["--cache-from", &name, "--cache-to", &name]);
    assert_eq!(told.matches("is no cache of packages").count(), 2, "{told}");
    foreign.is_at(&open, "1");

    // Nothing of an image that the engine's builder makes is shared.
    let mut build = project.command("build", "first");
    let build = build.args(["--builder", "buildkit", "--force", "--tag", &project.tag, "--cache-to", &name]);
    let built = build.output().unwrap();
    assert!(built.status.success() && said(&built).contains("were put into no layers"), "{}", said(&built));
}

#[test]
fn a_cache_whose_writing_is_stopped_stays_what_it_was() {
    let registry = Registry::start();
    let stalls = Arc::new(AtomicBool::new(false));
    let seen = stalls.clone();
    let proxy = Proxy::before(&registry.address, move |request| {
        if request.is("PUT", "/blobs/uploads/") {
            seen.store(true, Ordering::SeqCst);
            return Fate::Stall;
        }
        Fate::Forward
    });
    let project = Project::new("stopped");
    let name = format!("{}/{REPOSITORY}:main", proxy.address);
    let mut build = project.build("first", &["--cache-to", &name]);
    let child = build.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !stalls.load(Ordering::SeqCst) {
        assert!(begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let stopped = child.wait_with_output().unwrap();
    let told = said(&stopped);
    assert!(told.contains(&format!("the cache `{name}` stays as it is")), "{told}");
    // The image is there, and that is what was asked for.
    assert!(stopped.status.success(), "{told}");
    let id = docker(&["inspect", "--format", "{{.Id}}", &project.tag]);
    assert_eq!(String::from_utf8(stopped.stdout).unwrap(), id);
    assert_eq!(manifest(&registry, "main"), None);
}

#[test]
fn images_without_an_engine_share_their_servers_as_well() {
    let registry = Registry::start();
    let name = format!("{}/{REPOSITORY}", registry.address);
    let project = Project::new("engineless");
    let layout = format!("oci:{}", Path::new(&setting("IPYBOX_TEST_LAYOUT")).display());
    let written = |machine: &str, option: &str| {
        let mut build = ipybox();
        build.args(["build", "--base", &layout, "-d", "dependencies.txt", "--lock", "pylock.layout.toml"]);
        build.args(["--output", &format!("type=oci,dest={machine}.tar"), option, &name]);
        build.current_dir(&project.folder).env("IPYBOX_CACHE_DIR", project.cache(machine));
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", said(&built));
        (String::from_utf8(built.stdout.clone()).unwrap(), said(&built))
    };
    let mut lock = ipybox();
    lock.args(["lock", "--base", &layout, "-d", "dependencies.txt", "--lock", "pylock.layout.toml"]);
    let locked = lock.current_dir(&project.folder).output().unwrap();
    assert!(locked.status.success(), "{}", said(&locked));
    let (image, _) = written("first", "--cache-to");
    let (taken, told) = written("second", "--cache-from");
    assert_eq!(taken, image);
    // Those of the servers and those of the list.
    assert_eq!(told.matches("packages taken").count(), 2, "{told}");
    assert_eq!(project.held("second", "wheels"), 0);
}
