//! The files that an image has of its own: everything but its two environments.

use super::runtime;
use crate::accounts::{self, User};
use crate::archive::{Archive, Owner};
use crate::base::{Base, Folder};
use crate::inputs::templates::Templates;
use crate::plan::{Foundation, HOME, WORKDIR, WORKSPACE};
use crate::variant::{Interface, is_of_firewall};

/// What one `ADD` lays over the base: everything but the two environments.
pub(super) fn files(plan: &Foundation, base: &Base, templates: &Templates) -> Archive {
    let (uid, gid) = plan.user.owner();
    let theirs = Owner { uid, gid };
    let mut files = Archive::default();
    if base.lacks_hosts {
        files.add("etc/hosts", "");
    }
    if base.lacks_resolv_conf {
        files.add("etc/resolv.conf", "");
    }
    let place = |path: &str| in_base(base, path);
    for (path, text) in templates.modules() {
        files.add(&place(&format!("{HOME}/lib/{path}")), text);
    }
    if plan.apt.iter().any(|name| is_of_firewall(name)) {
        let script = place("/usr/local/bin/init-firewall.sh");
        files.add_program(&script, runtime(templates, "init-firewall.sh"));
    }
    let server = |path: &str| format!("{HOME}/server/{path}");
    files
        .add(&place(&server("share/jupyter/kernels/python3/kernel.json")), runtime(templates, "kernel.json"));
    if plan.servers.iter().any(|server| server.speaks(Interface::Gateway)) {
        let settings = "jupyter_kernel_gateway_config.py";
        files.add(&place(&server(&format!("etc/jupyter/{settings}"))), runtime(templates, settings));
    }
    for name in ["health.sh", "profile.sh"] {
        files.add(&place(&format!("{HOME}/{name}")), runtime(templates, name));
    }
    let path = plan.env.get("PATH").map(String::as_str).unwrap_or_default();
    files.add(&place(&format!("{HOME}/path")), format!("{path}\n"));
    // The superuser's home is the base's.
    let home = plan.user.home().filter(|_| plan.user != User::Root);
    let run = format!("{HOME}/run");
    let own = [WORKDIR, WORKSPACE, &run].into_iter().chain(home).chain(plan.workspaces.as_deref());
    let mut own: Vec<_> = own.map(place).collect();
    for folder in &own {
        files.add_directory(folder, 0o775, theirs);
    }
    for folder in ["/tmp", "/var/tmp"] {
        let folder = place(folder);
        files.add_directory(&folder, 0o1777, Owner::default());
        own.push(folder);
    }
    if let Some(passwd) = accounts::passwd(&base.passwd, plan.user) {
        files.add("etc/passwd", passwd);
    }
    if let Some(group) = accounts::group(&base.group, plan.user) {
        files.add("etc/group", group);
    }
    for (path, Folder { mode, uid, gid }) in &base.folders {
        let path = path.trim_start_matches('/');
        if !own.iter().any(|folder| folder == path) {
            files.set_directory(path, *mode, Owner { uid: *uid, gid: *gid });
        }
    }
    files
}

/// A path of an image as archives have it, without the links of its base: a folder in an archive would take the
/// place of a link.
pub(super) fn in_base(base: &Base, wanted: &str) -> String {
    const MOST: usize = 8;
    let mut path = wanted.to_owned();
    for _ in 0..MOST {
        let inside =
            |link: &str| path.strip_prefix(link).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some((link, target)) = base.links.iter().find(|(link, _)| inside(link)) else { break };
        let through = format!("{}{}", target.trim_end_matches('/'), &path[link.len()..]);
        // A link to the root itself is no place for anything.
        if through.is_empty() {
            break;
        }
        path = through;
    }
    let through = clean(&path);
    if through.is_empty() { clean(wanted) } else { through }
}

/// A path without what leads nowhere, or out of the root.
fn clean(path: &str) -> String {
    let leads = |part: &&str| !matches!(*part, "" | "." | "..") && !part.contains('\0');
    path.split('/').filter(leads).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_an_archive_do_not_replace_links() {
        let mut base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        for (link, target) in [
            ("/opt", "/var/opt"),
            ("/var/opt", "/data"),
            ("/app", "/"),
            ("/dots", "/./.."),
            ("/loop", "/loop/x"),
        ] {
            base.links.insert(link.to_owned(), target.to_owned());
        }
        for (path, place) in [
            ("/opt/ipybox/lib", "data/ipybox/lib"),
            ("/optional", "optional"),
            ("/app/workspaces", "workspaces"),
            ("/usr/local/bin/x", "usr/local/bin/x"),
            ("/app", "app"),
            ("/dots", "dots"),
            ("/dots/x", "x"),
        ] {
            assert_eq!(in_base(&base, path), place);
        }
        assert!(in_base(&base, "/loop").starts_with("loop/x/x"));
    }
}
