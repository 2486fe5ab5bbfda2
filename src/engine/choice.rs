//! Which engine is used: what was asked for, else the first that answers where engines are known to listen.
//!
//! Source: Docker docs, "Docker contexts", "Environment variables" of the CLI, and "Protect the Docker daemon socket".

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Host;
use super::host::{Address, TlsFiles};
use crate::archive::hexadecimal;
use crate::credentials::AuthFiles;

/// What decides which engine is used, as its clients are told.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `--host`.
    pub host: Option<String>,
    /// `--context`.
    pub context: Option<String>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// The folder of `config.json` and contexts: `DOCKER_CONFIG`, else `~/.docker`.
    pub config: Option<PathBuf>,
    /// The folder of certificates: `DOCKER_CERT_PATH`, else that of `config.json`.
    pub certificates: Option<PathBuf>,
    /// Whether TCP is TLS: `DOCKER_TLS_VERIFY`.
    pub tls: bool,
    /// The home of the user.
    pub home: Option<PathBuf>,
    /// A file of credentials that podman's relatives are told: `REGISTRY_AUTH_FILE`.
    pub auth_file: Option<PathBuf>,
    /// Where services of the user listen: `XDG_RUNTIME_DIR`, else `/run/user/UID`.
    pub runtime: Option<PathBuf>,
}

/// A host that may be meant, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where an engine may listen.
    pub host: Host,
    /// Who says so.
    pub by: String,
}

/// Why it cannot be told which engine is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ChoiceError {
    /// What is refused.
    pub what: String,
    /// The reason.
    pub why: String,
    /// What to do.
    pub advice: String,
}

/// The socket of an engine that the system started.
const SYSTEM: &str = "/var/run/docker.sock";

/// Where other engines of this host listen, in the order they are tried: below the home, or below the folder of services.
///
/// Source: the documentation of each.
const OF_HOME: [(&str, &str); 8] = [
    (".docker/run/docker.sock", "Docker Desktop"),
    (".docker/desktop/docker.sock", "Docker Desktop"),
    (".colima/default/docker.sock", "Colima"),
    (".config/colima/default/docker.sock", "Colima"),
    (".orbstack/run/docker.sock", "OrbStack"),
    (".rd/docker.sock", "Rancher Desktop"),
    (".lima/docker/sock/docker.sock", "Lima"),
    (".lima/default/sock/docker.sock", "Lima"),
];
const OF_RUNTIME: &str = "docker.sock";
const PODMAN_OF_RUNTIME: &str = "podman/podman.sock";
const PODMAN_OF_SYSTEM: &str = "/run/podman/podman.sock";
const PODMAN_OF_HOME: &str = ".local/share/containers/podman/machine/podman.sock";

/// What Docker calls the engine that no context names.
const DEFAULT: &str = "default";

/// The largest file of a context, in bytes.
const MOST: u64 = 1 << 20;

impl Choice {
    /// The hosts to try, in order; one, where somebody chose.
    ///
    /// # Errors
    ///
    /// [`ChoiceError`] where what was chosen is no host, or no context.
    pub fn candidates(&self) -> Result<Vec<Candidate>, ChoiceError> {
        let one = |host, by: &str| Ok(vec![Candidate { host, by: by.to_owned() }]);
        if let Some(text) = &self.host {
            return one(self.read(text, "--host")?, "--host");
        }
        let of_environment = || self.docker_host.as_ref().map(|text| self.read(text, "DOCKER_HOST"));
        if let Some(name) = self.context.as_deref()
            && name != DEFAULT
        {
            return one(self.of_context(name, "--context")?, &format!("the context `{name}`"));
        }
        if let Some(host) = of_environment() {
            return one(host?, "DOCKER_HOST");
        }
        if self.context.is_none() {
            let current = self.docker_context.clone().map(|name| (name, "DOCKER_CONTEXT".to_owned()));
            if let Some((name, by)) =
                current.map_or_else(|| self.current_context(), |named| Ok(Some(named)))?
                && name != DEFAULT
            {
                return one(self.of_context(&name, &by)?, &format!("the context `{name}`"));
            }
        }
        Ok(self.known())
    }

