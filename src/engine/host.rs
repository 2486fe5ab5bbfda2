//! Where an engine listens, as people, `DOCKER_HOST` and contexts write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hyper::http::uri::Authority;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub(super) address: Address,
    /// What is shown to an engine that asks who connects, and what its certificate is checked with.
    pub(super) tls: Option<TlsFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// A name or address, and a port where one is given.
    Tcp {
        name: String,
        port: Option<u16>,
    },
    Ssh(Destination),
}

/// An account on another host, in the words of ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) user: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<u16>,
    /// Where the engine listens there, if not where its client looks for it.
    pub(super) socket: Option<String>,
}

/// Files in PEM; those that are not there are not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Authorities that the engine's certificate may come from, beside those of this host.
    pub(super) ca: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// The ports of Docker's API, without and with TLS.
///
/// Source: IANA, "Service Name and Transport Protocol Port Number Registry", `docker` and `docker-s`.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

impl Host {
    pub(super) fn unix(socket: impl Into<PathBuf>) -> Self {
        Self { address: Address::Unix(socket.into()), tls: None }
    }

    /// Whether ports that its containers publish are reached on this host's loopback.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Its socket, where it has one on this host.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.address {
            Address::Unix(socket) => Some(socket),
            _ => None,
        }
    }

    /// Whether this process sees its socket, whoever may use it.
    pub(super) fn is_seen(&self) -> bool {
        matches!(&self.address, Address::Unix(socket) if socket.symlink_metadata().is_ok())
    }

    /// The port of TCP.
    pub(super) fn port(&self, port: Option<u16>) -> u16 {
        port.unwrap_or(if self.tls.is_some() { TLS_PORT } else { PORT })
    }
}

impl FromStr for Host {
    type Err = String;

    /// Reads `unix:///path/of/the.sock`, `tcp://NAME[:PORT]`, `https://NAME[:PORT]` and `ssh://[USER@]NAME[:PORT][/SOCKET]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("expected `unix://`, `tcp://`, `https://` or `ssh://` at its beginning".into());
        };
        let plain = |address| Self { address, tls: None };
        match scheme {
            "unix" if Path::new(rest).is_absolute() => Ok(Self::unix(rest)),
            "unix" => Err("the path of a socket begins with `/`, as in `unix:///var/run/docker.sock`".into()),
            "tcp" | "http" | "https" => {
                let (user, name, port, path) = parts(rest)?;
                if user.is_some() || path.is_some() {
                    return Err(format!("expected `{scheme}://NAME:PORT` and nothing else"));
                }
                let tls = (scheme == "https").then(TlsFiles::default);
                Ok(Self { tls, ..plain(Address::Tcp { name, port }) })
            }
            "ssh" => {
                let (user, name, port, socket) = parts(rest)?;
                if user.as_ref().is_some_and(|user| user.contains(':')) {
                    return Err("a password in it would stand in lists of processes; use a key".into());
                }
                if name.starts_with('-') || user.as_ref().is_some_and(|user| user.starts_with('-')) {
                    return Err("ssh would take it for an option".into());
                }
                // A shell reads the path there, and may read the others here, where the settings of ssh name them.
                let is_of = |more: &'static [u8]| {
                    move |text: &String| {
                        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
                    }
                };
                if !socket.as_ref().is_none_or(is_of(b"/._-")) {
                    return Err("the path of its socket may hold letters, digits and `/._-`".into());
                }
                if !is_of(b"._:-")(&name) || !user.as_ref().is_none_or(is_of(b"._+@-")) {
                    return Err("user and host may hold letters, digits, `.`, `_` and `-`".into());
                }
                Ok(plain(Address::Ssh(Destination { user, name, port, socket })))
            }
            "npipe" => Err("named pipes are there on Windows alone".into()),
            "fd" => Err("that is where an engine finds its socket, not where it listens".into()),
            _ => Err(format!("`{scheme}` is no scheme of engines: use `unix`, `tcp`, `https` or `ssh`")),
        }
    }
}

/// User, name, port and path of `[USER@]NAME[:PORT][/PATH]`.
type Parts = (Option<String>, String, Option<u16>, Option<String>);

fn parts(text: &str) -> Result<Parts, String> {
    let (authority, path) = match text.find('/') {
        Some(at) => (&text[..at], &text[at..]),
        None => (text, ""),
    };
    let parsed: Authority = authority.parse().map_err(|_| "expected a name and a port behind `://`")?;
    let (user, rest) = match parsed.as_str().rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, parsed.as_str()),
    };
    let port = match rest.strip_prefix(parsed.host()).and_then(|rest| rest.strip_prefix(':')) {
        Some(port) => {
            Some(port.parse().ok().filter(|&port| port > 0).ok_or("the port is a number up to 65535")?)
        }
        None => None,
    };
    let name = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if name.is_empty() {
        return Err("the name of a host is missing".into());
    }
    Ok((user, name, port, Some(path).filter(|path| path.len() > 1).map(str::to_owned)))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = |f: &mut fmt::Formatter<'_>, name: &str, port: Option<u16>| {
            if name.contains(':') {
                write!(f, "[{name}]")?;
            } else {
                f.write_str(name)?;
            }
            port.map_or(Ok(()), |port| write!(f, ":{port}"))
        };
        match &self.address {
            Address::Unix(socket) => write!(f, "unix://{}", socket.display()),
            Address::Tcp { name, port } => {
                f.write_str("tcp://")?;
                authority(f, name, Some(self.port(*port)))
            }
            Address::Ssh(Destination { user, name, port, socket }) => {
                f.write_str("ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                authority(f, name, *port)?;
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_written() {
        for (text, written) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("tcp://localhost", "tcp://localhost:2375"),
            ("https://localhost", "tcp://localhost:2376"),
            ("http://10.0.0.1:80", "tcp://10.0.0.1:80"),
            ("tcp://[::1]:2375/", "tcp://[::1]:2375"),
            ("ssh://host", "ssh://host"),
            ("ssh://me@host:22/run/user/1000/docker.sock", "ssh://me@host:22/run/user/1000/docker.sock"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "docker.sock",
            "/var/run/docker.sock",
            "unix://docker.sock",
            "tcp://",
            "tcp://:2375",
            "tcp://host:",
            "tcp://host:0",
            "tcp://host:99999",
            "tcp://host:1/path",
            "tcp://user@host:1",
            "tcp://a b",
            "ssh://me:secret@host",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://host/a;b",
            "ssh://a;id",
            "ssh://x;id;@host",
            "ssh://$(id)@host",
            "npipe:////./pipe/docker_engine",
            "fd://",
            "ftp://host",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
