//! Connections that the engine turns over to gRPC.
//!
//! Source: moby, `POST /session` and `POST /grpc`.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What an engine makes of it.
pub(in crate::engine) enum Upgrade<C> {
    /// The connection is gRPC's.
    Done(C),
    /// It answers something else.
    Refused { status: u16, line: String },
}

/// Turns a connection over to gRPC.
pub(in crate::engine) async fn upgrade<C: AsyncRead + AsyncWrite + Unpin>(
    mut connection: C,
    path: &str,
    headers: &[String],
) -> io::Result<Upgrade<C>> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    connection.write_all((request + "\r\n").as_bytes()).await?;
    // Byte by byte, since what follows the headers belongs to gRPC.
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == 16 << 10 {
            return Err(io::Error::other("the engine's answer does not end"));
        }
        answer.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&answer);
    let line = head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ").to_owned();
    let status = line.split(' ').next().and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok(if status == 101 { Upgrade::Done(connection) } else { Upgrade::Refused { status, line } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_engine_that_knows_no_sessions_has_no_buildkit() {
        for (answer, expected) in [
            ("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n", None),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Some((404, "404 Not Found"))),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", Some((403, "403 Forbidden"))),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Some((503, "503 Service Unavailable"))),
            ("nonsense\r\n\r\n", Some((0, "nonsense"))),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            let refused = match upgrade(ours, "/session", &[]).await.unwrap() {
                Upgrade::Done(_) => None,
                Upgrade::Refused { status, line } => Some((status, line)),
            };
            assert_eq!(refused.as_ref().map(|(status, line)| (*status, line.as_str())), expected);
        }
    }
}
