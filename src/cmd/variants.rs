//! `ipybox variants`: the kinds of image there are.

use super::Failure;
use crate::cli::VariantsArgs;
use crate::report::Report;
use crate::variant::Variant;

pub(super) fn run(args: &VariantsArgs, report: &Report) -> Result<(), Failure> {
    let folder = args.variants.as_deref();
    let text = match &args.name {
        Some(name) => show(&Variant::read(name, folder)?),
        None => {
            let mut lines = String::new();
            for name in Variant::names(folder)? {
                let variant = Variant::read(&name, folder)?;
                lines += &format!("{name:<10} {}\n", variant.description);
            }
            lines
        }
    };
    let written = report.result(|out| out.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

fn show(variant: &Variant) -> String {
    let mut text = format!("{}: {}\n\n", variant.name, variant.description);
    for server in &variant.servers {
        text += &format!("port {}  {}\n", server.port, server.command.join(" "));
    }
    text += &format!("\n# {}\n{}", variant.dependencies.name, variant.dependencies.text);
    text
}
