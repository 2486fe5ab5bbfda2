//! Layers from wheels, byte by byte: nothing is built, and nothing is asked twice.

mod bases;
pub mod blobs;
mod error;
pub mod fetch;
pub mod image;
mod inflate;
pub mod layout;
pub mod measured;
mod record;
pub mod rule;
pub mod saved;
mod scripts;
pub mod segment;
pub mod shared;
pub mod store;
pub mod wheel;
mod zip;
