//! A fleet as a bake file with its contexts, for builders that are not ours.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::super::fleet::{self, Opened, orders};
use super::super::image::Means;
use super::super::render::{check_empty, write_folder};
use super::super::{Caller, Failure, Planned};
use crate::cli::{BuildArgs, PublishArgs};
use crate::diagnostic::Diagnostic;
use crate::image::context;
use crate::image::dockerfile::{self, Goal, Supply};
use crate::plan::Plan;

/// The name of the file.
const FILE: &str = "docker-bake.json";

/// Writes the file and a context for each image into a folder. Images that others are built on are built here first: what is
/// installed on them depends on what they have.
pub(super) async fn write(
    opened: &Opened,
    args: &PublishArgs,
    folder: &Path,
    caller: &mut Caller,
) -> Result<(), Failure> {
    check_empty(folder)?;
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for index in &opened.chosen {
        let id = opened.fleet.images[*index].id.as_str();
        if let Some(other) = known.insert(target(id), id) {
            let what = Diagnostic::new(format!("`{other}` and `{id}` are one target for bake"));
            let why =
                format!("its names have letters, digits, `-` and `_` alone: both become `{}`", target(id));
            return Err(Failure::refused(what.why(why).advice("give one of them another name")));
        }
    }
    let is_parent =
        |index: &usize| opened.chosen.iter().any(|other| opened.fleet.images[*other].from == Some(*index));
    let parents = opened.only(is_parent);
    if !parents.chosen.is_empty() {
        let outcomes = Box::pin(fleet::build(&parents, args.build.clone(), caller)).await?;
        if let Some(failure) = fleet::failure(&parents, &outcomes) {
            return Err(failure);
        }
    }
    let means = Means::of(&args.build.image, caller)?;
    let engine = means.engine(caller).await?;
    let stop = caller.interrupt.clone();
    let mut build = BuildArgs { tag: Vec::new(), ..args.build.clone() };
    let orders = orders(opened, &mut build, &means, &stop, caller).await?;
    let mut targets = serde_json::Map::new();
    for (index, (order, own)) in &orders {
        let asked = &order.asked;
        let base = asked.base(&engine, args.build.pull, &own.report).await?;
        let Planned { plan, base, local, .. } = asked.plan(base, own).await?;
        let templates = &asked.inputs.templates;
        let dockerfile = dockerfile::render(&plan, &base, templates, Supply::Context, Goal::Image)?;
        let obtaining = asked.installer(&plan);
        let installer =
            own.interrupt.run_until_cancelled(obtaining).await.ok_or_else(Failure::interrupted)??;
        let files = context::of(&plan, &base, templates, dockerfile, &local, Some(&installer));
        let files = files.map_err(|error| {
            Failure::refused(Diagnostic::new("cannot read a file of the build").why(error.to_string()))
        })?;
        let name = target(&opened.fleet.images[*index].id);
        let place = folder.join(&name);
        write_folder(&files, &place).map_err(|error| unwritable(&place, &error))?;
        targets.insert(name, target_of(opened, *index, &plan));
    }
    let groups: Vec<String> = targets.keys().cloned().collect();
    let bake = json!({ "group": { "default": { "targets": groups } }, "target": targets });
    let file = folder.join(FILE);
    fs::write(&file, format!("{bake:#}\n")).map_err(|error| unwritable(&file, &error))?;
    let written = caller.report.result(|out| writeln!(out, "{}", file.display()));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::unwritable(&format!("`{}`", path.display()), error)
}

/// The name of an image's target.
///
/// Rule: Docker docs, "Bake file reference": letters, digits, `_` and `-`.
fn target(id: &str) -> String {
    id.replace(|other: char| !other.is_ascii_alphanumeric() && other != '-', "_")
}

fn target_of(opened: &Opened, index: usize, plan: &Plan) -> Value {
    let image = &opened.fleet.images[index];
    let names = opened.names_of(index);
    let tags = if names.published.is_empty() { &names.local } else { &names.published };
    let mut target = json!({
        "context": target(&image.id),
        "tags": tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "platforms": image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "args": plan.finish.args,
        "secret": image.secrets.iter().map(|id| format!("id={id}")).collect::<Vec<_>>(),
    });
    if let Some(parent) = image.from {
        // The Dockerfile names it as the engine here knows it.
        let of_parent = self::target(&opened.fleet.images[parent].id);
        let names =
            BTreeMap::from([(plan.foundation.base.reference.to_string(), format!("target:{of_parent}"))]);
        target["contexts"] = json!(names);
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names_that_bake_takes() {
        assert_eq!(target("science-py3.12"), "science-py3_12");
        assert_eq!(target("team/geo"), "team_geo");
    }
}
