//! Where distributions come from.

use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;

/// Where a distribution comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A package index.
    Registry {
        /// The index's name, where the list names one.
        index: Option<String>,
    },
    /// A git repository.
    Git {
        /// Its address, as `git clone` takes it.
        url: String,
        /// A branch, tag or commit; the default branch if `None`.
        reference: Option<String>,
        /// The folder inside that holds the project.
        subdirectory: Option<String>,
        /// Whether Poetry would install it in development mode. Images hold copies all the same.
        develop: bool,
    },
    /// A wheel or source archive behind an address.
    Url {
        /// The address, without a fragment.
        url: String,
        /// The folder inside that holds the project.
        subdirectory: Option<String>,
        /// The SHA-256 that the file must have, in hexadecimal digits.
        sha256: Option<String>,
    },
    /// A file or folder of this host.
    Path {
        /// As written; relative to the list's folder.
        path: String,
        /// The folder inside that holds the project.
        subdirectory: Option<String>,
        /// As in [`Source::Git`].
        develop: bool,
    },
}

impl Default for Source {
    fn default() -> Self {
        Self::Registry { index: None }
    }
}

/// A package index that a list names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// What `source` calls it; `None` where it has no name.
    pub name: Option<String>,
    /// Its address.
    pub url: String,
    /// When it is asked.
    pub priority: Priority,
    /// Bytes of the list.
    pub at: Range<usize>,
}

/// Why something is no address of a package index. It says nothing of the address, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It has another form.
    #[error(
        "this is no address of a package index; expected `https://`, a host and a path, and nothing behind"
    )]
    NoAddress,
    /// It holds a user name or a password.
    #[error(
        "the address holds credentials, which do not belong into commands; keep them in `~/.netrc`, or in \
         `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD` beside `--index NAME=URL`"
    )]
    Credentials,
}

impl Index {
    /// An index that is in no list.
    ///
    /// # Errors
    ///
    /// [`IndexError`]; an index that may stand in a plan has no credentials in its address.
    pub fn of(name: Option<&str>, url: &str, priority: Priority) -> Result<Self, IndexError> {
        let address = Url::parse(url).filter(|address| ["http", "https"].contains(&address.scheme));
        let address = address.ok_or(IndexError::NoAddress)?;
        if address.has_credentials() {
            return Err(IndexError::Credentials);
        }
        // Packages are named behind its path.
        if address.fragment.is_some() || address.path.contains(['?', '@']) {
            return Err(IndexError::NoAddress);
        }
        Ok(Self { name: name.map(str::to_owned), url: url.to_owned(), priority, at: 0..0 })
    }

    /// The host it is on, without the port, in lower case.
    #[must_use]
    pub fn host(&self) -> String {
        Url::parse(&self.url).map_or_else(String::new, |address| address.host_name())
    }
}

/// When a package index is asked.
///
/// Rule: Poetry, "Package sources".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// In place of the installer's own index: Poetry's `primary`, pip's `--index-url`.
    Default,
    /// Before the default index: pip's `--extra-index-url`.
    Extra,
    /// Behind the default indexes: Poetry's `supplemental`.
    Supplemental,
    /// Only for the dependencies that name it.
    Explicit,
}

/// An address with a scheme and a host.
///
/// Rule: RFC 3986, "Syntax Components", as far as installers need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Url<'a> {
    /// Such as `https`; never empty.
    pub scheme: &'a str,
    /// Name, password or both before the `@`; `None` where there is no `@`.
    pub user_info: Option<&'a str>,
    /// Host and port; empty only for `file`.
    pub host: &'a str,
    /// From the first `/` behind the host up to the fragment, query included.
    pub path: &'a str,
    /// Behind the first `#`.
    pub fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// Reads an address; `None` where it has no scheme or no host, or holds white space, control
    /// characters, or others that shells and installers would take for more than themselves.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let odd = |character: char| {
            character.is_whitespace() || character.is_control() || "\"'`\\<>{}|^$".contains(character)
        };
        if text.contains(odd) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        let plain = letters.next()?.is_ascii_alphabetic()
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user_info, host) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority),
        };
        // A password with a slash in it would be taken for a path.
        let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map_or("", |(_, port)| port);
        let is_host = port.bytes().all(|byte| byte.is_ascii_digit());
        (plain && is_host && (!host.is_empty() || scheme == "file")).then_some(Self {
            scheme,
            user_info,
            host,
            path,
            fragment,
        })
    }

    /// Whether it carries a password, or a token in the place of a name.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        let is_ssh = self.scheme.to_ascii_lowercase().ends_with("ssh");
        self.user_info.is_some_and(|user| user.contains(':') || !is_ssh)
    }

    /// The host without its port, in lower case.
    ///
    /// Rule: RFC 3986, "Host": case does not count, and colons inside of brackets are an address's own.
    #[must_use]
    pub fn host_name(&self) -> String {
        let name = match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => self.host,
        };
        name.to_ascii_lowercase()
    }

    /// A value of the fragment, such as that of `#subdirectory=…&egg=…`.
    #[must_use]
    pub fn fragment_value(&self, key: &str) -> Option<&'a str> {
        let pairs = self.fragment?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(found, value)| (found == key).then_some(value))
    }
}

