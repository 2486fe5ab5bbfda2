//! Foundations that no step makes: the same files and settings as those of a build, but for what wheels bring. A missing
//! engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use engine::{Image, base, docker, ipybox, run};
use ipybox::archive::{Archive, EPOCH};
use ipybox::base::{Base, Folder};
use ipybox::image::config::{Above, config};
use ipybox::image::foundation::{self, Text, Texts};
use ipybox::inputs::templates::Templates;
use ipybox::plan::Plan;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a file is, whose, and its content: the target of a link, or SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Entry {
    kind: String,
    mode: u32,
    uid: u32,
    gid: u32,
    content: String,
}

/// Every file of a container but those that the engine makes, and the paths that wheels of the servers have brought.
const TREE: &str = r#"
import csv, hashlib, json, os, stat, sys
away = {"/proc", "/sys", "/dev", "/.dockerenv", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab"}
def told(path):
    is_ = os.lstat(path)
    kind = stat.filemode(is_.st_mode)[0]
    content = ""
    if kind == "l":
        content = os.readlink(path)
    elif kind == "-":
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    return {"kind": kind, "mode": stat.S_IMODE(is_.st_mode), "uid": is_.st_uid, "gid": is_.st_gid, "content": content}
tree, wheels = {}, set()
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in away]
    for name in folders + files:
        path = os.path.join(folder, name)
        if path not in away:
            tree[path] = told(path)
            if path.endswith(".dist-info/RECORD") and "/ipybox/server/" in path:
                site = os.path.dirname(folder)
                for row in csv.reader(open(path, newline="")):
                    file = os.path.normpath(os.path.join(site, row[0]))
                    wheels.update([file])
                    while file.count("/") > 1:
                        file = os.path.dirname(file)
                        wheels.add(file)
print(json.dumps([tree, sorted(wheels)]))
"#;

fn tree(image: &str) -> (BTreeMap<String, Entry>, BTreeSet<String>) {
    serde_json::from_str(&in_container(image, TREE, &[])).unwrap()
}

fn in_container(image: &str, script: &str, arguments: &[&str]) -> String {
    let python = "/usr/bin/python3";
    let command = ["run", "--rm", "--label", "ipybox.test", "--user", "0:0", "--entrypoint", python, image];
    docker(&[&command, ["-I", "-B", "-c", script].as_slice(), arguments].concat())
}

/// What is to be known of a base beside its facts.
const TEXTS: &str = r#"
import json, os, stat, sys
def permissions(path):
    is_ = os.stat(path)
    return {"mode": stat.S_IMODE(is_.st_mode), "uid": is_.st_uid, "gid": is_.st_gid}
found = {"folders": {}, "links": {}}
for wanted in sys.argv[1:]:
    path = ""
    for part in wanted.strip("/").split("/"):
        path = os.path.join(path or "/", part)
        if os.path.islink(path) and os.path.isdir(path):
            found["links"][path] = os.path.realpath(path)
            path = os.path.realpath(path)
        above = path
        while above != "/" and os.path.isdir(above):
            found["folders"][above] = permissions(above)
            above = os.path.dirname(above)
for name in ["profile", "shadow"]:
    path = "/etc/" + name
    if os.path.exists(path):
        with open(path, "rb") as file:
            found[name] = [list(file.read()), permissions(path)]
with open("/var/lib/dpkg/status") as file:
    found["status"] = file.read()
print(json.dumps(found))
"#;

fn texts(image: &str, plan: &Plan, base: &Base) -> Texts {
    #[derive(Deserialize)]
    struct Found {
        folders: BTreeMap<String, Folder>,
        links: BTreeMap<String, String>,
        profile: Option<(Vec<u8>, Folder)>,
        shadow: Option<(Vec<u8>, Folder)>,
        status: String,
    }
    let folders = foundation::folders(plan, base);
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let Found { folders, links, profile, shadow, status } =
        serde_json::from_str(&in_container(image, TEXTS, &folders)).unwrap();
    let text = |(bytes, permissions)| Text { bytes, permissions };
    let (profile, shadow) = (profile.map(text), shadow.map(text));
    Texts { profile, shadow, debian: foundation::installed(&status), folders, links }
}

/// A base of a test, which is gone with it.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

impl Made {
    fn new(name: &str, instructions: &str) -> Self {
        let tag = Image::tag(name);
        let mut build = Command::new("docker");
        build.args(["build", "--quiet", "--label", "ipybox.test=base", "--tag", &tag, "-"]);
        // No plug-in is needed for these few steps.
        build.env("DOCKER_BUILDKIT", "0").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = build.spawn().unwrap();
        let text = format!("FROM {}\nRUN {TOOLS}\n{instructions}\n", base());
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(tag)
    }
}

