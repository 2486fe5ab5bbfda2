//! A [`Plan`] to the files its build gets; equal plans give equal bytes.

use std::io;
use std::path::Path;

use toml_edit::{Array, DocumentMut, Table, value};

use crate::accounts;
use crate::archive::{Archive, Owner};
use crate::plan::{HOME, Plan};
use crate::templates::Templates;

/// The installer's name in a context that holds it.
pub const UV: &str = "uv";

/// The files of a build, with the installer among them where the engine does not have it.
///
/// # Errors
///
/// Of asking for the installer's size.
pub fn of(plan: &Plan, templates: &Templates, dockerfile: String, uv: Option<&Path>) -> io::Result<Archive> {
    let mut context = Archive::default();
    context.add("Dockerfile", dockerfile);
    context.add("files.tar", image_files(plan, templates).to_tar()?);
    context.add("pyproject.toml", pyproject(plan));
    context.add("server.txt", runtime(templates, "server.txt"));
    if let Some(uv) = uv {
        context.add_file(UV, 0o755, uv)?;
    }
    Ok(context)
}

/// What one `ADD` lays over the base: everything but the two environments.
fn image_files(plan: &Plan, templates: &Templates) -> Archive {
    let (uid, gid) = plan.user.ids();
    let mut files = Archive::default();
    if plan.base.lacks_hosts {
        files.add("etc/hosts", "");
    }
    if plan.base.lacks_resolv_conf {
        files.add("etc/resolv.conf", "");
    }
    if let Some(passwd) = accounts::passwd(&plan.base.passwd, plan.user) {
        files.add("etc/passwd", passwd);
        files.add_directory(relative(plan.user.home()), 0o755, Owner { uid, gid });
    }
    if let Some(group) = accounts::group(&plan.base.group, plan.user) {
        files.add("etc/group", group);
    }
    files.add_directory("app", 0o755, Owner { uid, gid });
    for (path, file) in [
        ("lib/ipybox/supervisor.py", "supervisor.py"),
        ("lib/ipybox/kernel.py", "kernel.py"),
        ("server/share/jupyter/kernels/python3/kernel.json", "kernel.json"),
        ("server/etc/jupyter/jupyter_kernel_gateway_config.py", "jupyter_kernel_gateway_config.py"),
    ] {
        files.add(&format!("{}/{path}", relative(HOME)), runtime(templates, file));
    }
    files
}

/// A path of an image as archives have it.
fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn runtime<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("runtime/{file}")).expect("templates hold every shipped file")
}

/// The request as uv reads it.
fn pyproject(plan: &Plan) -> String {
    let dependencies: Array = plan.requirements.iter().map(ToString::to_string).collect();
    let mut project = Table::new();
    project["name"] = value("ipybox-packages");
    project["version"] = value("0");
    project["dependencies"] = value(dependencies);
    let mut document = DocumentMut::new();
    document["project"] = project.into();
    document.to_string()
}
