//! The one room that knows the installers: which uv there is, the files it reads, and what it, pip and
//! apt mean by what they say.

mod debian;
mod release;
mod request;
mod resolve;
mod shared;
pub mod words;

pub use debian::Missing;
pub use release::{UvError, image};
pub use request::{
    Reader, WHEELS, builds, default_index, index_order, index_settings, replaces_own, request,
};
pub use resolve::{Installing, Resolve, ResolveError, Upgrade, resolve};
pub use shared::package_of;
