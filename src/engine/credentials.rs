//! Credentials for registries, in bollard's words.

use bollard::auth::DockerCredentials;

use crate::credentials::{AuthFiles, DockerCredential};
use crate::reference::Reference;

/// The credentials for an image.
///
/// # Errors
///
/// As [`AuthFiles::of_image`].
pub(super) async fn of_image(
    files: &AuthFiles,
    reference: &Reference,
) -> Result<Option<DockerCredentials>, String> {
    let serveraddress = Some(reference.registry().unwrap_or("docker.io").to_owned());
    Ok(files.of_image(reference).await?.map(|credential| match credential {
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
