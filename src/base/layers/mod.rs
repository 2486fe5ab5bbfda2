//! The facts of a base from its layers: what [`super::probe`] asks a container for, without one.
//!
//! Where the two differ: distributions are sorted by the names of their folders, where an interpreter tells them in the order
//! of the file system; an interpreter that other programs start, or whose start-up code may move the folders of its packages,
//! is left out; musl is told, which Python's own `platform` does not know before 3.14; and `/etc/hosts` and
//! `/etc/resolv.conf` are those of the image, where an engine may have put its own in their place.

mod metadata;
mod python;
mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

use serde::Deserialize;

use self::scan::Scan;
use super::{Base, BaseError, Config, Folder};
use crate::reference::{ImageId, Reference};
use crate::stored::{File, Files, Kind, Refusal, Stored, StoredError};

/// Where programs are looked for if an image does not say: Docker's default.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const PROGRAMS: [&str; 4] = ["apt-get", "curl", "find", "pkill"];

/// The folders that are looked into for links and permissions.
const NEAR_ROOT: [&str; 5] = ["/", "/usr", "/usr/local", "/var", "/opt"];

/// What an engine puts over these folders in every container, and its mode.
const MOUNTED: [(&str, u32); 3] = [("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555)];

/// Places that images have for themselves.
const OUR_PLACES: [&str; 2] = ["/opt/venv", "/opt/ipybox"];

/// The largest list of users or groups, in bytes: what is taken of a container.
const MOST_ACCOUNTS: u64 = 4 << 20;

/// How much of a text is read, in bytes.
const MOST_TEXT: u64 = 4 << 20;

/// How many files a folder near the root may have.
const MOST_NEAR_ROOT: usize = 10_000;

/// How much of all texts is kept, in bytes.
const MOST_KEPT: usize = 64 << 20;

/// The configuration of an image, as far as it decides what is built on it.
#[derive(Debug, Default, Deserialize)]
struct Configuration {
    config: Option<Settings>,
}

/// Rule: OCI image specification, "Image Configuration"; `Shell` and `OnBuild` are Docker's.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    shell: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    on_build: Option<Vec<String>>,
}

impl Base {
    /// The facts of an image in files, which is called by `reference`. Its id is the digest of its configuration, as it is in
    /// engines that keep layers by themselves.
    ///
    /// # Errors
    ///
    /// [`BaseError`].
    pub fn of_stored(stored: &Stored, reference: &Reference) -> Result<Self, BaseError> {
        let files = Files::of(stored)?;
        let mut contents = Contents { files: &files, texts: HashMap::new(), scans: HashMap::new(), kept: 0 };
        let settings = serde_json::from_slice::<Configuration>(&stored.config).map_err(|error| {
            BaseError::Configuration { reference: reference.clone(), why: error.to_string() }
        })?;
        let settings = settings.config.unwrap_or_default();
        let config = Config {
            user: settings.user.unwrap_or_default(),
            env: settings.env.unwrap_or_default(),
            entrypoint: settings.entrypoint.unwrap_or_default(),
            cmd: settings.cmd.unwrap_or_default(),
            shell: settings.shell.unwrap_or_default(),
            labels: settings.labels.unwrap_or_default(),
            on_build: settings.on_build.unwrap_or_default(),
        };
        if !files.find("/bin/sh").is_some_and(File::is_program) {
            return Err(BaseError::NoShell {
                reference: reference.clone(),
                why: "there is no program `/bin/sh` in its layers".to_owned(),
            });
        }
        let path = config.variable("PATH").unwrap_or(PATH).to_owned();
        let candidates = python::candidates(&files, &path);
        let beside = candidates.iter().flat_map(python::Candidate::settings);
        let accounts = ["/etc/passwd", "/etc/group", "/etc/os-release"].map(str::to_owned);
        contents.fetch(beside.chain(accounts), candidates.iter().map(|candidate| candidate.file.clone()))?;
        let account = |path: &'static str| accounts_text(&contents, path, reference);
        let (passwd, group) = (account("/etc/passwd")?, account("/etc/group")?);
        let codename = contents.text("/etc/os-release").and_then(codename);
        let has = |program: &str| {
            path.split(':')
                .any(|folder| files.find(&format!("{folder}/{program}")).is_some_and(File::is_program))
        };
        let (links, folders) = near_root(&files)?;
        let is_empty = |path: &str| files.entry(path).is_none_or(|file| file.kind() == Kind::File(0));
        let mut base = Self {
            reference: reference.clone(),
            id: ImageId::try_from(stored.config_digest.clone()).expect("a digest is an id"),
            platform: stored.platform.clone(),
            pythons: Vec::new(),
            passwd,
            group,
            codename,
            programs: PROGRAMS
                .iter()
                .filter(|program| has(program))
                .map(|&program| program.to_owned())
                .collect::<BTreeSet<_>>(),
            links,
            folders,
            taken: OUR_PLACES
                .iter()
                .filter(|path| files.entry(path).is_some())
                .map(|&path| path.to_owned())
                .collect(),
            broken: Vec::new(),
            lacks_hosts: is_empty("/etc/hosts"),
            lacks_resolv_conf: is_empty("/etc/resolv.conf"),
            config,
        };
        let (pythons, broken) = python::all(&mut contents, &candidates, base.config.variable("PYTHONPATH"))?;
        (base.pythons, base.broken) = (pythons, broken);
        Ok(base)
    }
}

/// What was read of an image's files, by their paths.
struct Contents<'a> {
    files: &'a Files,
    texts: HashMap<String, String>,
    scans: HashMap<String, Scan>,
    /// How much the texts take, in bytes.
    kept: usize,
}

