//! What an engine keeps by digest where its images are those of registries: manifests, configurations and layers, as in
//! Docker's containerd image store.
//!
//! Rule: containerd, `containerd.services.content.v1`, which BuildKit lets be read at Docker's `POST /grpc`; OCI image
//! specification, "Image Manifest Specification".

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::MAX_ANSWER;
use super::transport::{Dialer, Stream, Upgrade, upgrade};
use crate::archive::hexadecimal;
use crate::reference::{ImageId, is_digest};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many manifests of one image are looked at: one for each platform, and one beside it for what is attested.
const MANIFESTS: usize = 64;

/// The type of a layer that is not compressed.
pub(super) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// What a manifest says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    /// In bytes.
    pub(super) size: u64,
}

/// A manifest, or an index of manifests.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The store of an engine, to be read.
pub(super) struct Blobs(Channel);

impl Blobs {
    /// `None` where the engine lets nobody read it.
    pub(super) async fn open(dialer: &Dialer) -> io::Result<Option<Self>> {
        let opened = async {
            match upgrade(dialer.connect().await?, "/grpc", &[]).await? {
                Upgrade::Done(connection) => {
                    let endpoint = Endpoint::from_static("http://docker").timeout(PATIENCE);
                    let channel = endpoint.connect_with_connector(Opened(Some(connection))).await;
                    Ok(Some(Self(channel.map_err(io::Error::other)?)))
                }
                Upgrade::Refused { .. } => Ok(None),
            }
        };
        timeout(PATIENCE, opened).await?
    }

    /// Whether a blob is there, and as large as is said.
    pub(super) async fn has(&self, blob: &Descriptor) -> io::Result<bool> {
        let codec = ProstCodec::<InfoRequest, InfoResponse>::default();
        let request = Request::new(InfoRequest { digest: blob.digest.clone() });
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Info");
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(io::Error::other)?;
        let told = found(grpc.unary(request, path, codec).await)?;
        let size =
            told.and_then(|told| told.into_inner().info).and_then(|info| u64::try_from(info.size).ok());
        Ok(size == Some(blob.size))
    }

    /// A blob of at most [`MAX_ANSWER`] bytes; `None` where it is not there, or where such blobs are not kept.
    async fn read(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        let codec = ProstCodec::<ReadRequest, ReadResponse>::default();
        let request = Request::new(ReadRequest { digest: digest.to_owned() });
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(io::Error::other)?;
        let Some(answer) = found(grpc.server_streaming(request, path, codec).await)? else { return Ok(None) };
        let (mut pieces, mut bytes) = (answer.into_inner(), Vec::new());
        loop {
            let Some(piece) = found(pieces.message().await)? else { return Ok(None) };
            let Some(ReadResponse { data }) = piece else { break };
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(invalid(format!("`{digest}` is too large for a manifest")));
            }
            bytes.extend_from_slice(&data);
        }
        if format!("sha256:{}", hexadecimal(&Sha256::digest(&bytes))) != digest {
            return Err(invalid(format!("`{digest}` has another digest")));
        }
        Ok(Some(bytes))
    }

    /// The layers of an image as they are kept, by what its configuration calls them; `None` where the engine does not keep
    /// it so, as on graph drivers, where the id is that of the configuration.
    pub(super) async fn layers(
        &self,
        image: &ImageId,
        diff_ids: &[String],
    ) -> io::Result<Option<Vec<Descriptor>>> {
        let Some(first) = self.read(image.as_str()).await?.as_deref().and_then(Manifest::parsed) else {
            return Ok(None);
        };
        let mut manifests = Vec::new();
        for place in first.manifests.iter().take(MANIFESTS) {
            // Those of other platforms may be absent.
            manifests.extend(self.read(&place.digest).await?.as_deref().and_then(Manifest::parsed));
        }
        manifests.push(first);
        for manifest in manifests {
            let Some(config) = &manifest.config else { continue };
            if let Some(config) = self.read(&config.digest).await?
                && let Some(layers) = manifest.layers_of(&config, diff_ids)
            {
                return Ok(Some(layers));
            }
        }
        Err(invalid(format!("no manifest of `{image}` has its layers")))
    }
}

