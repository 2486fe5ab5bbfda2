//! How servers are spoken to.

pub(super) mod executor;
pub(super) mod http;
pub(super) mod kernel;
