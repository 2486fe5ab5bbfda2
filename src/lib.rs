//! Builds the container images in which AI agents run code.
//!
//! ```text
//! variants/NAME/ ────variant─▶ Variant ┐
//! dependencies.txt ─────spec─▶ Spec ───┼─plan─▶ Plan ─dockerfile, context─▶ Context ─engine─▶ image
//! engine or file ───────base─▶ Base ───┘
//! ```
//!
//! Data goes left to right, once. Files, the environment and the engine are asked at the two ends;
//! from [`spec::Spec`] to [`context::Context`] every stage is a pure function of its inputs.

pub mod diagnostic;
pub mod reference;
pub mod spec;
