//! What a person at the command line sees, without any engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sandbox;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{BASE, Sandbox, refusal, text};

#[test]
fn files_that_are_no_list_are_refused() {
    let sandbox = Sandbox::new();
    sandbox
        .write("latin.txt", b"numpy = \"1\"\n# caf\xe9\n")
        .write("table.txt", "[[x")
        .write("zero.txt", b"numpy = \"1\"\0")
        .write("big.txt", vec![b'#'; 50 << 20])
        .write("deep.txt", format!("x = {}", "[".repeat(100_000)));
    for file in ["missing.txt", "latin.txt", "table.txt", "zero.txt", "big.txt", "."] {
        let name = format!("file_{}", file.trim_end_matches(".txt").replace('.', "folder"));
        insta::assert_snapshot!(name, refusal(&sandbox.run(&["build", "-d", file])));
    }
    assert_eq!(sandbox.run(&["build", "-d", "deep.txt"]).status.code(), Some(1));
}

#[test]
fn wrong_usage_is_told_from_refusals() {
    let sandbox = Sandbox::new();
    for (name, arguments, code) in [
        ("tag", ["build", "-t", "Upper:1"].as_slice(), 2),
        ("digest", &["build", "-t", &format!("x@sha256:{}", "0".repeat(64))], 2),
        ("id", &["build", "-t", "sha256:abc"], 2),
        ("variant", &["build", "-V", "nope"], 1),
        ("uid_0", &["build", "--uid", "0"], 2),
        ("python", &["build", "--python", "2.7"], 2),
        ("host", &["build", "--host", "gopher://127.0.0.1"], 2),
        ("no_engine", &["build"], 75),
        ("root_and_uid", &["build", "--root", "--uid", "7"], 2),
        ("ca", &["build", "--ca-cert", "missing.pem"], 1),
        ("facts", &["plan", "--base-facts", "missing.json"], 1),
        ("cache", &["build", "--cache-to", "type=gha,scope=x"], 2),
        ("cache_digest", &["publish", "--cache-to", &format!("localhost/x@sha256:{}", "0".repeat(64))], 2),
        (
            "cache_and_image",
            &["build", "-t", "localhost/x:1", "--cache-to", "type=registry,ref=localhost/x:1"],
            2,
        ),
        ("pull_and_facts", &["build", "-t", "x", "--pull", "--base-facts", BASE], 2),
    ] {
        let output = sandbox.run(arguments);
        assert_eq!(output.status.code(), Some(code), "for {arguments:?}");
        insta::assert_snapshot!(format!("usage_{name}"), refusal(&output));
    }
}

