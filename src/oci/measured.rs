//! How much was written, and its digest.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
///
/// Of reading it.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut measured = Measured::new(io::sink());
    io::copy(&mut BufReader::with_capacity(256 << 10, File::open(path)?), &mut measured)?;
    Ok(measured.digits())
}

/// A writer that knows what was written.
#[derive(Debug)]
pub struct Measured<W> {
    to: W,
    digest: Sha256,
    /// How many bytes were.
    pub size: u64,
}

impl<W: Write> Measured<W> {
    /// One for which nothing was.
    pub fn new(to: W) -> Self {
        Self { to, digest: Sha256::new(), size: 0 }
    }

    /// The writer.
    pub fn to(&self) -> &W {
        &self.to
    }

    /// SHA-256 of all of it, in hexadecimal digits.
    #[must_use]
    pub fn digits(self) -> String {
        self.done().1
    }

    /// The writer, and SHA-256 of all that it was given, in hexadecimal digits.
    #[must_use]
    pub fn done(self) -> (W, String) {
        (self.to, hexadecimal(&self.digest.finalize()))
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
