//! Credentials for registries, as Docker's own client and podman keep them.

use std::path::{Path, PathBuf};

use docker_credential::CredentialRetrievalError;
pub use docker_credential::DockerCredential;

use crate::reference::Reference;

/// The name Docker Hub's credentials are kept under.
const HUB: &str = "https://index.docker.io/v1/";

/// Files that keep credentials for registries, in the order they are asked.
#[derive(Debug, Clone, Default)]
pub struct AuthFiles {
    /// `config.json` of Docker's client.
    pub docker: Option<PathBuf>,
    /// `auth.json` of podman and its relatives, where a part of a registry may have credentials of its own.
    ///
    /// Rule: containers-auth.json(5).
    pub podman: Vec<PathBuf>,
}

impl AuthFiles {
    /// User name and secret for a registry's host; `None` where there are none.
    ///
    /// # Errors
    ///
    /// What a credential helper says that does not work; what it says where it has none for the host counts as none.
    pub async fn of_host(&self, host: &str) -> Result<Option<DockerCredential>, String> {
        self.of_repository(host, "").await
    }

    /// The same for a repository of it, such as `company/base`.
    async fn of_repository(&self, host: &str, path: &str) -> Result<Option<DockerCredential>, String> {
        let (files, host, path) = (self.clone(), host.to_owned(), path.to_owned());
        // A credential helper is a program that may take its time.
        let found = tokio::task::spawn_blocking(move || files.look_up(&host, &path)).await;
        found.map_err(|error| error.to_string())?
    }

    fn look_up(&self, host: &str, path: &str) -> Result<Option<DockerCredential>, String> {
        let is_hub = matches!(host, "docker.io" | "registry-1.docker.io" | "index.docker.io");
        if let Some(file) = &self.docker
            && let Some(found) = of_file(file, if is_hub { HUB } else { host })?
        {
            return Ok(Some(found));
        }
        let host = if is_hub { "docker.io" } else { host };
        let mut names = vec![host.to_owned()];
        for part in path.split('/').filter(|part| !part.is_empty()) {
            names.push(format!("{}/{part}", names[names.len() - 1]));
        }
        for file in &self.podman {
            for name in names.iter().rev() {
                if let Some(found) = of_file(file, name)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// User name and secret for the repository of an image.
    ///
    /// # Errors
    ///
    /// As [`AuthFiles::of_host`].
    pub async fn of_image(&self, reference: &Reference) -> Result<Option<DockerCredential>, String> {
        let host = reference.registry().unwrap_or("docker.io");
        let repository = reference.repository();
        self.of_repository(host, repository.strip_prefix(host).unwrap_or(repository)).await
    }
}

/// What a file, or a helper it names, has for a registry.
fn of_file(path: &Path, name: &str) -> Result<Option<DockerCredential>, String> {
    let Ok(text) = std::fs::read(path) else { return Ok(None) };
    match docker_credential::get_credential_from_reader(text.as_slice(), name) {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::ConfigReadError) => {
            Err(format!("`{}` is not what Docker's client writes", path.display()))
        }
        Err(error) => explained(&error).map_or(Ok(None), Err),
    }
}

/// What is told of credentials that cannot be had; `None` where there simply are none.
///
/// Rule: docker-credential-helpers, `credentials.NewErrCredentialsNotFound`.
fn explained(error: &CredentialRetrievalError) -> Option<String> {
    match error {
        CredentialRetrievalError::NoCredentialConfigured
        | CredentialRetrievalError::ConfigNotFound
        | CredentialRetrievalError::ConfigReadError => None,
        CredentialRetrievalError::HelperFailure { helper, stdout, stderr } => {
            let words = [stdout.trim(), stderr.trim()].join(" ");
            let has_none =
                words.contains("credentials not found") || words.contains("not found in native keychain");
            (!has_none).then(|| format!("`docker-credential-{helper}` says: {}", words.trim()))
        }
        error => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_fails_is_told_and_one_that_has_nothing_is_not() {
        let failure = |stdout: &str, stderr: &str| CredentialRetrievalError::HelperFailure {
            helper: "pass".to_owned(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        for (error, told) in [
            (failure("credentials not found in native keychain\n", ""), None),
            (
                failure("", "pass not initialized\n"),
                Some("`docker-credential-pass` says: pass not initialized"),
            ),
            (CredentialRetrievalError::ConfigNotFound, None),
            (CredentialRetrievalError::NoCredentialConfigured, None),
        ] {
            assert_eq!(explained(&error).as_deref(), told);
        }
        assert!(explained(&CredentialRetrievalError::HelperCommunicationError).is_some());
    }

    #[tokio::test]
    async fn the_file_of_docker_counts_before_those_of_podman_and_the_longest_name_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, auths: &[(&str, &str)]| {
            let auths: serde_json::Map<_, _> = auths
                .iter()
                .map(|(key, user)| {
                    ((*key).to_owned(), serde_json::json!({ "username": user, "password": "p" }))
                })
                .collect();
            let path = folder.path().join(name);
            std::fs::write(&path, serde_json::json!({ "auths": auths }).to_string()).unwrap();
            path
        };
        let of_user = |user: &str| DockerCredential::UsernamePassword(user.to_owned(), "p".to_owned());
        let docker = file("config.json", &[("one.test:5000", "docker"), (HUB, "hub")]);
        let podman = file(
            "auth.json",
            &[
                ("one.test:5000", "podman"),
                ("two.test", "all"),
                ("two.test/team/base", "base"),
                ("docker.io", "io"),
            ],
        );
        let files =
            AuthFiles { docker: Some(docker), podman: vec![folder.path().join("missing"), podman.clone()] };
        for (image, user) in [
            ("one.test:5000/x", Some("docker")),
            ("two.test/team/base:1", Some("base")),
            ("two.test/team/other", Some("all")),
            ("three.test/x", None),
            ("python", Some("hub")),
        ] {
            let found = files.of_image(&image.parse().unwrap()).await.unwrap();
            assert_eq!(found, user.map(of_user), "{image}");
        }
        let podman_alone = AuthFiles { docker: None, podman: vec![podman.clone()] };
        let found = podman_alone.of_image(&"python:3.12".parse().unwrap()).await.unwrap();
        assert_eq!(found, Some(of_user("io")));
        std::fs::write(&podman, "no JSON").unwrap();
        assert!(podman_alone.of_host("two.test").await.unwrap_err().contains("auth.json"));
    }
}