#[test]
fn an_engine_that_refuses_us_is_told_from_one_that_is_not_there() {
    use std::os::unix::fs::PermissionsExt;

    let sandbox = Sandbox::new();
    let socket = sandbox.0.path().join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    let host = format!("unix://{}", socket.display());
    let mut command = sandbox.command(&["build", "--host", &host]);
    if rustix::process::getuid().is_root() {
        use std::os::unix::process::CommandExt;
        // Root is refused nothing. The folder must be open to whoever asks instead.
        fs::set_permissions(sandbox.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = sandbox.0.path().join("ipybox");
        fs::copy(env!("CARGO_BIN_EXE_ipybox"), &program).unwrap();
        command = Command::new(program);
        command
            .args(["build", "--host", &host])
            .uid(65534)
            .gid(65534)
            .env_clear()
            .env("HOME", sandbox.0.path())
            .current_dir(sandbox.0.path());
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no permission to use the container engine"));
}

#[test]
fn a_list_and_a_base_that_disagree_are_both_named() {
    for (name, list, arguments) in [
        ("excluded", "python = \">=3.13\"\n", [].as_slice()),
        ("asked", "", &["--python", "3.13"]),
        (
            "versions",
            "a = \">=3,<2\"\nb = { version = \"1\", source = \"inner\" }\n\
             d = \"1||3||5||7\"\ne = \"1||3||5||7\"\nf = \"1||3||5\"\n",
            &[],
        ),
        (
            "sources",
            "a = { path = \"a\" }\nb = { path = \"b.txt\" }\nc = [{ path = \"c\" }, { path = \"d\" }]\n",
            &[],
        ),
        (
            "supplemental",
            "[[tool.poetry.source]]\nname = \"x\"\nurl = \"https://host.invalid/\"\npriority = \"supplemental\"\n",
            &[],
        ),
    ] {
        let sandbox = Sandbox::new();
        for folder in ["c", "d"] {
            fs::create_dir(sandbox.0.path().join(folder)).unwrap();
            sandbox.write(&format!("{folder}/setup.py"), folder);
        }
        let arguments = [&["-d", "dependencies.txt"], arguments].concat();
        let output = sandbox.write("dependencies.txt", list).plan(&arguments);
        insta::assert_snapshot!(format!("base_{name}"), refusal(&output));
    }
}

#[test]
fn the_plan_of_each_example_and_variant_is_stable() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sandbox = Sandbox::new();
    let mut examples: Vec<_> =
        root.join("examples").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.retain(|folder| folder.join("dependencies.txt").is_file());
    assert_eq!(examples.len(), 2);
    for folder in examples {
        let output = sandbox.plan(&["-d", folder.join("dependencies.txt").to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        // It changes with every template, and is no matter of the example.
        plan["foundation"]["templates"] = "[DIGEST]".into();
        let example = folder.file_name().unwrap().to_str().unwrap();
        insta::assert_snapshot!(format!("plan_{example}"), format!("{plan:#}"));
    }
    sandbox.write("base.json", executor_base(|_| {}));
    let names = text(&sandbox.run(&["variants"]).stdout);
    let names: Vec<_> = names.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.len(), 7);
    for variant in names {
        let arguments = ["plan", "-V", variant, "--base-facts", "base.json"];
        let name: &[&str] = if variant.ends_with("-base") { &["--name", "tried"] } else { &[] };
        let output = sandbox.run(&[&arguments, name].concat());
        assert!(output.status.success(), "{variant}: {}", text(&output.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let requirements = plan["packages"]["requirements"].as_array().unwrap();
        let requirements: Vec<_> = requirements.iter().map(|text| text.as_str().unwrap()).collect();
        insta::assert_snapshot!(format!("requirements_{variant}"), requirements.join("\n"));
    }
}

#[test]
fn both_spellings_of_a_list_ask_for_the_same() {
    let requirements = |example: &str| {
        let list = format!("{}/examples/{example}/dependencies.txt", env!("CARGO_MANIFEST_DIR"));
        let plan: serde_json::Value =
            serde_json::from_slice(&Sandbox::new().plan(&["-d", &list]).stdout).unwrap();
        plan["packages"]["requirements"].clone()
    };
    let sorted = |value: serde_json::Value| {
        // `>=2.2,<3` and `<3,>=2.2` are one set, and 3.0 is 3.
        let mut texts: Vec<Vec<char>> = value
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap().replace("<3.0", "<3").chars().collect())
            .collect();
        for text in &mut texts {
            text.sort_unstable();
        }
        texts.sort();
        texts
    };
    assert_eq!(sorted(requirements("quickstart")), sorted(requirements("requirements")));
}

/// A Dockerfile without the labels that every change of a template changes.
fn unstamped(printed: &[u8]) -> String {
    let is_stamp = |line: &&str| {
        ["LABEL ipybox.fingerprint=", "LABEL ipybox.plan="].iter().any(|begin| line.starts_with(begin))
    };
    text(printed).lines().filter(|line| !is_stamp(line)).fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn the_dockerfile_is_stable() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["render", "--base-facts", BASE, "--uid", "1000", "--gid", "1000"]);
    insta::assert_snapshot!("dockerfile_minimal", unstamped(&output.stdout));
    let indexed = [
        "render",
        "--base-facts",
        BASE,
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--extra-index-url",
        "https://a.test/simple/",
    ];
    insta::assert_snapshot!("dockerfile_indexed", unstamped(&sandbox.run(&indexed).stdout));
    let output = sandbox.run(&["render", "--base-facts", BASE, "--root"]);
    let root = text(&output.stdout);
    assert!(root.contains("USER 0:0\n") && root.contains("ENV HOME=\"/root\"\n"));
}

/// Facts of a base that an executor runs on.
fn executor_base(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut base: serde_json::Value = serde_json::from_str(&fs::read_to_string(BASE).unwrap()).unwrap();
    base["config"]["cmd"] = serde_json::json!(["uvicorn", "executor_server:app"]);
    base["config"]["user"] = "nobody".into();
    base["config"]["shell"] = serde_json::json!(["/bin/bash", "-c"]);
    base["pythons"][0]["distributions"] = serde_json::json!([
        { "name": "ipykernel", "version": "6.29.5" },
        { "name": "numpy", "version": "1.26.4" },
    ]);
    change(&mut base);
    base.to_string()
}

#[test]
fn dockerfiles_of_executors_are_stable() {
    let sandbox = Sandbox::new();
    sandbox.write("base.json", executor_base(|_| {}));
    for variant in ["any-base", "extend-base"] {
        let arguments =
            ["render", "-V", variant, "--base-facts", "base.json", "--name", "tried", "--apt", "tree"];
        let output = sandbox.run(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        insta::assert_snapshot!(format!("dockerfile_{variant}"), unstamped(&output.stdout));
    }
}

#[test]
fn what_an_executor_cannot_be_made_of_is_told() {
    let extended = ["-V", "extend-base", "--name", "x", "--base-facts", "base.json"];
    let layered = ["-V", "any-base", "--name", "x", "--base-facts", "base.json"];
    for (name, list, arguments, change) in [
        ("numpy", "numpy = \"^2\"\n", &layered[..], None),
        (
            "numpy_extended",
            "numpy = { url = \"https://host.invalid/numpy-2-py3-none-any.whl\" }\n",
            &extended,
            None,
        ),
        ("kernel", "", &layered, Some("/pythons/0/distributions/0/version")),
        ("no_server", "", &extended, Some("/config/cmd")),
        ("unknown_user", "", &extended, Some("/config/user")),
        ("python", "", &[&layered[..], &["--base-python", "/x"]].concat(), None),
        ("variables", "", &[&layered[..], &["--env", "PATH=/x"]].concat(), None),
        ("secret", "", &[&layered[..], &["--env", "MY_API_KEY=1"]].concat(), None),
        ("no_name", "", &["-V", "any-base", "--base-facts", "base.json"], None),
        ("no_executor", "", &["--name", "x", "--base-facts", "base.json"], None),
        ("no_base", "", &["-V", "extend-base", "--name", "x"], None),
        ("own_user", "", &[&extended[..], &["--root"]].concat(), None),
    ] {
        let sandbox = Sandbox::new();
        let facts = executor_base(|base| {
            if let Some(fact) = change.and_then(|pointer| base.pointer_mut(pointer)) {
                *fact = if fact.is_array() { serde_json::json!([]) } else { "5.5".into() };
            }
        });
        sandbox.write("base.json", facts).write("dependencies.txt", list);
        let output = sandbox.run(&[&["render", "-d", "dependencies.txt"], arguments].concat());
        insta::assert_snapshot!(format!("executor_{name}"), refusal(&output));
    }
}

#[test]
fn the_executors_of_the_examples_render() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let variants = root.join("examples/executors");
    let sandbox = Sandbox::new();
    for example in ["base", "ml", "cuda", "chemscout", "diagram", "remotion"] {
        let folder = variants.to_str().unwrap();
        let output = sandbox.run(&["render", "--variants", folder, "-V", example, "--base-facts", BASE]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(&format!("ENV EXECUTOR_NAME=\"{example}\"\n")));
    }
}

/// Options that need an engine.
const OF_BUILD: [&str; 26] = [
    "file",
    "jobs",
    "fail-fast",
    "push",
    "output",
    "builder",
    "reproducible",
    "max-size",
    "tag",
    "no-cache",
    "verify",
    "pull",
    "ca-cert",
    "progress",
    "cache-dir",
    "cache-from",
    "cache-to",
    "host",
    "context",
    "network",
    "iidfile",
    "metadata-file",
    "dry-run",
    "force",
    "check",
    "paranoid",
];

#[test]
fn every_option_can_come_from_the_environment() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.0.path().join("own")).unwrap();
    sandbox.write("list.txt", "rich = \"*\"\n").write("other.txt", "six = \"*\"\n").write("uv", "uv");
    sandbox.write("base.json", executor_base(|_| {})).write("file", "x");
    let project = "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = []\n\
                   [project.optional-dependencies]\nmore = [\"attrs\"]\n[dependency-groups]\ndev = [\"pytest\"]\n";
    sandbox.write("pyproject.toml", project);
    // Each option with a value, and where the plan shows it.
    let shown: [(&str, &str, &str); 21] = [
        ("dependencies", "list.txt other.txt", "\"six\""),
        ("group", "dev", "\"pytest\""),
        ("extra", "more", "\"attrs\""),
        ("variant", "kernel", "\"variant\": \"kernel\""),
        ("base-facts", "base.json", "1.26.4"),
        ("name", "tried", "\"EXECUTOR_NAME\": \"tried\""),
        ("base-python", "/usr/local/bin/python3", "/usr/local/bin/python3"),
        ("apt", "tree jq", "\"jq\","),
        ("tools", "agent", "\"ripgrep\","),
        ("env", "A=1 B=2", "\"B\": \"2\""),
        ("allow-secret-env", "1", "API_KEY"),
        ("label", "a=1", "\"a\": \"1\""),
        ("copy", "file:/srv/", "/srv/file"),
        ("python", "3.12", "3.12.8"),
        ("root", "1", "\"root\""),
        ("uid", "4321", "4321"),
        ("gid", "4321", "4321"),
        ("no-bytecode", "1", "\"bytecode\": false"),
        ("index-url", "https://d.test/simple/", "https://d.test/simple/"),
        ("extra-index-url", "https://a.test/ https://b.test/", "https://b.test/"),
        ("index", "inner=https://i.test/", "https://i.test/"),
    ];
    for (option, value, part) in shown {
        let variable = format!("IPYBOX_{}", option.to_uppercase().replace('-', "_"));
        let mut command = sandbox.command(&["plan"]);
        let layered = ["name", "base-facts"].contains(&option);
        command
            .env("IPYBOX_BASE_FACTS", "base.json")
            .env("IPYBOX_VARIANT", if layered { "any-base" } else { "minimal" });
        if layered {
            command.env("IPYBOX_NAME", "x");
        }
        if ["group", "extra"].contains(&option) {
            command.env("IPYBOX_DEPENDENCIES", "pyproject.toml");
        }
        if option == "allow-secret-env" {
            command.env("IPYBOX_ENV", "API_KEY=1");
        }
        let output = command.env(&variable, value).output().unwrap();
        assert!(output.status.success(), "{variable}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(part), "{variable}: {}", text(&output.stdout));
    }
    // Those that a plan does not show, by what is wrong with a value.
    let refused = [
        ("base", "UPPER", "no image name"),
        ("python-archive", "missing", "cannot read the Python archive"),
        ("uv", "missing", "the installer"),
        ("from-source", "auto docopt", "is no name of a package"),
        ("build-apt", "a;b", "Debian package"),
        ("lock", "lock.toml", "a lock is called `pylock.toml`"),
        ("locked", "1", "there is no lock `pylock.minimal.toml`"),
        ("secret", "id=x", "expected id=ID"),
        ("build-arg", "A=1", "no step uses the build argument `A`"),
        ("platform", "linux/arm64", "is for linux/amd64, and not for linux/arm64"),
        ("templates", "missing", "cannot read the template"),
        ("variants", "missing", "cannot read `missing`"),
        ("root", "2", "--root"),
        ("message-format", "odd", "odd"),
    ];
    for (option, value, part) in refused {
        let variable = format!("IPYBOX_{}", option.to_uppercase().replace('-', "_"));
        let mut command = sandbox.command(&["plan"]);
        if option != "base" {
            command.env("IPYBOX_BASE_FACTS", "base.json");
        }
        let output = command.env(&variable, value).output().unwrap();
        assert!(
            !output.status.success() && text(&output.stderr).contains(part),
            "{variable}: {}",
            text(&output.stderr)
        );
    }
    // No option is left.
    let tried: Vec<&str> =
        shown.iter().map(|(name, ..)| *name).chain(refused.map(|(name, ..)| name)).chain(OF_BUILD).collect();
    let help = text(&sandbox.run(&["build", "--help"]).stdout);
    let options =
        help.lines().filter_map(|line| line.trim().split_once("--")).filter(|(before, _)| before.len() <= 4);
    for (_, option) in options {
        let name = option.split([' ', '=']).next().unwrap();
        assert!(name == "help" || tried.contains(&name), "--{name} is not tried");
    }
    for command in ["build", "publish"] {
        let output =
            sandbox.command(&[command]).env("IPYBOX_CACHE_FROM", "localhost/x team/x").output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("--cache-from: a cache begins"), "{said}");
    }
    let off = sandbox.command(&["plan", "--base-facts", BASE]).env("IPYBOX_ROOT", "0").output().unwrap();
    assert!(!text(&off.stdout).contains("\"root\""));
}

