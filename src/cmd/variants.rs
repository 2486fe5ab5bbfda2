//! `ipybox variants`: the kinds of image there are.

use super::Failure;
use crate::cli::VariantsArgs;
use crate::report::Report;
use crate::variant::{Placement, Variant};

pub(super) fn run(args: &VariantsArgs, report: &Report) -> Result<(), Failure> {
    let folder = args.own.variants.as_deref();
    let text = match &args.name {
        _ if args.schema => format!("{:#}\n", Variant::schema()),
        Some(name) => show(&Variant::read(name, folder)?),
        None => {
            let mut lines = String::new();
            for name in Variant::names(folder)? {
                let variant = Variant::read(&name, folder)?;
                lines += &format!("{name:<12} {}\n", variant.description);
            }
            lines
        }
    };
    let written = report.result(|out| out.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

fn show(variant: &Variant) -> String {
    let mut text = format!("{}: {}\n\n", variant.name, variant.description);
    let mut line = |what: &str, value: &str| text += &format!("{what:<11} {value}\n");
    if let Some(base) = &variant.base {
        line("base", &base.to_string());
    }
    if let Some(name) = &variant.executor_name {
        line("name", name);
    }
    line(
        "packages",
        match variant.packages {
            Placement::Isolated => "in an environment of their own",
            Placement::Layered => "beside those of the base, which stay as they are",
            Placement::Inherited => "in the environment of the base's server",
        },
    );
    for server in &variant.servers {
        line(&format!("port {}", server.port), &server.command.join(" "));
    }
    if !variant.apt.is_empty() {
        line("apt", &variant.apt.join(" "));
    }
    for (name, value) in &variant.env {
        line("env", &format!("{name}={value}"));
    }
    for copy in &variant.copies {
        line("copy", &format!("{} to {}", copy.from.display(), copy.to));
    }
    for step in &variant.steps {
        line("step", step.run.trim().lines().next().unwrap_or_default());
    }
    for check in &variant.checks {
        line("check", &check.name);
    }
    text += &format!("\n# {}\n{}", variant.dependencies.name(), variant.dependencies.text);
    text
}
