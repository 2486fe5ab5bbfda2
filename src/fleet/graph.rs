//! What is built on what: images in an order in which each comes behind the one it is built on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::read::{Draft, Matrix};
use super::reader::Reader;
use super::tags::Template;
use super::{Image, MOST};
use crate::deps::{in_backticks, nearest};
use crate::diagnostic::Diagnostic;
use crate::reference::Reference;
use crate::request::{PythonVersion, Request};

/// One image of a matrix.
#[derive(Debug, Clone, Default)]
struct Cell {
    python: Option<PythonVersion>,
    base: Option<(String, Reference)>,
}

impl Cell {
    /// What sets its name apart.
    fn suffix(&self) -> String {
        let python = self.python.map_or(String::new(), |version| format!("-py{version}"));
        python + &self.base.as_ref().map_or(String::new(), |(name, _)| format!("-{name}"))
    }
}

impl Matrix {
    /// How many images it makes of one.
    fn len(&self) -> usize {
        self.pythons.len().max(1).saturating_mul(self.bases.len().max(1))
    }

    fn cells(&self) -> Vec<Cell> {
        let pythons = self.pythons.iter().copied().map(Some);
        let pythons: Vec<_> = if self.pythons.is_empty() { vec![None] } else { pythons.collect() };
        let bases = self.bases.iter().cloned().map(Some);
        let bases: Vec<_> = if self.bases.is_empty() { vec![None] } else { bases.collect() };
        let pairs = pythons.iter().flat_map(|python| bases.iter().map(move |base| (*python, base.clone())));
        pairs.map(|(python, base)| Cell { python, base }).collect()
    }
}

/// The draft that another is built on, and which of its matrix, where that is said.
type Parent = Option<(usize, Option<String>)>;

impl Reader<'_> {
    /// Refuses a fleet of more images than anybody builds, before any of them is made of a draft.
    pub(super) fn few(&mut self, drafts: &[Draft]) -> bool {
        let place = |draft: &Draft| draft.matrix_at.clone().unwrap_or_else(|| draft.at.clone());
        self.within(drafts.iter().map(|draft| (draft.matrix.len(), place(draft))))
    }

    /// Whether there are few enough images: so many, each from a place.
    fn within(&mut self, counts: impl Iterator<Item = (usize, Range<usize>)>) -> bool {
        let mut all: usize = 0;
        for (count, at) in counts {
            all = all.saturating_add(count);
            if all > MOST {
                let what = Diagnostic::new(format!("the fleet has more than {MOST} images")).at(at);
                let what = what.why("this is where they become too many");
                self.refuse(what.advice("make the matrix smaller, or several files of it, for `--file`"));
                return false;
            }
        }
        true
    }

    /// All images, each behind the one it is built on, else in the order they are written.
    pub(super) fn ordered(&mut self, drafts: &[Draft]) -> Vec<Image> {
        let parents: Vec<Parent> = drafts.iter().map(|draft| self.parent(draft, drafts)).collect();
        self.circles(drafts, &parents);
        if !self.mistakes.is_empty() {
            return Vec::new();
        }
        let counts: Vec<usize> = (0..drafts.len()).map(|index| count(index, drafts, &parents)).collect();
        if !self.within(counts.into_iter().zip(drafts).map(|(count, draft)| (count, draft.at.clone()))) {
            return Vec::new();
        }
        let mut images: Vec<Image> = Vec::new();
        let mut made: BTreeMap<usize, Range<usize>> = BTreeMap::new();
        for first in 0..drafts.len() {
            let mut line = vec![first];
            while let Some((parent, _)) = &parents[line[line.len() - 1]] {
                line.push(*parent);
            }
            while let Some(index) = line.pop() {
                if made.contains_key(&index) {
                    continue;
                }
                let begin = images.len();
                let draft = &drafts[index];
                match &parents[index] {
                    None => images
                        .extend(draft.matrix.cells().into_iter().map(|cell| draft.image(cell, self.folder))),
                    Some((parent, suffix)) => {
                        for place in made[parent].clone() {
                            let suffix_of_parent = images[place].id[images[place].name.len()..].to_owned();
                            if suffix.as_ref().is_none_or(|suffix| *suffix == suffix_of_parent) {
                                let shown = if suffix.is_some() { "" } else { &suffix_of_parent };
                                let image = draft.image_on(place, &images[place], shown, self.folder);
                                self.fits(draft, &image, &images[place]);
                                images.push(image);
                            }
                        }
                    }
                }
                made.insert(index, begin..images.len());
            }
        }
        self.told_apart(&images);
        images
    }

    fn parent(&mut self, draft: &Draft, drafts: &[Draft]) -> Parent {
        let (name, at) = draft.from.as_ref()?;
        if let Some(index) = drafts.iter().position(|other| other.name == *name) {
            return Some((index, None));
        }
        for (index, other) in drafts.iter().enumerate().filter(|(_, other)| other.matrix_at.is_some()) {
            let suffix = name.strip_prefix(other.name.as_str());
            let cell = other.matrix.cells().iter().map(Cell::suffix).find(|cell| Some(&**cell) == suffix);
            if let Some(suffix) = cell {
                return Some((index, Some(suffix)));
            }
        }
        let names = || drafts.iter().map(|other| other.name.as_str()).filter(|other| *other != draft.name);
        let what = format!("`{}` is built on an image that is not there", draft.name.escape_debug());
        let what = Diagnostic::new(what).at(at.clone());
        let why = format!("no image of the fleet is called `{}`", name.escape_debug());
        let what = what.why(why);
        self.refuse(match nearest(name, names()) {
            Some(near) => what.replace(format!("\"{near}\"")),
            None => match names().next() {
                Some(_) => {
                    what.advice(format!("there are {}; other images are a `base`", in_backticks(names())))
                }
                None => what.advice("name an image of the fleet, or another image as `base`"),
            },
        });
        None
    }

    /// Refuses images that are built on one another.
    fn circles(&mut self, drafts: &[Draft], parents: &[Parent]) {
        let mut seen = vec![false; drafts.len()];
        for first in 0..drafts.len() {
            let mut line: Vec<usize> = Vec::new();
            let mut next = Some(first);
            while let Some(index) = next {
                if let Some(begin) = line.iter().position(|earlier| *earlier == index) {
                    self.refuse(circle(&line[begin..], drafts));
                    break;
                }
                if std::mem::replace(&mut seen[index], true) {
                    break;
                }
                line.push(index);
                next = parents[index].as_ref().map(|(parent, _)| *parent);
            }
        }
    }

    /// Refuses what an image cannot have on another.
    fn fits(&mut self, draft: &Draft, image: &Image, parent: &Image) {
        let Some(at) = &draft.platforms_at else { return };
        let lacking = image
            .platforms
            .iter()
            .find(|own| !parent.platforms.is_empty() && !parent.platforms.contains(own));
        if let Some(platform) = lacking {
            let what = Diagnostic::new(format!("`{}` cannot be for {platform}", image.id)).at(at.clone());
            let why = format!("`{}`, on which it is built, is not", parent.id);
            self.refuse(what.why(why).advice("take the platform out, or add it there"));
        }
    }

    fn told_apart(&mut self, images: &[Image]) {
        let mut known: BTreeMap<&str, &Image> = BTreeMap::new();
        for image in images {
            if let Some(earlier) = known.insert(&image.id, image) {
                let what = Diagnostic::new(format!("two images are called `{}`", image.id));
                let what = what.at(image.at.clone()).why("one of them comes from a matrix");
                let mistake = what.advice("call one of them otherwise");
                let also = [(earlier.at.clone(), "this is the other".to_owned())].into();
                self.refuse(Diagnostic { also, ..mistake });
            }
        }
    }
}

