//! A plan to bytes: pure, and equal for equal plans.

pub mod context;
pub mod dockerfile;
mod files;
