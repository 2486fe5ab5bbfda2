//! `ipybox completions` and `ipybox man`: what shells and readers of manuals are told, from the same source as `--help`.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Failure;
use crate::cli::Cli;
use crate::diagnostic::Diagnostic;
use crate::report::Report;

pub(super) fn completions(shell: Shell, report: &Report) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ipybox", &mut text);
    print(&text, report)
}

pub(super) fn man(name: Option<&str>, report: &Report) -> Result<(), Failure> {
    let mut all = Cli::command();
    all.build();
    let command = match name {
        None => all,
        Some(name) => all.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<_> = all.get_subcommands().map(clap::Command::get_name).collect();
            let what = Diagnostic::new(format!("there is no command `{name}`"));
            Failure::usage(what.advice(format!("name one of {}", names.join(", "))))
        })?,
    };
    let mut text = Vec::new();
    let rendered = Man::new(command).render(&mut text);
    rendered.map_err(|error| Failure::unwritable("a manual page", &error))?;
    print(&text, report)
}

fn print(text: &[u8], report: &Report) -> Result<(), Failure> {
    let written = report.result(|out| out.write_all(text));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}
