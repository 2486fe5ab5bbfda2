//! The certificates that build steps trust.

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Document};

/// Where distributions keep the bundle of the certificates they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read the certificates in `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("`{}` holds no certificate", .0.display())]
    Empty(PathBuf),
}

/// The certificates for build steps: the host's joined with those of `further`; `None` where
/// neither `SSL_CERT_FILE` nor `--ca-cert` names any, and steps trust what the base does.
///
/// # Errors
///
/// [`TrustError`] for a file that was named.
pub fn bundle(ssl_cert_file: Option<&Path>, further: Option<&Path>) -> Result<Option<Vec<u8>>, TrustError> {
    let system = || SYSTEM_BUNDLES.map(Path::new).into_iter().find(|path| path.is_file());
    let host = match (ssl_cert_file, further) {
        (Some(path), _) => Some(path),
        (_, Some(_)) => system(),
        (_, None) => return Ok(None),
    };
    let mut bundle = Vec::new();
    let mut joined = Vec::new();
    for path in host.into_iter().chain(further) {
        let unreadable = |source| TrustError::Unreadable { path: path.to_owned(), source };
        let text = Document::read(path, MAX_BYTES).map_err(unreadable)?.text;
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            return Err(TrustError::Empty(path.to_owned()));
        }
        if !joined.contains(&text) {
            bundle.extend_from_slice(text.as_bytes());
            bundle.push(b'\n');
            joined.push(text);
        }
    }
    Ok(Some(bundle))
}

/// The largest bundle that is read, in bytes.
const MAX_BYTES: u64 = 4_000_000;

impl TrustError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Unreadable { source, .. } => what
                .why(source.to_string())
                .advice("give another file as `--ca-cert`, or correct `SSL_CERT_FILE`"),
            Self::Empty(_) => {
                what.advice("give a file in PEM format, beginning with `-----BEGIN CERTIFICATE-----`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_bundle_is_joined_with_further_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let host = file("host.pem", "-----BEGIN CERTIFICATE-----\nhost");
        let own = file("own.pem", "-----BEGIN CERTIFICATE-----\nown");
        let text = |bundle: Result<Option<Vec<u8>>, _>| String::from_utf8(bundle.unwrap().unwrap()).unwrap();
        assert_eq!(bundle(None, None).unwrap(), None);
        assert_eq!(text(bundle(Some(&host), Some(&host))).matches("BEGIN").count(), 1);
        let both = text(bundle(Some(&host), Some(&own)));
        assert!(both.contains("host\n-----BEGIN") && both.ends_with("own\n"));
        assert!(matches!(bundle(Some(&file("x", "none")), None), Err(TrustError::Empty(_))));
        assert!(matches!(bundle(None, Some(Path::new("/missing"))), Err(TrustError::Unreadable { .. })));
    }
}
