//! Services for Compose and Kubernetes, and Compose files that get them, without any engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sandbox;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use ipybox::compose::{Composition, Facts, Node, Service, Wishes, scalar};
use ipybox::engine::Image;
use proptest::prelude::*;
use sandbox::{Sandbox, refusal, text};
use saphyr_parser::{Event, Parser, ScalarStyle};

/// A file as people write them.
const FILE: &str = include_str!("../fuzz/corpus/compose/lists.yaml");

fn executor(name: &str, wishes: Wishes) -> Service {
    let image = Service::image_of(name).unwrap();
    Service { name: name.to_owned(), image, facts: Facts::of_executor(), wishes }
}

fn composition(name: &str) -> Composition {
    Composition::of(&[executor(name, Wishes::default())])
}

/// An image that says this of itself.
fn image(labels: &[(&str, &str)], env: &[&str], command: &[&str], health: &[&str]) -> Image {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    Image {
        id: format!("sha256:{}", "0".repeat(64)).try_into().unwrap(),
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        user: "1234:0".to_owned(),
        env: owned(env),
        entrypoint: Vec::new(),
        cmd: owned(command),
        shell: Vec::new(),
        workdir: "/app".to_owned(),
        ports: std::collections::BTreeSet::new(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        health: owned(health),
        on_build: Vec::new(),
        settings: BTreeMap::new(),
        created: None,
        bytes: 0,
        layers: Vec::new(),
    }
}

#[test]
fn an_image_says_what_it_is() {
    let check = ["CMD", "/bin/sh", "health.sh"];
    let ours = image(
        &[("ipybox.serves", "executor exec")],
        &["EXECUTOR_NAME=own", "EXECUTOR_PORT=7000", "WORKSPACES_DIR=/data", "HOME=/home/x"],
        &[],
        &check,
    );
    let facts = Facts::of(&ours).unwrap();
    assert!(facts.is_executor);
    assert_eq!(facts.name.as_deref(), Some("own"));
    assert_eq!(facts.ports, [("executor", 7000)]);
    assert_eq!((facts.workspaces.as_str(), facts.home.as_str(), facts.uid), ("/data", "/home/x", Some(1234)));
    assert_eq!(facts.health, check);

    let gateway = image(&[("ipybox.serves", "kernel-gateway resources exec")], &[], &[], &check);
    let facts = Facts::of(&gateway).unwrap();
    assert!(!facts.is_executor);
    assert_eq!(facts.ports, [("gateway", 8888), ("resources", 8900)]);

    // One that somebody built by hand has no check of its own, and curl.
    let by_hand = image(&[], &[], &["uvicorn", "executor_server:app"], &["NONE"]);
    let facts = Facts::of(&by_hand).unwrap();
    assert_eq!(facts.health, ["CMD", "curl", "-f", "http://localhost:62680/health"]);

    assert_eq!(Facts::of(&image(&[], &["EXECUTOR_NAME=x"], &["sh"], &[])), None);
}

#[test]
fn services_are_stable() {
    let sandbox = Sandbox::new();
    let all = [
        "compose",
        "vision",
        "--network",
        "skills-network",
        "--profile",
        "gpu",
        "--cpus",
        "1.5",
        "--publish",
        "8080",
        "--memory",
        "8GiB",
        "--build",
        "./contexts/vision $X",
    ];
    let output = sandbox.run(&all);
    insta::assert_snapshot!("compose_all", text(&output.stdout));
    insta::assert_snapshot!("compose_said", text(&output.stderr));
    insta::assert_snapshot!("compose_two", text(&sandbox.run(&["compose", "a", "b"]).stdout));
    insta::assert_snapshot!(
        "compose_k8s",
        text(&sandbox.run(&["compose", "a_b", "--format", "k8s", "--cpus", "0.5"]).stdout)
    );
}

#[test]
fn what_a_gateway_needs_is_told_too() {
    let health = ["CMD", "sh", "-c", "echo $HOME: \"ok\""];
    let image = image(&[("ipybox.serves", "kernel-gateway resources exec")], &[], &[], &health);
    let facts = Facts::of(&image).unwrap();
    let wishes = Wishes { publish: vec![(8888, None), (9000, Some(8900))], ..Wishes::default() };
    let reference = "company/box:1".parse().unwrap();
    let service = Service { name: "box".to_owned(), image: reference, facts, wishes };
    insta::assert_snapshot!("compose_gateway", Composition::of(std::slice::from_ref(&service)).document());
    let mut open = service;
    open.wishes.any_uid = true;
    insta::assert_snapshot!("compose_gateway_k8s", ipybox::compose::manifests(&[open]).unwrap());
}

#[test]
fn wrong_usage_is_refused() {
    let sandbox = Sandbox::new();
    for (name, arguments, code) in [
        ("name", ["compose", "Upper"].as_slice(), 2),
        ("image_name", &["compose", "a_-b"], 2),
        ("network", &["compose", "a", "--network", "x: y"], 2),
        ("two_images", &["compose", "a", "b", "-t", "x"], 2),
        ("cpus", &["compose", "a", "--cpus", "1e3"], 2),
        ("publish", &["compose", "a", "--publish", "0.0.0.0:80"], 2),
        ("into_k8s", &["compose", "a", "--format", "k8s", "--into", "x"], 2),
        ("any_uid", &["compose", "a", "--any-uid"], 2),
        ("same", &["compose", "a-b", "a_b"], 1),
        ("unknown", &["compose", "-t", "x"], 1),
        ("long", &["compose", "--format", "k8s", &"x".repeat(60)], 1),
    ] {
        let output = sandbox.run(arguments);
        assert_eq!(output.status.code(), Some(code), "for {arguments:?}: {}", text(&output.stderr));
        insta::assert_snapshot!(format!("compose_usage_{name}"), refusal(&output));
    }
}

#[test]
fn a_file_gets_what_is_missing_and_stays_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", FILE);
    let path = sandbox.0.path().join("compose.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("compose.yaml", sandbox.0.path().join("link.yaml")).unwrap();
    let output = sandbox.run(&["compose", "vision", "more", "--into", "link.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!("compose_into", sandbox.read("compose.yaml"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(sandbox.0.path().join("link.yaml")).unwrap().is_symlink());
    let once = sandbox.read("compose.yaml");
    let again = sandbox.run(&["compose", "more", "vision", "--into", "compose.yaml"]);
    assert!(text(&again.stderr).ends_with("`compose.yaml` has it already\n"), "{}", text(&again.stderr));
    assert_eq!(sandbox.read("compose.yaml"), once);
    assert_eq!(fs::read_dir(sandbox.0.path()).unwrap().count(), 2);
}

#[test]
fn a_file_that_is_not_there_is_made() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["compose", "vision", "--into", "new.yaml"]);
    assert!(text(&output.stderr).contains("has no service `api`"), "{}", text(&output.stderr));
    assert_eq!(sandbox.read("new.yaml"), text(&sandbox.run(&["compose", "vision"]).stdout));
    let output = sandbox.run(&["compose", "vision", "--into", "missing/new.yaml"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn byte_order_marks_line_ends_and_missing_ends_stay() {
    let sandbox = Sandbox::new();
    let old = "\u{feff}services:\r\n  api:\r\n    image: x";
    sandbox.write("compose.yaml", old);
    let output = sandbox.run(&["compose", "vision", "--into", "compose.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let new = sandbox.read("compose.yaml");
    assert!(new.starts_with(&format!("{old}\r\n    environment:\r\n      EXECUTOR_VISION_URL: ")), "{new}");
    assert_eq!(new.matches('\n').count(), new.matches("\r\n").count());
    assert!(new.ends_with("uploads:"), "{new}");
}

#[test]
fn environments_of_every_form_get_the_address() {
    const URL: &str = "http://skills-executor-vision:62680";
    for (name, environment, lines) in [
        ("map", "    environment:\n      A: b\n", format!("      A: b\n      EXECUTOR_VISION_URL: {URL}\n")),
        (
            "list",
            "    environment:\n      - A=b\n",
            format!("      - A=b\n      - EXECUTOR_VISION_URL={URL}\n"),
        ),
        (
            "list below its key",
            "    environment:\n    - A=b\n    # next\n    tty: true\n",
            format!("    - A=b\n    - EXECUTOR_VISION_URL={URL}\n    # next\n"),
        ),
        ("nothing", "    environment:\n", format!("    environment:\n      EXECUTOR_VISION_URL: {URL}\n")),
        (
            "missing",
            "    labels: [a]\n    # end\n",
            format!("    # end\n    environment:\n      EXECUTOR_VISION_URL: {URL}\n"),
        ),
        (
            "a text of several lines",
            "    environment:\n      A: |\n        # x\n\n        y\n\n",
            format!("        y\n      EXECUTOR_VISION_URL: {URL}\n"),
        ),
        (
            "merged",
            "    environment:\n      <<: *env\n      \"A\": 'b'\n",
            format!("      \"A\": 'b'\n      EXECUTOR_VISION_URL: {URL}\n"),
        ),
    ] {
        let text = format!("x-env: &env\n  B: c\nservices:\n  api:\n    image: x\n{environment}");
        let merged = composition("vision")
            .merge(&text, "api", false)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(merged.has_api && merged.text.contains(&lines), "{name}: {}", merged.text);
        let again = composition("vision").merge(&merged.text, "api", false).unwrap();
        assert_eq!(again, merged, "{name}");
    }
    // What is there in a form that nothing is added to is found all the same.
    let text = format!("services:\n  api:\n    environment: [EXECUTOR_VISION_URL={URL}]\n");
    assert!(composition("vision").merge(&text, "api", false).unwrap().has_api);
}

#[test]
fn what_differs_is_told_and_replaced_only_if_wanted() {
    let sandbox = Sandbox::new();
    let old = "services:\n  api:\n    environment:\n      EXECUTOR_VISION_URL: http://other:1 # old\n  \
               executor-vision:\n    image: mine\n    tty: true\n    environment:\n      - EXECUTOR_NAME=vision\n      - TZ=UTC\n    # mine\n\n  # web\n  web:\n    image: web\n";
    sandbox.write("compose.yaml", old);
    for (name, file) in [
        ("url", old.to_owned()),
        ("service", old.replace("http://other:1", "http://skills-executor-vision:62680")),
    ] {
        sandbox.write("compose.yaml", &file);
        let output = sandbox.run(&["compose", "vision", "--into", "compose.yaml"]);
        insta::assert_snapshot!(format!("compose_differs_{name}"), refusal(&output));
        assert_eq!(sandbox.read("compose.yaml"), file);
    }
    sandbox.write("compose.yaml", old);
    let output = sandbox.run(&["compose", "vision", "--into", "compose.yaml", "--replace"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!("compose_replaced", sandbox.read("compose.yaml"));
    // What was added to a service is nobody's business.
    let more = sandbox.read("compose.yaml").replace("    cap_drop:", "    tty: true\n    cap_drop:");
    sandbox.write("compose.yaml", &more);
    let output = sandbox.run(&["compose", "vision", "--into", "compose.yaml"]);
    assert!(text(&output.stderr).ends_with("has it already\n"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_edited_for_sure_is_refused() {
    let sandbox = Sandbox::new();
    for (name, file) in [
        ("syntax", "services:\n  api: [\n"),
        ("tab", "services:\n  api:\n\timage: x\n"),
        ("carriage_return", "services:\r  api:\r"),
        ("documents", "services:\n  api:\n    image: x\n---\nservices:\n"),
        ("ended", "services:\n  api:\n    image: x\n...\n"),
        ("duplicate", "services:\n  api:\n    image: x\n  \"api\":\n    image: y\n"),
        ("flow_root", "{services: {api: {image: x}}}\n"),
        ("flow_services", "services: {}\n"),
        ("flow_environment", "services:\n  api:\n    environment: [A=b]\n"),
        ("anchor", "services:\n  api: &api\n    image: x\n  other: *api\n"),
        ("alias", "x-e: &e\n  A: b\nservices:\n  api:\n    environment: *e\n"),
        ("merge", "x-e: &e\n  environment:\n    A: b\nservices:\n  api:\n    <<: *e\n"),
        ("tag", "services: !!map\n  api:\n    image: x\n"),
        ("list", "- a\n"),
        ("text", "services: no\n"),
        ("explicit", "? services\n: api:\n    image: x\n"),
        ("volumes", "services:\n  api:\n    image: x\nvolumes: [workspaces]\n"),
        (
            "container",
            "services:\n  api:\n    image: x\n  other:\n    container_name: skills-executor-vision\n",
        ),
    ] {
        sandbox.write("compose.yaml", file);
        let output = sandbox.run(&["compose", "vision", "--into", "compose.yaml"]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output.stderr));
        let said = refusal(&output);
        insta::assert_snapshot!(format!("compose_refused_{name}"), said.split_once("makes it\n").unwrap().1);
        assert_eq!(sandbox.read("compose.yaml"), file);
    }
    let deep = format!("services: {}", "[".repeat(100_000));
    assert!(composition("vision").merge(&deep, "api", false).is_err());
    let wide = (0..50_000).fold(String::new(), |text, number| text + &format!("k{number}: {{}}\n"));
    assert!(composition("vision").merge(&wide, "api", false).is_ok());
}

#[test]
fn networks_are_those_of_the_api_service() {
    let sandbox = Sandbox::new();
    let file = "services:\n  front:\n    image: x\n    networks:\n      inner:\n        aliases: [front]\nnetworks:\n  inner:\n";
    sandbox.write("compose.yaml", file);
    let output = sandbox.run(&["compose", "vision", "--into", "compose.yaml", "--api-service", "front"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let new = sandbox.read("compose.yaml");
    assert!(new.contains("    networks:\n      - inner\n    security_opt:"), "{new}");
}

/// What a document's scalars are, and whether they are surely texts.
fn scalars(document: &str) -> Vec<(String, bool)> {
    let events = Parser::new_from_str(document).map(|event| event.unwrap().0);
    let scalars = events.filter_map(|event| match event {
        Event::Scalar(value, style, ..) => Some((value.into_owned(), style == ScalarStyle::DoubleQuoted)),
        _ => None,
    });
    scalars.collect()
}

/// What readers of YAML 1.1 take for no text.
///
/// Rule: YAML 1.1 types `bool`, `float`, `int`, `merge`, `null`, `timestamp` and `value`: all begin with a digit or one of
/// `+-.~=<`, or are one of these words.
fn is_something_else(text: &str) -> bool {
    let words = ["y", "n", "yes", "no", "true", "false", "on", "off", "null", ""];
    words.contains(&text.to_lowercase().as_str())
        || text.starts_with(|first: char| first.is_ascii_digit() || "+-.~=<".contains(first))
}

/// A file of blocks, with comments, blank lines, and every form of environment.
fn a_compose_file() -> impl Strategy<Value = String> {
    let comment =
        prop::sample::select(vec!["", "\n", "# top\n", "  # inner\n", "    # deep\n", "\n\n# x\n\n"]);
    let environment = prop::sample::select(vec![
        "",
        "    environment:\n",
        "    environment:\n      A: b\n      # c\n",
        "    environment:\n      - A=b\n",
        "    environment:\n    - A=b\n    # c\n",
        "    environment:\n      A: >-\n        x\n        # y\n\n",
        "    environment:\n      A: \"x\n        y\"\n",
    ]);
    let body = prop::sample::select(vec![
        "    image: x\n",
        "    image: x # y\n    command: [\"a\",\n      \"b\"]\n",
        "    command: |\n      # a\n\n      b\n",
        "    image: 'x'\n    ports:\n    - \"1:2\"\n",
    ]);
    let service = (prop::sample::select(vec!["api", "web", "db"]), body, environment, comment.clone())
        .prop_map(|(name, body, environment, comment)| {
            (name, format!("  {name}:\n{body}{environment}{comment}"))
        });
    let section = prop::sample::select(vec![
        "volumes:\n  workspaces:\n",
        "volumes:\n",
        "networks:\n  n:\n    driver: bridge\n",
        "x-more: &m {a: b}\n",
        "name: z\n",
    ]);
    let sections = prop::collection::vec((section, comment), 0..3);
    let services = prop::collection::vec(service, 0..4);
    (sections.clone(), services, sections, any::<bool>(), any::<bool>()).prop_map(
        |(before, services, after, windows, is_cut)| {
            let mut text = String::new();
            let mut seen = Vec::new();
            let mut push = |text: &mut String, key: &'static str, part: &str| {
                if !seen.contains(&key) {
                    seen.push(key);
                    *text += part;
                }
            };
            for (section, comment) in &before {
                push(&mut text, section.split(':').next().unwrap(), &format!("{section}{comment}"));
            }
            text += "services:\n";
            for (name, service) in &services {
                push(&mut text, name, service);
            }
            for (section, comment) in &after {
                push(&mut text, section.split(':').next().unwrap(), &format!("{section}{comment}"));
            }
            let text = if is_cut { text.trim_end().to_owned() } else { text };
            if windows { text.replace('\n', "\r\n") } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn every_text_reads_back_as_that_text(texts in prop::collection::vec(any::<String>(), 1..4)) {
        let read = scalars(&Node::texts(texts.clone()).document());
        prop_assert_eq!(read.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), texts);
        for (text, is_quoted) in read {
            prop_assert!(is_quoted || !is_something_else(&text), "{:?}", text);
        }
    }

    #[test]
    fn words_that_mean_something_are_quoted(text in "[-+.0-9a-zA-Z~:=<>?!&*|%@`#{}\\[\\], ]{0,6}") {
        let document = Node::Map(vec![(text.clone(), Node::text(text.clone()))]).document();
        for (read, is_quoted) in scalars(&document) {
            prop_assert_eq!(&read, &text);
            prop_assert!(is_quoted || !is_something_else(&text), "{}", scalar(&text));
        }
    }

    #[test]
    fn files_keep_all_their_lines(file in a_compose_file()) {
        let merged = composition("vision").merge(&file, "api", false);
        let merged = merged.unwrap_or_else(|error| panic!("{error:?}\n{file}"));
        let mut lines = merged.text.lines();
        prop_assert!(file.lines().all(|line| lines.any(|new| new == line)), "{}", merged.text);
        prop_assert_eq!(composition("vision").merge(&merged.text, "api", false).unwrap().text, merged.text.clone());
        if file.contains("\r\n") {
            prop_assert_eq!(merged.text.matches('\n').count(), merged.text.matches("\r\n").count());
        }
        // Another one goes in beside it, and both can be written anew.
        let of = |memory| Composition::of(&[executor("vision", Wishes { memory: Some(memory), ..Wishes::default() })]);
        let small = of(1).merge(&merged.text, "api", true).unwrap().text;
        let both = composition("more").merge(&small, "api", false).unwrap().text;
        prop_assert!(of(2).merge(&both, "api", false).is_err());
        let large = of(2).merge(&both, "api", true).unwrap().text;
        prop_assert_eq!(of(1).merge(&large, "api", true).unwrap().text, both);
    }

    #[test]
    fn a_file_in_which_anything_changed_keeps_its_lines(
        file in a_compose_file(), at in any::<prop::sample::Index>(), cut in 0..12_usize,
        new in prop::sample::select(vec!["", "\n", " ", "  ", ":", "- ", "#", "&a ", "*a", "'", "\"", "{", "]", "|\n", "? ", "!!x ",
            "<<: *m\n", "---\n", "...\n", "\t", "\r", "\u{e9}", "\u{feff}", "\u{85}", "%YAML 1.2\n", "\\", "@", "null", "~"])
    ) {
        let characters: Vec<char> = file.chars().collect();
        let at = at.index(characters.len() + 1);
        let behind = characters.len().min(at + cut);
        let changed: String =
            characters[..at].iter().copied().chain(new.chars()).chain(characters[behind..].iter().copied()).collect();
        check::composition(&changed);
    }

    #[test]
    fn nothing_makes_it_panic(pieces in prop::collection::vec(prop_oneof![
        Just("services:\n".to_owned()), Just("  api:\n".to_owned()), Just("    environment:\n".to_owned()),
        Just("  executor-vision:\n".to_owned()), Just("    image: x\n".to_owned()), Just("      - A=b\n".to_owned()),
        Just("volumes:\n".to_owned()), Just("# c\n".to_owned()), Just("? ".to_owned()), Just("&a ".to_owned()),
        Just("*a".to_owned()), Just("{".to_owned()), Just("\"".to_owned()), Just("|\n".to_owned()), Just("---\n".to_owned()),
        Just("\n".to_owned()), "[ -~\n\r\t]{0,8}", "\\PC{0,4}"], 0..14)) {
        check::composition(&pieces.concat());
    }
}

#[path = "../fuzz/check.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod check;