impl Contents<'_> {
    /// Reads texts and looks through programs, all in one pass over each layer. What is there already, or is no regular file,
    /// is left out.
    fn fetch(
        &mut self,
        texts: impl IntoIterator<Item = String>,
        scans: impl IntoIterator<Item = String>,
    ) -> Result<(), StoredError> {
        let mut wanted: Vec<(String, bool)> = texts.into_iter().map(|path| (path, false)).collect();
        wanted.extend(scans.into_iter().map(|path| (path, true)));
        wanted.retain(
            |(path, scan)| {
                if *scan { !self.scans.contains_key(path) } else { !self.texts.contains_key(path) }
            },
        );
        wanted.sort();
        wanted.dedup();
        let found = wanted.iter().enumerate();
        let found = found.filter_map(|(index, (path, _))| Some((index, self.files.find(path)?)));
        let (texts, scans, kept) = (&mut self.texts, &mut self.scans, &mut self.kept);
        self.files.visit(found, |indexes, content| {
            let is_scan = |index: &&usize| wanted[**index].1;
            // A program may be asked for as a text, too, and is none then.
            if indexes.iter().any(|index| is_scan(&index)) {
                let scan = Scan::read(content)?;
                for index in indexes.iter().filter(is_scan) {
                    scans.insert(wanted[*index].0.clone(), scan.clone());
                }
                return Ok(());
            }
            let mut bytes = Vec::new();
            content.take(MOST_TEXT).read_to_end(&mut bytes)?;
            let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
            for index in indexes {
                keep(kept, text.len())?;
                texts.insert(wanted[*index].0.clone(), text.clone());
            }
            Ok(())
        })
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }
}

/// Counts what is kept.
fn keep(kept: &mut usize, bytes: usize) -> Result<(), Refusal> {
    *kept += bytes;
    if *kept > MOST_KEPT { Err(Refusal::Limit("64 MiB of texts about Python")) } else { Ok(()) }
}

