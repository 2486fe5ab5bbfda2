//! A foundation that no step makes: what its steps leave beside the servers' wheels, as files that are laid over the base.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{files, in_base};
use super::runtime;
use crate::accounts;
use crate::archive::{Archive, Owner};
use crate::base::{Base, Folder, Python};
use crate::inputs::templates::Templates;
use crate::plan::{Foundation, HOME, Plan, Provenance, VENV};
use crate::variant::Placement;

/// What a foundation depends on in a base, beside its facts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts {
    /// Its `/etc/profile`, where there is one.
    pub profile: Option<Text>,
    /// Its `/etc/shadow`, where there is one.
    pub shadow: Option<Text>,
    /// The Debian packages that are installed in it.
    pub debian: BTreeSet<String>,
    /// Those of [`folders`] that it has, and all that they lie in, by their paths without links.
    pub folders: BTreeMap<String, Folder>,
    /// The links on the way to those folders, where they lead to other folders, and absolute paths of these.
    pub links: BTreeMap<String, String>,
}

/// A file of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What is in it, which need not be UTF-8.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub permissions: Folder,
}

/// The Debian packages that are installed where `/var/lib/dpkg/status` says this.
///
/// Rule: dpkg, `dpkg-query(1)`, "status"; Debian Policy, 5.1.
#[must_use]
pub fn installed(status: &str) -> BTreeSet<String> {
    let mut packages = BTreeSet::new();
    let mut package = None;
    for line in status.lines() {
        match line.split_once(':') {
            Some(("Package", name)) => package = Some(name.trim()),
            Some(("Status", status)) if status.split_whitespace().last() == Some("installed") => {
                packages.extend(package.take().map(str::to_owned));
            }
            _ if line.trim().is_empty() => package = None,
            _ => {}
        }
    }
    packages
}

/// The folders of a base whose permissions a foundation keeps; they need not be there.
#[must_use]
pub fn folders(plan: &Plan, base: &Base) -> Vec<String> {
    let site = python(plan, base).map(|python| site(python, base));
    std::iter::once(PROFILE_FOLDER.to_owned()).chain(site).collect()
}

/// Why there is no foundation of a plan without a step, where there is none.
#[must_use]
pub fn obstacle(plan: &Plan, base: &Base, texts: &Texts, templates: &Templates) -> Option<String> {
    let Foundation { placement, provenance, interpreter, apt, .. } = &plan.foundation;
    if *placement != Placement::Isolated {
        return Some(format!("packages of `{}` lie among those of its base", plan.variant));
    }
    match provenance {
        Provenance::Base => {}
        Provenance::Archive => return Some("its Python is unpacked from an archive".to_owned()),
        Provenance::Apt => return Some("its base has no Python, and a package has to bring one".to_owned()),
    }
    let shipped = Templates::shipped();
    if plan.foundation.template != TEMPLATE || templates.dockerfiles().ne(shipped.dockerfiles()) {
        return Some("its steps are those of other templates".to_owned());
    }
    if interpreter.implementation != "cpython" {
        return Some(format!("its Python is {}", interpreter.implementation));
    }
    let path = &interpreter.path;
    let Some(python) = python(plan, base) else {
        return Some(format!("its base has no `{path}`"));
    };
    if python.is_virtual {
        return Some(format!("`{path}` is that of another virtual environment"));
    }
    // An environment finds the standard library from where its interpreter lies.
    let prefix = in_base(base, &python.prefix);
    let is_inside = |path: &str| path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
    if !prefix.is_empty() && !is_inside(&in_base(base, path)) {
        return Some(format!("`{path}` is a link to a Python in `{}`", python.prefix));
    }
    let is_plain = |text: &str| !text.contains(char::is_control);
    let is_version = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let own = [path.as_str(), &python.prefix];
    if !path.starts_with('/')
        || !own.into_iter().chain(python.folders.iter().map(String::as_str)).all(is_plain)
        || !interpreter.version.bytes().all(is_version)
    {
        return Some(format!("`{}` tells nonsense of itself", path.escape_debug()));
    }
    let version = version(python);
    if python.folders.iter().any(|folder| folder.contains(&format!("/python{version}t/"))) {
        return Some(format!("`{path}` is a free-threaded Python"));
    }
    let lacking: Vec<_> = apt.iter().filter(|name| !texts.debian.contains(*name)).collect();
    if !lacking.is_empty() {
        let names = lacking.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Some(format!("its base lacks Debian packages: {names}"));
    }
    if plan.own_steps().next().is_some() {
        return Some("its variant has steps of its own".to_owned());
    }
    plan.copies().next().map(|_| "files are copied into it".to_owned())
}

