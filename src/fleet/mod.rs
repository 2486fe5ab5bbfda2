//! `ipybox.toml`: images that are built, tagged and published together, and what is built on what.
//!
//! ```text
//! text ─parse─▶ Fleet ─select─▶ places of images ─names─▶ references ─┬─ Image::request ─▶ Request of each
//!                                  (in their order)    (with Values)   └─ matrix ─▶ JSON for a pipeline
//! ```
//!
//! Nothing here asks an engine, a file, a clock or the environment: what placeholders stand for is given.

mod first;
mod graph;
mod keys;
mod kind;
mod read;
mod reader;
mod tags;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use serde_json::{Value, json};

pub use self::first::{Found, first};
use self::reader::Reader;
pub use self::tags::{Placeholder, Template, Values};
use crate::base::Platform;
use crate::deps::{in_backticks, nearest, toml};
use crate::diagnostic::Diagnostic;
use crate::reference::Reference;
use crate::request::Request;

/// The name of the file.
pub const FILE: &str = "ipybox.toml";

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1_000_000;

/// The images of a file.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// What `{version}` stands for, where the file says it.
    pub version: Option<String>,
    /// The images, each behind the one it is built on.
    pub images: Vec<Image>,
}

/// An image of a fleet; a matrix makes several of one.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name, and its repository in an engine.
    pub name: String,
    /// What it is chosen and told by: the name, and of a matrix `-py3.12` and `-BASE` behind it.
    pub id: String,
    /// The image it is built on, by its place among [`Fleet::images`]; lower than its own.
    pub from: Option<usize>,
    /// What it is asked to be, but for what [`Image::request`] adds.
    request: Request,
    /// The secrets that its steps read, by their ids.
    pub secrets: BTreeSet<String>,
    /// What it runs on; where there is nothing, what an engine chooses.
    pub platforms: Vec<Platform>,
    /// Where it is published, without a tag.
    pub repository: Option<String>,
    /// Its tags, as they are written.
    pub tags: Vec<Template>,
    /// Its Python, where that is said, such as `3.12`.
    pub python: Option<String>,
    /// The name of its base in a matrix.
    pub base_name: Option<String>,
    /// Where its name is, in bytes of the file.
    pub at: Range<usize>,
    /// Where its base is.
    base_at: Option<Range<usize>>,
    /// Where its matrix is.
    matrix_at: Option<Range<usize>>,
}

/// Most images of a fleet.
const MOST: usize = 1000;

/// What an image is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// In an engine: `NAME:TAG` for each of its tags; at least one.
    pub local: Vec<Reference>,
    /// In a registry: `REPOSITORY:TAG` for each of its tags; nothing, where it has no repository.
    pub published: Vec<Reference>,
}

