//! What holds for every input.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ipybox::accounts::User;
use ipybox::archive::Archive;
use ipybox::base::{Base, Distribution};
use ipybox::deps::{Constraint, Marker, Name, Spec, pep508};
use ipybox::engine::Host;
use ipybox::image::context::{self, Local};
use ipybox::image::dockerfile::{self, DockerfileError, Goal, Supply};
use ipybox::inputs::python_archive::PythonArchive;
use ipybox::inputs::templates::Templates;
use ipybox::plan::{Installer, Materials, Plan, PlanError, Target};
use ipybox::reference::Reference;
use ipybox::request::Request;
use ipybox::variant::{Variant, VariantError};
use pep440_rs::Version;
use proptest::prelude::*;

/// Texts that come close to a dependency list, so that parsers get further than their first byte.
fn nearly_a_list() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("numpy = \"".to_owned()),
        Just("\"^1.2 || <2\"\n".to_owned()),
        Just("{ version = \"1\", extras = [\"a\"], markers = \"os_name == 'nt'\" }\n".to_owned()),
        Just("\"pandas[x]>=2,<3; python_version < '3'\",\n".to_owned()),
        Just("\n".to_owned()),
        "[ -~]{0,12}",
        "\\PC{0,6}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn version() -> impl Strategy<Value = String> {
    "([1-9]!)?(0|[1-9][0-9]?)(\\.(0|[1-9][0-9]?)){0,3}((a|b|rc)[0-9])?(\\.post[0-9])?(\\.dev[0-9])?"
}

fn constraint() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec!["^", "~", "~=", "", "=", "==", "!=", "<", "<=", ">", ">="]);
    let comparator = (operator, version()).prop_map(|(operator, version)| operator.to_owned() + &version);
    let set = prop::collection::vec(comparator, 1..4).prop_map(|set| set.join(", "));
    prop::collection::vec(set, 1..4).prop_map(|sets| sets.join(" || "))
}

fn marker() -> impl Strategy<Value = String> {
    let comparison = prop_oneof![
        Just("python_version >= \"3.9\"".to_owned()),
        Just("'linux' in sys_platform".to_owned()),
        Just("os_name not in \"nt posix\"".to_owned()),
        Just("platform_machine != 'a\"b'".to_owned()),
    ];
    comparison.prop_recursive(4, 16, 3, |inner| {
        let glue = prop::sample::select(vec![" and ", " or "]);
        (prop::collection::vec(inner, 1..4), glue).prop_map(|(parts, glue)| format!("({})", parts.join(glue)))
    })
}

/// A plan, and the base it is for.
#[derive(Debug)]
struct Planned {
    plan: Plan,
    base: Base,
}

fn plan(list: &str) -> Planned {
    resolve(list, |_| {}).unwrap()
}

fn resolve(list: &str, change: impl FnOnce(&mut Base)) -> Result<Planned, Vec<PlanError>> {
    resolve_as("minimal", list, |base, _| change(base))
}

fn resolve_as(
    variant: &str,
    list: &str,
    change: impl FnOnce(&mut Base, &mut Request),
) -> Result<Planned, Vec<PlanError>> {
    let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json");
    let mut base = Base::read(facts.as_ref()).unwrap();
    let mut request = Request::new(variant, User::Unprivileged { uid: 1000, gid: 1000 });
    change(&mut base, &mut request);
    let variant = Variant::read(variant, None).unwrap();
    let materials = Materials {
        templates: Templates::shipped().digest(),
        installer: Installer::of(&base.platform),
        ..Materials::default()
    };
    let spec = Spec::parse(list).unwrap();
    let target = Target::choose(&request, &spec, &variant, &base, &materials)?;
    let plan = Plan::resolve(&request, &spec, &variant, &base, target, materials)?;
    Ok(Planned { plan, base })
}

/// How many instructions a Dockerfile has.
fn instructions(Planned { plan, base }: &Planned) -> Result<usize, DockerfileError> {
    let text = dockerfile::render(plan, base, &Templates::shipped(), Supply::Context, Goal::Image)?;
    Ok(text.lines().filter(|line| !line.starts_with("    ")).count())
}

fn context_bytes(Planned { plan, base }: &Planned) -> Vec<u8> {
    let templates = Templates::shipped();
    let dockerfile = dockerfile::render(plan, base, &templates, Supply::Engine, Goal::Image).unwrap();
    context::of(plan, base, &templates, dockerfile, &Local::default(), None).unwrap().to_tar().unwrap()
}