/// The Debian packages that steps would install where they can, and that such a foundation is without.
pub fn left_out<'a>(plan: &'a Plan, texts: &Texts) -> impl Iterator<Item = &'a str> {
    let wishes = plan.foundation.wishes.iter().map(String::as_str);
    wishes.filter(|name| !texts.debian.contains(*name))
}

/// All that is laid over the base of a plan that nothing stands in the way of: the image's own files, its two environments
/// with nothing installed, and what login shells read. Not in it: the servers, and bytecode.
#[must_use]
pub fn laid_over(plan: &Plan, base: &Base, texts: &Texts, templates: &Templates) -> Archive {
    let mut base = base.clone();
    base.links.extend(texts.links.clone());
    let base = &base;
    let mut laid = files(&plan.foundation, base, templates);
    let (uid, gid) = plan.foundation.user.owner();
    let server = format!("{HOME}/server");
    environment(&mut laid, plan, base, templates, &server, Access { write: 0, owner: Owner::default() });
    // Whatever user of group 0 a container runs as may install more.
    environment(&mut laid, plan, base, templates, VENV, Access { write: 0o020, owner: Owner { uid, gid } });
    let mut added = login(&mut laid, plan, base, texts, templates);
    if let Some(python) = python(plan, base) {
        let place = in_base(base, &format!("{}/ipybox.pth", site(python, base)));
        laid.add(&place, format!("{VENV}/lib/python{}/site-packages\n", version(python)));
        added.push(place);
    }
    keep_folders(&mut laid, &added, base, texts);
    laid
}

/// Gives folders that things are added to the permissions that they have in the base, and what is new there the group that
/// some of them ask for.
///
/// Rule: POSIX-1.2017, `open()`, `O_CREAT`; Linux, `inode(7)`, "set-group-ID bit".
fn keep_folders(laid: &mut Archive, added: &[String], base: &Base, texts: &Texts) {
    const SET_GID: u32 = 0o2000;
    let known: BTreeMap<&str, Folder> = base
        .folders
        .iter()
        .chain(&texts.folders)
        .map(|(path, folder)| (path.trim_start_matches('/'), *folder))
        .collect();
    if let Some(Folder { mode, uid, gid }) = known.get("etc") {
        laid.set_directory("etc", *mode, Owner { uid: *uid, gid: *gid });
    }
    for path in added {
        let mut inherited = None;
        for (slash, _) in path.match_indices('/') {
            let folder = &path[..slash];
            match (known.get(folder), inherited) {
                (Some(Folder { mode, uid, gid }), _) => {
                    laid.set_directory(folder, *mode, Owner { uid: *uid, gid: *gid });
                    inherited = (mode & SET_GID != 0).then_some(*gid);
                }
                (None, Some(gid)) => laid.set_directory(folder, 0o755 | SET_GID, Owner { uid: 0, gid }),
                (None, None) => {}
            }
        }
        if let Some(gid) = inherited {
            laid.give(path, 0o644, Owner { uid: 0, gid });
        }
    }
}

/// The template whose steps are known.
const TEMPLATE: &str = "server.tera";

/// Where login shells look for further files.
const PROFILE_FOLDER: &str = "/etc/profile.d";

/// Who may do what with an environment.
#[derive(Clone, Copy)]
struct Access {
    /// The permission to write that others than the owner have.
    write: u32,
    owner: Owner,
}

