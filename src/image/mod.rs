//! A plan to bytes: pure, and equal for equal plans.

pub mod context;
pub mod dockerfile;
mod files;

use crate::inputs::templates::Templates;

/// A file of the image, which is one of the templates'.
fn runtime<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("runtime/{file}")).expect("a plan names files that there are")
}
