//! What is left of a run for programs and people: a record, pages, and what a workflow is told.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::super::outcome::Unwritten;
use super::super::{Caller, Failure};
use crate::cli::PublishArgs;
use crate::publish::{Record, page, summary};

pub(super) fn write(args: &PublishArgs, record: &Record, caller: &Caller) -> Result<(), Failure> {
    Unwritten::new(&args.record)?.write(&format!("{:#}\n", json!(record)))?;
    if let Some(folder) = &args.manifest_dir {
        let failed = |error: io::Error| Failure::unwritable(&format!("`{}`", folder.display()), &error);
        fs::create_dir_all(folder).map_err(failed)?;
        for image in &record.images {
            let file = folder.join(format!("{}.md", image.image.replace('/', "-")));
            Unwritten::new(&file)?.write(&page(image))?;
        }
    }
    let (output, people) = &caller.environment.workflow_files;
    let digests: serde_json::Map<String, serde_json::Value> = record
        .images
        .iter()
        .map(|image| (image.image.clone(), format!("{}@{}", image.repository, image.digest).into()))
        .collect();
    if let Some(file) = output {
        append(file, &format!("images={}\n", json!(digests)))?;
    }
    if let Some(file) = people {
        append(file, &format!("{}\n", summary(record)))?;
    }
    let text: String = record.images.iter().fold(String::new(), |text, image| {
        text + &format!("{} {}@{}\n", image.image, image.repository, image.digest)
    });
    let written = caller.report.result(|out| out.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

fn append(file: &Path, text: &str) -> Result<(), Failure> {
    let opened = OpenOptions::new().append(true).create(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable(&format!("`{}`", file.display()), &error))
}
