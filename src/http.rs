//! The client of every request that goes to a host by its name: what it trusts, and what it says of itself.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take, and how long nothing may come before it is tried again.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A client that trusts this host's certificates and these, in PEM.
///
/// # Errors
///
/// Of settings that cannot be used.
pub fn client(certificates: Option<&[u8]>) -> io::Result<ClientBuilder> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let given = certificates.into_iter().flat_map(CertificateDer::pem_slice_iter);
    roots.add_parsable_certificates(given.filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("ipybox/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(SILENCE))
}

/// What an error says in the end: its innermost cause. The address is no part of it.
#[must_use]
pub fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn Error = &error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
