//! Which folder of this host a sandbox may see.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Failure;
use crate::cli::Gift;
use crate::diagnostic::Diagnostic;

/// Sockets by which engines are used, as they are found on hosts.
const SOCKETS: [&str; 4] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
];

/// File systems of the kernel, by which a host is changed.
const OF_KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The folder that is mounted, as the engine is told it. `own` are the engine's socket and its folder.
///
/// # Errors
///
/// A refusal of what would give more away than `gifts` say.
pub(super) fn checked(folder: &Path, gifts: &[Gift], own: &[PathBuf]) -> Result<String, Failure> {
    let shown = folder.display().to_string().escape_debug().to_string();
    let refuse = |why: String, advice: &str| {
        Failure::refused(Diagnostic::new(format!("`{shown}` is not mounted")).why(why).advice(advice))
    };
    let absolute =
        std::path::absolute(folder).map_err(|error| refuse(error.to_string(), "correct the path"))?;
    let real = fs::canonicalize(&absolute).map_err(|error| refuse(error.to_string(), "correct the path"))?;
    if real != tidy(&absolute) && !gifts.contains(&Gift::Link) {
        let why = format!("a part of it is a link, and leads to `{}`", real.display());
        return Err(refuse(why, "name that folder itself, or say `--give-away link`"));
    }
    let of_kernel = OF_KERNEL.into_iter().find(|folder| real.starts_with(folder));
    if (real == Path::new("/") || of_kernel.is_some()) && !gifts.contains(&Gift::Root) {
        let why = match of_kernel {
            Some(folder) => format!("`{folder}` is the kernel's, with every process and device of this host"),
            None => "whoever runs in the container would have every file of this host".to_owned(),
        };
        return Err(refuse(why, "name a folder of the project, or say `--give-away root`"));
    }
    let known = SOCKETS.iter().map(PathBuf::from).chain(own.iter().cloned());
    let known: Vec<PathBuf> = known.filter_map(|path| fs::canonicalize(path).ok()).collect();
    if !gifts.contains(&Gift::Engine) && real != Path::new("/") {
        if let Some(inside) = known.iter().find(|path| path.starts_with(&real)) {
            let why =
                format!("`{}` is in it, and whoever reaches that is root of this host", inside.display());
            return Err(refuse(why, "name another folder, or say `--give-away engine`"));
        }
        if let Some(around) = known.iter().find(|path| path.is_dir() && real.starts_with(path)) {
            let why = format!("it is of the engine, which keeps everything in `{}`", around.display());
            return Err(refuse(why, "name another folder, or say `--give-away engine`"));
        }
    }
    if !real.is_dir() {
        return Err(refuse("it is no folder".to_owned(), "name a folder"));
    }
    let Some(path) = real.to_str() else {
        return Err(refuse("engines take no path that is not UTF-8".to_owned(), "give it another name"));
    };
    Ok(path.to_owned())
}

/// A path without parts that say nothing; those that lead up are left to the file system.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(tidied.pop()),
            part => tidied.push(part),
        }
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_too_much_away_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        let (inside, link, socket) = (real.join("inside"), real.join("link"), real.join("run/engine.sock"));
        fs::create_dir_all(real.join("run")).unwrap();
        fs::create_dir_all(real.join("engine/volumes")).unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(&socket, "").unwrap();
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        let check =
            |path: &Path, gifts: &[Gift]| checked(path, gifts, &[socket.clone(), real.join("engine")]);
        assert_eq!(check(&inside, &[]).unwrap(), inside.to_str().unwrap());
        assert_eq!(check(&inside.join("../inside/."), &[]).unwrap(), inside.to_str().unwrap());
        for (path, gift) in [
            (Path::new("/"), Gift::Root),
            (&link, Gift::Link),
            (&real, Gift::Engine),
            (&real.join("run"), Gift::Engine),
            (&real.join("engine/volumes"), Gift::Engine),
            (Path::new("/proc/sys"), Gift::Root),
        ] {
            let refused = check(path, &[]).unwrap_err();
            assert!(refused.diagnostics[0].what.ends_with("is not mounted"), "{refused:?}");
            assert!(check(path, &[gift]).is_ok());
        }
        assert!(check(&real.join("none"), &[]).is_err() && check(&socket, &[Gift::Engine]).is_err());
    }
}
