//! What images must do: one file per interface, one for what all have in common, and one for what a variant adds.

pub(super) mod exec;
pub(super) mod executor;
pub(super) mod gateway;
pub(super) mod image;
pub(super) mod own;
pub(super) mod resources;
