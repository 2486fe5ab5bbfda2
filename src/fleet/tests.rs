use proptest::prelude::*;

use super::*;

fn fleet(text: &str) -> Fleet {
    Fleet::parse(text, Path::new("")).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes:#?}"))
}

fn ids(fleet: &Fleet) -> Vec<&str> {
    fleet.images.iter().map(|image| image.id.as_str()).collect()
}

fn whats(text: &str) -> Vec<String> {
    let mistakes = Fleet::parse(text, Path::new("")).unwrap_err();
    mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.what, mistake.why)).collect()
}

const WHOLE: &str = "\
[fleet]
version = \"1.2.0\"
repository = \"registry.invalid/team\"
tags = [\"{version}\", \"latest\"]
platforms = [\"linux/amd64\", \"linux/arm64\"]
labels = { \"org.opencontainers.image.source\" = \"https://host.invalid/x\" }

[image.geo]
from = \"science\"
dependencies = \"geo.txt\"
tags = [\"{version}-py{python}\"]

[image.science]
variant = \"basic\"
dependencies = [\"lists/science.txt\", \"lists/more.txt\"]
apt = [\"curl\", \"auto\"]
env = { A = \"1\" }
labels = { team = \"x\" }
copy = [{ from = \"data\", to = \"/data/\" }]
matrix = { python = [\"3.12\", \"3.13\"] }
tags = [\"{version}-py{python}\", \"{date}-{git.short}-{lock.short}-py{python}\"]

[image.minimal]
repository = \"registry.invalid/other\"
platforms = [\"linux/amd64\"]
";

fn values() -> Values {
    let lock = |id: &str| (id.to_owned(), "00112233".to_owned());
    Values {
        version: None,
        date: Some("2026-01-31".to_owned()),
        git: Some("abcdef".to_owned()),
        locks: [lock("science-py3.12"), lock("science-py3.13")].into(),
    }
}

#[test]
fn images_come_behind_what_they_are_built_on_and_matrices_are_several() {
    let fleet = fleet(WHOLE);
    assert_eq!(ids(&fleet), ["science-py3.12", "science-py3.13", "geo-py3.12", "geo-py3.13", "minimal"]);
    assert_eq!(fleet.images[2].from, Some(0));
    assert_eq!(fleet.images[3].from, Some(1));
    assert_eq!(fleet.images[3].python.as_deref(), Some("3.13"));
    let all: Vec<usize> = (0..5).collect();
    assert_eq!(fleet.select(&[]).unwrap(), all);
    let select = |name: &str| fleet.select(&[name.to_owned()]).unwrap();
    assert_eq!(select("geo-py3.13"), [1, 3]);
    assert_eq!(select("science"), [0, 1]);
    assert_eq!(select("minimal"), [4]);
    let unknown = fleet.select(&["minimall".to_owned(), "x".to_owned()]).unwrap_err();
    assert_eq!(unknown.len(), 2);
}

#[test]
fn an_image_becomes_a_request_and_gets_its_names() {
    let fleet = Fleet::parse(WHOLE, Path::new("there")).unwrap();
    let science = fleet.images[0].request(None, None);
    assert_eq!(science.variant, "basic");
    assert_eq!(
        science.dependencies,
        [Path::new("there/lists/science.txt"), Path::new("there/lists/more.txt")]
    );
    assert_eq!((science.apt, science.libraries), (vec!["curl".to_owned()], crate::request::Libraries::Added));
    assert_eq!(science.copies, [("there/data".into(), "/data/".to_owned())]);
    assert_eq!(science.labels.len(), 2);
    assert_eq!(science.python.unwrap().to_string(), "3.12");
    assert_eq!(science.user, crate::accounts::User::Unprivileged { uid: 1000, gid: 1000 });
    let (base, platform) = ("science:x".parse().unwrap(), "linux/arm64".parse().unwrap());
    let geo = fleet.images[2].request(Some(&base), Some(&platform));
    assert_eq!(
        (geo.variant.as_str(), geo.base, geo.platform),
        ("extend-base", Some(base), Some(platform.clone()))
    );
    // That of the host where the image is for it, else its first.
    assert_eq!(fleet.images[0].platform(&platform), Some(&platform));
    assert_eq!(fleet.images[4].platform(&platform).unwrap().to_string(), "linux/amd64");
    assert!(geo.base_is_local && !science.base_is_local);
    // A lock of a matrix is nobody's list's; one of a variant's own list is beside the file. Neither has to be there.
    assert_eq!(science.lock.own, Some(("there".into(), "science-py3.12".to_owned())));
    let minimal = fleet.images[4].request(None, None).lock;
    assert_eq!((minimal.own, minimal.file), (Some(("there".into(), "minimal".to_owned())), None));

    let all: Vec<usize> = (0..5).collect();
    let names = fleet.names(&all, &values()).unwrap();
    let told = |names: &[Reference]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&names[0].local), ["science:1.2.0-py3.12", "science:2026-01-31-abcdef-00112233-py3.12"]);
    assert_eq!(told(&names[2].published), ["registry.invalid/team/geo:1.2.0-py3.12"]);
    assert_eq!(told(&names[4].published), ["registry.invalid/other:1.2.0", "registry.invalid/other:latest"]);
    let matrix = fleet.matrix(&all, &names);
    assert_eq!(matrix["include"].as_array().unwrap().len(), 5);
    assert_eq!(matrix["include"][2]["from"], "science-py3.12");
    assert_eq!(matrix["include"][2]["published"][0], "registry.invalid/team/geo:1.2.0-py3.12");

    let lacking = fleet.names(&all, &Values::default()).unwrap_err();
    assert!(lacking[0].what.starts_with("`{date}` has no value"), "{lacking:?}");
    assert_eq!(
        WHOLE.get(lacking[0].at.clone().unwrap()),
        Some("\"{date}-{git.short}-{lock.short}-py{python}\"")
    );
    // Of what is not chosen nothing is asked.
    assert!(fleet.names(&[4], &Values::default()).is_ok());
    assert_eq!(fleet.placeholders(&[4]).into_iter().collect::<Vec<_>>(), [Placeholder::Version]);
}

#[test]
fn one_image_of_a_matrix_can_be_built_on() {
    let fleet = fleet(
        "[image.a]\nmatrix = { python = [\"3.12\"], base = { slim = \"debian:12\", cuda = \"x/cuda:12\" } }\n\
         tags = [\"{python}-{base}\"]\n[image.b]\nfrom = \"a-py3.12-cuda\"\n",
    );
    assert_eq!(ids(&fleet), ["a-py3.12-slim", "a-py3.12-cuda", "b"]);
    assert_eq!((fleet.images[2].from, fleet.images[2].base_name.as_deref()), (Some(1), Some("cuda")));
    assert_eq!(fleet.images[1].request(None, None).base.unwrap().to_string(), "x/cuda:12");
}

#[test]
fn names_that_values_make_the_same_are_refused() {
    let fleet = fleet("[image.a]\ntags = [\"{version}\"]\n[image.b]\ntags = [\"latest\", \"{version}\"]\n");
    let named = |version: &str| {
        let values = Values { version: Some(version.to_owned()), ..Values::default() };
        fleet.names(&[0, 1], &values)
    };
    // Two tags of one image may become the same.
    assert_eq!(named("latest").unwrap()[1].local.len(), 1);
    let refused = named("1+local").unwrap_err();
    assert!(refused[0].why.contains("`1+local` is no tag"), "{refused:?}");
    let shared = "[fleet]\nrepository = \"x\"\n[image.a]\nrepository = \"y/z\"\ntags = [\"{version}\"]\n\
                  [image.b]\nrepository = \"y/z\"\ntags = [\"1.0\"]\n";
    let fleet = Fleet::parse(shared, Path::new("")).unwrap();
    let values = Values { version: Some("1.0".to_owned()), ..Values::default() };
    let refused = fleet.names(&[0, 1], &values).unwrap_err();
    assert_eq!((refused.len(), &*refused[0].what), (1, "`a` and `b` are both called `y/z:1.0`"));
}

#[test]
fn names_are_the_same_however_they_are_written() {
    let told = whats("[image.x]\n[image.b]\nrepository = \"docker.io/library/x\"\n");
    assert_eq!(told, ["`x` and `b` are both called `docker.io/library/x:latest`: a name has one image"]);
    let based = |base: &str| format!("[image.x]\ntags = [\"1\"]\n[image.b]\nbase = \"{base}\"\n");
    for base in ["x:1", "docker.io/library/x:1"] {
        let text = based(base);
        let mistakes = Fleet::parse(&text, Path::new("")).unwrap_err();
        assert_eq!(mistakes[0].what, "the base of `b` is `x`, an image of the fleet");
        assert_eq!(text.get(mistakes[0].at.clone().unwrap()), Some(&*format!("\"{base}\"")));
        let advice = crate::diagnostic::Fix::Advice("write `from = \"x\"` in place of `base`".to_owned());
        assert_eq!(mistakes[0].fix, Some(advice));
    }
    for base in ["x", "y:1", "registry.invalid/x:1"] {
        fleet(&based(base));
    }
    let own = whats("[image.x]\nbase = \"x\"\n");
    assert!(own[0].starts_with("the base of `x` has a name of the image itself"), "{own:?}");
    let fleet = fleet("[image.x]\ntags = [\"{version}\"]\n[image.b]\nbase = \"x:1\"\n");
    let named = |version: &str| {
        let values = Values { version: Some(version.to_owned()), ..Values::default() };
        fleet.names(&[0, 1], &values)
    };
    assert!(named("2").is_ok());
    assert!(named("1").unwrap_err()[0].what.contains("an image of the fleet"));
}

#[test]
fn a_fleet_has_no_more_images_than_anybody_builds() {
    let versions = |count: usize| {
        let versions = (10..10 + count).map(|minor| format!("\"3.{minor}\"")).collect::<Vec<_>>();
        versions.join(", ")
    };
    let bases = |count: usize| {
        let bases = (0..count).map(|number| format!("b{number} = \"x:{number}\"")).collect::<Vec<_>>();
        bases.join(", ")
    };
    let text = |pythons: usize, count: usize, more: &str| {
        let (pythons, bases) = (versions(pythons), bases(count));
        format!(
            "[image.a]\nmatrix = {{ python = [{pythons}], base = {{ {bases} }} }}\ntags = [\"{{python}}-{{base}}\"]\n{more}"
        )
    };
    assert_eq!(fleet(&text(25, 40, "")).images.len(), 1000);
    let more = "[image.b]\nfrom = \"a\"\ntags = [\"{python}-{base}\"]\n";
    assert_eq!(fleet(&text(25, 20, more)).images.len(), 1000);
    for text in [text(25, 41, ""), text(25, 21, more), text(10_000, 10_000, ""), text(1, 1000, "[image.b]\n")]
    {
        assert_eq!(whats(&text), ["the fleet has more than 1000 images: this is where they become too many"]);
    }
}

#[test]
fn all_mistakes_are_found_in_one_run() {
    let told = whats(
        "[fleet]\nverison = \"1\"\ntags = [\"a b\", \"{vesion}\", \"{\"]\n[image.a]\nfrom = \"b\"\n\
         [image.b]\nfrom = \"a\"\n[image.c]\nfrom = \"nothing\"\n[image.d]\nbase = \"x\"\nfrom = \"a\"\n",
    );
    assert_eq!(told.len(), 7, "{told:#?}");
    assert!(
        whats("[image.a]\ntags = [\"x\"]\nmatrix = { python = [\"3.12\", \"3.13\"] }\n")[0]
            .starts_with("`a-py3.12` and `a-py3.13` are both called `a:x`")
    );
    assert_eq!(whats(""), ["the fleet has no image: there is no `[image.NAME]`"]);
    assert!(whats("[image.x]\nvariant = \"any-base\"\n")[0].contains("needs a name"));
    assert!(whats("[image.x]\nvariant = \"extend-base\"\n")[0].contains("needs an image to extend"));
    assert!(whats("[image.x]\nfrom = \"y\"\nuid = 7\n[image.y]\n")[0].contains("takes over the user"));
}

/// The keys that the schema has, by the tables they are of.
#[test]
fn the_schema_and_the_reader_have_the_same_keys() {
    let keys = |list: &[keys::Key]| list.iter().map(|(name, ..)| (*name).to_owned()).collect::<Vec<_>>();
    for (before, known) in [
        ("[image.x]\n[fleet]\n", keys(&keys::FLEET)),
        ("[image.x]\n", keys(&keys::IMAGE)),
        ("[image.x.matrix]\n", keys(&keys::MATRIX)),
    ] {
        for key in &known {
            // No key takes a date, so that one that is read is refused for that.
            let told = whats(&format!("{before}{key} = 1979-05-27\n"));
            assert!(told.iter().any(|what| what.starts_with(&format!("`{key}` "))), "{key}: {told:?}");
        }
        let told = whats(&format!("{before}stray = 1\n"));
        assert!(told[0].contains("has no key `stray`"), "{told:?}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ipybox.schema.json");
    let schema = format!("{:#}\n", Fleet::schema());
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), schema, "run `ipybox init --schema`");
}

#[test]
fn a_first_file_is_one_and_has_an_image_for_each_list() {
    let found =
        |file: &str, lock: Option<&str>| Found { file: file.to_owned(), lock: lock.map(str::to_owned) };
    let text = first("My Project", &[]);
    assert_eq!(ids(&fleet(&text)), ["my-project"]);
    let lists = [
        found("dependencies.txt", Some("pylock.toml")),
        found("requirements.txt", None),
        found("requirements-dev.txt", None),
        found("geo \"x\".txt", None),
        found("geo-x.txt", None),
    ];
    let text = first("...", &lists);
    assert_eq!(ids(&fleet(&text)), ["sandbox", "sandbox-2", "dev", "geo-x", "sandbox-3"]);
    assert!(text.contains("Versions are those of pylock.toml"), "{text}");
    // What stands in comments is right as well.
    let spoken: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") || rest.starts_with('['))
                .unwrap_or(line)
        })
        .map(|line| line.to_owned() + "\n")
        .collect();
    let whole = spoken.replace("more.txt", "dependencies.txt");
    assert_eq!(fleet(&whole).images.len(), 8, "{whole}");
}

#[test]
fn the_fleet_of_this_repository_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join(FILE)).unwrap();
    let fleet = Fleet::parse(&text, root).unwrap();
    assert_eq!(ids(&fleet), ["minimal", "basic", "example", "eval", "kernel", "executor-base"]);
    let chosen = fleet.select(&[]).unwrap();
    let names =
        fleet.names(&chosen, &Values { version: Some("0.1.0".to_owned()), ..Values::default() }).unwrap();
    assert!(names.iter().all(|names| names.local.len() == 2));
}

#[test]
fn the_fleets_of_the_documents_are_right() {
    let page = include_str!("../../docs/fleet.md");
    let examples: Vec<_> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        fleet(example);
    }
}

/// Texts that come close to a fleet.
fn nearly_a_fleet() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\[image\\.[abc]\\]\n",
        "from = \"[abcd]\"\n",
        "tags = \\[\"(\\{version\\}|\\{python\\}|\\{base\\}|x|\\{|-)\"\\]\n",
        Just("matrix = { python = [\"3.12\", \"3.13\"] }\n".to_owned()),
        Just("matrix.base = { a = \"x\", b = \"y\" }\n".to_owned()),
        Just("[fleet]\n".to_owned()),
        Just("copy = [{ from = \"a\", to = \"/b\" }, 1]\n".to_owned()),
        "(variant|base|python|apt|env|uid|root|platforms|repository) = (\"[a-z3.]{0,5}\"|1|true|\\[\"a\"\\]|\\{ A = \"1\" \\})\n",
        "[ -~]{0,8}",
        "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

/// Fleets that are right: images, each built on none or on one of all, by their numbers.
fn graph() -> impl Strategy<Value = Vec<Option<usize>>> {
    prop::collection::vec(prop::option::of(0..12_usize), 1..12)
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in nearly_a_fleet()) {
        match Fleet::parse(&text, Path::new("x")) {
            Ok(fleet) => {
                let all = fleet.select(&[]).unwrap();
                for (index, image) in fleet.images.iter().enumerate() {
                    prop_assert!(image.from.is_none_or(|parent| parent < index));
                }
                if let Ok(names) = fleet.names(&all, &Values::default()) {
                    prop_assert!(names.iter().all(|names| !names.local.is_empty()));
                }
            }
            Err(mistakes) => {
                prop_assert!(!mistakes.is_empty());
                for mistake in mistakes {
                    prop_assert!(mistake.at.clone().is_some_and(|at| text.get(at).is_some()), "{mistake:?}");
                    prop_assert!(!mistake.why.is_empty() && mistake.fix.is_some(), "{mistake:?}");
                }
            }
        }
    }

    #[test]
    fn the_order_is_one_of_the_graph_or_there_is_a_circle(parents in graph()) {
        let count = parents.len();
        let text: String = parents
            .iter()
            .enumerate()
            .map(|(number, parent)| match parent {
                Some(parent) => format!("[image.i{number}]\nfrom = \"i{}\"\n", parent % count),
                None => format!("[image.i{number}]\n"),
            })
            .collect();
        let leads_to_a_root = |mut number: usize| {
            for _ in 0..=count {
                match parents[number] {
                    Some(parent) => number = parent % count,
                    None => return true,
                }
            }
            false
        };
        match Fleet::parse(&text, Path::new("")) {
            Ok(fleet) => {
                prop_assert!((0..count).all(leads_to_a_root));
                prop_assert_eq!(fleet.images.len(), count);
                for (index, image) in fleet.images.iter().enumerate() {
                    let number: usize = image.name[1..].parse().unwrap();
                    let parent = image.from.map(|parent| fleet.images[parent].name.clone());
                    prop_assert_eq!(parent, parents[number].map(|parent| format!("i{}", parent % count)));
                    prop_assert!(image.from.is_none_or(|parent| parent < index));
                }
                let again = fleet.images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
                let same = Fleet::parse(&text, Path::new("")).unwrap();
                prop_assert_eq!(ids(&same), again);
            }
            Err(mistakes) => {
                prop_assert!(!(0..count).all(leads_to_a_root), "{:?}", mistakes);
            }
        }
    }
}