/// The interpreter of a plan, as its base has it.
fn python<'a>(plan: &Plan, base: &'a Base) -> Option<&'a Python> {
    base.pythons.iter().find(|python| python.interpreter == plan.foundation.interpreter)
}

/// Such as `3.12`.
fn version(python: &Python) -> String {
    python.interpreter.version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The folder that packages of an interpreter's own are installed into.
///
/// Rule: Python, `site.getsitepackages()`; Debian Python Policy, 2.5: its interpreter leaves that to packages.
fn site(python: &Python, base: &Base) -> String {
    let Python { prefix, folders, .. } = python;
    let version = version(python);
    let is_of_debian = prefix == "/usr"
        && (base.has("apt-get") || folders.iter().any(|folder| folder.ends_with("/dist-packages")));
    if is_of_debian {
        return format!("/usr/local/lib/python{version}/dist-packages");
    }
    let is_own = |folder: &&String| {
        folder.starts_with(&format!("{prefix}/"))
            && folder.ends_with(&format!("/python{version}/site-packages"))
    };
    let known = folders.iter().find(is_own).cloned();
    known.unwrap_or_else(|| format!("{}/lib/python{version}/site-packages", prefix.trim_end_matches('/')))
}

/// A virtual environment with nothing installed, which finds the image's own modules.
///
/// Rule: Python, `venv`, "How venvs work"; the settings are those that uv writes.
fn environment(
    laid: &mut Archive,
    plan: &Plan,
    base: &Base,
    templates: &Templates,
    home: &str,
    Access { write, owner }: Access,
) {
    let Foundation { interpreter, installer, .. } = &plan.foundation;
    let version = interpreter.version.split('.').take(2).collect::<Vec<_>>().join(".");
    let place = |path: &str| in_base(base, &format!("{home}{path}"));
    let site = format!("/lib/python{version}/site-packages");
    let mut parents = vec![String::new(), "/bin".to_owned()];
    parents.extend(site.match_indices('/').skip(1).map(|(slash, _)| site[..slash].to_owned()));
    parents.push(site.clone());
    for path in parents {
        laid.add_directory(&place(&path), 0o755 | write, owner);
    }
    let mut link = |path: &str, target: &str| {
        let place = place(path);
        laid.add_link(&place, target);
        laid.give(&place, 0o777, owner);
    };
    link("/bin/python", &interpreter.path);
    link("/bin/python3", "python");
    link(&format!("/bin/python{version}"), "python");
    if !THIRTY_TWO_BITS.contains(&base.platform.architecture.as_str()) {
        link("/lib64", "lib");
    }
    let folder = interpreter.path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    // Of one that the caller gave, nobody knows the version.
    let uv =
        if installer.version == "custom" { String::new() } else { format!("uv = {}\n", installer.version) };
    let settings = format!(
        "home = {folder}\nimplementation = CPython\n{uv}version_info = {}\ninclude-system-site-packages = false\n",
        interpreter.version
    );
    let library = format!("import sys; sys.path.insert(0, '{HOME}/lib')\n");
    let activate = runtime(templates, "activate.sh").replace(VENV, home);
    for (path, text) in
        [("/pyvenv.cfg", settings), (&format!("{site}/ipybox.pth"), library), ("/bin/activate", activate)]
    {
        let place = place(path);
        laid.add(&place, text);
        laid.give(&place, 0o644 | write, owner);
    }
}

/// Architectures of OCI images whose Pythons have no `lib64`.
const THIRTY_TWO_BITS: [&str; 4] = ["386", "arm", "mips", "mipsle"];

/// Has login shells find the packages, and `su` the image's user; returns the paths of what is added.
fn login(laid: &mut Archive, plan: &Plan, base: &Base, texts: &Texts, templates: &Templates) -> Vec<String> {
    let mut added = Vec::new();
    let folder = in_base(base, PROFILE_FOLDER);
    let has_folder = texts.folders.contains_key(&format!("/{folder}"));
    if has_folder {
        let place = format!("{folder}/ipybox.sh");
        laid.add(&place, runtime(templates, "profile.sh"));
        added.push(place);
    }
    if !(has_folder && texts.profile.as_ref().is_some_and(reads_folder)) {
        let line = format!(". {HOME}/profile.sh");
        with_line(laid, "etc/profile", texts.profile.as_ref(), &line);
    }
    if let Some(shadow) = texts.shadow.as_ref().filter(|_| plan.foundation.user.is_unprivileged()) {
        let name = format!("{}:", accounts::NAME);
        if !shadow.bytes.split(|&byte| byte == b'\n').any(|line| line.starts_with(name.as_bytes())) {
            let line = format!("{name}!:19000:0:99999:7:::");
            with_line(laid, "etc/shadow", Some(shadow), &line);
        }
    }
    added
}

/// Whether shells that read this read the files of the folder, too.
fn reads_folder(profile: &Text) -> bool {
    let text = String::from_utf8_lossy(&profile.bytes);
    text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains(PROFILE_FOLDER))
}

