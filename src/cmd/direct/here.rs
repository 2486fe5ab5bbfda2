//! An image made on this host alone, on a base that no engine is asked for: no engine, no container, and no step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::assembly::{Assembly, Compiled};
use super::compiler::{Compiler, HostPython, cache_tag};
use super::{Failure, How, of_packages, of_plan, title, unassembled};
use crate::archive::{EPOCH, hexadecimal};
use crate::base::{Base, Folder};
use crate::cmd::output::UNCOMPILED;
use crate::cmd::{Asked, Caller, Planned};
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::image::config::{Above, config};
use crate::image::dockerfile;
use crate::image::foundation::{self, Text, Texts};
use crate::installer::{self, Installing};
use crate::kept::keep;
use crate::lock::{self, Lock};
use crate::oci::blobs::Packed;
use crate::oci::image::Image;
use crate::oci::rule;
use crate::oci::store::{Layer, Owned, Store};
use crate::plan::{HOME, Pin, Plan};
use crate::stored::{self, Files, Kind, Stored, StoredError, StoredLayer};
use crate::ustar::Ids;

/// The largest file of a base that is read, in bytes.
const MOST: u64 = 4 << 20;

/// How long a Python of this host may take to tell its version.
const LONGEST: Duration = Duration::from_secs(10);

/// Why an image cannot be made in this way, as far as its plan says.
pub(in crate::cmd) fn obstacle(Planned { plan, base, .. }: &Planned<'_>, how: &How<'_>) -> Option<String> {
    of_plan(plan, base, how)
}

/// Makes the image of a plan.
pub(in crate::cmd) async fn made(
    asked: &Asked,
    planned: &Planned<'_>,
    stored: &Arc<Stored>,
    how: How<'_>,
    caller: &Caller,
) -> Result<Image, Failure> {
    let Planned { plan, base, .. } = planned;
    let (report, templates) = (&caller.report, &asked.inputs.templates);
    let texts = read(plan, base, stored.clone(), caller).await?;
    if let Some(why) = foundation::obstacle(plan, base, &texts, templates) {
        let what = Diagnostic::new("the image cannot be made without an engine").why(why);
        return Err(Failure::refused(what.advice("build on a base that an engine has")));
    }
    for name in foundation::left_out(plan, &texts) {
        report.note(&format!("the base has no `{name}`, and the image will not have it either"));
    }
    let store = Store::in_cache(asked.cache());
    let locked = plan.packages.locked.as_ref().expect("what is not locked is not put into layers");
    let servers = servers(asked, plan, how, caller).await?;
    let python = if plan.foundation.bytecode { host_python(plan, caller).await } else { None };
    let compiled = || python.as_ref().map_or(Compiled::Not, Compiled::Here);
    if plan.foundation.bytecode && python.is_none() {
        let version = &plan.foundation.interpreter.version;
        let what = format!("modules are not compiled, since there is no Python like {version} here");
        report.warning(&what, "install one, so that containers start faster");
    }
    let nothing = BTreeMap::new();
    let assembly = |pins, local, owned, rule| Assembly {
        pins,
        local,
        owned,
        rule,
        python: &plan.foundation.interpreter.version,
        compiled: compiled(),
        templates,
        certificates: how.supplies.certificates.as_deref(),
        store: store.clone(),
        sharing: how.sharing,
        interrupt: &caller.interrupt,
    };
    let of_servers = assembly(&servers, &nothing, of_servers(), rule::one);
    let of_packages = assembly(locked, &planned.local.wheels, of_packages(plan), rule::layers);
    if let Some(forgotten) = how.anew {
        of_servers.forget(forgotten);
        of_packages.forget(forgotten);
    }
    let below = taken(&store, &stored.layers, caller).await?;
    let mut files = foundation::laid_over(plan, base, &texts, templates);
    if let Some(python) = &python {
        let tag = cache_tag(&plan.foundation.interpreter.version);
        Compiler::here(python, templates)?.compile_all(&mut files, &tag).await?;
    }
    let files = files.to_tar().map_err(|error| unassembled(&error.to_string()))?;
    let assemblies = [of_servers, of_packages];
    for assembly in &assemblies {
        assembly.import(report).await?;
    }
    let mut tries = 3;
    let (above, packed) = loop {
        tries -= 1;
        match above(&store, &files, &assemblies, caller).await? {
            Err(error) if is_gone(&error) && tries > 0 => {
                report.note(&format!("{error}; it is made again"));
            }
            made => break made.map_err(|error| unassembled(&error.to_string()))?,
        }
    };
    let of_base = serde_json::from_slice(&stored.config).unwrap_or_default();
    let mut labels = dockerfile::labels(plan);
    if plan.foundation.bytecode && python.is_none() {
        labels.insert(UNCOMPILED.to_owned(), "1".to_owned());
    }
    let config = config(&of_base, plan, &above, &labels, EPOCH)
        .map_err(|error| Failure::refused(error.diagnostic()))?;
    Ok(Image { config: config.to_string().into_bytes(), layers: below.into_iter().chain(packed).collect() })
}

