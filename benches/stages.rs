//! The pure stages: a dependency list to the bytes of a build context.
//!
//! `cargo bench --bench stages`

use ipybox::base::Base;
use ipybox::context::{self, Local};
use ipybox::deps::Spec;
use ipybox::dockerfile::{self, Supply};
use ipybox::inputs::templates::Templates;
use ipybox::installer;
use ipybox::plan::{Options, Plan, User};
use ipybox::variant::Variant;

fn main() {
    divan::main();
}

/// A list of so many entries, of the kinds that real lists have.
fn list(entries: usize) -> String {
    let entry = |index: usize| match index % 4 {
        0 => format!("package-{index} = \"^2.{index}\"\n"),
        1 => format!("package-{index} = \">=1.2,<2 || ^3.1\"\n"),
        2 => format!("package-{index} = {{ version = \"~1.{index}\", extras = [\"a\", \"b\"] }}\n"),
        _ => format!(
            "package-{index} = {{ version = \"*\", python = \"^3.11\", markers = \"os_name == 'posix'\" }}\n"
        ),
    };
    (0..entries).map(entry).collect()
}

const EXAMPLE: &str = include_str!("../variants/example/dependencies.txt");

fn plan() -> Plan {
    resolve(&Spec::parse(EXAMPLE).expect("a shipped list"))
}

fn resolve(spec: &Spec) -> Plan {
    let base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).expect("facts");
    let variant = Variant::read("example", None).expect("a shipped variant");
    let uv = installer::Release::of(&base.platform);
    let options = Options::new(User::Unprivileged { uid: 1000, gid: 1000 }, uv);
    Plan::resolve(spec, &variant, base, &options).expect("a plan")
}

#[divan::bench(args = [10, 100, 1000, 10_000])]
fn parse(bencher: divan::Bencher<'_, '_>, entries: usize) {
    let text = list(entries);
    bencher.bench(|| Spec::parse(&text).expect("a right list"));
}

#[divan::bench]
fn parse_example() -> Spec {
    Spec::parse(divan::black_box(EXAMPLE)).expect("a right list")
}

#[divan::bench]
fn plan_example(bencher: divan::Bencher<'_, '_>) {
    let spec = Spec::parse(EXAMPLE).expect("a right list");
    bencher.bench(|| resolve(&spec));
}

#[divan::bench]
fn render(bencher: divan::Bencher<'_, '_>) {
    let (plan, templates) = (plan(), Templates::shipped());
    bencher.bench(|| dockerfile::render(&plan, &templates, Supply::Engine));
}

#[divan::bench]
fn context(bencher: divan::Bencher<'_, '_>) {
    let (plan, templates) = (plan(), Templates::shipped());
    let dockerfile = dockerfile::render(&plan, &templates, Supply::Engine).expect("a shipped template");
    bencher.bench(|| {
        let context = context::of(&plan, &templates, dockerfile.clone(), &Local::default(), None)
            .expect("no file is read");
        context.to_tar().expect("memory can be written")
    });
}
