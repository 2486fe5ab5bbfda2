//! What is kept on this host, so that it need not be found out again.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// Writes a value as JSON to a file, which is there whole or not at all.
///
/// # Errors
///
/// Of the file system; without what is kept everything goes on, and takes longer.
pub fn keep(file: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut unfinished, value)?;
    unfinished.flush()?;
    unfinished.persist(file)?;
    Ok(())
}
