//! Builds the container images in which AI agents run code.
//!
//! ```text
//! variants/NAME/ ────variant─▶ Variant ┐
//! dependencies.txt ─────deps─▶ Spec ───┼─plan─▶ Plan ─dockerfile, context─▶ Archive ─engine─▶ image
//! engine or file ───────base─▶ Base ───┘
//! ```
//!
//! Data goes left to right, once. Files, the environment and the engine are asked at the two ends;
//! from [`deps::Spec`] to [`archive::Archive`] every stage is a pure function of its inputs.

pub mod accounts;
pub mod archive;
pub mod base;
pub mod cli;
pub mod cmd;
pub mod deps;
pub mod diagnostic;
pub mod engine;
pub mod explain;
pub mod harmless;
pub mod image;
pub mod inputs;
pub mod installer;
pub mod plan;
pub mod reference;
pub mod report;
pub mod request;
pub mod secret;

pub mod variant;
pub mod verify;