/// Adds a file of the base with a further line at its end.
fn with_line(laid: &mut Archive, path: &str, file: Option<&Text>, line: &str) {
    let none = Text { bytes: Vec::new(), permissions: Folder { mode: 0o644, uid: 0, gid: 0 } };
    let Text { mut bytes, permissions: Folder { mode, uid, gid } } = file.cloned().unwrap_or(none);
    if bytes.last().is_some_and(|&last| last != b'\n') {
        bytes.push(b'\n');
    }
    bytes.extend(format!("{line}\n").into_bytes());
    laid.add(path, bytes);
    laid.give(path, mode, Owner { uid, gid });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::planned;
    use crate::plan::{PlannedArchive, PlannedCopy};

    fn text(text: &str) -> Text {
        Text { bytes: text.into(), permissions: Folder { mode: 0o640, uid: 0, gid: 42 } }
    }

    /// What an archive has for a path: mode, owner, and the content or target.
    fn found(archive: &Archive, wanted: &str) -> Option<(u32, u64, u64, String)> {
        use std::io::Read;
        let tar = archive.to_tar().unwrap();
        let mut tar = tar::Archive::new(tar.as_slice());
        tar.entries().unwrap().map(Result::unwrap).find_map(|mut entry| {
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).ok()?;
            let header = entry.header();
            let link = header.link_name().unwrap().map(|link| link.display().to_string());
            let ids = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
            (path.trim_end_matches('/') == wanted).then(|| (ids.0, ids.1, ids.2, link.unwrap_or(text)))
        })
    }

    #[test]
    fn packages_are_installed_where_their_status_says_so() {
        let status = "Package: a\nStatus: install ok installed\nDepends: b:any\n\nPackage: b\nStatus: deinstall ok config-files\n\n\
            Package: c\nVersion: 1\nStatus: hold ok installed\n\nStatus: install ok installed\n";
        assert_eq!(installed(status), BTreeSet::from(["a".to_owned(), "c".to_owned()]));
        assert!(installed("").is_empty());
    }

    type Change = fn(&mut Plan, &mut Base);

    #[test]
    fn what_needs_a_step_is_told() {
        let tools = Texts { debian: ["iptables", "procps"].map(str::to_owned).into(), ..Texts::default() };
        let templates = Templates::shipped();
        let (plan, base) = planned("minimal");
        assert_eq!(obstacle(&plan, &base, &tools, &templates), None);
        let lacks = obstacle(&plan, &base, &Texts::default(), &templates).unwrap();
        assert_eq!(lacks, "its base lacks Debian packages: `iptables`, `procps`");
        let (kernel, _) = planned("kernel");
        assert_eq!(left_out(&kernel, &Texts::default()).collect::<Vec<_>>(), ["procps"]);
        assert_eq!(left_out(&kernel, &tools).count(), 0);
        let rows: [(Change, &str); 11] = [
            (|plan, _| plan.foundation.placement = Placement::Layered, "among those of its base"),
            (|plan, _| plan.foundation.placement = Placement::Inherited, "among those of its base"),
            (|plan, _| plan.foundation.provenance = Provenance::Apt, "has no Python"),
            (|plan, _| plan.foundation.provenance = Provenance::Archive, "from an archive"),
            (|plan, _| plan.foundation.template = "own.tera".to_owned(), "other templates"),
            (|_, base| base.pythons.clear(), "has no `/usr/local/bin/python3`"),
            (|_, base| base.pythons[0].is_virtual = true, "another virtual environment"),
            (|_, base| base.pythons[0].prefix = "/opt/elsewhere".to_owned(), "is a link to a Python in"),
            (|_, base| base.pythons[0].folders = vec!["/x\0/site-packages".to_owned()], "nonsense"),
            (
                |_, base| {
                    base.pythons[0].folders = vec!["/usr/local/lib/python3.12t/site-packages".to_owned()];
                },
                "free-threaded",
            ),
            (
                |plan, _| {
                    let (to, digest) = ("/x".to_owned(), String::new());
                    plan.finish.copies.push(PlannedCopy { to, is_folder: false, owner: (0, 0), digest });
                },
                "files are copied",
            ),
        ];
        for (change, why) in rows {
            let (mut plan, mut base) = (plan.clone(), base.clone());
            change(&mut plan, &mut base);
            let told = obstacle(&plan, &base, &tools, &templates).unwrap();
            assert!(told.contains(why), "{told}");
        }
        let mut plan = plan;
        let (folder, version, sha256) = (String::new(), "3.12.1".to_owned(), String::new());
        plan.foundation.python_archive = Some(PlannedArchive { folder, version, sha256 });
        plan.foundation.provenance = Provenance::Archive;
        assert!(obstacle(&plan, &base, &tools, &templates).is_some());
    }

    #[test]
    fn login_shells_are_told_where_they_look() {
        let (plan, base) = planned("kernel");
        let folder = Folder { mode: 0o750, uid: 0, gid: 7 };
        let with_folder = BTreeMap::from([("/etc/profile.d".to_owned(), folder)]);
        let laid = |profile: Option<&str>, folders: &BTreeMap<String, Folder>, shadow: Option<&str>| {
            let (profile, shadow) = (profile.map(text), shadow.map(text));
            let texts = Texts { profile, shadow, folders: folders.clone(), ..Texts::default() };
            laid_over(&plan, &base, &texts, &Templates::shipped())
        };
        let (reads, none) = ("for i in /etc/profile.d/*.sh; do . $i; done\n", BTreeMap::new());
        let line = ". /opt/ipybox/profile.sh\n";
        for (profile, folders, in_folder, expected) in [
            (Some(reads), &with_folder, true, None),
            (Some(reads), &none, false, Some(format!("{reads}{line}"))),
            (
                Some("# /etc/profile.d is not read"),
                &with_folder,
                true,
                Some(format!("# /etc/profile.d is not read\n{line}")),
            ),
            (None, &with_folder, true, Some(line.to_owned())),
            (None, &none, false, Some(line.to_owned())),
        ] {
            let laid = laid(profile, folders, None);
            assert_eq!(found(&laid, "etc/profile.d/ipybox.sh").is_some(), in_folder);
            let added = found(&laid, "etc/profile");
            let permissions = if profile.is_some() { (0o640, 0, 42) } else { (0o644, 0, 0) };
            assert_eq!(added, expected.map(|text| (permissions.0, permissions.1, permissions.2, text)));
            if in_folder {
                assert_eq!(found(&laid, "etc/profile.d"), Some((0o750, 0, 7, String::new())));
            }
            assert_eq!(found(&laid, "etc/shadow"), None);
        }
        let ours = "ipybox:!:19000:0:99999:7:::\n";
        for (shadow, expected) in [
            ("root:*:1::::::", Some(format!("root:*:1::::::\n{ours}"))),
            ("", Some(ours.to_owned())),
            ("ipybox:*:1::::::\n", None),
        ] {
            let added = found(&laid(None, &none, Some(shadow)), "etc/shadow");
            assert_eq!(added, expected.map(|text| (0o640, 0, 42, text)));
        }
    }

    #[test]
    fn environments_are_where_links_of_the_base_lead_and_belong_to_whom_they_should() {
        let (mut plan, mut base) = planned("kernel");
        base.links.insert("/opt".to_owned(), "/var/opt".to_owned());
        "custom".clone_into(&mut plan.foundation.installer.version);
        let laid = laid_over(&plan, &base, &Texts::default(), &Templates::shipped());
        let venv = "home = /usr/local/bin\nimplementation = CPython\nversion_info = 3.12.8\ninclude-system-site-packages = false\n";
        for (path, mode, uid, content) in [
            ("var/opt/venv", 0o775, 1000, ""),
            ("var/opt/venv/pyvenv.cfg", 0o664, 1000, venv),
            ("var/opt/venv/bin/python", 0o777, 1000, "/usr/local/bin/python3"),
            ("var/opt/venv/bin/python3.12", 0o777, 1000, "python"),
            ("var/opt/venv/lib64", 0o777, 1000, "lib"),
            ("var/opt/venv/lib/python3.12", 0o775, 1000, ""),
            ("var/opt/ipybox/server/lib/python3.12/site-packages", 0o755, 0, ""),
            ("var/opt/ipybox/server/bin/python", 0o777, 0, "/usr/local/bin/python3"),
            (
                "usr/local/lib/python3.12/site-packages/ipybox.pth",
                0o644,
                0,
                "/opt/venv/lib/python3.12/site-packages\n",
            ),
        ] {
            assert_eq!(found(&laid, path), Some((mode, uid, 0, content.to_owned())), "{path}");
        }
        let activate = found(&laid, "var/opt/ipybox/server/bin/activate").unwrap().3;
        assert!(activate.contains("\nVIRTUAL_ENV=/opt/ipybox/server\n") && !activate.contains(VENV));
        assert_eq!(found(&laid, "opt"), None);
        base.platform.architecture = "arm".to_owned();
        let laid = laid_over(&plan, &base, &Texts::default(), &Templates::shipped());
        assert_eq!(found(&laid, "var/opt/venv/lib64"), None);
    }

    #[test]
    fn packages_of_an_interpreter_lie_where_it_looks() {
        let (_, mut base) = planned("kernel");
        base.programs.clear();
        for (prefix, folders, expected) in [
            ("/usr", &["/usr/lib/python3/dist-packages"][..], "/usr/local/lib/python3.12/dist-packages"),
            ("/usr", &[], "/usr/lib/python3.12/site-packages"),
            (
                "/usr",
                &["/elsewhere/python3.12/site-packages", "/usr/lib64/python3.12/site-packages"],
                "/usr/lib64/python3.12/site-packages",
            ),
            ("/opt/conda", &[], "/opt/conda/lib/python3.12/site-packages"),
        ] {
            let python = &mut base.pythons[0];
            (python.prefix, python.folders) =
                (prefix.to_owned(), folders.iter().map(|&path| path.to_owned()).collect());
            assert_eq!(site(&base.pythons[0], &base), expected);
        }
    }

    proptest! {
        #[test]
        fn bases_that_lie_cause_no_panic(
            links in prop::collection::btree_map("/[a-z./\0]{0,12}|/opt|/app|/opt/venv|/usr/local/lib", "[/.a-z\0]{0,12}|/", 0..6),
            folders in prop::collection::btree_map("[/a-z.\0]{0,12}|/etc/profile.d", 0u32..0o10_000, 0..4),
            profile in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
            status in ".{0,60}",
        ) {
            let (plan, base) = planned("kernel");
            let permissions = Folder { mode: 0o644, uid: 1, gid: 2 };
            let profile = profile.map(|bytes| Text { bytes, permissions });
            let folders = folders.into_iter().map(|(path, mode)| (path, Folder { mode, uid: 1, gid: 2 })).collect();
            let texts = Texts { shadow: profile.clone(), profile, folders, links, debian: installed(&status) };
            let _ = obstacle(&plan, &base, &texts, &Templates::shipped());
            prop_assert!(laid_over(&plan, &base, &texts, &Templates::shipped()).to_tar().is_ok());
        }
    }
}
