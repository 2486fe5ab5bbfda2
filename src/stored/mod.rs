//! Images in files of this host: read where they lie, in constant memory, and without an engine.

mod differences;
mod entries;
mod error;
mod files;
mod manifest;
mod place;
mod source;

use std::io::{BufReader, Read};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

pub use differences::{Comparison, FirstDifference};
pub use error::{Refusal, StoredError};
pub use files::{File, Files, Kind};
pub use place::{Place, PlaceError};

use error::Fault;
use manifest::{Config, MOST_LAYERS, MOST_TEXT, digits, parsed};
use source::{CHUNK, GZIP, Part, Source, Verified, ZSTD, digest_of};

use crate::platform::Platform;

/// An image in files of this host. What is said of it in one place fits what is said in others; its layers are checked while
/// they are read.
#[derive(Debug)]
pub struct Stored {
    /// Where it lies.
    pub place: Place,
    /// Its configuration as it lies there, which is JSON.
    pub config: Vec<u8>,
    /// The digest of that, which is what engines call the image by.
    pub config_digest: String,
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, the lowest first.
    pub layers: Vec<StoredLayer>,
}

/// A layer of an image in files of this host.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// The digest of its tar archive.
    pub diff_id: String,
    /// The digest of its bytes as they lie there.
    pub digest: String,
    /// How many these are.
    pub size: u64,
    /// What they are.
    pub media_type: MediaType,
    part: Part,
}

/// What a layer's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// A tar archive.
    Tar,
    /// A tar archive, compressed with gzip.
    TarGzip,
}

impl MediaType {
    /// Its name.
    ///
    /// Rule: OCI image specification, "Media Types".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::TarGzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    /// What a media type says; `None` where it is no layer's.
    fn told(name: &str) -> Result<Option<Self>, Refusal> {
        let kind = match name.strip_prefix("application/vnd.oci.image.layer.") {
            Some(kind) => kind.strip_prefix("nondistributable.").unwrap_or(kind).strip_prefix("v1."),
            None => name
                .strip_prefix("application/vnd.docker.image.rootfs.")
                .and_then(|kind| kind.strip_prefix("foreign.").unwrap_or(kind).strip_prefix("diff.")),
        };
        match kind {
            Some("tar") => Ok(Some(Self::Tar)),
            Some("tar+gzip" | "tar.gzip") => Ok(Some(Self::TarGzip)),
            Some("tar+zstd" | "tar.zstd") => Err(Refusal::Zstd),
            _ => Ok(None),
        }
    }

    /// What bytes are that begin so.
    fn of(beginning: &[u8]) -> Result<Self, Refusal> {
        if beginning.starts_with(ZSTD) {
            return Err(Refusal::Zstd);
        }
        Ok(if beginning.starts_with(GZIP) { Self::TarGzip } else { Self::Tar })
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Tar => "a tar archive or something else",
            Self::TarGzip => "compressed with gzip",
        }
    }
}

/// The largest layer that is read, uncompressed, in bytes.
const MOST_BYTES: u64 = 1 << 37;

impl Stored {
    /// Reads what an image says of itself, of several the one for the platform. Where no platform is wanted it is this
    /// program's, if there are several.
    ///
    /// # Errors
    ///
    /// [`StoredError`].
    pub fn open(place: &Place, platform: Option<&Platform>) -> Result<Self, StoredError> {
        let opened = match place {
            Place::Layout { folder, .. } => {
                Source::folder(folder).and_then(|source| in_layout(place, &source, platform))
            }
            Place::OciArchive { file, .. } => {
                Source::archive(file).and_then(|source| in_layout(place, &source, platform))
            }
            Place::DockerArchive { file, .. } => {
                Source::archive(file).and_then(|source| in_docker_archive(place, &source, platform))
            }
        };
        opened.map_err(|fault| fault.in_image(place))
    }
}

fn in_layout(place: &Place, source: &Source, platform: Option<&Platform>) -> Result<Stored, Fault> {
    let manifest = manifest::chosen(source, place.name(), platform)?.manifest(source)?;
    if manifest.layers.len() > MOST_LAYERS {
        return Err(Refusal::Limit("512 layers").into());
    }
    let text = manifest.config.text(source)?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let named = |refusal: Refusal| refusal.of(&layer.digest);
        let said = MediaType::told(&layer.media_type).map_err(named)?;
        let said = said.ok_or_else(|| named(Refusal::MediaType(layer.media_type.clone())))?;
        let part = layer.part(source)?;
        let media_type = part.beginning().map_err(Refusal::from).and_then(|bytes| MediaType::of(&bytes));
        let media_type = media_type.map_err(named)?;
        if media_type != said {
            return Err(named(Refusal::Otherwise { is: media_type.noun(), said: said.noun() }));
        }
        layers.push((part, media_type, Some(layer.digest.clone())));
    }
    stored(place, text, &manifest.config.digest, layers, platform)
}

