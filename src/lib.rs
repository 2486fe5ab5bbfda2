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
//! [`lock`] holds what is installed to what was resolved once, [`inside`] tells what an image has, [`attest`] says it to others, [`sandbox`] runs images, [`compose`] tells
//! others how to. [`oci`] knows what an installer makes of a wheel, [`stored`] reads images that lie in files, [`registry`]
//! pushes them; [`fleet`] reads what images belong together, [`publish`] moves their tags.
//! `tests/arrows.rs` holds the order of the rooms.

pub mod accounts;
pub mod archive;
pub mod attest;
pub mod base;
pub mod cli;
pub mod cmd;
pub mod compose;
pub mod credentials;
pub mod deps;
pub mod diagnostic;
pub mod doctor;
pub mod engine;
pub mod explain;
pub mod fleet;
pub mod freshness;
pub mod harmless;
pub mod http;
pub mod image;
pub mod inputs;
pub mod inside;
pub mod installer;
pub mod kept;
pub mod lock;
pub mod oci;
pub mod plan;
pub mod platform;
pub mod publish;
pub mod received;
pub mod reference;
pub mod registry;
pub mod report;
pub mod request;
pub mod sandbox;
pub mod secret;
pub mod stored;
pub mod supply;
pub mod ustar;
pub mod variant;
pub mod verify;
