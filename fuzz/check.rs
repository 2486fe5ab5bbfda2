//! What must hold for every text: shared by the fuzz targets and by `tests/corpus.rs`.

use std::path::Path;

use ipybox::base::{Interpreter, Platform};
use ipybox::compose::{Composition, Facts, Service, Wishes, networks_of};
use ipybox::deps::{Constraint, Form, Marker, Selection, Source, Spec, Surroundings, pep508};
use ipybox::diagnostic::{Diagnostic, Document, Fix};
use ipybox::lock::{Lock, Tags, versions};
use ipybox::plan::Requirement;

/// Reads a list in a form and as the command line reads it, and checks what that gives.
pub(crate) fn list(form: Form, text: &str) {
    for read in [form.read(text), Spec::parse(text)] {
        match read {
            Ok(spec) => right(&spec, text),
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                for mistake in &mistakes {
                    explained(mistake, text);
                }
            }
        }
    }
}

/// Reads a requirements file in an environment where every variable is set.
pub(crate) fn requirements(text: &str) {
    list(Form::Requirements, text);
    // An option makes it a requirements file, whatever follows.
    let text = format!("--pre\n{text}");
    let mut documents = Document::new("list", text.clone()).into();
    let read = |_: &Path| Ok(Document::new("other", "a<2 ; os_name == '${X}'\n"));
    let variable = |_: &str| Some("€ >=1 --hash='".to_owned());
    let surroundings = Surroundings { read: &read, variable: &variable };
    for mistake in Spec::read(&mut documents, &Selection::default(), surroundings).err().unwrap_or_default() {
        let place = documents.find(mistake.at.as_ref().unwrap_or_else(|| panic!("{mistake:?}")));
        let place = place.unwrap_or_else(|| panic!("{mistake:?}"));
        assert!(place.document.text.get(place.at).is_some());
    }
}

/// Reads a text as requirement, as constraint and as marker.
pub(crate) fn requirement(text: &str) {
    match pep508::parse(text) {
        Ok(dependency) => {
            assert!(text.get(dependency.at.clone()).is_some());
            same_when_printed(&dependency);
        }
        Err(mistake) => explained(&mistake, text),
    }
    match Constraint::parse(text) {
        Ok(constraint) => {
            let printed = constraint.to_string();
            assert_eq!(Constraint::parse(&printed).as_ref(), Ok(&constraint), "{printed}");
        }
        Err(error) => assert!(text.get(error.at).is_some()),
    }
    match Marker::parse(text) {
        Ok(marker) => {
            let printed = marker.to_string();
            assert_eq!(Marker::parse(&printed).as_ref(), Ok(&marker), "{printed}");
            let _ = marker.holds(&|_| None);
        }
        Err(error) => assert!(text.get(error.at).is_some()),
    }
}

/// Reads a text as a lock; what is one is read as it is written.
pub(crate) fn lock(text: &str) {
    let interpreter = Interpreter {
        path: "/usr/bin/python3".to_owned(),
        version: "3.12.8".to_owned(),
        implementation: "cpython".to_owned(),
        libc: Some("glibc 2.36".to_owned()),
    };
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() };
    let tags = Tags::of(&interpreter, &platform).unwrap();
    match Lock::parse(text) {
        Ok(lock) => {
            let written = lock.write(&tags);
            assert_eq!(Lock::parse(&written).unwrap(), lock, "{written}");
            for entry in lock.entries.values() {
                let _ = tags.rank(&entry.wheel.file);
            }
        }
        Err(error) => assert!(!error.diagnostic("pylock.toml").what.is_empty()),
    }
    let _ = versions(text);
    let _ = tags.rank(text);
}

/// Puts an executor into a text. What comes of it has it already, and all lines that were there, in their order; where one is
/// refused, a place in the text is told.
pub(crate) fn composition(text: &str) {
    let networks = networks_of(text, "api");
    let wishes = Wishes { networks, memory: Some(1 << 30), ..Wishes::default() };
    let image = Service::image_of("vision").unwrap();
    let service = Service { name: "vision".to_owned(), image, facts: Facts::of_executor(), wishes };
    let composition = Composition::of(&[service]);
    for replace in [false, true] {
        match composition.merge(text, "api", replace) {
            Ok(merged) => {
                let again = composition.merge(&merged.text, "api", replace).map(|again| again.text);
                assert_eq!(again.as_ref(), Ok(&merged.text));
                let mut lines = merged.text.lines();
                let kept = text.lines().all(|line| lines.any(|new| new == line));
                assert!(replace || kept, "{}", merged.text);
            }
            Err(error) => {
                if let Some(at) = error.diagnostic().at {
                    assert!(text.get(at).is_some(), "{error:?}");
                }
            }
        }
    }
}

fn right(spec: &Spec, text: &str) {
    for dependency in spec.dependencies.iter().chain(&spec.bounds) {
        assert!(text.get(dependency.at.clone()).is_some());
        same_when_printed(dependency);
    }
    for (constraint, at) in &spec.python {
        assert!(text.get(at.clone()).is_some());
        assert!(!constraint.alternatives().is_empty());
    }
}

/// What a dependency is lowered to is a requirement of the same name, extras and marker.
fn same_when_printed(dependency: &ipybox::deps::Dependency) {
    let lowered = Requirement::lower(dependency);
    assert!(!lowered.alternatives.is_empty());
    // Paths and repositories become wheels before they are printed for an installer.
    let printable = matches!(dependency.source, Source::Registry { .. });
    for index in (0..lowered.alternatives.len()).filter(|_| printable) {
        let printed = lowered.alternative(index);
        let read = pep508::parse(&printed).unwrap_or_else(|mistake| panic!("{printed}: {mistake:?}"));
        assert_eq!(read.name, dependency.name);
        assert_eq!(read.extras, lowered.extras);
        assert_eq!(read.marker, dependency.marker);
    }
}

/// A mistake has words, a place inside the text, and a way out.
fn explained(mistake: &Diagnostic, text: &str) {
    assert!(!mistake.what.is_empty() && !mistake.why.is_empty(), "{mistake:?}");
    let at = mistake.at.clone().unwrap_or_else(|| panic!("{mistake:?}"));
    let written = text.get(at).unwrap_or_else(|| panic!("{mistake:?}"));
    match mistake.fix.as_ref().unwrap_or_else(|| panic!("{mistake:?}")) {
        Fix::Advice(advice) => assert!(!advice.is_empty()),
        Fix::Replace(replacement) => assert_ne!(replacement, written, "{mistake:?}"),
    }
}
