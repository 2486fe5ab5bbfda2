//! Publishing: tags of registries that move together, and what is kept of it.
//!
//! ```text
//! tags, what they name, what they are to name ─▶ Move ─Journal─▶ moved, or moved back
//! images that were pushed ─▶ Record ─┬─▶ publish.json
//!                                    └─▶ a page in Markdown for each
//! ```
//!
//! Nothing here asks a registry: what a tag names now is given, and what is to be done about it comes back.

mod moves;
mod record;
mod shard;

pub use moves::{Journal, JournalError, Left, Move, Standing};
pub use record::{About, Part, Record, Recorded, TagMoved, page, summary};
pub use shard::{Shard, staging_tag};
