//! What kind of engine listens on a socket of this host, so that it need not be asked each time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Builder;
use super::host::{Address, Host};
use crate::archive::hexadecimal;
use crate::kept::keep;

/// Where it is kept what kinds of engines listen on sockets, if anywhere.
#[derive(Debug, Clone, Default)]
pub struct KnownEngines(Option<PathBuf>);

/// A socket as it was when its engine was asked. One that another process makes is another.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Device, inode, and when that changed last, in seconds and nanoseconds since 1970.
    socket: (u64, u64, i64, i64),
    is_podman: bool,
}

impl KnownEngines {
    /// In a folder of the cache.
    #[must_use]
    pub fn in_cache(cache: &Path) -> Self {
        Self(Some(cache.join("engines")))
    }

    /// What builds there; `None` where that is not known, or may have changed.
    pub(super) fn builder(&self, host: &Host) -> Option<Builder> {
        let (file, socket) = self.place(host)?;
        let known: Known = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let builder = if known.is_podman { Builder::Classic } else { Builder::BuildKit };
        (known.socket == socket).then_some(builder)
    }

    /// Keeps it. Where that fails, the engine is asked the next time.
    pub(super) fn keep(&self, host: &Host, builder: Builder) {
        if let Some((file, socket)) = self.place(host) {
            let _ = keep(&file, &Known { socket, is_podman: builder == Builder::Classic });
        }
    }

    /// The file of a socket, and what the socket is now.
    fn place(&self, host: &Host) -> Option<(PathBuf, (u64, u64, i64, i64))> {
        let (folder, Address::Unix(socket)) = (self.0.as_ref()?, &host.address) else { return None };
        let seen = fs::metadata(socket).ok()?;
        let name = hexadecimal(&Sha256::digest(socket.as_os_str().as_encoded_bytes())[..16]);
        let seen = (seen.dev(), seen.ino(), seen.ctime(), seen.ctime_nsec());
        Some((folder.join(name).with_extension("json"), seen))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_engine_is_known_as_long_as_its_socket_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let host: Host = format!("unix://{}", socket.display()).parse().unwrap();
        let known = KnownEngines::in_cache(folder.path());
        known.keep(&host, Builder::Classic);
        assert_eq!(known.builder(&host), None);
        let listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(known.builder(&host), None);
        known.keep(&host, Builder::Classic);
        assert_eq!(known.builder(&host), Some(Builder::Classic));
        assert_eq!(KnownEngines::default().builder(&host), None);
        drop(listener);
        fs::remove_file(&socket).unwrap();
        // Another file in its place may get the same inode, and has another time.
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(known.builder(&host), None);
        known.keep(&host, Builder::BuildKit);
        assert_eq!(known.builder(&host), Some(Builder::BuildKit));
    }
}
