//! A [`Plan`] to the files its build gets; equal plans give equal bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::accounts;
use crate::accounts::User;
use crate::archive::{Archive, Owner};
use crate::base::{Base, Folder};
use crate::deps::Name;
use crate::inputs::local::LocalSource;
use crate::inputs::templates::Templates;
use crate::installer;
use crate::plan::{Foundation, HOME, Plan};
use crate::variant::{Placement, Who};

/// The files of a build, with the installer among them where the engine does not have it.
///
/// # Errors
///
/// Of asking for the size of the installer, or of a file of `sources`.
pub fn of(
    plan: &Plan,
    base: &Base,
    templates: &Templates,
    dockerfile: String,
    local: &Local,
    uv: Option<&Path>,
) -> io::Result<Archive> {
    let mut context = Archive::default();
    context.add("Dockerfile", dockerfile);
    if plan.foundation.placement != Placement::Inherited {
        context.add("files.tar", image_files(&plan.foundation, base, templates).to_tar()?);
        context.add("server.txt", runtime(templates, &plan.foundation.servers_lock));
    }
    for (name, content) in installer::request(plan)? {
        context.add(&format!("request/{name}"), content);
    }
    if plan.foundation.placement != Placement::Isolated {
        context.add_directory("request/base", 0o755, Owner::default());
    }
    if plan.packages.checks_hashes() {
        context.add("request/hashes.py", build_file(templates, "hashes.py"));
    }
    if !plan.packages.sources.is_empty() {
        context.add("sources.txt", installer::sources_to_build(plan));
        context.add_directory("sources", 0o755, Owner::default());
    }
    for (name, source) in local.sources.iter().filter(|(name, _)| plan.packages.sources.contains_key(*name)) {
        for (path, file, mode) in source.files() {
            context.add_file(&format!("sources/{name}/{path}"), mode, file)?;
        }
    }
    let copies: Vec<_> = plan.copies().collect();
    if !copies.is_empty() {
        let copies = serde_json::to_string_pretty(&copies).map_err(io::Error::other)?;
        context.add("copies/copies.json", copies);
        context.add("copies/copy.py", build_file(templates, "copy.py"));
    }
    for (number, copy) in local.copies.iter().enumerate() {
        context.add_directory(&format!("copies/{number}"), 0o755, Owner::default());
        for (path, file, mode) in copy.files() {
            context.add_file(&format!("copies/{number}/{path}"), mode, file)?;
        }
    }
    for (number, step) in plan.own_steps().enumerate() {
        context.add(&format!("steps/{number}/step.sh"), step.run.as_str());
        if step.who == Who::User {
            context.add(&format!("steps/{number}/as_user.py"), build_file(templates, "as_user.py"));
        }
    }
    if let Some(archive) = &local.python_archive {
        context.add_file(PYTHON_ARCHIVE, 0o644, archive)?;
    }
    if let Some(uv) = uv {
        context.add_file(UV, 0o755, uv)?;
    }
    Ok(context)
}

/// The installer's name in a context that holds it.
pub const UV: &str = "uv";

/// The name of an interpreter's archive.
pub const PYTHON_ARCHIVE: &str = "python-archive";

/// Files of this host that a plan speaks of.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// The files of dependencies.
    pub sources: BTreeMap<Name, LocalSource>,
    /// What is copied, in the plan's order.
    pub copies: Vec<LocalSource>,
    /// The archive of an interpreter.
    pub python_archive: Option<PathBuf>,
}

/// What one `ADD` lays over the base: everything but the two environments.
fn image_files(plan: &Foundation, base: &Base, templates: &Templates) -> Archive {
    let (uid, gid) = plan.user.ids();
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
    if plan.apt.iter().any(|name| name == "iptables") {
        let script = place("/usr/local/bin/init-firewall.sh");
        files.add_program(&script, runtime(templates, "init-firewall.sh"));
    }
    let server = |path: &str| format!("{HOME}/server/{path}");
    files
        .add(&place(&server("share/jupyter/kernels/python3/kernel.json")), runtime(templates, "kernel.json"));
    if plan.servers.iter().any(|server| server.runs("kernel_gateway")) {
        let settings = "jupyter_kernel_gateway_config.py";
        files.add(&place(&server(&format!("etc/jupyter/{settings}"))), runtime(templates, settings));
    }
    // The superuser's home is the base's.
    let home = plan.user.home().filter(|_| plan.user != User::Root);
    let own = ["/app"].into_iter().chain(home).chain(plan.workspaces.as_deref());
    let own: Vec<_> = own.map(place).collect();
    for folder in &own {
        files.add_directory(folder, 0o755, Owner { uid, gid });
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
fn in_base(base: &Base, path: &str) -> String {
    const MOST: usize = 8;
    let mut path = path.to_owned();
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
    let clean = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    clean.collect::<Vec<_>>().join("/")
}

fn build_file<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("build/{file}")).expect("templates are read with all their files")
}

fn runtime<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("runtime/{file}")).expect("a plan names files that there are")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_an_archive_do_not_replace_links() {
        let mut base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        for (link, target) in
            [("/opt", "/var/opt"), ("/var/opt", "/data"), ("/app", "/"), ("/loop", "/loop/x")]
        {
            base.links.insert(link.to_owned(), target.to_owned());
        }
        for (path, place) in [
            ("/opt/ipybox/lib", "data/ipybox/lib"),
            ("/optional", "optional"),
            ("/app/workspaces", "workspaces"),
            ("/usr/local/bin/x", "usr/local/bin/x"),
            ("/app", "app"),
        ] {
            assert_eq!(in_base(&base, path), place);
        }
        assert!(in_base(&base, "/loop").starts_with("loop/x/x"));
    }
}
