//! The one place where connections to an engine are opened: those of its API, and those of sessions.

use std::io;

use bollard::Docker;
use tokio::net::UnixStream;

use super::{EngineError, Host};

/// Longest wait for the headers of an ordinary answer, in seconds.
const TIMEOUT: u64 = 120;

/// A raw connection, for what is no HTTP after its first answer.
pub(super) async fn connect(host: &Host) -> io::Result<UnixStream> {
    UnixStream::connect(&host.socket).await
}

/// A client of the API. Nothing is sent yet.
pub(super) fn client(host: &Host) -> Result<Docker, EngineError> {
    let socket = host.socket.to_string_lossy();
    let client = Docker::connect_with_unix(&socket, TIMEOUT, bollard::API_DEFAULT_VERSION);
    Ok(client.map_err(EngineError::api("connect"))?.with_request_modifier(repair))
}

/// Mends what bollard writes on the wire: builds are always BuildKit's, through a session of our
/// own, though bollard is asked for a classic one so that it opens no second session; and Docker
/// decodes credentials as URL-safe base64.
fn repair(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if request.uri().path().ends_with("/build") {
        let uri = request.uri().to_string().replace("version=1", "version=2");
        *request.uri_mut() = uri.parse().expect("a digit for a digit");
    }
    for name in ["x-registry-auth", "x-registry-config"] {
        if let Some(header) = request.headers_mut().get_mut(name)
            && let Ok(text) = header.to_str()
            && let Ok(safe) = text.replace('+', "-").replace('/', "_").parse()
        {
            *header = safe;
        }
    }
    request
}