/// What the variants want of Debian, so that nothing is left to install.
const TOOLS: &str = "apt-get update -qq && apt-get install -y -qq --no-install-recommends iptables procps \
    && rm -rf /var/lib/apt/lists/* \
    && for file in /var/log/*.log /var/log/apt/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old; do : >$file; done";

/// A base on which nothing is where one expects it.
const ODD: &str = r"RUN mkdir -p /data/app && ln -s /data/app /app \
    && mv /etc/profile.d /var/profile.d && ln -s /var/profile.d /etc/profile.d && chmod 2755 /var/profile.d \
    && mkdir -p /usr/local/lib/python3.11/dist-packages && chgrp staff /usr/local/lib/python3.11/dist-packages \
    && chmod 2775 /usr/local/lib/python3.11/dist-packages /usr/local/lib && chown 7:8 /usr/local/lib/python3.11
ENV KEPT=1 VIRTUAL_ENV=/elsewhere
EXPOSE 53/udp
VOLUME /kept
USER nobody
WORKDIR /var
STOPSIGNAL SIGINT
HEALTHCHECK CMD true
ENTRYPOINT [ ]
CMD true";

/// A base whose login shells read one file, without accounts that expire.
const POOR: &str =
    "RUN rm -r /etc/profile.d /etc/shadow && echo 'PATH=/usr/bin:/bin; export PATH' >/etc/profile";

/// A plan, its base, and the name of the foundation that an engine has built for it.
fn planned(base: &str, arguments: &[&str]) -> (Plan, Base, Foundation) {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("dependencies.txt");
    fs::write(&list, "tomli-w = \"*\"\n").unwrap();
    let command = |name: &str| {
        let mut ipybox = ipybox();
        ipybox.args([name, "--base", base, "-d"]).arg(&list).args(arguments);
        ipybox
    };
    run(&mut command("lock"));
    let tag = format!("{base}-of-steps");
    // What is put on it afterwards does not matter here.
    let _ = command("build").args(["--builder", "direct", "--tag", &tag]).output().unwrap();
    let _ = Command::new("docker").args(["rmi", &tag]).output();
    let plan: Plan = serde_json::from_str(&run(&mut command("plan"))).unwrap();
    let base: Base = serde_json::from_str(&run(command("plan").arg("--facts"))).unwrap();
    let foundation = Foundation::of(&plan);
    (plan, base, foundation)
}

/// What packages are put on, by the name that the program gives it.
struct Foundation(String);

impl Drop for Foundation {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

impl Foundation {
    fn of(plan: &Plan) -> Self {
        let mut digest = Sha256::new();
        for part in [
            serde_json::to_vec(&plan.foundation),
            serde_json::to_vec(&plan.finish.args),
            serde_json::to_vec(&plan.finish.ports),
        ] {
            digest.update(part.unwrap());
            digest.update([0]);
        }
        Self(format!("ipybox-foundation:{}", &hexadecimal(&digest.finalize())[..24]))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A tree with an archive laid over it.
fn over(mut tree: BTreeMap<String, Entry>, archive: &Archive) -> BTreeMap<String, Entry> {
    let tar = archive.to_tar().unwrap();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = format!("/{}", entry.path().unwrap().display());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let kind = header.entry_type();
        let (kind, content) = match kind {
            tar::EntryType::Directory => ("d", String::new()),
            tar::EntryType::Symlink => ("l", entry.link_name().unwrap().unwrap().display().to_string()),
            _ => ("-", hexadecimal(&Sha256::digest(&bytes))),
        };
        let number = |id: u64| u32::try_from(id).unwrap();
        let (uid, gid) = (number(header.uid().unwrap()), number(header.gid().unwrap()));
        let mode = header.mode().unwrap();
        tree.insert(
            path.trim_end_matches('/').to_owned(),
            Entry { kind: kind.to_owned(), mode, uid, gid, content },
        );
    }
    tree.retain(|path, _| !ENGINES.contains(&path.as_str()));
    tree
}

/// Files that engines lay over those of images.
const ENGINES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// What uv leaves in an environment beside what environments need, and scripts of other shells.
const OF_UV: [&str; 13] = [
    ".gitignore",
    "CACHEDIR.TAG",
    "bin/activate.bat",
    "bin/activate.csh",
    "bin/activate.fish",
    "bin/activate.nu",
    "bin/activate.ps1",
    "bin/activate.xsh",
    "bin/activate_this.py",
    "bin/deactivate.bat",
    "bin/pydoc.bat",
    "lib/python3.11/site-packages/_virtualenv.pth",
    "lib/python3.11/site-packages/_virtualenv.py",
];

/// The configuration that an engine has of an image, as it is.
fn configuration(image: &str) -> Value {
    let mut save = Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().unwrap();
    let mut texts = BTreeMap::new();
    let mut saved = tar::Archive::new(save.stdout.take().unwrap());
    for entry in saved.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        if entry.size() < 1 << 20 && entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            texts.insert(path, bytes);
        }
    }
    std::io::copy(&mut saved.into_inner(), &mut std::io::sink()).unwrap();
    assert!(save.wait().unwrap().success());
    let manifest: Value = serde_json::from_slice(&texts["manifest.json"]).unwrap();
    serde_json::from_slice(&texts[manifest[0]["Config"].as_str().unwrap()]).unwrap()
}