/// The layers above a base: one of the files of the image, in a tar stream, and those of packages; and what they are packed.
async fn above(
    store: &Store,
    files: &[u8],
    assemblies: &[Assembly<'_>],
    caller: &Caller,
) -> Result<io::Result<(Vec<Above>, Vec<Packed>)>, Failure> {
    let mut above = match store.take(files) {
        Ok((diff_id, _)) => vec![Above { diff_id, title: "files of the image".to_owned() }],
        Err(error) => return Ok(Err(error)),
    };
    for assembly in assemblies {
        let layers = assembly.layers(&caller.report).await?;
        let layer = |layer: &Layer| Above { diff_id: layer.diff_id.clone(), title: title(layer) };
        above.extend(layers.iter().map(layer));
    }
    let diff_ids: Vec<String> = above.iter().map(|layer| layer.diff_id.clone()).collect();
    let of_layers = store.clone();
    let packing = tokio::task::spawn_blocking(move || of_layers.packed_all(&diff_ids));
    let packed = caller.interrupt.run_until_cancelled(packing).await.ok_or_else(Failure::interrupted)?;
    let packed = packed.unwrap_or_else(|error| Err(io::Error::other(error)));
    Ok(packed.map(|packed| (above, packed)))
}

/// Whether something in the store is not what it was, which is forgotten then, or somebody has removed it meanwhile.
pub(in crate::cmd) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
}

/// The environment of the servers: root's, and nobody else's to change.
fn of_servers() -> Owned {
    let prefix = format!("{}/server", HOME.trim_start_matches('/'));
    Owned { prefix, ids: Ids { uid: 0, gid: 0 }, umask: 0o022 }
}

/// The layers of a base, packed in the store.
async fn taken(store: &Store, layers: &[StoredLayer], caller: &Caller) -> Result<Vec<Packed>, Failure> {
    let (store, layers) = (store.clone(), layers.to_vec());
    let taking = tokio::task::spawn_blocking(move || -> io::Result<Vec<Packed>> {
        let take = |layer: &StoredLayer| match store.packed(&layer.diff_id) {
            Some(packed) => Ok(packed),
            None => {
                let (diff_id, packed) = store.take(layer.blob())?;
                if diff_id == layer.diff_id {
                    Ok(packed)
                } else {
                    let what =
                        format!("a layer of the base is not the one that is said: `{}`", layer.diff_id);
                    Err(io::Error::new(io::ErrorKind::InvalidData, what))
                }
            }
        };
        layers.iter().map(take).collect()
    });
    let taken = caller.interrupt.run_until_cancelled(taking).await.ok_or_else(Failure::interrupted)?;
    let taken = taken.unwrap_or_else(|error| Err(io::Error::other(error)));
    taken.map_err(|error| unassembled(&error.to_string()))
}

/// What a foundation depends on in a base, beside its facts.
async fn read(plan: &Plan, base: &Base, stored: Arc<Stored>, caller: &Caller) -> Result<Texts, Failure> {
    const FILES: [&str; 3] = ["/etc/profile", "/etc/shadow", "/var/lib/dpkg/status"];
    let folders = foundation::folders(plan, base);
    let reading = tokio::task::spawn_blocking(move || -> Result<Texts, StoredError> {
        let files = Files::of(&stored)?;
        let mut contents =
            files.read_all(&FILES, MOST)?.into_iter().zip(FILES).map(|(bytes, path)| {
                Some(Text { bytes: bytes?, permissions: permissions(files.find(path)?) })
            });
        let mut next = || contents.next().flatten();
        let (profile, shadow, status) = (next(), next(), next());
        let status = status.map(|status| String::from_utf8_lossy(&status.bytes).into_owned());
        let debian = foundation::installed(&status.unwrap_or_default());
        let mut texts = Texts { profile, shadow, debian, ..Texts::default() };
        for folder in folders {
            let ends = folder.match_indices('/').map(|(at, _)| at).skip(1).chain([folder.len()]);
            for path in ends.map(|end| &folder[..end]) {
                let Some(found) = files.find(path).filter(|found| found.is_folder()) else { break };
                let real = found.path();
                texts.folders.insert(real.clone(), permissions(found));
                if files.entry(path).is_some_and(|entry| matches!(entry.kind(), Kind::Link(_))) {
                    texts.links.insert(path.to_owned(), real);
                }
            }
        }
        Ok(texts)
    });
    let read = caller.interrupt.run_until_cancelled(reading).await.ok_or_else(Failure::interrupted)?;
    let read = read.map_err(|error| unassembled(&error.to_string()))?;
    read.map_err(|error| Failure::refused(error.diagnostic()))
}