impl Manifest {
    /// `None` where it is something else, or has digests of another kind.
    fn parsed(bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes).ok()?;
        let mut all = manifest.config.iter().chain(&manifest.layers).chain(&manifest.manifests);
        let is_one = manifest.config.is_some() || !manifest.manifests.is_empty();
        (is_one && all.all(|blob| is_digest(&blob.digest))).then_some(manifest)
    }

    /// Its layers, where its configuration calls them so.
    fn layers_of(self, config: &[u8], diff_ids: &[String]) -> Option<Vec<Descriptor>> {
        let Config { rootfs } = serde_json::from_slice(config).ok()?;
        let is_it = rootfs.diff_ids == diff_ids && self.layers.len() == diff_ids.len();
        is_it.then(|| self.layers.into_iter().map(Descriptor::of_oci).collect())
    }
}

impl Descriptor {
    /// The same with the name that the OCI has for Docker's types of layers.
    ///
    /// Rule: OCI image specification, "Compatibility Matrix".
    fn of_oci(mut self) -> Self {
        if let Some(packed) = self.media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar") {
            self.media_type = format!("{TAR}{}", packed.replace('.', "+"));
        }
        self
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// An answer, unless what was asked for is not there or not served.
fn found<T>(answer: Result<T, Status>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
        Err(status) => Err(io::Error::other(status.message().to_owned())),
    }
}

/// A connection that is there already, for who wants to open one.
struct Opened(Option<Stream>);

impl Service<Uri> for Opened {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::ConnectionReset.into()))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Info {
    #[prost(int64, tag = "2")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadResponse {
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(digit: u8) -> String {
        format!("sha256:{}", hexadecimal(&[digit; 32]))
    }

    fn manifest(kind: &str) -> String {
        format!(
            r#"{{"schemaVersion": 2, "config": {{"mediaType": "c", "digest": "{}", "size": 1}},
                "layers": [{{"mediaType": "{kind}", "digest": "{}", "size": 9}}]}}"#,
            digest(1),
            digest(2),
        )
    }

    fn config(diff_id: &str) -> String {
        format!(r#"{{"rootfs": {{"type": "layers", "diff_ids": ["{diff_id}"]}}}}"#)
    }

    #[test]
    fn layers_are_those_that_are_kept_under_the_names_of_the_oci() {
        for (kind, expected) in [
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            ("application/vnd.docker.image.rootfs.diff.tar", TAR),
            ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ] {
            let parsed = Manifest::parsed(manifest(kind).as_bytes()).unwrap();
            let layers = parsed.layers_of(config(&digest(3)).as_bytes(), &[digest(3)]).unwrap();
            assert_eq!(layers, [Descriptor { media_type: expected.to_owned(), digest: digest(2), size: 9 }]);
        }
    }

    #[test]
    fn what_is_no_manifest_or_of_another_image_is_not_taken_for_its_own() {
        let of = |config: &str, diff_ids: &[String]| {
            let parsed = Manifest::parsed(manifest(TAR).as_bytes()).unwrap();
            parsed.layers_of(config.as_bytes(), diff_ids)
        };
        assert!(of(&config(&digest(3)), &[digest(4)]).is_none());
        assert!(of(&config(&digest(3)), &[]).is_none());
        assert!(of("{}", &[]).is_none());
        for other in [
            "",
            "{}",
            // A configuration, whose digest is the id on graph drivers.
            r#"{"config": {"Cmd": ["x"]}, "rootfs": {"diff_ids": []}}"#,
            &manifest(TAR).replace(&digest(2), "sha256:../../x"),
            &manifest(TAR).replace(&digest(1), "sha512:00"),
            r#"{"manifests": [{"mediaType": "m", "digest": "..", "size": 1}]}"#,
        ] {
            assert!(Manifest::parsed(other.as_bytes()).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
            let _ = Manifest::parsed(&bytes);
            let whole = manifest(TAR);
            if let Some(parsed) = Manifest::parsed(&whole.as_bytes()[..cut.min(whole.len())]) {
                prop_assert!(parsed.layers_of(&bytes, &[]).is_none());
            }
        }
    }
}
