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
    /// Finds out that they can be written. Where nothing has moved, what an earlier run has written tells more, and stays.
    pub(super) fn open(args: &PublishArgs, record: &Record, has_moved: bool) -> Result<Self, Failure> {
        let is_wanted = |file: &Path| has_moved || !file.exists();
        let of_record = is_wanted(&args.record).then(|| Unwritten::new(&args.record)).transpose()?;
        let mut pages = Vec::new();
        if let Some(folder) = &args.manifest_dir {
            let failed = |error: io::Error| Failure::unwritable(&format!("`{}`", folder.display()), &error);
            fs::create_dir_all(folder).map_err(failed)?;
            for (place, image) in record.images.iter().enumerate() {
                // No name has a `+`, so that no two have one file.
                let file = folder.join(format!("{}.md", image.image.replace('/', "+")));
                if is_wanted(&file) {
                    pages.push((place, Unwritten::new(&file)?));
                }
            }
        }
        Ok(Self { record: of_record, pages })
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