/// Settings without what says nothing.
fn telling(settings: &Value) -> Value {
    let mut settings = settings.as_object().unwrap().clone();
    settings.retain(|name, value| {
        let is_nothing =
            value.is_null() || *value == json!("") || *value == json!(false) || *value == json!([]);
        // BuildKit's own note on `CMD`, which means something on Windows.
        !is_nothing && name != "ArgsEscaped"
    });
    settings.into()
}

fn is_as_built(base: &str, arguments: &[&str], uid: u32) {
    let (plan, facts, built) = planned(base, arguments);
    let texts = texts(base, &plan, &facts);
    let templates = Templates::shipped();
    assert_eq!(foundation::obstacle(&plan, &facts, &texts, &templates), None);
    assert_eq!(foundation::left_out(&plan, &texts).count(), 0);
    let archive = foundation::laid_over(&plan, &facts, &texts, &templates);
    let ours = over(tree(base).0, &archive);
    let (steps, wheels) = tree(&built.0);

    let opt = if ours.contains_key("/var/opt/venv") { "/var/opt" } else { "/opt" };
    let of_uv: BTreeSet<String> = [format!("{opt}/venv"), format!("{opt}/ipybox/server")]
        .iter()
        .flat_map(|home| OF_UV.iter().map(move |file| format!("{home}/{file}")))
        .collect();
    let mut differ = Vec::new();
    for path in ours.keys().chain(steps.keys()).collect::<BTreeSet<_>>() {
        match (ours.get(path), steps.get(path)) {
            (Some(one), Some(other)) if one == other => {}
            // Written by us, and by uv.
            (Some(one), Some(other)) if path.ends_with("/bin/activate") => {
                assert_eq!(
                    (&one.kind, one.mode, one.uid, one.gid),
                    (&other.kind, other.mode, other.uid, other.gid)
                );
            }
            (None, Some(_)) if wheels.contains(path) || of_uv.contains(path) => {}
            // Bytecode is compiled elsewhere.
            (None, Some(_))
                if path.starts_with(&format!("{opt}/ipybox/")) && path.contains("/__pycache__") => {}
            (one, other) => differ.push(format!("{path}: {one:?} instead of {other:?}")),
        }
    }
    assert!(differ.is_empty(), "{base} {arguments:?}\n{}", differ.join("\n"));
    assert_eq!(ours[&format!("{opt}/venv/pyvenv.cfg")].uid, uid);

    let (of_base, of_steps) = (configuration(base), configuration(&built.0));
    let tar = archive.to_tar().unwrap();
    let diff_id = format!("sha256:{}", hexadecimal(&Sha256::digest(&tar)));
    let above = [Above { diff_id: diff_id.clone(), title: "the foundation".to_owned() }];
    let made = config(&of_base, &plan, &above, &BTreeMap::new(), EPOCH).unwrap();
    assert_eq!(telling(&made["config"]), telling(&of_steps["config"]));
    assert_eq!((&made["architecture"], &made["os"]), (&of_steps["architecture"], &of_steps["os"]));
    let (before, after) = (of_base["history"].as_array().unwrap(), made["history"].as_array().unwrap());
    assert_eq!(after.len(), before.len() + 2);
    for (old, kept) in before.iter().zip(after) {
        assert_eq!(telling(old), telling(kept));
    }

    let has_line = plan.foundation.user.is_unprivileged() && texts.shadow.is_some();
    works(base, &made, &tar, has_line);
}

