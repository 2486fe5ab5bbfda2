//! Asks a container of an image for what only that knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Base, BaseError, Config, Folder, Platform, Python};
use crate::archive;
use crate::engine::{Container, Engine, EngineError, Image, Spec};
use crate::reference::Reference;

/// Longest time that Pythons may take to tell their facts.
const TIME: Duration = Duration::from_secs(60);

/// The shell script that asks for the facts that only a container knows. Each of its lines is a kind of fact, a
/// blank and the fact.
const PROBE: &str = concat!(
    r#"
for program in apt-get curl find pkill; do command -v $program >/dev/null && echo "program $program"; done
[ -r /etc/os-release ] && (. /etc/os-release; [ -z "$VERSION_CODENAME" ] || echo "codename $VERSION_CODENAME")
for path in /* /usr/* /usr/local/* /var/* /opt/*; do
    [ -d "$path" ] || continue
    real=$(cd -P "$path" && pwd -P) || continue
    [ "$real" = "$path" ] || echo "link $path $real"
    while [ "$real" != / ]; do
        stat -c "folder %a %u %g %n" "$real"
        real=${real%/*} real=${real:-/}
    done
done 2>/dev/null
for path in /opt/venv /opt/ipybox; do { [ -e $path ] || [ -L $path ]; } && echo "taken $path"; done
folders=$PATH:/usr/local/bin:/usr/bin:/opt/conda/bin:/opt/*/bin seen= IFS=:
for folder in $folders; do
    folder_is=$(cd -P "$folder" 2>/dev/null && pwd -P) || continue
    for python in "$folder"/python3 "$folder"/python "$folder"/python3.1[0-9]; do
        [ -x "$python" ] || continue
        file=$folder_is:$(readlink -f "$python" 2>/dev/null || echo "$python")
        case "|$seen|" in *"|$file|"*) continue ;; esac
        seen="$seen|$file"
        PYTHONHOME= PYTHONDONTWRITEBYTECODE=1 "$python" -s -c '"#,
    include_str!("probe.py"),
    r#"' 2>/dev/null || echo "broken $python"
    done
done
exit 0
"#
);

/// The label of containers that are asked.
const LABEL: &str = "ipybox.probe";

/// The facts of a local image, from its configuration and a throw-away container.
pub(super) async fn ask(engine: &Engine, image: Image, reference: &Reference) -> Result<Base, BaseError> {
    let base = Base {
        reference: reference.clone(),
        id: image.id,
        platform: Platform { os: image.os, architecture: image.architecture },
        pythons: Vec::new(),
        config: Config {
            user: image.user,
            env: image.env,
            entrypoint: image.entrypoint,
            cmd: image.cmd,
            shell: image.shell,
            labels: image.labels,
            on_build: image.on_build,
        },
        passwd: String::new(),
        group: String::new(),
        codename: None,
        programs: BTreeSet::new(),
        links: BTreeMap::new(),
        folders: BTreeMap::new(),
        taken: Vec::new(),
        broken: Vec::new(),
        lacks_hosts: false,
        lacks_resolv_conf: false,
    };
    let command = ["/bin/sh", "-c", PROBE];
    let spec =
        Spec { label: LABEL, command: Some(&command), user: Some("0:0"), is_locked: true, ..Spec::default() };
    let id = base.id.clone();
    Box::pin(engine.with_container(&id, spec, async |container| facts(container, base).await)).await?
}

async fn facts(container: &Container, mut base: Base) -> Result<Base, BaseError> {
    base.lacks_hosts = container.size_of("/etc/hosts").await? == Some(0);
    base.lacks_resolv_conf = container.size_of("/etc/resolv.conf").await? == Some(0);
    base.passwd = file(container, "/etc/passwd", &base).await?;
    base.group = file(container, "/etc/group", &base).await?;
    let output = tokio::time::timeout(TIME, container.output()).await;
    let output = output.map_err(|_| BaseError::ProbeTimeout(base.reference.clone()))?;
    let output = output.map_err(|error| match error {
        EngineError::Api { doing: "start a container", .. } => {
            let why = error.diagnostic().why;
            BaseError::NoShell { reference: base.reference.clone(), why }
        }
        error => error.into(),
    })?;
    match output.code {
        0 => Ok(base.with_probe(&output.output)),
        code => Err(BaseError::ProbeFailed { reference: base.reference, code }),
    }
}

/// The text of a file; empty where there is none.
async fn file(container: &Container, path: &'static str, base: &Base) -> Result<String, BaseError> {
    let unusable = |why: String| BaseError::Accounts { reference: base.reference.clone(), path, why };
    match container.tar_of(path).await? {
        None => Ok(String::new()),
        Some(tar) => archive::only_text(&tar).map_err(|error| unusable(error.to_string())),
    }
}

impl Base {
    /// Takes over what [`PROBE`] printed in a container of this base.
    #[must_use]
    pub fn with_probe(mut self, output: &str) -> Self {
        for line in output.lines().filter(|line| !line.contains(char::is_control)) {
            let (kind, fact) = line.split_once(' ').unwrap_or_default();
            match kind {
                "program" => drop(self.programs.insert(fact.to_owned())),
                "codename" => self.codename = Some(fact.to_owned()),
                "link" => {
                    if let Some((path, target)) = fact.split_once(' ')
                        && target.starts_with('/')
                    {
                        self.links.insert(path.to_owned(), target.to_owned());
                    }
                }
                "folder" => {
                    if let Some((path, folder)) = folder(fact)
                        && folder != (Folder { mode: 0o755, uid: 0, gid: 0 })
                    {
                        self.folders.insert(path.to_owned(), folder);
                    }
                }
                "python" => match serde_json::from_str::<Python>(fact) {
                    // One interpreter has several names.
                    Ok(python) if self.pythons.iter().any(|known| known.prefix == python.prefix) => {}
                    Ok(python) => self.pythons.push(python),
                    Err(_) => self.broken.push("python".to_owned()),
                },
                "taken" => self.taken.push(fact.to_owned()),
                "broken" => self.broken.push(fact.to_owned()),
                _ => {}
            }
        }
        self
    }
}

/// Reads `MODE UID GID PATH`.
fn folder(fact: &str) -> Option<(&str, Folder)> {
    let mut parts = fact.splitn(4, ' ');
    let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
    let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((parts.next()?, Folder { mode, uid, gid }))
}
