//! A plan to bytes: pure, and equal for equal plans.

pub mod config;
pub mod context;
pub mod dockerfile;
mod files;
pub mod foundation;

use crate::inputs::templates::Templates;

/// A file of the image, which is one of the templates'.
fn runtime<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("runtime/{file}")).expect("a plan names files that there are")
}

#[cfg(test)]
mod tests {
    use crate::accounts::User;
    use crate::base::Base;
    use crate::deps::Spec;
    use crate::inputs::templates::Templates;
    use crate::plan::{Installer, Materials, Plan, Target};
    use crate::request::Request;
    use crate::variant::Variant;

    /// The plan of a variant, and the base it is for.
    pub(super) fn planned(variant: &str) -> (Plan, Base) {
        let base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        let request = Request::new(variant, User::Unprivileged { uid: 1000, gid: 1000 });
        let variant = Variant::read(variant, None).unwrap();
        let (templates, installer) = (Templates::shipped().digest(), Installer::of(&base.platform));
        let materials = Materials { templates, installer, ..Materials::default() };
        let spec = Spec::parse("").unwrap();
        let target = Target::choose(&request, &spec, &variant, &base, &materials).unwrap();
        let plan = Plan::resolve(&request, &spec, &variant, &base, target, materials).unwrap();
        (plan, base)
    }
}
