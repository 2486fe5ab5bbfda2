//! The tables of `docs/dependencies.md` and `docs/clients.md` are true.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ipybox::deps::{Form, Source, Spec};
use ipybox::diagnostic::Fix;
use ipybox::plan::Requirement;

const PAGE: &str = include_str!("../docs/dependencies.md");

/// The rows of the tables below a heading, up to the next one of its rank: cells as written.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let start = PAGE.find(&format!("\n## {heading}\n")).unwrap() + 1;
    let section = &PAGE[start..];
    let section = &section[..section[3..].find("\n## ").map_or(section.len(), |end| end + 3)];
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "\u{0}");
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
    let tables = section.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<_> = tables.map(cells).filter(|cells| cells[0].starts_with('`')).collect();
    assert!(!rows.is_empty(), "{heading}");
    rows
}

/// Code in backticks; `<br>` ends a line, inside or between.
fn code(cell: &str) -> String {
    cell.trim_matches('`').replace("`<br>`", "\n").replace("<br>", "\n")
}

fn requirements(spec: &Spec) -> String {
    let lines = spec.dependencies.iter().filter(|one| !one.optional).map(|one| {
        let mut requirement = Requirement::lower(one);
        if let Source::Path { path, subdirectory, .. } = requirement.source {
            requirement.source = Source::Url { url: format!("file://{path}"), subdirectory, sha256: None };
        }
        let alternatives: Vec<_> =
            (0..requirement.alternatives.len()).map(|index| requirement.alternative(index)).collect();
        alternatives.join(" || ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_form_means_what_the_page_says() {
    for (heading, form) in [
        ("Poetry's lines", Form::Poetry),
        ("Quoted requirements", Form::Quoted),
        ("Requirements files", Form::Requirements),
        ("pyproject.toml", Form::Project),
        ("Scripts", Form::Script),
    ] {
        for row in rows(heading) {
            let written = code(&row[0]);
            assert_eq!(Form::of(&written), form, "{written}");
            let spec = Spec::parse(&written).unwrap_or_else(|mistakes| panic!("{written}: {mistakes:?}"));
            assert_eq!(requirements(&spec), code(&row[1]), "for {written}");
        }
    }
}

#[test]
fn mistakes_are_mended_as_the_page_says() {
    for row in rows("Mistakes that mend themselves") {
        let mut text = code(&row[0]);
        let mistakes = Spec::parse(&text).expect_err(&text);
        for mistake in mistakes.iter().rev() {
            let Some(Fix::Replace(replacement)) = &mistake.fix else { panic!("{mistake:?}") };
            text.replace_range(mistake.at.clone().unwrap(), replacement);
        }
        assert_eq!(text, code(&row[1]), "for {}", row[0]);
        assert!(Spec::parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn the_page_of_clients_has_all_that_are_installed() {
    let (page, script) = (include_str!("../docs/clients.md"), include_str!("../scripts/install-clients"));
    let installed = script.lines().filter_map(|line| line.trim().strip_prefix("install "));
    let mut count = 0;
    for line in installed {
        let name = line.split(' ').next().unwrap();
        let version = line.split("==").nth(1).unwrap().split([' ', '\'']).next().unwrap();
        let client = name.split("-0.").next().unwrap();
        let has = |row: &&str| row.contains(client) && row.contains(version);
        assert!(page.lines().any(|row| has(&row)), "docs/clients.md lacks {name} {version}");
        count += 1;
    }
    assert_eq!(count, 18);
}