fn permissions(file: stored::File<'_>) -> Folder {
    Folder { mode: file.mode(), uid: file.uid(), gid: file.gid() }
}

/// The wheels of the servers. Where they are is asked once for each list and Python.
async fn servers(
    asked: &Asked,
    plan: &Plan,
    how: How<'_>,
    caller: &Caller,
) -> Result<BTreeMap<Name, Pin>, Failure> {
    let of_target = |error: lock::LockError| Failure::refused(error.diagnostic("the servers' requirements"));
    let foundation = &plan.foundation;
    let text =
        asked.inputs.templates.get(&format!("runtime/{}", foundation.servers_lock)).unwrap_or_default();
    let tags = Lock::tags(plan).map_err(of_target)?;
    let settings = installer::default_index(plan);
    let version = &foundation.interpreter.version;
    let parts = [text, version, &tags.platform(), &foundation.installer.version, &settings];
    let place = asked.cache().join("servers").join(hexadecimal(&Sha256::digest(parts.join("\0"))));
    let known = fs::read(&place).ok().filter(|_| how.anew.is_none());
    let known = known.and_then(|text| serde_json::from_slice::<String>(&text).ok());
    let pylock = match known {
        Some(pylock) => pylock,
        None => {
            let uv = asked.installer_here().await?;
            let installing = Installing {
                uv: &uv,
                environment: &caller.environment.of_installers,
                cache: &asked.cache().join("packages"),
                certificates: how.supplies.certificates.as_deref(),
            };
            let platform = tags.uv_platform();
            let finding = installing.find(text, &settings, version, &platform);
            let found =
                caller.interrupt.run_until_cancelled(finding).await.ok_or_else(Failure::interrupted)?;
            let found = found.map_err(|error| Failure::refused(error.diagnostic()))?;
            // Without it the index is asked again.
            let _ = keep(&place, &found);
            found
        }
    };
    let hashes = text.split_whitespace().filter_map(|word| word.strip_prefix("--hash=sha256:"));
    lock::pins(&pylock, &tags, &hashes.collect::<BTreeSet<_>>()).map_err(of_target)
}

/// A Python of this host that compiles as the image's does: of the same version, or of the same release.
async fn host_python(plan: &Plan, caller: &Caller) -> Option<HostPython> {
    let wanted = &plan.foundation.interpreter.version;
    let release = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let path = caller.environment.of_installers.iter().find(|(name, _)| name == "PATH")?;
    let names = [format!("python{}", release(wanted).join(".")), "python3".to_owned()];
    let mut found: Option<HostPython> = None;
    for program in
        env::split_paths(&path.1).flat_map(|folder| names.iter().map(move |name| folder.join(name)))
    {
        let Some(version) = version_of(&program).await else { continue };
        if version == *wanted {
            return Some(HostPython { program, version });
        }
        if release(&version) == release(wanted) && found.is_none() {
            found = Some(HostPython { program, version });
        }
    }
    found
}

/// The version of a program, where that is `CPython`.
async fn version_of(program: &Path) -> Option<String> {
    const ASK: &str = "import sys; print(sys.implementation.name, '%d.%d.%d' % sys.version_info[:3])";
    if !program.is_file() {
        return None;
    }
    let mut command = Command::new(program);
    command.env_clear().args(["-I", "-S", "-c", ASK]).stdin(Stdio::null()).stderr(Stdio::null());
    let asked = tokio::time::timeout(LONGEST, command.kill_on_drop(true).output()).await;
    let told = asked.ok()?.ok().filter(|told| told.status.success())?;
    Some(String::from_utf8(told.stdout).ok()?.trim().strip_prefix("cpython ")?.to_owned())
}
