//! The one room that knows the installers: which uv there is, the files it reads, and what it, pip and
//! apt mean by what they say.

mod release;
mod request;
pub mod words;

pub use release::{UvError, image};
pub use request::{request, sources_to_build};
