//! `ipybox inspect`, `why` and `diff`: what is inside an image, who asked for it, and what another has otherwise.

use std::io::{self, Write};

use serde_json::json;

use super::{Caller, Failure};
use crate::attest::Bill;
use crate::cli::{BillFormat, DiffArgs, EngineArgs, InspectArgs, WhyArgs};
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::engine::KnownEngines;
use crate::freshness::{Change, Stamp};
use crate::inside::{Comparison, Inside, InsideError, Package, compare};
use crate::report::size;

pub(super) async fn inspect(args: InspectArgs, caller: &Caller) -> Result<(), Failure> {
    let (inside, _) = inside(&args.image, &args.engine, caller).await?;
    let json = match (args.json, args.format) {
        (false, BillFormat::Text) => return print(caller, |out| write_inside(out, &inside)),
        (true, BillFormat::Text) | (_, BillFormat::Json) => json!(inside),
        (_, BillFormat::Cyclonedx) => Bill::of(&inside).cyclone_dx(),
        (_, BillFormat::Spdx) => Bill::of(&inside).spdx(),
    };
    print_json(caller, &json)
}

pub(super) async fn why(args: WhyArgs, caller: &Caller) -> Result<(), Failure> {
    let (inside, _) = inside(&args.image, &args.engine, caller).await?;
    let name = Name::parse(&args.package).filter(|name| inside.packages.contains_key(name));
    let Some(name) = name else {
        let what = format!("there is no package `{}` in `{}`", args.package.escape_debug(), args.image);
        let known = inside.packages.keys().map(Name::as_str);
        let near =
            known.filter(|known| strsim::damerau_levenshtein(known, &args.package.to_lowercase()) <= 2);
        let what = Diagnostic::new(what);
        return Err(Failure::refused(match near.collect::<Vec<_>>().as_slice() {
            [] => what.advice("`ipybox inspect` lists what there is"),
            near => what.advice(format!("there is {}", near.join(", "))),
        }));
    };
    let package = &inside.packages[&name];
    let ways = inside.ways_to(&name);
    if args.json {
        let json =
            json!({ "package": name, "version": package.version, "of_base": package.of_base, "ways": ways });
        return print_json(caller, &json);
    }
    print(caller, |out| {
        writeln!(out, "{name} {} ({})", package.version, size(package.bytes))?;
        if package.of_base {
            writeln!(out, "  the base brought it")?;
        }
        for way in &ways {
            let first = &inside.packages[way[0]];
            let names = way.iter().map(|name| format!("{name} {}", inside.packages[*name].version));
            writeln!(out, "  {}: {}", asked(first), names.collect::<Vec<_>>().join(" → "))?;
        }
        if ways.is_empty() && !package.of_base {
            writeln!(out, "  nothing that the image was asked for needs it")?;
        }
        Ok(())
    })
}

pub(super) async fn diff(args: DiffArgs, caller: &Caller) -> Result<(), Failure> {
    let (earlier, before) = inside(&args.earlier, &args.engine, caller).await?;
    let (later, after) = inside(&args.later, &args.engine, caller).await?;
    let comparison = compare(&earlier, &later);
    let asked = match (before, after) {
        (Some(before), Some(after)) => before.changes(&after),
        _ => Vec::new(),
    };
    if args.json {
        let mut json = json!(comparison);
        json["asked"] = json!(asked);
        return print_json(caller, &json);
    }
    print(caller, |out| write_comparison(out, &comparison, &asked))
}

/// What is inside an image, and the plan it was built from, where it says so.
async fn inside(
    name: &str,
    engine: &EngineArgs,
    caller: &Caller,
) -> Result<(Inside, Option<Stamp>), Failure> {
    let engine = super::engine(engine, &KnownEngines::default(), caller).await?;
    let Some(image) = engine.image(name).await? else {
        let what = Diagnostic::new(format!("the engine has no image `{}`", name.escape_debug()));
        return Err(Failure::refused(what.advice("build or pull it first, or correct its name")));
    };
    let stamp = Stamp::read(&image.labels);
    match Inside::of(&engine, name, &image).await {
        Ok(inside) => Ok((inside, stamp)),
        Err(InsideError::Engine(error)) => Err(error.into()),
        Err(error @ InsideError::Silent) => {
            let what = Diagnostic::new(format!("cannot look into `{}`: {error}", name.escape_debug()));
            Err(Failure::refused(what.why("it has none, or a broken one")))
        }
    }
}