impl Fleet {
    /// Reads a file whose paths begin at a folder.
    ///
    /// # Errors
    ///
    /// Every mistake of the file, in its order, each with a place in bytes of the text.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let advice = "correct the line; `ipybox init` writes a first file to look at";
        let table = toml::parse(text, &mut mistakes, advice, |_, _| None).filter(|_| mistakes.is_empty());
        let Some(table) = table else { return Err(mistakes) };
        let mut reader = Reader { folder, mistakes };
        let (common, drafts) = reader.file(&table);
        if !reader.few(&drafts) {
            return Err(reader.mistakes);
        }
        for draft in &drafts {
            if let Err(mistake) = draft.suits_variant() {
                reader.refuse(mistake);
            }
        }
        let fleet = Self { version: common.version, images: reader.ordered(&drafts) };
        // Tags that are the same whatever placeholders stand for.
        let all: Vec<usize> = (0..fleet.images.len()).collect();
        let symbolic = |image: &Image, placeholder: Placeholder| {
            let known = matches!(placeholder, Placeholder::Python | Placeholder::Base | Placeholder::Image);
            let own = image.value(placeholder, None, &Values::default());
            own.filter(|_| known).or_else(|| match placeholder {
                Placeholder::Lock => Some(format!("{{lock.short of {}}}", image.id)),
                other => Some(format!("{{{}}}", other.word())),
            })
        };
        let tags = fleet.tags(&all, symbolic);
        reader.mistakes.extend(tags.and_then(|tags| fleet.collisions(&all, &tags)).err().unwrap_or_default());
        let mut mistakes = reader.mistakes;
        if mistakes.is_empty() {
            return Ok(fleet);
        }
        mistakes.sort_by_key(|mistake| mistake.at.as_ref().map(|at| (at.start, at.end)));
        // Images of a matrix share what is wrong with them.
        mistakes.dedup_by(|one, other| one.at == other.at && one.why == other.why);
        Err(mistakes)
    }

    /// The images that names choose, and what they are built on, by their places and in their order; all of them, where there
    /// is no name. The name of a matrix chooses each of its images.
    ///
    /// # Errors
    ///
    /// For each name that no image has.
    pub fn select(&self, names: &[String]) -> Result<Vec<usize>, Vec<Diagnostic>> {
        let mut chosen = vec![names.is_empty(); self.images.len()];
        let mut mistakes = Vec::new();
        for name in names {
            let mut found = false;
            for (index, image) in self.images.iter().enumerate() {
                if image.id == *name || image.name == *name {
                    (chosen[index], found) = (true, true);
                }
            }
            if !found {
                let ids = || self.images.iter().map(|image| image.id.as_str());
                let what = Diagnostic::new(format!("the fleet has no image `{}`", name.escape_debug()));
                let near = nearest(name, ids()).map(|near| format!("did you mean `{near}`?"));
                mistakes
                    .push(what.advice(near.unwrap_or_else(|| format!("there are {}", in_backticks(ids())))));
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        for index in (0..self.images.len()).rev().filter(|index| chosen[*index]).collect::<Vec<_>>() {
            let mut next = self.images[index].from;
            while let Some(parent) = next {
                chosen[parent] = true;
                next = self.images[parent].from;
            }
        }
        Ok((0..self.images.len()).filter(|index| chosen[*index]).collect())
    }

    /// The placeholders in tags of chosen images.
    #[must_use]
    pub fn placeholders(&self, chosen: &[usize]) -> BTreeSet<Placeholder> {
        let tags = chosen.iter().flat_map(|index| &self.images[*index].tags);
        tags.flat_map(Template::placeholders).collect()
    }

    /// What chosen images are called, in the same order.
    ///
    /// # Errors
    ///
    /// For each placeholder without a value, for what makes no tag, and for two images of one name; with their places.
    pub fn names(&self, chosen: &[usize], values: &Values) -> Result<Vec<Names>, Vec<Diagnostic>> {
        let version = self.version.as_deref();
        let tags = self.tags(chosen, |image, placeholder| image.value(placeholder, version, values))?;
        self.collisions(chosen, &tags)?;
        let mut mistakes = Vec::new();
        let mut all = Vec::new();
        for (index, tags) in chosen.iter().zip(&tags) {
            let image = &self.images[*index];
            let mut names = Names { local: Vec::new(), published: Vec::new() };
            for (template, tag) in image.tags.iter().zip(tags) {
                let named = |repository: &str| format!("{repository}:{tag}").parse::<Reference>();
                match (named(&image.name), image.repository.as_deref().map(named).transpose()) {
                    (Ok(local), Ok(published)) => {
                        if !names.local.contains(&local) {
                            names.local.push(local);
                            names.published.extend(published);
                        }
                    }
                    (Err(why), _) | (_, Err(why)) => {
                        let what = Diagnostic::new(format!("`{template}` gives no tag of `{}`", image.id));
                        let what = what.at(template.at.clone()).why(why.to_string());
                        mistakes.push(what.advice("give `version` such characters alone, or other tags"));
                    }
                }
            }
            all.push(names);
        }
        if mistakes.is_empty() { Ok(all) } else { Err(mistakes) }
    }

    /// The tags of chosen images, with placeholders filled in.
    fn tags(
        &self,
        chosen: &[usize],
        value: impl Fn(&Image, Placeholder) -> Option<String>,
    ) -> Result<Vec<Vec<String>>, Vec<Diagnostic>> {
        let (mut all, mut mistakes) = (Vec::new(), Vec::new());
        for image in chosen.iter().map(|index| &self.images[*index]) {
            let mut tags = Vec::new();
            for template in &image.tags {
                match template.filled(|placeholder| value(image, placeholder)) {
                    Ok(tag) => tags.push(tag),
                    Err(lacking) => mistakes.extend(
                        lacking.into_iter().map(|placeholder| tags::valueless(image, template, placeholder)),
                    ),
                }
            }
            all.push(tags);
        }
        mistakes.dedup_by(|one, other| one.at == other.at && one.why == other.why);
        if mistakes.is_empty() { Ok(all) } else { Err(mistakes) }
    }

    /// Refuses names that two images would have, whatever they are written like, and bases that are images of the fleet.
    fn collisions(&self, chosen: &[usize], tags: &[Vec<String>]) -> Result<(), Vec<Diagnostic>> {
        let canonical = |repository: &str| repository.parse::<Reference>().map(|name| name.canonical());
        let mut known: BTreeMap<String, (&Image, &Template)> = BTreeMap::new();
        let mut mistakes: Vec<Diagnostic> = Vec::new();
        for (index, tags) in chosen.iter().zip(tags) {
            let image = &self.images[*index];
            for (template, tag) in image.tags.iter().zip(tags) {
                let names = [Some(&image.name), image.repository.as_ref()].into_iter().flatten();
                for repository in names {
                    // What is no name has been refused for that.
                    let Ok(name) = canonical(repository) else { continue };
                    let (earlier, at) = *known.entry(format!("{name}:{tag}")).or_insert((image, template));
                    if earlier.id != image.id {
                        let name = format!("{repository}:{tag}");
                        mistakes.push(collision(&name, (earlier, at), (image, template)));
                    }
                }
            }
        }
        for image in chosen.iter().map(|index| &self.images[*index]) {
            let base = image.request.base.as_ref().filter(|base| base.digest().is_none());
            let name = base.map(|base| format!("{}:{}", base.canonical(), base.tag().unwrap_or_default()));
            if let Some((owner, template)) = name.and_then(|name| known.get(&name)) {
                mistakes.push(base_of_fleet(image, owner, template));
            }
        }
        mistakes.dedup_by(|one, other| one.at == other.at && one.also == other.also);
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Chosen images as a pipeline takes them, for jobs side by side: `{"include": [{"image": …}, …]}`.
    ///
    /// Rule: GitHub Docs, "Workflow syntax", `jobs.<job_id>.strategy.matrix.include`.
    #[must_use]
    pub fn matrix(&self, chosen: &[usize], names: &[Names]) -> Value {
        let texts = |names: &[Reference]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let image = |(index, names): (&usize, &Names)| {
            let image = &self.images[*index];
            json!({
                "image": image.id,
                "from": image.from.map(|parent| &self.images[parent].id),
                "python": image.python,
                "base": image.base_name,
                "platforms": image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tags": texts(&names.local),
                "published": texts(&names.published),
            })
        };
        json!({ "include": chosen.iter().zip(names).map(image).collect::<Vec<_>>() })
    }

    /// The JSON schema of the file.
    #[must_use]
    pub fn schema() -> Value {
        keys::schema()
    }
}

fn collision(
    name: &str,
    (one, first): (&Image, &Template),
    (other, second): (&Image, &Template),
) -> Diagnostic {
    let what = format!("`{}` and `{}` are both called `{name}`", one.id, other.id);
    let what = Diagnostic::new(what).at(second.at.clone());
    let mistake = match (first.at == second.at, other.matrix_at.is_some() || other.from.is_some()) {
        (true, true) => what
            .why("nothing in the tag tells images of a matrix apart")
            .advice("write `{python}` or `{base}` into it, whichever the matrix has"),
        _ => what.why("a name has one image").advice("give one of them other tags, or another repository"),
    };
    if first.at == second.at {
        return mistake;
    }
    Diagnostic { also: [(first.at.clone(), format!("`{}` has it from here", one.id))].into(), ..mistake }
}

/// A base that is an image of the fleet, which may not be built yet, or be of yesterday.
fn base_of_fleet(image: &Image, owner: &Image, template: &Template) -> Diagnostic {
    let (what, advice) = if owner.id == image.id {
        let what = format!("the base of `{}` has a name of the image itself", image.id);
        (what, "give the image another name, or other tags".to_owned())
    } else {
        let what = format!("the base of `{}` is `{}`, an image of the fleet", image.id, owner.id);
        (what, format!("write `from = \"{}\"` in place of `base`", owner.id))
    };
    let what = Diagnostic::new(what).at(image.base_at()).why("a `base` is an image from elsewhere");
    let mistake = what.advice(advice);
    Diagnostic { also: [(template.at.clone(), "it is called so from here".to_owned())].into(), ..mistake }
}

impl Image {
    /// What it is asked to be, on the image it is built on, where that is one of the fleet, and for a platform, where one is
    /// chosen.
    #[must_use]
    pub fn request(&self, on: Option<&Reference>, platform: Option<&Platform>) -> Request {
        let mut request = self.request.clone();
        if let Some(base) = on {
            request.base = Some(base.clone());
            request.base_is_local = true;
        }
        request.platform = platform.cloned();
        request
    }

    /// The platform that it is made for on a host: that one's, where the image runs on it, else the first of the image's.
    /// `None` where it does not say, and leaves it to the engine.
    #[must_use]
    pub fn platform(&self, here: &Platform) -> Option<&Platform> {
        self.platforms.iter().find(|platform| *platform == here).or(self.platforms.first())
    }

    /// Whether one of its tags holds a placeholder.
    #[must_use]
    pub fn tells(&self, placeholder: Placeholder) -> bool {
        self.tags.iter().flat_map(Template::placeholders).any(|held| held == placeholder)
    }

    /// The place in the file of what is named as its base; of its name, where that is not there.
    fn base_at(&self) -> Range<usize> {
        self.base_at.clone().or_else(|| self.matrix_at.clone()).unwrap_or_else(|| self.at.clone())
    }
}
