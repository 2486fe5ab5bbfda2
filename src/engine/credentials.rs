//! Credentials for registries, as Docker's own client keeps them.

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential};

/// The name Docker Hub's credentials are kept under.
const HUB: &str = "https://index.docker.io/v1/";

/// User name and secret for a registry's host; `None` where there are none.
///
/// # Errors
///
/// What a credential helper says that does not work; what it says where it has none for the host counts as none.
pub(super) async fn of_host(host: &str) -> Result<Option<DockerCredential>, String> {
    let name = match host {
        "docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    };
    // A credential helper is a program that may take its time.
    let found = tokio::task::spawn_blocking(move || docker_credential::get_credential(&name)).await;
    match found.map_err(|error| error.to_string())? {
        Ok(credential) => Ok(Some(credential)),
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

/// The same in bollard's words; without a registry, for Docker Hub.
pub(super) async fn of_registry(registry: Option<&str>) -> Result<Option<DockerCredentials>, String> {
    let host = registry.unwrap_or("docker.io");
    let serveraddress = Some(host.to_owned());
    Ok(of_host(host).await?.map(|credential| match credential {
        DockerCredential::IdentityToken(token) => {
            DockerCredentials { identitytoken: Some(token), serveraddress, ..DockerCredentials::default() }
        }
        DockerCredential::UsernamePassword(username, password) => DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress,
            ..DockerCredentials::default()
        },
    }))
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
}
