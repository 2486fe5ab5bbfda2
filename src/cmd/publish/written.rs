//! What is left of a run for programs and people: a record, pages, and what a workflow is told.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::outcome::Unwritten;
use super::super::{Caller, Failure};
use crate::cli::PublishArgs;
use crate::publish::{Record, page, summary};

/// Files that will be written.
pub(super) struct Files {
    record: Option<Unwritten>,
    /// By the images' places in the record.
    pages: Vec<(usize, Unwritten)>,
}

impl Files {
    /// Finds out that they can be written. Where nothing has moved and what an earlier run has written is still so, that tells
    /// more, and stays.
    pub(super) fn open(args: &PublishArgs, record: &Record, has_moved: bool) -> Result<Self, Failure> {
        let unwritten = |file: &Path, is_so: &dyn Fn(&str) -> bool| {
            let told = file.is_file().then(|| fs::read_to_string(file));
            let is_told = told.is_some_and(|told| told.is_ok_and(|text| is_so(&text)));
            (has_moved || !is_told).then(|| Unwritten::over(file)).transpose()
        };
        let of_record = unwritten(&args.record, &|text| record.is_told_by(text))?;
        let mut pages = Vec::new();
        if let Some(folder) = &args.manifest_dir {
            let failed = |error: io::Error| Failure::unwritable(&format!("`{}`", folder.display()), &error);
            fs::create_dir_all(folder).map_err(failed)?;
            for (place, image) in record.images.iter().enumerate() {
                // No name has a `+`, so that no two have one file.
                let file = folder.join(format!("{}.md", image.image.replace('/', "+")));
                let page = unwritten(&file, &|text| image.is_told_by(text))?;
                pages.extend(page.map(|page| (place, page)));
            }
        }
        Ok(Self { record: of_record, pages })
    }

    /// Removes what earlier runs have written: some of it is no longer so.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        self.record.iter().chain(self.pages.iter().map(|(_, page)| page)).try_for_each(Unwritten::forget)
    }

    /// Writes them, and tells a workflow and whoever reads stdout.
    pub(super) fn write(self, record: &Record, caller: &Caller) -> Result<(), Failure> {
        if let Some(file) = self.record {
            file.write(&format!("{:#}\n", json!(record)))?;
        }
        for (place, file) in self.pages {
            file.write(&page(&record.images[place]))?;
        }
        let (output, people) = &caller.environment.workflow_files;
        let digests: serde_json::Map<String, serde_json::Value> = record
            .images
            .iter()
            .map(|image| (image.image.clone(), format!("{}@{}", image.repository, image.digest).into()))
            .collect();
        append(output.as_ref(), &format!("images={}\n", json!(digests)))?;
        append(people.as_ref(), &format!("{}\n", summary(record)))?;
        let text: String = record.images.iter().fold(String::new(), |text, image| {
            text + &format!("{} {}@{}\n", image.image, image.repository, image.digest)
        });
        let written = caller.report.result(|out| out.write_all(text.as_bytes()));
        written.map_err(|error| Failure::unwritable("stdout", &error))
    }
}

fn append(file: Option<&PathBuf>, text: &str) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let opened = OpenOptions::new().append(true).create(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable(&format!("`{}`", file.display()), &error))
}