#[test]
fn a_command_that_reads_a_file_can_be_interrupted() {
    let sandbox = Sandbox::new();
    assert!(Command::new("mkfifo").arg(sandbox.0.path().join("fifo")).status().unwrap().success());
    // Nothing but a hole, which takes long to read all the same.
    fs::File::create(sandbox.0.path().join("large")).unwrap().set_len(1 << 40).unwrap();
    for arguments in [["-d", "fifo"], ["--copy", "large:/data/large"]] {
        let mut command = sandbox.command(&["plan", "--base-facts", BASE]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let begun = Instant::now();
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());
        // Of tags only a build speaks.
        assert!(said.ends_with("interrupted\n"), "{said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["plan", "--base-facts", BASE, "--root"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn variants_can_be_the_users_own() {
    let sandbox = Sandbox::new();
    let folder = sandbox.0.path().join("variants/mine");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("variant.toml"), "description = \"mine\"\nextends = \"kernel\"\n").unwrap();
    fs::write(folder.join("dependencies.txt"), "rich = \"*\"\n").unwrap();
    let listed = sandbox.run(&["variants", "--variants", "variants"]);
    assert_eq!(text(&listed.stdout), "mine         mine\n");
    fs::write(folder.join("variant.toml"), "description = \"mine\"\ntemplat = \"server.tera\"\n").unwrap();
    insta::assert_snapshot!(
        "variant_invalid",
        refusal(&sandbox.run(&["variants", "mine", "--variants", "variants"]))
    );
}

#[test]
fn several_lists_ask_for_all_and_standard_input_is_one() {
    let sandbox = Sandbox::new();
    sandbox
        .write("a.txt", "rich = \"^13\"\n")
        .write("b.txt", "-r sub/c.txt\n")
        .write("pyproject.toml", PROJECT);
    fs::create_dir(sandbox.0.path().join("sub")).unwrap();
    sandbox.write("sub/c.txt", "requests\n-c ../bounds.txt\n").write("bounds.txt", "urllib3<3\n");
    let mut arguments = vec!["plan", "--base-facts", BASE, "--root", "-d", "a.txt", "-d", "b.txt", "-d", "-"];
    arguments.extend(["-d", "pyproject.toml", "--group", "Test", "--extra", "more"]);
    let mut child = sandbox
        .command(&arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\"six\",\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |key: &str| {
        plan["packages"][key]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("requirements"),
        [
            "coverage",
            "ipykernel>=6.31,<8",
            "mcp>=1.9.2,<2",
            "numpy>=2",
            "pip>=25.3",
            "pydantic>=2.10,<3",
            "pytest",
            "requests",
            "rich>=13,<14",
            "ruff",
            "six"
        ]
    );
    assert_eq!(of("bounds"), ["urllib3<3"]);
}

const PROJECT: &str = "[project]\nname = \"x\"\ndependencies = [\"numpy>=2\"]\n\
    [project.optional-dependencies]\nmore = [\"x[other]\"]\nother = [\"pytest\"]\n\
    [dependency-groups]\ntest = [\"coverage\", { include-group = \"lint\" }]\nlint = [\"ruff\"]\n";

#[test]
fn shells_and_manuals_know_every_command() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = sandbox.run(&["completions", shell]);
        let printed = text(&output.stdout);
        assert!(
            output.status.success() && printed.contains("verify") && printed.contains("metadata-file"),
            "{shell}"
        );
    }
    let page = text(&sandbox.run(&["man"]).stdout);
    for command in
        ["build", "plan", "render", "deps", "verify", "compose", "doctor", "variants", "completions", "man"]
    {
        let printed = text(&sandbox.run(&["man", command]).stdout);
        assert!(
            printed.contains(&format!(".TH ipybox\\-{command}"))
                || printed.contains(&format!(".TH ipybox-{command}")),
            "{printed}"
        );
        assert!(page.contains(&format!("ipybox\\-{command}(1)")), "{command}");
    }
    let refused = sandbox.run(&["man", "nothing"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn a_password_that_is_typed_is_refused_and_not_repeated() {
    let sandbox = Sandbox::new();
    for option in ["--index-url", "--extra-index-url", "--index"] {
        let value =
            if option == "--index" { "inner=https://u:s3cret@i.test/" } else { "https://u:s3cret@i.test/" };
        for command in ["plan", "build", "doctor"] {
            let output = sandbox.run(&[command, option, value]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(option) && said.contains("UV_INDEX_NAME_PASSWORD"), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}

#[test]
fn indexes_of_the_request_the_list_and_the_host_are_joined() {
    let sandbox = Sandbox::new();
    let list = "[tool.poetry.dependencies]\nours = { version = \"1\", source = \"inner\" }\n\
                [[tool.poetry.source]]\nname = \"inner\"\nurl = \"https://old.test/\"\npriority = \"explicit\"\n";
    sandbox.write("pyproject.toml", list);
    let mut command = sandbox.command(&["plan", "--base-facts", BASE, "-d", "pyproject.toml"]);
    command.args(["--index", "inner=https://inner.test/", "--extra-index-url", "https://first.test/"]);
    command.env("PIP_INDEX_URL", "https://user:s3cret@mirror.test/simple");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let plan = text(&output.stdout);
    assert!(!plan.contains("s3cret"), "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let told = plan["packages"]["indexes"].as_array().unwrap().iter().map(|index| {
        let only = index["only"].as_array().unwrap().len();
        format!("{} {} {only}", index["url"].as_str().unwrap(), index["priority"].as_str().unwrap())
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "https://first.test/ extra 0",
            "https://inner.test/ explicit 1",
            "https://mirror.test/simple default 0"
        ]
    );
}

#[test]
fn steps_get_the_secrets_they_name() {
    let sandbox = Sandbox::new();
    let variant = "description = \"mine\"\nextends = \"kernel\"\n\
                   [[step]]\nrun = \"cat /dev/ipybox/secrets/token\"\nsecrets = [\"token\"]\nas = \"user\"\n";
    fs::create_dir_all(sandbox.0.path().join("own/mine")).unwrap();
    sandbox.write("own/mine/variant.toml", variant).write("own/mine/dependencies.txt", "");
    let mine = ["--variants", "own", "-V", "mine", "--uid", "1234", "--gid", "1234"];
    let rendered = sandbox.run(&[&["render", "--base-facts", BASE], mine.as_slice()].concat());
    let rendered = text(&rendered.stdout);
    let mount =
        "--mount=type=secret,id=token,target=/dev/ipybox/secrets/token,uid=1234,mode=0400,required=true";
    assert!(rendered.contains(mount) && rendered.contains(" --secret=id=token,src=FILE ."), "{rendered}");
    let build = |more: &[&str]| {
        let output = sandbox.run(&[&["build"], mine.as_slice(), more].concat());
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let said = build(&[]);
    assert!(
        said.contains("needs the secret `token`") && said.contains("--secret id=token,src=FILE"),
        "{said}"
    );
    let said = build(&["--secret", "id=token,env=UNSET"]);
    assert!(said.contains("`UNSET`, which is not set"), "{said}");
    let said = build(&["--secret", "id=token,src=missing"]);
    assert!(said.contains("cannot read the secret `token` in `missing`"), "{said}");
    sandbox.write("own/mine/variant.toml", variant.replace("[\"token\"]", "[\"../token\"]"));
    let said = build(&["--secret", "id=token,env=HOME"]);
    assert!(said.contains("expected the id of a secret"), "{said}");
}

#[test]
fn build_arguments_are_for_own_steps_and_no_place_for_secrets() {
    let sandbox = Sandbox::new();
    let variant = "description = \"mine\"\nextends = \"kernel\"\n[[step]]\nrun = \"echo $MODEL\"\n";
    fs::create_dir_all(sandbox.0.path().join("own/mine")).unwrap();
    sandbox.write("own/mine/variant.toml", variant).write("own/mine/dependencies.txt", "");
    let render = |argument: &str| {
        sandbox.run(&[
            "render",
            "--base-facts",
            BASE,
            "--variants",
            "own",
            "-V",
            "mine",
            "--build-arg",
            argument,
        ])
    };
    let output = render("MODEL=a \"b\" $HOME");
    assert!(text(&output.stdout).contains(r#"ARG MODEL="a \"b\" \$HOME""#), "{}", text(&output.stdout));
    let output = render("API_TOKEN=x");
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("--secret id=api_token,env=API_TOKEN"),
        "{said}"
    );
}
