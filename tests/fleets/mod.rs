//! A fleet of small images that tests publish, and what they find of it in registries.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::engine::{base, cache, ipybox};
use crate::sandbox::text;
use crate::served::{self, Registry, Request};

pub const FLEET: &str = "\
[fleet]
version = \"1.0\"
tags = [\"{version}\", \"latest\"]
labels = { \"org.opencontainers.image.licenses\" = \"Apache-2.0\" }

[image.NAME-one]
variant = \"kernel\"
base = \"BASE\"
dependencies = \"one.txt\"

[image.NAME-other]
variant = \"kernel\"
base = \"BASE\"
dependencies = \"other.txt\"
";

/// What is built on one of these.
pub const MORE: &str = "
[image.NAME-more]
from = \"NAME-one\"
dependencies = \"more.txt\"
";

/// A folder with a fleet; its images and those that were pulled are gone when the test is over.
pub struct Fleet {
    pub folder: tempfile::TempDir,
    pub prefix: String,
    /// A cache of its own, where it is on a machine of its own.
    cache: Option<tempfile::TempDir>,
}

impl Fleet {
    pub fn new(name: &str) -> Self {
        let prefix = format!("ipybox-test-{}-{name}", std::process::id());
        let fleet = Self { folder: tempfile::tempdir().unwrap(), prefix, cache: None };
        fleet.describe(FLEET, name);
        fleet.write("one.txt", "six = \"*\"\n");
        fleet.write("other.txt", "idna = \"*\"\n");
        fleet
    }

    /// The same with locks, so that images are made in no time.
    pub fn locked(name: &str) -> Self {
        let fleet = Self::new(name);
        for list in ["one.txt", "other.txt"] {
            let mut lock = ipybox();
            lock.args(["lock", "-V", "kernel", "--base", &base(), "-d", list])
                .current_dir(fleet.folder.path());
            served::run(&mut lock);
        }
        fleet
    }

    /// The same fleet on another machine: with a folder and a cache of its own, in which nothing is that tells of what was
    /// published from here.
    pub fn elsewhere(&self) -> Self {
        // Files of a cache move only inside of a file system.
        let beside = tempfile::tempdir_in(cache().parent().unwrap());
        let (folder, own) = (tempfile::tempdir().unwrap(), beside.unwrap());
        for (from, to) in [(self.folder.path().to_owned(), &folder), (cache(), &own)] {
            for entry in from.read_dir().unwrap().flatten().filter(|entry| entry.file_name() != "publishing")
            {
                let to = to.path().join(entry.file_name());
                if entry.file_type().unwrap().is_file() {
                    fs::copy(entry.path(), to).unwrap();
                } else {
                    symlink(fs::canonicalize(entry.path()).unwrap(), to).unwrap();
                }
            }
        }
        Self { folder, prefix: self.prefix.clone(), cache: Some(own) }
    }

    /// Lets its machine forget all layers that were ever packed there.
    pub fn forget_packed(&self) {
        let (layers, shared) = (self.own_cache().join("layers"), cache().join("layers"));
        if layers.is_symlink() {
            fs::remove_file(&layers).unwrap();
        } else {
            fs::remove_dir_all(&layers).unwrap();
        }
        fs::create_dir(&layers).unwrap();
        for entry in shared.read_dir().unwrap().flatten() {
            let name = entry.file_name();
            if !["packed", "blobs", "configs", "unfinished"].iter().any(|packed| name == *packed) {
                symlink(entry.path(), layers.join(name)).unwrap();
            }
        }
    }

    /// How many bytes of packed layers its machine has.
    pub fn packed(&self) -> u64 {
        let blobs = self.own_cache().join("layers/blobs").read_dir();
        blobs.map_or(0, |blobs| blobs.flatten().map(|blob| blob.metadata().unwrap().len()).sum())
    }

    pub fn own_cache(&self) -> &Path {
        self.cache.as_ref().unwrap().path()
    }

    /// Writes the file, with a licence that sets its images apart from all others in the engine.
    pub fn describe(&self, text: &str, licence: &str) {
        let text = text.replace("NAME", &self.prefix).replace("BASE", &base());
        self.write("ipybox.toml", &text.replacen("Apache-2.0", &format!("{licence}-{}", self.prefix), 1));
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn command(&self, address: &str, arguments: &[&str]) -> Command {
        let mut command = ipybox();
        command.args(["publish", "--registry", &format!("{address}/team")]).args(arguments);
        // Such images need not be taken out of the engine; those that are built on others cannot be.
        let more = self.folder.path().join("more.txt").exists();
        command.args(["--builder", if more { "auto" } else { "direct" }]);
        command.current_dir(self.folder.path());
        if let Some(cache) = &self.cache {
            command.env("IPYBOX_CACHE_DIR", cache.path());
        }
        command
    }

    pub fn publish(&self, address: &str, arguments: &[&str]) -> Output {
        self.command(address, arguments).output().unwrap()
    }

    pub fn published(&self, address: &str, arguments: &[&str]) -> String {
        let output = self.publish(address, arguments);
        let said = self.said(&output);
        assert!(output.status.success(), "{said}");
        said
    }

    /// What is said, with this run's names taken out.
    pub fn said(&self, output: &Output) -> String {
        text(&output.stderr).replace(&format!("{}-", self.prefix), "")
    }

    /// What the tags of all images name, by `NAME:TAG`.
    pub fn tags(&self, registry: &Registry) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::new();
        for name in ["one", "more", "other"] {
            for tag in ["1.0", "latest"] {
                let url =
                    format!("http://{}/v2/team/{}-{name}/manifests/{tag}", registry.address, self.prefix);
                let output = Command::new("curl").args(["-sI", "-H", ACCEPT, &url]).output().unwrap();
                let head = text(&output.stdout);
                let digest = head.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: "));
                tags.extend(digest.map(|digest| (format!("{name}:{tag}"), digest.trim().to_owned())));
            }
        }
        tags
    }

    pub fn record(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.folder.path().join("publish.json")).unwrap()).unwrap()
    }
}

const ACCEPT: &str =
    "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

impl Drop for Fleet {
    fn drop(&mut self) {
        let listed = Command::new("docker").args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        for image in listed.lines().filter(|image| image.contains(&format!("{}-", self.prefix))).rev() {
            let _ = Command::new("docker").args(["rmi", "--force", image]).output();
        }
        // What was killed while it looked into an image leaves a container for a while.
        let looking = ["ps", "--all", "--filter", "label=ipybox.inside", "--format", "{{.ID}} {{.Labels}}"];
        let looking = text(&Command::new("docker").args(looking).output().unwrap().stdout);
        for line in looking.lines().filter(|line| line.contains(&self.prefix)) {
            let id = line.split(' ').next().unwrap();
            let _ = Command::new("docker").args(["rm", "--force", id]).output();
        }
    }
}

/// Whether a request changes something.
pub fn writes(request: &Request) -> bool {
    !["GET", "HEAD"].contains(&request.method.as_str())
}

/// Whether a request moves a tag: one with a digest adds a manifest, or what is said about one.
pub fn moves(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("/manifests/") && !request.path.contains("/sha256")
}

/// The manifest of an image, or of another artifact.
pub fn inspected(name: &str) -> Value {
    let name = format!("docker://{name}");
    let raw = served::run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &name]));
    serde_json::from_str(&raw).unwrap()
}