/// How many images a draft makes: as many as the one at the end of what it is built on.
fn count(index: usize, drafts: &[Draft], parents: &[Parent]) -> usize {
    let mut index = index;
    loop {
        match &parents[index] {
            None => return drafts[index].matrix.len(),
            Some((_, Some(_))) => return 1,
            Some((parent, None)) => index = *parent,
        }
    }
}

fn circle(line: &[usize], drafts: &[Draft]) -> Diagnostic {
    // Where it is told from does not depend on which image led to it.
    let begin = line.iter().enumerate().min_by_key(|(_, index)| **index).map_or(0, |(place, _)| place);
    let line: Vec<&Draft> = line[begin..].iter().chain(&line[..begin]).map(|index| &drafts[*index]).collect();
    let at = |draft: &Draft| draft.from.as_ref().map_or(draft.at.clone(), |(_, at)| at.clone());
    let on = |number: usize| &line[(number + 1) % line.len()].name;
    let names = in_backticks(line.iter().map(|draft| draft.name.as_str()));
    let what = match line.len() {
        1 => format!("{names} is built on itself"),
        _ => format!("{names} are built on one another"),
    };
    let also = line.iter().enumerate().skip(1);
    let also = also.map(|(number, draft)| (at(draft), format!("that on `{}`", on(number)))).collect();
    let what =
        Diagnostic::new(what).at(at(line[0])).why(format!("`{}` is built on `{}`", line[0].name, on(0)));
    Diagnostic { also, ..what.advice("take out one `from`, and give that image a `base` or none") }
}

impl Draft {
    /// One that is built on no other of the fleet.
    fn image(&self, cell: Cell, folder: &Path) -> Image {
        let id = self.name.clone() + &cell.suffix();
        let mut request = self.request_of(&id, folder);
        request.python = cell.python.or(request.python);
        let (base_name, base) = cell.base.unzip();
        request.base = base.or(request.base);
        let python = request.python.map(|version| version.to_string());
        self.made(id, None, request, python, base_name)
    }

    /// One that is built on another of the fleet.
    fn image_on(&self, place: usize, parent: &Image, suffix: &str, folder: &Path) -> Image {
        let id = self.name.clone() + suffix;
        let request = self.request_of(&id, folder);
        let python = self.request.python.map(|version| version.to_string());
        let python = python.or_else(|| parent.python.clone());
        let mut image = self.made(id, Some(place), request, python, parent.base_name.clone());
        if self.platforms_at.is_none() {
            image.platforms.clone_from(&parent.platforms);
        }
        image
    }

    /// What one of its images is asked to be. Those of a matrix have a lock of their own each: one is for one base and Python.
    fn request_of(&self, id: &str, folder: &Path) -> Request {
        let mut request = self.request.clone();
        let name = if id == self.name {
            request.dependencies.is_empty().then(|| request.variant.clone())
        } else {
            Some(id.replace('/', "-"))
        };
        request.lock.own = name.map(|name| (folder.to_owned(), name));
        request
    }

    fn made(
        &self,
        id: String,
        from: Option<usize>,
        request: Request,
        python: Option<String>,
        base_name: Option<String>,
    ) -> Image {
        let tags =
            if self.tags.is_empty() { vec![Template::latest(self.at.clone())] } else { self.tags.clone() };
        Image {
            name: self.name.clone(),
            id,
            from,
            request,
            secrets: self.secrets.clone(),
            platforms: self.platforms.clone(),
            repository: self.repository.clone(),
            tags,
            python,
            base_name,
            at: self.at.clone(),
            base_at: self.base_at.clone(),
            matrix_at: self.matrix_at.clone(),
        }
    }
}