/// A plan that is printed and read back.
fn read_back(Planned { plan, base }: &Planned) -> Planned {
    let json = serde_json::to_string_pretty(plan).unwrap();
    Planned { plan: serde_json::from_str(&json).unwrap(), base: base.clone() }
}

proptest! {
    #[test]
    fn no_text_panics_and_every_mistake_lies_inside_it(text in nearly_a_list()) {
        for mistake in Spec::parse(&text).err().unwrap_or_default() {
            let at = mistake.at.expect("a mistake of a list has a place");
            prop_assert!(text.get(at.clone()).is_some(), "{at:?} of {text:?}");
            prop_assert!(!mistake.what.is_empty() && !mistake.why.is_empty() && mistake.fix.is_some());
        }
    }

    #[test]
    fn no_requirement_panics_and_every_mistake_lies_inside_it(text in "\\PC{0,40}") {
        if let Err(mistake) = pep508::parse(&text) {
            prop_assert!(text.get(mistake.at.unwrap()).is_some());
        }
        if let Err(error) = Constraint::parse(&text) {
            prop_assert!(text.get(error.at).is_some());
        }
        if let Err(error) = Marker::parse(&text) {
            prop_assert!(text.get(error.at).is_some());
        }
    }

    #[test]
    fn a_printed_constraint_is_read_as_the_same(text in constraint()) {
        let parsed = Constraint::parse(&text).unwrap();
        prop_assert_eq!(Constraint::parse(&parsed.to_string()).unwrap(), parsed);
    }

    #[test]
    fn a_printed_marker_is_read_as_the_same(text in marker()) {
        let parsed = Marker::parse(&text).unwrap();
        prop_assert_eq!(Marker::parse(&parsed.to_string()).unwrap(), parsed);
    }

    #[test]
    fn a_lowered_dependency_is_a_requirement_that_means_the_same(
        name in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?",
        constraint in constraint(),
        marker in marker(),
        versions in prop::collection::vec(version(), 20),
    ) {
        prop_assume!(name != "python" && Name::parse(&name).unwrap().as_str() == name);
        let marker = marker.replace('\\', "\\\\").replace('"', "\\\"");
        let list = format!("{name} = {{ version = \"{constraint}\", markers = \"{marker}\" }}");
        let plan = resolve(&list, |_| {});
        prop_assume!(plan.is_ok());
        let plan = plan.unwrap();
        let written = &Spec::parse(&list).unwrap().dependencies[0];
        let lowered = plan.plan.packages.requirements.iter().find(|found| found.name.as_str() == name);
        prop_assume!(lowered.is_some());
        let lowered = lowered.unwrap();
        let read: Vec<_> =
            (0..lowered.alternatives.len()).map(|index| pep508::parse(&lowered.alternative(index)).unwrap()).collect();
        for one in &read {
            prop_assert_eq!(&one.name, &written.name);
            prop_assert_eq!(&one.marker, &written.marker);
        }
        for version in versions {
            let version: Version = version.parse().unwrap();
            let lowered = read.iter().any(|one| one.constraint.contains(&version));
            let means = written.constraint.contains(&version);
            prop_assert!(means == lowered || !means && version.any_prerelease(), "{version} in {constraint}");
        }
    }

    #[test]
    fn a_printed_plan_is_read_as_the_same(
        constraint in constraint(), marker in marker(), hash in "[0-9a-f]{64}", variant in "minimal|kernel|any-base",
    ) {
        let list = format!(
            "a[y,x] @ https://host.invalid/a-1-py3-none-any.whl ; {marker}\nb==1.0 --hash=sha256:{hash}\n\
             --extra-index-url https://host.invalid/simple\n"
        );
        let union = format!("[tool.poetry.dependencies]\nc = \"{constraint}\"\nd = {{ version = \"*\", source = \"inner\" }}\n\
             [[tool.poetry.source]]\nname = \"inner\"\nurl = \"https://host.invalid/inner\"\npriority = \"explicit\"\n");
        for list in [&list, &union] {
            let planned = resolve_as(&variant, list, |base, request| {
                request.name = (variant == "any-base").then(|| "x".to_owned());
                let requires = vec!["six>=1; extra == 'x'".to_owned()];
                let one = |name: &str, version: &str| Distribution {
                    name: name.to_owned(), version: version.to_owned(), requires: requires.clone(),
                    extras: vec!["x".to_owned()], of_system: false,
                };
                base.pythons[0].distributions.extend([one("torch", "2.3.0+cu121"), one("odd", "no version")]);
            });
            let Ok(planned) = planned else { continue };
            let again = read_back(&planned);
            prop_assert_eq!(&again.plan, &planned.plan);
            prop_assert_eq!(context_bytes(&again), context_bytes(&planned));
            let digests = |plan: &Plan| [plan.foundation.digest(), plan.packages.digest(), plan.finish.digest()];
            prop_assert_eq!(digests(&again.plan), digests(&planned.plan));
        }
    }

    #[test]
    fn what_is_read_as_a_host_is_written_so_that_it_is_read_again(
        text in "(unix|tcp|https|ssh|x)://(\\PC|[a-z0-9:/@.\\[\\]-]){0,30}",
    ) {
        if let Ok(host) = text.parse::<Host>() {
            let written = host.to_string();
            // Whether it speaks TLS is shown by its port alone.
            prop_assert_eq!(written.parse::<Host>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn the_order_of_a_list_does_not_change_the_context(
        names in prop::collection::hash_set("[b-h][a-z]{2,5}", 1..6),
    ) {
        let lines: Vec<_> = names.iter().map(|name| format!("{name} = \"*\"\n")).collect();
        let reversed: Vec<_> = lines.iter().rev().cloned().collect();
        // The base has distributions that wheels stand in for.
        let bytes = |lines: &[String]| {
            let planned = resolve_as("any-base", &lines.concat(), |base, request| {
                request.name = Some("x".to_owned());
                let one = |name: &str| Distribution {
                    name: name.to_owned(), version: "1.0".to_owned(), requires: Vec::new(), extras: Vec::new(), of_system: false,
                };
                base.pythons[0].distributions.extend([one("torch"), one("numpy")]);
            });
            context_bytes(&planned.unwrap())
        };
        prop_assert_eq!(bytes(&lines), bytes(&reversed));
    }

    #[test]
    fn no_value_of_a_base_becomes_an_instruction(path in "(\\PC|\n|\t|\\$|\"|'|\\\\|#){0,30}", python in "/?(\\PC|[a-z/]|\n|'|\\$|<|EOF){1,4}") {
        let expected = instructions(&plan("")).unwrap();
        let hostile = resolve("", |base| {
            base.config.env = vec![format!("PATH={path}")];
            base.pythons[0].interpreter.path.clone_from(&python);
        });
        match hostile {
            Ok(hostile) => match instructions(&hostile) {
                Ok(found) => prop_assert_eq!(found, expected),
                Err(_) => prop_assert!(path.contains(char::is_control)),
            },
            Err(_) => prop_assert!(!python.starts_with('/') || python.contains(|c: char| !c.is_ascii_alphanumeric())),
        }
    }

    #[test]
    fn no_text_of_a_base_or_a_user_becomes_an_instruction_of_an_executor(
        text in "(\\PC|\n|\t|\\$|\"|'|\\\\|#|/|==|;){1,20}", name in "[a-z]{1,8}", variant in "any-base|extend-base",
    ) {
        let plan = |text: &str| resolve_as(&variant, &format!("{name} = \"*\"\n"), |base, request| {
            request.name = Some("x".to_owned());
            request.env.insert("A".to_owned(), text.to_owned());
            request.labels.insert("a".to_owned(), text.to_owned());
            base.config.cmd = vec!["executor_server:app".to_owned(), text.to_owned()];
            base.config.shell = vec![text.to_owned()];
            let python = &mut base.pythons[0];
            python.is_virtual = true;
            python.folders = vec![text.to_owned()];
            // An odd version is refused where the installer would stop at it.
            let odd = if variant == "any-base" { text } else { "1" };
            for (name, version) in [("ipykernel", "7.0"), (text, "1.0"), ("b", odd), (&name, "1.0+x")] {
                let (name, version) = (name.to_owned(), version.to_owned());
                let (requires, extras) = (vec![text.to_owned(), format!("{name}; extra == '{text}'")], vec![text.to_owned()]);
                python.distributions.push(Distribution { name, version, requires, extras, of_system: false });
            }
        });
        let expected = instructions(&plan("a").unwrap()).unwrap();
        let hostile = plan(&text).unwrap();
        match instructions(&hostile) {
            Ok(found) => prop_assert_eq!(found, expected),
            Err(_) => prop_assert!(text.contains(char::is_control)),
        }
        if !text.contains(char::is_control) {
            // Each file of the context is well-formed, whatever the base says.
            let templates = Templates::shipped();
            let Planned { plan, base } = &hostile;
            let dockerfile = dockerfile::render(plan, base, &templates, Supply::Engine, Goal::Image).unwrap();
            prop_assert!(context::of(plan, base, &templates, dockerfile, &Local::default(), None).unwrap().to_tar().is_ok());
            prop_assert_eq!(&read_back(&hostile).plan, plan);
        }
        let refused = resolve_as(&variant, "", |base, request| {
            request.name = Some("x".to_owned());
            base.config.cmd = vec!["executor_server:app".to_owned()];
            base.config.user.clone_from(&text);
            let (name, version) = ("ipykernel".to_owned(), "7".to_owned());
            let one = Distribution { name, version, requires: Vec::new(), extras: Vec::new(), of_system: false };
            base.pythons[0].distributions.push(one);
        });
        if let (Ok(plan), "extend-base") = (refused, variant.as_str()) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
            prop_assert!(plan.base.config.user.chars().all(plain));
        }
    }

    #[test]
    fn no_variant_panics_and_every_mistake_lies_inside_it(
        lines in prop::collection::vec(prop_oneof![
            Just("extends = \"any-base\"\n".to_owned()),
            Just("[[step]]\nrun = \"id\"\n".to_owned()),
            Just("[[server]]\nport = 1\ncommand = [\"a\"]\n".to_owned()),
            Just("[[copy]]\nfrom = \"a\"\nto = \"/b\"\n".to_owned()),
            "(apt|kernel|ports|env|labels|name|base|packages) = (\\[?\"\\PC{0,6}\"\\]?|\\{ \"?\\PC{0,4}\"? = \"x\" \\}|[0-9]{1,6})\n",
            "\\PC{0,12}\n",
        ], 0..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let text = format!("description = \"own\"\n{}", lines.concat());
        std::fs::write(own.join("variant.toml"), &text).unwrap();
        std::fs::write(own.join("dependencies.txt"), "").unwrap();
        if let Err(VariantError::Invalid { at: Some(at), .. }) = Variant::read("own", Some(folder.path())) {
            prop_assert!(text.get(at.clone()).is_some(), "{at:?} of {text:?}");
        }
    }

    #[test]
    fn no_answer_of_a_base_panics(
        lines in prop::collection::vec(
            "(program|codename|link|folder|python|broken|) ?(/?\\PC{0,8} ?/?\\PC{0,8}|[0-7]{3} 0 0 /\\PC{0,4}|\\{\\PC{0,20}\\})",
            0..8,
        ),
        home in "/?[a-z/]{0,8}",
    ) {
        let list = "six = \"*\"\n";
        let facts = lines.join("\n");
        for variant in ["minimal", "any-base"] {
            let plan = resolve_as(variant, list, |base, request| {
                request.name = (variant == "any-base").then(|| "x".to_owned());
                *base = base.clone().with_probe(&facts);
                base.links.insert("/app".to_owned(), home.clone());
            });
            if let Ok(plan) = plan {
                context_bytes(&plan);
            }
        }
    }

    #[test]
    fn no_archive_of_a_python_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000), zipped in any::<bool>()) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head: &[u8] = if zipped { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3] } else { &[] };
        std::fs::write(file.path(), [head, &bytes].concat()).unwrap();
        prop_assert!(PythonArchive::read(file.path()).is_err());
    }

    #[test]
    fn an_accepted_reference_prints_as_it_was_written(text in "[a-zA-Z0-9.:/@_-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn equal_files_make_equal_archives(files in prop::collection::btree_map("[a-z]{1,3}(/[a-z]{1,3}){0,2}", ".{0,20}", 0..8), age in 1..2_000_000_000_u64) {
        // Of files of a host neither times nor order nor folders count.
        let archive = |files: Vec<(&String, &String)>, age: u64| {
            let folder = tempfile::tempdir().unwrap();
            let mut archive = Archive::default();
            for (number, (path, text)) in files.into_iter().enumerate() {
                let file = folder.path().join(number.to_string());
                std::fs::write(&file, text).unwrap();
                let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age);
                std::fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
                archive.add_file(&format!("root/{path}.txt"), 0o644, &file).unwrap();
            }
            archive.to_tar().unwrap()
        };
        prop_assert_eq!(archive(files.iter().collect(), age), archive(files.iter().rev().collect(), age / 2));
    }
}