/// The text of a list of users or groups; empty where there is none.
fn accounts_text(
    contents: &Contents<'_>,
    path: &'static str,
    reference: &Reference,
) -> Result<String, BaseError> {
    let unusable =
        |why: &str| Err(BaseError::Accounts { reference: reference.clone(), path, why: why.to_owned() });
    match contents.files.entry(path).map(File::kind) {
        None => Ok(String::new()),
        Some(Kind::File(size)) if size > MOST_ACCOUNTS => unusable("it is larger than 4 MiB"),
        Some(Kind::File(_)) => {
            contents.text(path).map_or_else(|| unusable("it is not UTF-8"), |text| Ok(text.to_owned()))
        }
        Some(_) => unusable("it is not a regular file"),
    }
}

/// The codename that the shell would find in `os-release`; `None` where there is none, or only a shell could say.
///
/// Rule: os-release(5).
fn codename(text: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("VERSION_CODENAME="))?;
    let value = value.trim_end();
    let quoted = ['"', '\''].iter().find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let value = quoted.unwrap_or(value);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+~".contains(&byte);
    (!value.is_empty() && value.bytes().all(is_plain)).then(|| value.to_owned())
}

/// Links by their paths, and permissions.
type NearRoot = (BTreeMap<String, String>, BTreeMap<String, Folder>);

