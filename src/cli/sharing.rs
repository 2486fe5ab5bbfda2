//! Caches that machines share, in the words of `docker buildx build --cache-to`.

use clap::Args;

use super::environment::words;
use crate::reference::{Reference, ReferenceError};

/// Caches of registries, which other machines read and write as well.
#[derive(Debug, Clone, Default, Args)]
pub struct SharingArgs {
    /// Take what wheels become from a cache in a registry before any is fetched, as `type=registry,ref=HOST/PATH[:TAG]`; may be
    /// repeated
    #[arg(long, value_name = "CACHE", value_parser = cache)]
    pub cache_from: Vec<Reference>,

    /// Leave what the wheels of these images became in a cache of a registry, as `type=registry,ref=HOST/PATH[:TAG]`
    #[arg(long, value_name = "CACHE", value_parser = own_cache, env = "IPYBOX_CACHE_TO", hide_env = true)]
    pub cache_to: Option<Reference>,
}

impl SharingArgs {
    /// Takes from the environment what the arguments leave open.
    pub(super) fn complete(&mut self) -> Result<(), String> {
        if self.cache_from.is_empty() {
            let read = |text: &String| cache(text).map_err(|why| format!("--cache-from: {why}"));
            self.cache_from = words("IPYBOX_CACHE_FROM").iter().map(read).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

/// The name of a cache, alone or behind its type.
fn cache(text: &str) -> Result<Reference, String> {
    const EXPECTED: &str = "expected `type=registry,ref=HOST/PATH[:TAG]`";
    let (mut kind, mut name) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("ref", value)) => name = Some(value),
            // No name of an image has such a sign in it.
            None if part == text => (kind, name) = (Some("registry"), Some(part)),
            _ => return Err(format!("{EXPECTED}, and `{}` is none of these", part.escape_debug())),
        }
    }
    if kind != Some("registry") {
        return Err(format!("{EXPECTED}; caches are in registries"));
    }
    let name = name.ok_or_else(|| format!("{EXPECTED}, and it has no `ref=`"))?;
    let name: Reference = name.parse().map_err(|error: ReferenceError| error.to_string())?;
    match name.registry() {
        Some(_) => Ok(name),
        None => {
            Err("a cache begins with the host of its registry, such as `registry.example/team/cache`"
                .to_owned())
        }
    }
}

/// The same of one that is written, which a digest does not name.
fn own_cache(text: &str) -> Result<Reference, String> {
    let name = cache(text)?;
    match name.digest() {
        None => Ok(name),
        Some(_) => Err("a cache that is written gets its digest from what is in it; give a tag".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_named_as_buildx_names_it_or_by_its_name_alone() {
        let digest = format!("localhost/c@sha256:{}", "0".repeat(64));
        for (text, name) in [
            ("type=registry,ref=registry.example/team/cache:main", "registry.example/team/cache:main"),
            ("ref=localhost:5000/cache,type=registry", "localhost:5000/cache"),
            ("registry.example/team/cache", "registry.example/team/cache"),
            (&format!("type=registry,ref={digest}"), &digest),
        ] {
            assert_eq!(cache(text).unwrap().to_string(), name);
        }
        assert!(own_cache("localhost/c:1").is_ok() && own_cache(&digest).unwrap_err().contains("give a tag"));
        for (text, why) in [
            ("", "missing"),
            ("type=registry", "no `ref=`"),
            ("type=gha,ref=localhost/x", "caches are in registries"),
            ("ref=localhost/x", "caches are in registries"),
            ("type=registry,ref=localhost/x,mode=max", "`mode=max` is none of these"),
            ("type=registry,localhost/x", "`localhost/x` is none of these"),
            ("type=registry,ref=team/cache", "begins with the host"),
            ("type=registry,ref=localhost/UPPER", "no image name"),
            ("localhost/x,localhost/y", "none of these"),
        ] {
            let refused = cache(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