fn in_docker_archive(place: &Place, source: &Source, platform: Option<&Platform>) -> Result<Stored, Fault> {
    let image = manifest::saved(source, place.name())?;
    let named = |refusal: Refusal| refusal.of(&image.config);
    let text = source.open(plain(&image.config))?.read(MOST_TEXT).map_err(named)?;
    let digest = digest_of(Sha256::new_with_prefix(&text));
    // It is called by its digest.
    let name = image.config.rsplit('/').next().unwrap_or_default();
    let name = name.trim_start_matches("sha256:").trim_end_matches(".json");
    if let Ok(said) = digits(&format!("sha256:{name}")).map(|_| format!("sha256:{name}"))
        && said != digest
    {
        return Err(named(Refusal::Digest(said)));
    }
    let paths = image.layers.as_deref().unwrap_or_default();
    if paths.len() > MOST_LAYERS {
        return Err(Refusal::Limit("512 layers").into());
    }
    let mut layers = Vec::new();
    for path in paths {
        let part = source.open(plain(path))?;
        let named = |refusal: Refusal| refusal.of(path);
        let media_type = part.beginning().map_err(Refusal::from).and_then(|bytes| MediaType::of(&bytes));
        let media_type = media_type.map_err(named)?;
        let digest = match media_type {
            // It is that of the archive, which the configuration has.
            MediaType::Tar => None,
            MediaType::TarGzip => Some(part.digest().map_err(|error| named(error.into()))?),
        };
        layers.push((part, media_type, digest));
    }
    stored(place, text, &digest, layers, platform)
}

/// A path without the beginning that says nothing.
fn plain(path: &str) -> &str {
    path.trim_start_matches("./")
}

fn stored(
    place: &Place,
    config: Vec<u8>,
    config_digest: &str,
    layers: Vec<(Part, MediaType, Option<String>)>,
    wanted: Option<&Platform>,
) -> Result<Stored, Fault> {
    let named = |refusal: Refusal| refusal.of(config_digest);
    let Config { os, architecture, rootfs } = parsed(&config).map_err(named)?;
    let platform = Platform { os, architecture };
    if let Some(wanted) = wanted.filter(|wanted| **wanted != platform) {
        return Err(Refusal::Platform { wanted: wanted.clone(), there: vec![platform] }.into());
    }
    let (count, diff_ids) = (layers.len(), rootfs.diff_ids.len());
    if count != diff_ids {
        return Err(Refusal::DiffIds { layers: count, diff_ids }.into());
    }
    let mut all = Vec::new();
    for ((part, media_type, digest), diff_id) in layers.into_iter().zip(rootfs.diff_ids) {
        digits(&diff_id).map_err(named)?;
        let digest = digest.unwrap_or_else(|| diff_id.clone());
        if media_type == MediaType::Tar && digest != diff_id {
            return Err(Refusal::Digest(diff_id).of(digest));
        }
        all.push(StoredLayer { diff_id, digest, size: part.length, media_type, part });
    }
    let config_digest = config_digest.to_owned();
    Ok(Stored { place: place.clone(), config, config_digest, platform, layers: all })
}

impl StoredLayer {
    /// Its bytes as they lie there. Where they are not those of its digest, an error stands in place of their end.
    #[must_use]
    pub fn blob(&self) -> impl Read + use<> {
        Verified::new(self.part.reader(), &self.digest)
    }

    /// Its tar archive. Where that is not the one of its diff id, or its bytes are not those of its digest, an error stands in
    /// place of its end.
    #[must_use]
    pub fn tar(&self) -> Box<dyn Read + Send> {
        match self.media_type {
            MediaType::Tar => Box::new(Verified::new(self.part.reader(), &self.diff_id)),
            MediaType::TarGzip => {
                let packed = Verified::new(self.part.reader(), &self.digest);
                let packed = BufReader::with_capacity(CHUNK, packed);
                Box::new(Verified::new(MultiGzDecoder::new(packed).take(MOST_BYTES), &self.diff_id))
            }
        }
    }

    /// Its tar archive from a byte on, as it is.
    fn tar_from(&self, at: u64) -> Result<Box<dyn Read + Send>, Refusal> {
        match self.media_type {
            MediaType::Tar => {
                let length = self.size.checked_sub(at).ok_or(Refusal::Tar("it is cut off"))?;
                Ok(Box::new(self.part.part(at, length).reader()))
            }
            MediaType::TarGzip => {
                let packed = BufReader::with_capacity(CHUNK, self.part.reader());
                let mut tar = MultiGzDecoder::new(packed);
                entries::read_over(&mut tar, at)?;
                Ok(Box::new(tar))
            }
        }
    }
}

#[cfg(test)]
mod tests;
