//! The pure stages: a dependency list to the bytes of a build context.
//!
//! `cargo bench --bench stages`

use ipybox::accounts::User;
use ipybox::base::Base;
use ipybox::deps::Spec;
use ipybox::image::context::{self, Local};
use ipybox::image::dockerfile::{self, Goal, Supply};
use ipybox::inputs::templates::Templates;
use ipybox::plan::{Installer, Materials, Plan, Target};
use ipybox::request::Request;
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

struct Stages {
    request: Request,
    variant: Variant,
    base: Base,
    templates: Templates,
}

impl Stages {
    fn of_example() -> Self {
        let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json");
        Self {
            request: Request::new("example", User::Unprivileged { uid: 1000, gid: 1000 }),
            variant: Variant::read("example", None).expect("a shipped variant"),
            base: Base::read(facts.as_ref()).expect("facts"),
            templates: Templates::shipped(),
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let Self { request, variant, base, templates } = self;
        let installer = Installer::of(&base.platform);
        let materials = Materials { templates: templates.digest(), installer, ..Materials::default() };
        let target = Target::choose(request, spec, variant, base, &materials).expect("a target");
        Plan::resolve(request, spec, variant, base, target, materials).expect("a plan")
    }
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
    let (stages, spec) = (Stages::of_example(), Spec::parse(EXAMPLE).expect("a right list"));
    bencher.bench(|| stages.plan(&spec));
}

#[divan::bench]
fn render(bencher: divan::Bencher<'_, '_>) {
    let stages = Stages::of_example();
    let plan = stages.plan(&Spec::parse(EXAMPLE).expect("a right list"));
    bencher.bench(|| dockerfile::render(&plan, &stages.base, &stages.templates, Supply::Engine, Goal::Image));
}

#[divan::bench]
fn context(bencher: divan::Bencher<'_, '_>) {
    let Stages { base, templates, .. } = &Stages::of_example();
    let plan = Stages::of_example().plan(&Spec::parse(EXAMPLE).expect("a right list"));
    let dockerfile =
        dockerfile::render(&plan, base, templates, Supply::Engine, Goal::Image).expect("a shipped template");
    bencher.bench(|| {
        let context = context::of(&plan, base, templates, dockerfile.clone(), &Local::default(), None)
            .expect("no file is read");
        context.to_tar().expect("memory can be written")
    });
}