    /// Where credentials for registries are.
    #[must_use]
    pub fn auth_files(&self) -> AuthFiles {
        let of_runtime = self.runtime.as_ref().map(|folder| folder.join("containers/auth.json"));
        let of_home = self.home.as_ref().map(|folder| folder.join(".config/containers/auth.json"));
        AuthFiles {
            docker: self.config.as_ref().map(|folder| folder.join("config.json")),
            podman: self.auth_file.clone().into_iter().chain(of_runtime).chain(of_home).collect(),
        }
    }

    /// Where engines of this host listen.
    fn known(&self) -> Vec<Candidate> {
        let candidate = |socket: PathBuf, by: &str| Candidate { host: Host::unix(socket), by: by.to_owned() };
        let home = |(name, by): &(&str, &str)| Some(candidate(self.home.as_ref()?.join(name), by));
        let runtime = |name: &str, by| Some(candidate(self.runtime.as_ref()?.join(name), by));
        let mut all = vec![candidate(SYSTEM.into(), "the system's")];
        all.extend(runtime(OF_RUNTIME, "rootless Docker"));
        all.extend(OF_HOME.iter().filter_map(home));
        all.extend(runtime(PODMAN_OF_RUNTIME, "podman of the user"));
        all.push(candidate(PODMAN_OF_SYSTEM.into(), "podman of the system"));
        all.extend(home(&(PODMAN_OF_HOME, "podman's machine")));
        all
    }

    /// A host, with the files of TLS where it is spoken.
    fn read(&self, text: &str, by: &str) -> Result<Host, ChoiceError> {
        let mut host: Host = text.parse().map_err(|why| ChoiceError {
            what: format!("cannot use the engine at `{text}`"),
            why,
            advice: format!("correct `{by}`, as in `unix:///var/run/docker.sock` or `tcp://host:2376`"),
        })?;
        if matches!(host.address, Address::Tcp { .. }) && (self.tls || host.tls.is_some()) {
            let folder = self.certificates.as_deref().or(self.config.as_deref());
            host.tls = Some(
                folder
                    .map(TlsFiles::of)
                    .transpose()
                    .map_err(|missing| of_files(&missing))?
                    .unwrap_or_default(),
            );
        }
        Ok(host)
    }

    fn of_context(&self, name: &str, by: &str) -> Result<Host, ChoiceError> {
        let refused = |why: String, advice: String| ChoiceError {
            what: format!("cannot use the context `{name}`"),
            why,
            advice,
        };
        let correct = || format!("correct `{by}`");
        let folder = self.config.as_ref().map(|config| config.join("contexts"));
        let folder = folder.ok_or_else(|| {
            refused("there is no folder for contexts".into(), "set `HOME` or `DOCKER_CONFIG`".into())
        })?;
        let id = hexadecimal(&Sha256::digest(name));
        let file = folder.join("meta").join(&id).join("meta.json");
        let text = match read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let names = names(&folder);
                let near = names.iter().min_by_key(|other| strsim::damerau_levenshtein(other, name));
                let advice =
                    near.map(|near| format!("use `{near}`, or one of those that `docker context ls` tells"));
                return Err(refused(
                    format!("there is none of this name in `{}`", folder.display()),
                    advice.unwrap_or_else(|| "make it with `docker context create`, or give `--host`".into()),
                ));
            }
            Err(error) => return Err(refused(format!("{}: {error}", file.display()), correct())),
        };
        let context: Context = serde_json::from_str(&text)
            .map_err(|error| refused(format!("{}: {error}", file.display()), correct()))?;
        let endpoint = context.endpoints.docker;
        let Some(Endpoint { host: Some(text), skip_tls_verify }) =
            endpoint.filter(|endpoint| endpoint.host.is_some())
        else {
            return Err(refused("it names no host of Docker".into(), correct()));
        };
        let mut host: Host = text.parse().map_err(|why| refused(format!("`{text}`: {why}"), correct()))?;
        if matches!(host.address, Address::Tcp { .. }) {
            let tls = folder.join("tls").join(&id).join("docker");
            if skip_tls_verify {
                return Err(refused(
                    "it takes any certificate, and so anybody for the engine".into(),
                    "give the context the authority of the engine's certificate: `docker context update --docker ca=…`".into(),
                ));
            }
            if tls.is_dir() || host.tls.is_some() {
                host.tls = Some(TlsFiles::of(&tls).map_err(|missing| of_files(&missing))?);
            }
        }
        Ok(host)
    }

    /// The context that `docker context use` chose, and the file that says so.
    fn current_context(&self) -> Result<Option<(String, String)>, ChoiceError> {
        let Some(file) = self.config.as_ref().map(|config| config.join("config.json")) else {
            return Ok(None);
        };
        let refused = |why: &dyn std::fmt::Display| ChoiceError {
            what: format!("cannot read `{}`", file.display()),
            why: why.to_string(),
            advice: "mend it, or give `--host`".into(),
        };
        let text = match read(&file) {
            Ok(text) => text,
            // Docker's own client goes on without a file that is not for it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(refused(&error)),
        };
        let settings: Settings = serde_json::from_str(&text).map_err(|error| refused(&error))?;
        let name = settings.current_context.filter(|name| !name.is_empty());
        Ok(name.map(|name| (name, format!("currentContext in {}", file.display()))))
    }
}

