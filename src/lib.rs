//! Builds the container images in which AI agents run code.
//!
//! ```text
//! flags ────────────────cli─▶ Request ─┐
//! variants/NAME/ ───variant─▶ Variant ─┤
//! dependencies.txt ────deps─▶ Spec ────┼─plan─▶ Plan ─image─▶ Dockerfile, tar ─engine─▶ image id ─▶ tag
//! engine or file ──────base─▶ Base ────┘                                                 └─ verify
//! ```
//!
//! Data goes left to right, once. Files, the environment and the engine are asked at the two ends: [`inputs`] reads what a
//! [`request::Request`] names, [`base`] asks the engine; from there to [`archive::Archive`] every stage is a pure function of
//! its inputs. [`plan::Target`] is chosen once, before anything is fetched; [`plan::Plan`] is printed and read back; what only
//! rendering needs travels beside it. [`installer`] knows uv, pip and apt, [`explain`] says what a failed step means at the
//! lines of the list, [`doctor`] what keeps a host from building, and [`report`] is the one door to the terminal. [`freshness`] compares a plan with what an image says of its own,
//! [`lock`] holds what is installed to what was resolved once, [`inside`] tells what an image has, [`sandbox`] runs images, [`compose`] tells
//! others how to.
//! `tests/arrows.rs` holds the order of the rooms.

pub mod accounts;
pub mod archive;
pub mod base;
pub mod cli;
pub mod cmd;
pub mod compose;
pub mod deps;
pub mod diagnostic;
pub mod doctor;
pub mod engine;
pub mod explain;
pub mod freshness;
pub mod harmless;
pub mod image;
pub mod inputs;
pub mod inside;
pub mod installer;
pub mod kept;
pub mod lock;
pub mod plan;
pub mod reference;
pub mod report;
pub mod request;
pub mod sandbox;
pub mod secret;
pub mod supply;
pub mod variant;
pub mod verify;
