//! Credentials for registries, as Docker's own client keeps them.

use bollard::auth::DockerCredentials;
use docker_credential::DockerCredential;

/// The name Docker Hub's credentials are kept under.
const HUB: &str = "https://index.docker.io/v1/";

/// User name and secret for a registry's host; `None` where there are none, or none that can be
/// read: the registry then refuses, and says so.
pub(super) async fn of_host(host: &str) -> Option<DockerCredential> {
    let name = match host {
        "docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    };
    // A credential helper is a program that may take its time.
    tokio::task::spawn_blocking(move || docker_credential::get_credential(&name).ok()).await.ok().flatten()
}

/// The same in bollard's words; without a registry, for Docker Hub.
pub(super) async fn of_registry(registry: Option<&str>) -> Option<DockerCredentials> {
    let host = registry.unwrap_or("docker.io");
    Some(match of_host(host).await? {
        DockerCredential::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token),
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        },
        DockerCredential::UsernamePassword(username, password) => DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        },
    })
}