/// Loads an image into the engine, which has the layers of its base, and tries what its foundation is for.
fn works(base: &str, config: &Value, layer: &[u8], has_line: bool) {
    let config = config.to_string();
    let id = hexadecimal(&Sha256::digest(&config));
    let image = Made(Image::tag(&format!("laid-{}", &id[..12])));
    let below: usize =
        docker(&["inspect", "--format", "{{len .RootFS.Layers}}", base]).trim().parse().unwrap();
    let layers: Vec<String> = (0..=below).map(|number| format!("{number}/layer.tar")).collect();
    let mut archive = Archive::default();
    archive.add(&layers[below], layer);
    archive.add("config.json", config.as_str());
    let manifest = json!([{ "Config": "config.json", "RepoTags": [image.0], "Layers": layers }]);
    archive.add("manifest.json", manifest.to_string());
    let file: PathBuf = tempfile::NamedTempFile::new().unwrap().into_temp_path().to_path_buf();
    fs::write(&file, archive.to_tar().unwrap()).unwrap();
    docker(&["load", "--quiet", "--input", file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.Id}}", &image.0]).trim(), format!("sha256:{id}"));
    assert!(docker(&["history", &image.0]).contains("the foundation"));
    let said = |user: &[&str], script: &str| {
        let command =
            [&["run", "--rm", "--label", "ipybox.test"], user, &[&image.0, "sh", "-c", script]].concat();
        docker(&command).trim().to_owned()
    };
    for shell in ["", "-l"] {
        let python = format!("sh {shell} -c 'python -c \"import sys; print(sys.prefix)\"'");
        assert_eq!(said(&[], &python), "/opt/venv", "{shell}");
    }
    assert_eq!(
        said(&[], "python -c 'import ipybox.health; print(ipybox.health.__file__)'"),
        "/opt/ipybox/lib/ipybox/health.py"
    );
    assert_eq!(
        said(&[], "/opt/ipybox/server/bin/python -I -c 'import ipybox, sys; print(sys.prefix)'"),
        "/opt/ipybox/server"
    );
    let within = "PATH=/usr/bin; PS1=x; set -eu; . /opt/ipybox/server/bin/activate; command -v python; echo $VIRTUAL_ENV $PS1; \
        . /opt/venv/bin/activate; command -v python; deactivate; echo $PATH $PS1 ${VIRTUAL_ENV-none}; ! command -v deactivate";
    let expected =
        "/opt/ipybox/server/bin/python\n/opt/ipybox/server (server) x\n/opt/venv/bin/python\n/usr/bin x none";
    assert_eq!(said(&[], within), expected);
    if has_line {
        assert_eq!(said(&["--user", "0:0"], "su ipybox -c id").split(' ').next(), Some("uid=1000(ipybox)"));
    }
    let inside = "mkdir -p /opt/venv/lib/python3*/site-packages && echo 'found = 1' >$(echo /opt/venv/lib/python3*/site-packages)/own_module.py && \
        /usr/bin/python3 -m venv --without-pip --system-site-packages /tmp/inside && /tmp/inside/bin/python -c 'import own_module; print(own_module.found)'";
    assert_eq!(said(&[], inside), "1");
}

#[test]
fn nothing_differs_from_what_steps_make() {
    let tools = Made::new("tools", "");
    for variant in ["minimal", "basic", "kernel"] {
        is_as_built(&tools.0, &["-V", variant, "--uid", "1000"], 1000);
    }
}

#[test]
fn nothing_differs_where_the_base_is_odd() {
    let mut odd = Made::new("odd", ODD);
    // Some storage drivers lose the bit where a folder is copied up, and with it what is known of the steps' folders.
    let copied_up = "touch /var/profile.d/new && test -g /var/profile.d";
    let keeps_set_gid = Command::new("docker")
        .args([
            "run",
            "--rm",
            "--label",
            "ipybox.test",
            "--user",
            "0:0",
            "--entrypoint",
            "/bin/sh",
            &odd.0,
            "-c",
            copied_up,
        ])
        .status()
        .unwrap()
        .success();
    if !keeps_set_gid {
        odd = Made::new("odd-without-bits", &ODD.replace("chmod 2", "chmod "));
    }
    is_as_built(&odd.0, &["-V", "kernel", "--uid", "1000"], 1000);
}

#[test]
fn nothing_differs_where_login_shells_read_one_file() {
    let poor = Made::new("poor", POOR);
    is_as_built(&poor.0, &["-V", "kernel", "--uid", "1000"], 1000);
}

#[test]
fn nothing_differs_where_all_is_of_root() {
    let tools = Made::new("root", "");
    is_as_built(&tools.0, &["-V", "kernel", "--root"], 0);
}
