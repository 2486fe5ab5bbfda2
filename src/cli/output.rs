//! Where an image is written to, beside the engine or in place of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A file or folder that gets an image, in the words of `docker buildx build --output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What it is written as.
    pub form: OutputForm,
    /// The file, or the folder.
    pub dest: PathBuf,
}

/// What an image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputForm {
    /// A folder of blobs, which may hold further images.
    Layout,
    /// The same in one file.
    Archive,
    /// One file that `docker load` and `podman load` read.
    Docker,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut kind, mut dest, mut tar) = (None, None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("dest", value)) if !value.is_empty() => dest = Some(value),
                Some(("tar", "true")) => tar = Some(true),
                Some(("tar", "false")) => tar = Some(false),
                Some(("compression", "gzip")) => {}
                Some(("compression", _)) => {
                    return Err("layers are packed with gzip; leave `compression` out".to_owned());
                }
                _ => {
                    let part = part.escape_debug();
                    return Err(format!(
                        "`{part}` is none of `type=oci|docker`, `dest=FILE|DIR` and `tar=true|false`"
                    ));
                }
            }
        }
        let dest = dest.ok_or("it has no `dest=FILE`")?;
        let path = PathBuf::from(dest);
        let is_folder = tar.map_or_else(|| dest.ends_with('/') || path.is_dir(), |tar| !tar);
        let form = match kind {
            Some("oci") if is_folder => OutputForm::Layout,
            Some("oci") => OutputForm::Archive,
            Some("docker") if is_folder => return Err("an image for Docker is one file".to_owned()),
            Some("docker") => OutputForm::Docker,
            _ => return Err("it has no `type=oci` or `type=docker`".to_owned()),
        };
        Ok(Self { form, dest: path })
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dest.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_files_but_for_folders() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().display();
        let read = |text: &str| text.parse::<Output>().map(|output| output.form);
        assert_eq!(read("type=oci,dest=x.tar"), Ok(OutputForm::Archive));
        assert_eq!(read("type=oci,dest=x/"), Ok(OutputForm::Layout));
        assert_eq!(read(&format!("dest={there},type=oci")), Ok(OutputForm::Layout));
        assert_eq!(read("type=oci,dest=x,tar=false,compression=gzip"), Ok(OutputForm::Layout));
        assert_eq!(read("type=docker,dest=x.tar"), Ok(OutputForm::Docker));
        for (text, why) in [
            ("x", "`x` is none of"),
            ("type=oci", "no `dest=FILE`"),
            ("type=oci,dest=", "`dest=` is none of"),
            ("type=local,dest=x", "no `type=oci`"),
            ("dest=x", "no `type=oci`"),
            (&format!("type=docker,dest={there}"), "one file"),
            ("type=oci,dest=x,compression=zstd", "gzip"),
        ] {
            assert!(read(text).unwrap_err().contains(why), "{text}");
        }
    }
}
