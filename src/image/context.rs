//! A [`Plan`] to the files its build gets; equal plans give equal bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files;
use super::runtime;
use crate::archive::{Archive, Owner, hexadecimal};
use crate::base::Base;
use crate::deps::Name;
use crate::inputs::local::{LocalFile, LocalSource};
use crate::inputs::templates::Templates;
use crate::installer::{self, Reader};
use crate::plan::Plan;
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
        context.add("files.tar", files::files(&plan.foundation, base, templates).to_tar()?);
        context.add("server.txt", runtime(templates, &plan.foundation.servers_lock));
    }
    context.add(INDEX, installer::default_index(plan));
    context.add("look.py", build_file(templates, "look.py"));
    if plan.foundation.bytecode {
        context.add("compile.py", build_file(templates, "compile.py"));
    }
    for (name, content) in installer::request(plan, Reader::Step)? {
        context.add(&format!("request/{name}"), content);
    }
    if plan.foundation.placement != Placement::Isolated {
        context.add_directory("request/base", 0o755, Owner::default());
    }
    if plan.packages.checks_hashes() && plan.packages.locked.is_none() {
        context.add("request/hashes.py", build_file(templates, "hashes.py"));
    }
    if plan.packages.builds() {
        context.add("wheel.py", build_file(templates, "wheel.py"));
        if !plan.packages.indexes.is_empty() {
            context.add("index.py", build_file(templates, "index.py"));
            context.add("indexes.json", installer::index_order(plan)?);
        }
        for (name, build) in installer::builds(plan)? {
            context.add(&format!("builds/{name}.json"), build);
        }
    }
    for (name, source) in local.sources.iter().filter(|(name, _)| plan.packages.sources.contains_key(*name)) {
        for file in source.files() {
            add(&mut context, &format!("sources/{name}"), file);
        }
    }
    for (name, pin) in plan.packages.locked.iter().flatten() {
        if let Some(wheel) = local.wheels.get(name) {
            let place = format!("request/{}/{}", installer::WHEELS, pin.file);
            context.add_file(&place, 0o644, wheel)?;
            context.expect_sha256(&place, &pin.sha256);
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
        for file in copy.files() {
            add(&mut context, &format!("copies/{number}"), file);
        }
    }
    for (number, step) in plan.own_steps().enumerate() {
        context.add(&format!("steps/{number}/step.sh"), step.run.as_str());
        if step.who == Who::User {
            context.add(&format!("steps/{number}/as_user.py"), build_file(templates, "as_user.py"));
        }
    }
    if let (Some(archive), Some(planned)) = (&local.python_archive, &plan.foundation.python_archive) {
        context.add_file(PYTHON_ARCHIVE, 0o644, archive)?;
        context.expect_sha256(PYTHON_ARCHIVE, &planned.sha256);
    }
    if let Some(uv) = uv {
        context.add_file(UV, 0o755, uv)?;
    }
    Ok(context)
}

/// Adds a file as it was when the plan was made.
fn add(context: &mut Archive, folder: &str, file: &LocalFile) {
    let place = format!("{folder}/{}", file.name);
    context.add_seen_file(&place, file.mode, &file.path, file.size);
    context.expect_sha256(&place, &hexadecimal(&file.sha256));
}

/// The installer's name in a context that holds it.
pub const UV: &str = "uv";

/// The name of uv's settings where it gets no others.
pub const INDEX: &str = "index.toml";

/// The name of certificates, where no secret brings them.
pub const CERTIFICATES: &str = "ca.pem";

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
    /// Locked wheels that are files.
    pub wheels: BTreeMap<Name, PathBuf>,
}

fn build_file<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("build/{file}")).expect("templates are read with all their files")
}