impl fmt::Display for Source {
    /// The address behind the `@` of a requirement; nothing for a package index.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subdirectory = match self {
            Self::Registry { .. } => return Ok(()),
            Self::Git { url, reference, subdirectory, .. } => {
                match url.split_once(':').filter(|_| !url.contains("://")) {
                    // `user@host:path` is the short form of an address for ssh.
                    Some((host, path)) => write!(f, "git+ssh://{host}/{}", path.trim_start_matches('/'))?,
                    None => write!(f, "git+{url}")?,
                }
                if let Some(reference) = reference {
                    write!(f, "@{reference}")?;
                }
                subdirectory
            }
            Self::Url { url, subdirectory, sha256 } => {
                f.write_str(url)?;
                if let Some(sha256) = sha256 {
                    let glue = if subdirectory.is_some() { "&" } else { "" };
                    write!(f, "#sha256={sha256}{glue}")?;
                    return match subdirectory {
                        Some(subdirectory) => write!(f, "subdirectory={subdirectory}"),
                        None => Ok(()),
                    };
                }
                subdirectory
            }
            Self::Path { path, subdirectory, .. } => {
                f.write_str(path)?;
                subdirectory
            }
        };
        match subdirectory {
            Some(subdirectory) => write!(f, "#subdirectory={subdirectory}"),
            None => Ok(()),
        }
    }
}

/// What stands behind the `@` of a requirement: an address of an archive or of a git repository.
pub(super) fn parse_url(text: &str) -> Option<Source> {
    let owned = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let without_fragment = text.split('#').next().unwrap_or_default();
    if let Some(git) = text.strip_prefix("git+") {
        let url = Url::parse(git)?;
        let address = without_fragment.strip_prefix("git+").unwrap_or_default();
        // An `@` behind the host begins the reference.
        let path_start = address.len() - url.path.len();
        let (address, reference) = match address[path_start..].rfind('@') {
            Some(at) => (&address[..path_start + at], Some(&address[path_start + at + 1..])),
            None => (address, None),
        };
        let (reference, subdirectory) = (owned(reference), owned(url.fragment_value("subdirectory")));
        let right =
            reference.as_deref().is_none_or(is_reference) && subdirectory.as_deref().is_none_or(is_inside);
        return right.then(|| Source::Git {
            url: address.to_owned(),
            reference,
            subdirectory,
            develop: false,
        });
    }
    let path = match text.strip_prefix("file:") {
        Some(path) if !path.starts_with("//") => Some(path),
        Some(path) => path.strip_prefix("//").map(|path| path.strip_prefix("localhost").unwrap_or(path)),
        None => None,
    };
    if let Some(path) = path {
        let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
        let subdirectory = fragment.split('&').find_map(|pair| pair.strip_prefix("subdirectory="));
        let path =
            percent_decoded(path).filter(|path| !path.is_empty() && !path.contains(char::is_control))?;
        let subdirectory = owned(subdirectory);
        let right = subdirectory.as_deref().is_none_or(is_inside);
        return right.then_some(Source::Path { path, subdirectory, develop: false });
    }
    let url = Url::parse(text).filter(|url| ["http", "https"].contains(&url.scheme))?;
    let subdirectory = owned(url.fragment_value("subdirectory"));
    let sha256 = owned(url.fragment_value("sha256"));
    let is_digest = |digits: &str| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let right = subdirectory.as_deref().is_none_or(is_inside) && sha256.as_deref().is_none_or(is_digest);
    right.then(|| Source::Url { url: without_fragment.to_owned(), subdirectory, sha256 })
}