/// Folders near the root that are links, and those whose permissions are not the usual ones.
fn near_root(files: &Files) -> Result<NearRoot, StoredError> {
    let (mut links, mut folders) = (BTreeMap::new(), BTreeMap::new());
    let is_told = |path: &str| !path.contains(char::is_control);
    for parent in NEAR_ROOT {
        let names = files.find(parent).into_iter().flat_map(File::names);
        for (number, name) in names.filter(|name| !name.starts_with('.')).enumerate() {
            if number == MOST_NEAR_ROOT {
                return Err(files.refuse(Refusal::Limit("10 000 files in a folder near the root")));
            }
            let path = format!("{}/{name}", parent.trim_end_matches('/'));
            let Some(folder) = files.find(&path).filter(|folder| folder.is_folder()) else { continue };
            let real = folder.path();
            if !is_told(&path) || !is_told(&real) {
                continue;
            }
            if real != path && !path.contains(' ') {
                links.insert(path, real.clone());
            }
            let mut real = real.as_str();
            // Where a folder is known, those that it is in are.
            while !real.is_empty() && real != "/" && !folders.contains_key(real) {
                if let Some(file) = files.find(real) {
                    let folder = Folder { mode: file.mode(), uid: file.uid(), gid: file.gid() };
                    folders.insert(real.to_owned(), folder);
                }
                real = real.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
        }
    }
    folders.extend(MOUNTED.map(|(path, mode)| (path.to_owned(), Folder { mode, uid: 0, gid: 0 })));
    folders.retain(|_, folder| *folder != Folder { mode: 0o755, uid: 0, gid: 0 });
    Ok((links, folders))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::archive::{Archive, hexadecimal};
    use crate::stored::Place;

    const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

    /// A program that tells what an interpreter does.
    fn elf(texts: &[&str]) -> Vec<u8> {
        [b"\x7fELF\x02".as_slice(), texts.join("\0").as_bytes(), b"\0"].join(&0)
    }

    /// A system with a shell and a C library.
    fn system() -> Archive {
        let mut layer = Archive::default();
        layer.add_program("bin/sh", elf(&[]));
        layer.add(
            "lib/x86_64-linux-gnu/libc.so.6",
            "\x7fELFGNU C Library (GLIBC 2.40) stable release version 2.40.\n",
        );
        layer.add_program("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", elf(&[]));
        layer.add_link(LOADER, "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
        layer
    }

    fn facts(layer: &Archive, env: &[&str]) -> Result<Base, BaseError> {
        let layer = layer.to_tar().unwrap();
        let digest = |bytes: &[u8]| hexadecimal(&Sha256::digest(bytes));
        let diff_ids = [format!("sha256:{}", digest(&layer))];
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": { "Env": env, "Cmd": ["x"], "Labels": null },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let mut image = Archive::default();
        image.add("c.json", config.to_string());
        image.add("l.tar", layer);
        image.add("manifest.json", json!([{ "Config": "c.json", "Layers": ["l.tar"] }]).to_string());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        image.write_to(&mut file).unwrap();
        file.flush().unwrap();
        let place = Place::DockerArchive { file: file.path().to_owned(), name: None };
        Base::of_stored(&Stored::open(&place, None).unwrap(), &"x".parse().unwrap())
    }

    #[test]
    fn interpreters_are_told_as_they_would_themselves() {
        let mut layer = system();
        // As python.org builds it: the interpreter is in a library, and found through links.
        layer.add_program(
            "usr/local/bin/python3.12",
            elf(&["/lib64/ld-linux-x86-64.so.2", "libpython3.12.so.1.0"]),
        );
        layer.add_link("usr/local/bin/python3", "python3.12");
        layer.add_link("usr/local/bin/python", "python3");
        layer.add("usr/local/lib/libpython3.12.so.1.0", elf(&["3.12.8", "3.45.1", "15.0.0"]));
        layer.add("usr/local/lib/python3.12/os.py", "");
        layer.add("usr/local/lib/python3.12/site.py", "site-packages");
        let packages = "usr/local/lib/python3.12/site-packages";
        layer.add(
            &format!("{packages}/a_b-1.dist-info/METADATA"),
            "Name: a.b\nVersion: 1\nRequires-Dist: c>1\nProvides-Extra: x\n\n€",
        );
        layer.add(&format!("{packages}/a_b-2.dist-info/METADATA"), "Name: A-B\nVersion: 2\n");
        layer.add(&format!("{packages}/empty.egg-info/PKG-INFO"), "");
        layer.add(&format!("{packages}/file.egg-info"), "Name: file\nVersion: 3\n");
        layer.add(
            &format!("{packages}/latin.dist-info/METADATA"),
            b"Name: latin\nVersion: 1\nAuthor: \xe4\n".to_vec(),
        );
        layer.add(
            &format!("{packages}/links.pth"),
            "# none\n\n../../../share/more\n/nowhere\nimport x; x.y()\n/srv/site-packages/\n",
        );
        layer.add("usr/local/share/more/m.egg-info/PKG-INFO", "Name: m\nVersion: 4\n");
        layer.add("srv/site-packages/x", "");
        layer.add("srv/path/a.dist-info/METADATA", "Name: a.B\nVersion: 0\n");
        // A virtual environment that sees it.
        layer.add_link("opt/env/bin/python3", "/usr/local/bin/python3.12");
        layer.add("opt/env/pyvenv.cfg", "home = /usr/local/bin\ninclude-system-site-packages = true\n");
        layer.add("opt/env/lib/python3.12/site-packages/own.dist-info/METADATA", "Name: own\nVersion: 5\n");
        layer.add("opt/env/lib/python3.12/site-packages/own.dist-info/INSTALLER", "debian\n");
        // Those that cannot be known.
        layer.add_program("opt/script/bin/python3", "#!/bin/sh\n");
        layer.add_program("opt/alone/bin/python3", elf(&["3.12.8"]));
        layer.add_program("opt/moved/bin/python3", elf(&["3.9.1"]));
        layer.add("opt/moved/lib/python3.9/os.py", "");
        layer.add(
            "opt/moved/lib/python3.9/site-packages/sitecustomize.py",
            "import sys\nsys.path.append('/x')\n",
        );
        layer.add_program("opt/several/bin/python3", elf(&["3.9.1", "3.9.2"]));
        layer.add("opt/several/lib/python3.9/os.py", "");
        layer.add("opt/nothing/bin/python3", "");
        let base =
            facts(&layer, &["PATH=/usr/local/bin:/nowhere:relative", "PYTHONPATH=/srv/path::other"]).unwrap();
        assert_eq!(
            base.broken,
            [
                "/opt/alone/bin/python3 (no standard library of Python 3 is found for it)",
                "/opt/script/bin/python3 (it is a script, and what that starts is not known)",
                "/opt/several/bin/python3 (its version is not found in it)",
                "/opt/moved/bin/python3 (`/opt/moved/lib/python3.9/site-packages/sitecustomize.py` may change where its packages are)",
            ]
        );
        let distribution = |name: &str, version: &str| json!({ "name": name, "version": version });
        let own = json!({ "name": "own", "version": "5", "of_system": true });
        let (file, m) = (distribution("file", "3"), distribution("m", "4"));
        let first = distribution("a.B", "0");
        assert_eq!(
            serde_json::to_value(&base.pythons).unwrap(),
            json!([
                {
                    "path": "/usr/local/bin/python3", "version": "3.12.8", "implementation": "cpython",
                    "libc": "glibc 2.40", "prefix": "/usr/local", "is_virtual": false,
                    "folders": ["/usr/local/lib/python3.12/site-packages", "/srv/site-packages"],
                    "distributions": [first, file, m],
                },
                {
                    "path": "/opt/env/bin/python3", "version": "3.12.8", "implementation": "cpython",
                    "libc": "glibc 2.40", "prefix": "/opt/env", "is_virtual": true,
                    "folders": ["/opt/env/lib/python3.12/site-packages", "/usr/local/lib/python3.12/site-packages", "/srv/site-packages"],
                    "distributions": [first, own, file, m],
                },
            ])
        );
        let without = facts(&layer, &["PATH=/usr/local/bin"]).unwrap();
        let found = &without.pythons[0].distributions[0];
        assert_eq!((found.version.as_str(), found.requires.as_slice()), ("1", ["c>1".to_owned()].as_slice()));
    }

    #[test]
    fn accounts_and_shells_are_refused_as_in_a_container() {
        let mut layer = system();
        let base = facts(&layer, &[]).unwrap();
        assert!(
            base.passwd.is_empty() && base.pythons.is_empty() && base.lacks_hosts && base.taken.is_empty()
        );
        assert_eq!(base.config.cmd, ["x"]);
        layer.add_link("etc/passwd", "/etc/other");
        layer.add("etc/other", "root:x:0:0::/root:/bin/sh\n");
        layer.add("etc/hosts", "127.0.0.1 localhost\n");
        let refused = facts(&layer, &[]).unwrap_err().diagnostic();
        assert_eq!(
            (refused.what.as_str(), refused.why.as_str()),
            ("cannot use `/etc/passwd` of base image `x`", "it is not a regular file")
        );
        layer.add("etc/passwd", b"\xff".to_vec());
        assert_eq!(facts(&layer, &[]).unwrap_err().diagnostic().why, "it is not UTF-8");
        layer.add("etc/passwd", vec![b'x'; 5 << 20]);
        assert_eq!(facts(&layer, &[]).unwrap_err().diagnostic().why, "it is larger than 4 MiB");
        layer.add("etc/passwd", "");
        layer.add_link("opt/venv", "nowhere");
        let base = facts(&layer, &[]).unwrap();
        assert!(!base.lacks_hosts && base.lacks_resolv_conf && base.taken == ["/opt/venv"]);
        layer.add("bin/sh", "no program");
        assert!(matches!(facts(&layer, &[]), Err(BaseError::NoShell { .. })));
    }

    #[test]
    fn codenames_are_read_as_a_shell_would() {
        for (text, expected) in [
            ("NAME=x\nVERSION_CODENAME=bookworm\n", Some("bookworm")),
            ("VERSION_CODENAME=\"noble\"", Some("noble")),
            ("VERSION_CODENAME='a-b'\r\n", Some("a-b")),
            ("VERSION_CODENAME=one\nVERSION_CODENAME=two", Some("two")),
            ("VERSION_CODENAME=\n", None),
            ("VERSION_CODENAME=\"\"\n", None),
            ("VERSION_CODENAME=$(id)\n", None),
            ("#VERSION_CODENAME=x\n", None),
            ("OLD_VERSION_CODENAME=x\n", None),
        ] {
            assert_eq!(codename(text).as_deref(), expected, "{text:?}");
        }
    }
}
