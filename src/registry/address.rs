//! Where a registry is, and where it may lead.

use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use super::error::RegistryError;

/// Where a registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Host and port, as people name it.
    pub(super) name: String,
    /// With TLS.
    pub(super) tls: Url,
    /// Without.
    pub(super) plain: Url,
    /// Whether it is spoken to with TLS; `None` where it has to be found out.
    pub(super) is_tls: Option<bool>,
}

impl FromStr for Address {
    type Err = RegistryError;

    /// `HOST` or `HOST:PORT`. With `http://` in front it is asked for without TLS; else hosts on the loopback alone may be
    /// without.
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let refused = || RegistryError::Address(text.escape_debug().to_string());
        let (is_tls, name) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(name), _) => (Some(false), name),
            (_, Some(name)) => (Some(true), name),
            _ => (None, text),
        };
        let is_of_host = |next: char| next.is_ascii_alphanumeric() || ".-:[]_".contains(next);
        if name.is_empty() || !name.chars().all(is_of_host) {
            return Err(refused());
        }
        let host = if is_hub(name) { "registry-1.docker.io" } else { name };
        let url = |scheme| Url::parse(&format!("{scheme}://{host}/")).map_err(|_| refused());
        let (tls, plain) = (url("https")?, url("http")?);
        let is_tls = is_tls.or((!is_loopback(&tls)).then_some(true));
        Ok(Self { name: name.to_owned(), tls, plain, is_tls })
    }
}

/// Whether a host is Docker Hub, which images name in other ways than by where it is.
pub(super) fn is_hub(name: &str) -> bool {
    matches!(name, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// Whether an address is one of this host's own.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether a connection without TLS leads from one address to another: never away from TLS, and not to another host that is
/// not this one.
pub(super) fn may_lead(from: &Url, to: &Url) -> Result<(), &'static str> {
    if !to.username().is_empty() || to.password().is_some() {
        return Err("the address has a password in it");
    }
    match to.scheme() {
        "https" => Ok(()),
        "http" if from.scheme() == "https" => Err("there is no TLS"),
        "http" if from.host_str() == to.host_str() || is_loopback(to) => Ok(()),
        "http" => Err("it is another host, without TLS"),
        _ => Err("it is no address of the web"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_on_the_loopback_may_be_without_tls_unless_that_is_asked_for() {
        for (text, url, is_tls) in [
            ("registry.invalid", "https://registry.invalid/", Some(true)),
            ("registry.invalid:80", "https://registry.invalid:80/", Some(true)),
            ("docker.io", "https://registry-1.docker.io/", Some(true)),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/", Some(true)),
            ("localhost.invalid", "https://localhost.invalid/", Some(true)),
            ("http://registry.invalid:5000", "https://registry.invalid:5000/", Some(false)),
            ("localhost:5000", "https://localhost:5000/", None),
            ("127.1.2.3:5000", "https://127.1.2.3:5000/", None),
            ("[::1]:5000", "https://[::1]:5000/", None),
            ("https://localhost:5000", "https://localhost:5000/", Some(true)),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.tls.as_str(), address.is_tls), (url, is_tls), "{text}");
        }
        for text in ["", "a/b", "me@a", "a b", "a?b", "http://", "https://http://a", "a:b", "[::1", "a:99999"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_leads_away_from_tls() {
        for (from, to, may) in [
            ("https://a/", "https://b/", true),
            ("https://a/", "http://a/", false),
            ("https://a/", "http://127.0.0.1/", false),
            ("http://127.0.0.1:1/", "http://127.0.0.1:2/", true),
            ("http://127.0.0.1:1/", "http://localhost/", true),
            ("http://127.0.0.1:1/", "http://b/", false),
            ("http://127.0.0.1:1/", "https://b/", true),
            ("http://a/", "http://a:1/", true),
            ("https://a/", "https://me@a/", false),
            ("https://a/", "ftp://a/", false),
        ] {
            assert_eq!(may_lead(&from.parse().unwrap(), &to.parse().unwrap()).is_ok(), may, "{from} {to}");
        }
    }
}
