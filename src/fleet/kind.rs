//! What an image and its variant have to do with one another.

use super::read::Draft;
use crate::deps::nearest;
use crate::diagnostic::Diagnostic;
use crate::plan::PlanError;
use crate::variant::{Variant, VariantError};

impl Draft {
    /// Refuses what does not go together with its variant, as far as that is shipped.
    pub(super) fn suits_variant(&self) -> Result<(), Diagnostic> {
        let request = &self.request;
        if request.variants.is_some() {
            return Ok(());
        }
        let at = |what: String| Diagnostic::new(what).at(self.at.clone());
        let variant = match Variant::read(&request.variant, None) {
            Ok(variant) => variant,
            Err(VariantError::Unknown { name, known }) => {
                let name = name.escape_debug().to_string();
                let advice = match nearest(&name, known.iter().map(String::as_str)) {
                    Some(near) => format!("write `variant = \"{near}\"`"),
                    None => format!(
                        "choose one of {}, or name a folder of your own as `variants`",
                        known.join(", ")
                    ),
                };
                let why = format!("there is no shipped variant `{name}`");
                return Err(at(format!("`{}` is of a kind that is not there", self.name))
                    .why(why)
                    .advice(advice));
            }
            Err(error) => {
                return Err(at(error.to_string()).why("it is shipped").advice("choose another variant"));
            }
        };
        let mut whole = request.clone();
        if self.from.is_some() || !self.matrix.bases.is_empty() {
            // Any name will do.
            whole.base = "base".parse().ok();
        }
        let (why, advice) = match PlanError::of_request(&whole, &variant) {
            Ok(()) => return Ok(()),
            Err(error @ PlanError::InheritsUser(_)) => (error, "leave out `uid`, `gid` and `root`"),
            Err(error @ PlanError::InheritsPython(_)) => (error, "leave out `python-archive`"),
            Err(error @ PlanError::NeedsBase(_)) => (error, "name it as `base`, or as `from`"),
            Err(error @ PlanError::NeedsName(_)) => (error, "write such as `name = \"science\"`"),
            Err(error) => (error, "correct it"),
        };
        Err(at(format!("`{}` cannot be built as it is", self.name)).why(why.to_string()).advice(advice))
    }
}