impl TlsFiles {
    /// The files of a folder, under the names that Docker's client gives them.
    ///
    /// # Errors
    ///
    /// The missing one, where only one of certificate and key is there.
    fn of(folder: &Path) -> Result<Self, PathBuf> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        let identity = match (file("cert.pem"), file("key.pem")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (None, _) => return Err(folder.join("cert.pem")),
            (_, None) => return Err(folder.join("key.pem")),
        };
        Ok(Self { ca: file("ca.pem"), identity })
    }
}

fn of_files(missing: &Path) -> ChoiceError {
    ChoiceError {
        what: format!("`{}` is missing", missing.display()),
        why: "a client's certificate and its key belong together".into(),
        advice: "put it there, or remove the other".into(),
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(file)?, MOST), &mut text)?;
    Ok(text)
}

/// The names of the contexts in a folder.
fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("meta")).into_iter().flatten().flatten();
    let texts = files.filter_map(|folder| read(&folder.path().join(OsStr::new("meta.json"))).ok());
    texts.filter_map(|text| Some(serde_json::from_str::<Context>(&text).ok()?.name)).collect()
}

/// What `meta.json` says, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    #[serde(default)]
    name: String,
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host")]
    host: Option<String>,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(choice: &Choice) -> Vec<String> {
        choice.candidates().unwrap().iter().map(|candidate| candidate.host.to_string()).collect()
    }

    fn context(folder: &Path, name: &str, host: &str) {
        let meta = folder.join("contexts/meta").join(hexadecimal(&Sha256::digest(name)));
        fs::create_dir_all(&meta).unwrap();
        let text = format!(
            "{{\"Name\":{name:?},\"Metadata\":{{}},\"Endpoints\":{{\"docker\":{{\"Host\":{host:?},\"SkipTLSVerify\":false}}}}}}"
        );
        fs::write(meta.join("meta.json"), text).unwrap();
    }

    #[test]
    fn what_was_chosen_last_is_tried_alone_and_otherwise_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        context(folder.path(), "flag", "tcp://flag:1");
        context(folder.path(), "variable", "tcp://variable:1");
        context(folder.path(), "current", "ssh://current");
        let config = folder.path().join("config.json");
        fs::write(&config, "{\"auths\":{},\"currentContext\":\"current\"}").unwrap();
        let text = |text: &str| Some(text.to_owned());
        let mut choice = Choice {
            host: text("tcp://option"),
            context: text("flag"),
            docker_host: text("tcp://environment"),
            docker_context: text("variable"),
            config: Some(folder.path().into()),
            ..Choice::default()
        };
        assert_eq!(hosts(&choice), ["tcp://option:2375"]);
        choice.host = None;
        assert_eq!(hosts(&choice), ["tcp://flag:1"]);
        choice.context = text("default");
        assert_eq!(hosts(&choice), ["tcp://environment:2375"]);
        choice.context = None;
        assert_eq!(hosts(&choice), ["tcp://environment:2375"]);
        choice.docker_host = None;
        assert_eq!(hosts(&choice), ["tcp://variable:1"]);
        choice.docker_context = None;
        assert_eq!(hosts(&choice), ["ssh://current"]);
        choice.context = text("default");
        assert_eq!(hosts(&choice), ["unix:///var/run/docker.sock", "unix:///run/podman/podman.sock"]);
        choice.context = None;
        fs::remove_file(config).unwrap();
        choice.home = Some("/home/x".into());
        choice.runtime = Some("/run/user/5".into());
        let known = hosts(&choice);
        assert_eq!(
            known[..3],
            [
                "unix:///var/run/docker.sock",
                "unix:///run/user/5/docker.sock",
                "unix:///home/x/.docker/run/docker.sock"
            ]
        );
        assert!(known.contains(&"unix:///home/x/.colima/default/docker.sock".to_owned()));
        assert_eq!(known.iter().filter(|host| host.contains("podman")).count(), 3);
    }

    #[test]
    fn tls_takes_its_files_from_where_dockers_client_looks() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ca.pem"), "").unwrap();
        let mut choice = Choice {
            host: Some("tcp://host".into()),
            tls: true,
            config: Some(folder.path().into()),
            ..Choice::default()
        };
        let tls = |choice: &Choice| choice.candidates().map(|found| found[0].host.tls.clone());
        assert_eq!(tls(&choice), Ok(Some(TlsFiles { ca: Some(path("ca.pem")), identity: None })));
        fs::write(path("key.pem"), "").unwrap();
        assert!(tls(&choice).unwrap_err().what.contains("cert.pem"));
        fs::write(path("cert.pem"), "").unwrap();
        let identity = Some((path("cert.pem"), path("key.pem")));
        assert_eq!(tls(&choice), Ok(Some(TlsFiles { ca: Some(path("ca.pem")), identity })));
        choice.certificates = Some("/nowhere".into());
        assert_eq!(tls(&choice), Ok(Some(TlsFiles::default())));
        choice.tls = false;
        assert_eq!(tls(&choice), Ok(None));
        choice.host = Some("https://host".into());
        assert_eq!(tls(&choice), Ok(Some(TlsFiles::default())));
    }

    #[test]
    fn a_context_that_cannot_be_used_is_told_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        context(folder.path(), "remote", "tcp://host");
        context(folder.path(), "odd", "gopher://host");
        let said = |name: &str| {
            let choice = Choice {
                context: Some(name.into()),
                config: Some(folder.path().into()),
                ..Choice::default()
            };
            let error = choice.candidates().unwrap_err();
            format!("{}|{}", error.why.replace(folder.path().to_str().unwrap(), "~"), error.advice)
        };
        assert_eq!(
            said("remotr"),
            "there is none of this name in `~/contexts`|use `remote`, or one of those that `docker context ls` tells"
        );
        assert!(said("odd").starts_with("`gopher://host`: `gopher` is no scheme of engines"));
        let meta = folder.path().join("contexts/meta").join(hexadecimal(&Sha256::digest("remote")));
        fs::write(meta.join("meta.json"), "{\"Name\":\"remote\",\"Endpoints\":{}}").unwrap();
        assert!(said("remote").starts_with("it names no host of Docker"));
        fs::write(meta.join("meta.json"), "{").unwrap();
        assert!(said("remote").contains("meta.json: EOF"));
        let skips = "{\"Endpoints\":{\"docker\":{\"Host\":\"tcp://host\",\"SkipTLSVerify\":true}}}";
        fs::write(meta.join("meta.json"), skips).unwrap();
        assert!(said("remote").starts_with("it takes any certificate"));
    }
}