fn print_json(caller: &Caller, json: &serde_json::Value) -> Result<(), Failure> {
    let written = caller.report.result(|out| writeln!(out, "{json:#}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

/// Prints what an image tells of itself, which does nothing to a terminal.
fn print(caller: &Caller, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut text = Vec::new();
    write(&mut text).map_err(|error| Failure::unwritable("stdout", &error))?;
    let text = caller.report.redacted(&String::from_utf8_lossy(&text));
    caller
        .report
        .result(|out| out.write_all(text.as_bytes()))
        .map_err(|error| Failure::unwritable("stdout", &error))
}

/// Why a package is there, in a few words.
fn asked(package: &Package) -> String {
    match &package.asked {
        Some(asked) if asked.by_list => format!("the list asks for `{}`", asked.requirement),
        Some(asked) => format!("the image itself asks for `{}`", asked.requirement),
        None if package.of_base => "of the base".to_owned(),
        None => match package.needed_by.len() {
            0 => "nothing needs it".to_owned(),
            count => {
                let some = package.needed_by.iter().take(3).map(Name::as_str).collect::<Vec<_>>().join(", ");
                let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
                format!("for {some}{more}")
            }
        },
    }
}

fn write_inside(out: &mut dyn Write, inside: &Inside) -> io::Result<()> {
    let variant = inside.variant.as_deref().unwrap_or("an image of somebody else");
    let base = inside.base.as_deref().map_or(String::new(), |base| format!(" on {base}"));
    writeln!(out, "{}: {variant}{base}", inside.name)?;
    let locked = if inside.locked { ", locked" } else { "" };
    let bytes = size(inside.bytes);
    writeln!(out, "{} · Python {} · {} · {bytes}{locked}", inside.image, inside.python, inside.platform)?;
    writeln!(out)?;
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let name_width = widest(&mut inside.packages.keys().map(|name| name.as_str().len()));
    let version_width = widest(&mut inside.packages.values().map(|package| package.version.len()));
    let mut packages: Vec<_> = inside.packages.iter().collect();
    packages.sort_by_key(|(name, package)| (std::cmp::Reverse(package.bytes), *name));
    for (name, package) in packages {
        let (name, version, bytes) = (name.as_str(), &package.version, size(package.bytes));
        writeln!(out, "{name:name_width$}  {version:version_width$}  {bytes:>9}  {}", asked(package))?;
    }
    let debian: u64 = inside.debian.values().map(|package| package.bytes).sum();
    writeln!(out)?;
    writeln!(
        out,
        "{} Python packages, {}; {} Debian packages, {}",
        inside.packages.len(),
        size(inside.bytes_of_packages()),
        inside.debian.len(),
        size(debian)
    )
}

fn write_comparison(out: &mut dyn Write, comparison: &Comparison, asked: &[Change]) -> io::Result<()> {
    let Comparison { python, base, packages, debian, bytes: (before, after), layers } = comparison;
    for change in asked {
        let indent = if change.follows { "    so " } else { "  " };
        writeln!(out, "{indent}{}", change.what)?;
    }
    if !asked.is_empty() {
        writeln!(out)?;
    }
    if let Some((from, to)) = python {
        writeln!(out, "Python {from} → {to}")?;
    }
    if let Some((from, to)) = base {
        let told = |base: &Option<String>| base.clone().unwrap_or_else(|| "something unknown".to_owned());
        writeln!(out, "built on {} → {}", told(from), told(to))?;
    }
    for (kind, differences) in [("", packages), (" (Debian)", debian)] {
        for difference in differences {
            let sign = if difference.bytes < 0 { "-" } else { "+" };
            let bytes = size(difference.bytes.unsigned_abs());
            writeln!(out, "{difference}{kind}, {sign}{bytes}")?;
        }
    }
    let (common, of_earlier, of_later) = layers;
    if python.is_none() && packages.is_empty() && debian.is_empty() {
        writeln!(out, "the same packages")?;
    }
    writeln!(
        out,
        "{} → {}; {common} layers in common, of {of_earlier} and {of_later}",
        size(*before),
        size(*after)
    )
}