/// Whether git takes a text for the name of a branch, tag or commit, and for nothing else.
///
/// Rule: `git check-ref-format`.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let odd = |character: char| {
        character.is_whitespace() || character.is_control() || ":^~?*[\\#\"'`$".contains(character)
    };
    !(text.is_empty()
        || text.starts_with(['-', '+', '/'])
        || text.contains("..")
        || text.contains("@{")
        || text.contains(odd))
}

/// Whether a relative path stays below where it begins, and has no character that ends it early.
#[must_use]
pub(super) fn is_inside(path: &str) -> bool {
    let odd = |character: char| character.is_control() || "#&;".contains(character);
    !path.contains(odd) && !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

/// The refusal of an address with credentials in it.
pub(super) fn credentials(what: &str) -> Diagnostic {
    Diagnostic::new(format!("the address of {what} holds credentials"))
        .why("they would stand in the plan, and in what is left of the build")
        .advice("leave out what stands before the `@`; git on this host knows its own credentials")
}

/// How names of source archives end.
const ARCHIVES: [&str; 4] = [".tar.gz", ".zip", ".tar.bz2", ".tgz"];

/// The name of a file without its ending, where that is one of source archives.
pub(super) fn archive_stem(file: &str) -> Option<&str> {
    ARCHIVES.iter().find_map(|end| file.strip_suffix(end))
}

/// Whether a file's name is that of a wheel or a source archive.
#[must_use]
pub fn is_distribution(file: &str) -> bool {
    archive_stem(file).is_some() || file.strip_suffix(".whl").is_some()
}

/// A path as an address holds it.
///
/// Rule: RFC 3986, "Unreserved Characters".
#[must_use]
pub fn percent_encoded(path: impl AsRef<Path>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.as_ref().as_os_str().as_bytes().iter().copied().map(written).collect()
}

/// Text with `%20` and its like replaced; `None` where that is no UTF-8.
#[must_use]
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| byte == b'%').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            u8::from_str_radix(digits, 16).ok()
        });
        bytes.push(hex.unwrap_or(byte));
        rest = if hex.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_archives_repositories_and_paths() {
        let git = |url: &str, reference: Option<&str>, subdirectory: Option<&str>| Source::Git {
            url: url.into(),
            reference: reference.map(Into::into),
            subdirectory: subdirectory.map(Into::into),
            develop: false,
        };
        for (text, source) in [
            ("git+https://host.invalid/a.git", git("https://host.invalid/a.git", None, None)),
            (
                "git+https://host.invalid/a.git@v1#subdirectory=b",
                git("https://host.invalid/a.git", Some("v1"), Some("b")),
            ),
            ("git+ssh://git@host.invalid/a@main#egg=a", git("ssh://git@host.invalid/a", Some("main"), None)),
            (
                "https://host.invalid/a.zip#subdirectory=b&egg=c",
                Source::Url {
                    url: "https://host.invalid/a.zip".into(),
                    subdirectory: Some("b".into()),
                    sha256: None,
                },
            ),
            ("file:///a%20b", Source::Path { path: "/a b".into(), subdirectory: None, develop: false }),
        ] {
            assert_eq!(parse_url(text).unwrap(), source);
        }
        for text in [
            "https://h/${A}",
            "git+https://h/a@--x",
            "https://h/a.zip#subdirectory=../b",
            "",
            "host/a",
            "https://",
            "https:///a",
            "git+https://",
            "https://a b",
        ] {
            assert_eq!(parse_url(text), None, "for `{text}`");
        }
    }

    #[test]
    fn credentials_are_seen() {
        for (text, credentials) in [
            ("https://token@host.invalid/", true),
            ("https://me:secret@host.invalid/", true),
            ("HTTPS://token@host.invalid/", true),
            ("git+https://token@host.invalid/", true),
            ("ssh://git@host.invalid/", false),
            ("ssh://git:secret@host.invalid/", true),
            ("https://host.invalid/@", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().has_credentials(), credentials, "for `{text}`");
        }
    }
}
