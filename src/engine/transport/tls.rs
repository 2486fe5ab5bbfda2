//! TLS as Docker's own client speaks it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::engine::host::TlsFiles;

/// Reads certificates and keys. Sessions are resumed, so that a build costs one whole handshake.
pub(super) fn connector(files: &TlsFiles) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of this host's is no reason to refuse those that can.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &files.ca {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| of_file(file, &error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let parsed = PrivateKeyDer::from_pem_file(key).map_err(|error| of_pem(key, error))?;
            let config = builder.with_client_auth_cert(certificates(certificate)?, parsed);
            config.map_err(|error| of_file(certificate, &error))?
        }
    };
    Ok(Arc::new(config).into())
}

pub(super) fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(io::Error::other)
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates.map_err(|error| of_pem(file, error))? {
        none if none.is_empty() => Err(of_file(file, &"it holds no certificate")),
        some => Ok(some),
    }
}

fn of_pem(file: &Path, error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(error) => of_file(file, &error),
        error => of_file(file, &error),
    }
}

fn of_file(file: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {why}", file.display()))
}
