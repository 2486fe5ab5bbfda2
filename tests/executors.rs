//! Executor images on bases of many kinds, on a real engine.
//!
//! `scripts/test-bases` makes the bases from Debian's packages, `scripts/python-archive` the interpreter that
//! `IPYBOX_TEST_PYTHON_ARCHIVE` names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use engine::{Container, Image, ROOT, docker, ipybox, list, setting};

const PORT: u16 = 62680;

fn base(kind: &str) -> String {
    format!("ipybox-test-base:{kind}")
}

/// An image of any-base; without bytecode, which says nothing of bases.
fn on(kind: &str, arguments: &[&str]) -> Image {
    let base = base(kind);
    let common = ["build", "-V", "any-base", "--name", "tried", "--no-bytecode", "--base", &base];
    Image::build_with(kind, ipybox().args(common).args(arguments))
}

fn extended(name: &str, base: &str, arguments: &[&str]) -> Image {
    let common = ["build", "-V", "extend-base", "--name", name, "--base", base];
    Image::build_with(name, ipybox().args(common).args(arguments))
}

/// What a build that must fail says.
fn refused(arguments: &[&str]) -> String {
    let tag = Image::tag("refused");
    let output = ipybox().arg("build").args(arguments).args(["--tag", &tag]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(docker(&["images", "--quiet", &tag]), "");
    said
}

fn verify(image: &Image) {
    let output = ipybox().args(["verify", &image.tag]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

fn python(image: &Image, code: &str) -> String {
    image.run(&["python", "-c", code]).trim().to_owned()
}

fn pip_agrees(image: &Image) {
    assert_eq!(
        image.run(&["pip", "--disable-pip-version-check", "check"]),
        "No broken requirements found.\n"
    );
}

/// Whatever the base has at `/etc/profile.d`.
fn is_first_for_login_shells(image: &Image) {
    for shell in ["sh", "bash"] {
        assert_eq!(image.run(&[shell, "-lc", "command -v python"]), "/opt/venv/bin/python\n");
    }
}

/// Starts the image, and runs code through its server.
fn serves(image: &Image, code: &str, expected: &str) {
    let container = Container::with_port(PORT, &image.tag, &[]);
    assert_eq!(container.execute("python", "w", code)["stdout"], expected);
    assert_eq!(
        container.execute("bash", "w", "[[ $WORKSPACE == \"$PWD\" ]] && pwd")["stdout"],
        "/app/workspaces/w\n"
    );
    assert!(container.stop() < Duration::from_secs(2));
}

#[test]
fn what_a_base_has_stays_and_the_rest_goes_beside_it() {
    let (_folder, list) = list("pandas = \"*\"\nnumpy = \">=1.20\"\n");
    let image = on("numpy", &["-d", &list]);
    let code = "import numpy, pandas; print(numpy.__version__, numpy.__file__, pandas.__file__)";
    let found = python(&image, code);
    let numpy = "1.26.4 /usr/local/lib/python3.11/dist-packages/numpy/__init__.py";
    assert!(
        found.starts_with(numpy) && found.contains("/opt/venv/lib/python3.11/site-packages/pandas"),
        "{found}"
    );
    pip_agrees(&image);
    verify(&image);
}

#[test]
fn layers_of_executors_are_equal_too() {
    let (_folder, list) = list("six = \"*\"\n");
    let any = |name: &str| {
        let base = base("numpy");
        let common =
            ["build", "-V", "any-base", "--name", "x", "--no-bytecode", "--no-cache", "--base", &base];
        Image::build_with(name, ipybox().args(common).args(["-d", &list]))
    };
    let (one, two) = (any("one"), any("two"));
    assert_eq!(one.layers(), two.layers());
    let more = |name: &str, base: &Image| extended(name, &base.tag, &["-d", &list, "--no-cache"]);
    assert_eq!(more("more-one", &one).layers(), more("more-two", &one).layers());
}

#[test]
fn a_list_that_disagrees_with_its_base_is_told_by_its_line() {
    let common = ["-V", "any-base", "--name", "x", "--no-bytecode", "--base", "ipybox-test-base:numpy", "-d"];
    let said = |text: &str| {
        let (_folder, list) = list(text);
        refused(&[&common[..], &[&list]].concat())
    };
    let direct = said("six = \"*\"\nnumpy = \"^2.2\"\n");
    assert!(direct.contains("has `numpy` 1.26.4, which stays as it is"), "{direct}");
    assert!(direct.contains("dependencies.txt:2:1") && direct.contains(">=2.2,<3.0"), "{direct}");
    let hash = format!("six==1.17.0 --hash=sha256:{:064}\n", 0);
    assert!(said(&hash).contains("the file of `six` is not the one that was promised"));
    let through_another = said("six = \"*\"\n\nopencv-python-headless = \">=4.12\"\n");
    assert!(through_another.contains("dependencies.txt:3:1"), "{through_another}");
    assert!(through_another.contains("the base has `numpy` 1.26.4 and keeps it"), "{through_another}");
}

#[test]
fn distributions_that_no_index_knows_count_as_installed() {
    let (_folder, list) = list("\"acme-vision>=1.2\",\n\"pandas\",\n");
    let image = on("vendor", &["-d", &list]);
    assert!(
        python(&image, "import acme_vision, pandas; print(acme_vision.__file__)").starts_with("/usr/local")
    );
    pip_agrees(&image);
}

#[test]
fn settings_of_a_base_neither_stop_the_server_nor_get_lost() {
    let image = on(
        "foreign",
        &["--apt", "tree", "--env", "QUOTED=a \"b\" \\c $HOME ${X:-y}", "--label", "org.x=$Y \"z\""],
    );
    let env: Vec<String> = serde_json::from_str(&image.inspect("{{json .Config.Env}}")).unwrap();
    for variable in [
        "PYTHONPATH=/srv/pythonpath",
        "ODD=it's \"quoted\", $HOME and \\ back\\slash",
        "QUOTED=a \"b\" \\c $HOME ${X:-y}",
    ] {
        assert!(env.iter().any(|found| found == variable), "{env:?}");
    }
    assert_eq!(image.inspect("{{index .Config.Labels \"org.x\"}}"), "$Y \"z\"");
    assert_eq!(
        image.inspect("{{json .Config.Entrypoint}} {{.Config.WorkingDir}} {{.Config.User}}"),
        "null /app 1000:1000"
    );
    assert!(image.run(&["sh", "-c", "command -v tree && command -v curl"]).contains("/usr/bin/curl"));
    serves(&image, "import odd_module; odd_module.__file__", "'/srv/pythonpath/odd_module.py'");
}

#[test]
fn ids_and_links_of_a_base_are_kept() {
    let image = on("ids", &["--uid", "1000", "--gid", "20"]);
    assert_eq!(
        image.run(&[
            "sh",
            "-c",
            "id -u; id -g; whoami; cat /home/dev/kept.txt >&2; test -O /app && echo own"
        ]),
        "1000\n20\nipybox\nown\n"
    );
    serves(&image, "import os; os.getuid()", "1000");
    is_first_for_login_shells(&image);
    let image = on("links", &[]);
    let links = image.run(&["sh", "-c", "readlink /opt /home /app; echo x >~/x && pwd"]);
    assert_eq!(links, "/var/opt\n/var/home\n/data/app\n/data/app\n");
    serves(&image, "1 + 1", "2");
    is_first_for_login_shells(&image);
    assert_eq!(image.run(&["readlink", "/etc/profile.d"]), "/var/profile.d\n");
}

#[test]
fn the_interpreter_that_has_packages_is_taken() {
    let code = "import six, sys; print(sys.base_prefix, six.__file__)";
    let (_folder, list) = list("six = \"*\"\n");
    let image = on("several", &["-d", &list]);
    assert_eq!(python(&image, code), "/opt/conda /opt/conda/lib/python3.11/site-packages/six.py");
    let image = on("several", &["-d", &list, "--base-python", "/usr/bin/python3"]);
    assert_eq!(python(&image, code), "/usr /opt/venv/lib/python3.11/site-packages/six.py");
    let image = on("venv", &["-d", &list]);
    assert_eq!(python(&image, code), "/usr /srv/app/env/lib/python3.11/site-packages/six.py");
    pip_agrees(&image);
    let said = refused(&[
        "-V",
        "any-base",
        "--name",
        "x",
        "--base",
        "ipybox-test-base:several",
        "--base-python",
        "/bin/python9",
    ]);
    assert!(said.contains("name one of /usr/bin/python3, /opt/conda/bin/python3"), "{said}");
}

#[test]
fn a_base_without_python_gets_one() {
    let (folder, list) = list("project = { path = \"project\" }\n");
    fs::create_dir(folder.path().join("project")).unwrap();
    let project = "[project]\nname = \"project\"\nversion = \"1\"\n";
    fs::write(folder.path().join("project/pyproject.toml"), project).unwrap();
    let image = on("bare", &["-d", &list]);
    assert!(image.said.contains("its distribution's own, 3.11.2, is installed"), "{}", image.said);
    let code = "import sys, importlib.metadata; sys.base_prefix, importlib.metadata.version('project')";
    serves(&image, code, "('/usr', '1')");
    let image = on("bare", &["--python-archive", &setting("IPYBOX_TEST_PYTHON_ARCHIVE")]);
    serves(&image, "import sys; sys.base_prefix", "'/opt/ipybox/python'");
    let said = refused(&["-V", "any-base", "--name", "x", "--base", "ipybox-test-base:busybox"]);
    assert!(said.contains("has no Python") && said.contains("--python-archive FILE"), "{said}");
}

#[test]
fn another_release_serves_as_well() {
    let image = on("trixie", &[]);
    serves(&image, "import sys; sys.version_info[:2]", "(3, 13)");
}

#[test]
fn an_extended_image_has_more_packages_and_everything_else_as_before() {
    let (_folder, first) = list("six = \"*\"\n");
    let image = on("numpy", &["-d", &first]);
    let (_folder, second) = list("attrs = \"*\"\nsix = \">=1\"\n");
    let more = extended("more", &image.tag, &["-d", &second, "--apt", "tree"]);
    let (_folder, third) = list("pandas = \"*\"\n");
    let most = extended("most", &more.tag, &["-d", &third]);
    for format in [
        "{{json .Config.Cmd}}",
        "{{json .Config.ExposedPorts}}",
        "{{.Config.User}}",
        "{{.Config.WorkingDir}}",
        "{{json .Config.Healthcheck}}",
    ] {
        assert_eq!(most.inspect(format), image.inspect(format));
    }
    assert_eq!(most.inspect("{{index .Config.Labels \"ipybox.dependencies\"}}"), "attrs pandas six");
    assert_eq!(python(&most, "import numpy, six, attr, pandas; print(numpy.__version__)"), "1.26.4");
    pip_agrees(&most);
    verify(&most);
    let (_folder, fourth) = list("attrs = \"<20\"\n");
    let said = refused(&["-V", "extend-base", "--name", "x", "--base", &most.tag, "-d", &fourth]);
    assert!(said.contains("has `attrs`"), "{said}");
}

#[test]
fn an_executor_that_somebody_built_by_hand_can_be_extended() {
    let (_folder, list) = list("attrs = \"*\"\n");
    let image = extended("seed", &base("seed"), &["-d", &list]);
    assert_eq!(
        image.inspect("{{json .Config.Cmd}}"),
        docker(&["inspect", "--format", "{{json .Config.Cmd}}", &base("seed")]).trim()
    );
    verify(&image);
    let container = Container::with_port(PORT, &image.tag, &[]);
    assert_eq!(container.execute("python", "w", "import attr; 'there'")["stdout"], "'there'");
    assert_eq!(container.ask("GET", "/health", "").1["executor"], "seed");

    let said = refused(&["-V", "extend-base", "--name", "x", "--base", &base("numpy")]);
    assert!(
        said.contains("no command that starts an executor server") && said.contains("no `ipykernel`"),
        "{said}"
    );
}

#[test]
fn a_variant_of_the_users_own_is_built_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    fs::create_dir_all(own.join("data/inner")).unwrap();
    fs::write(own.join("dependencies.txt"), "six = \"*\"\n").unwrap();
    fs::write(own.join("data/inner/odd name $(id).txt"), "inner").unwrap();
    fs::write(own.join("tool.sh"), "#!/bin/sh\necho tool\n").unwrap();
    fs::set_permissions(own.join("tool.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(
        own.join("variant.toml"),
        r#"description = "own"
extends = "any-base"
name = "own-name"
apt = ["tree"]
ports = [3000]
env = { OWN = "yes" }

[[copy]]
from = "data"
to = "/app/data"

[[copy]]
from = "tool.sh"
to = "/usr/local/bin/"

[[step]]
run = '''
echo "$(id -u) $(tool.sh) '\"" >/etc/root-step
test -r /app/data/inner/*.txt
'''
at = "foundation"

[[step]]
run = "echo $(id -u):$(id -g) >$HOME/user-step; python -c 'import six'"
as = "user"

[[check]]
name = "the tool is there"
command = "tool.sh; cat /etc/root-step ~/user-step"
prints = "tool"

[[check]]
name = "six is there"
code = "import six; print(six.__name__)"
prints = "six"
"#,
    )
    .unwrap();
    let variants = folder.path().to_str().unwrap();
    let (_other, extra) = list("copied");
    let copy = format!("{extra}:/srv/new/folder/file.txt");
    let image = Image::build_with(
        "own",
        ipybox().args(["build", "-V", "own", "--variants", variants, "--base", &base("numpy")]).args([
            "--no-bytecode",
            "--copy",
            &copy,
            "--verify",
            "--uid",
            "1000",
            "--gid",
            "1000",
        ]),
    );
    let shown = image.run(&["sh", "-c", "cat /etc/root-step ~/user-step /srv/new/folder/file.txt; stat -c '%u %a %n' /app/data/inner/* /usr/local/bin/tool.sh /srv/new; echo $OWN $EXECUTOR_NAME"]);
    let expected = "0 tool '\"\n1000:1000\ncopied1000 644 /app/data/inner/odd name $(id).txt\n0 755 /usr/local/bin/tool.sh\n0 755 /srv/new\nyes own-name\n";
    assert_eq!(shown, expected);
    assert!(image.inspect("{{json .Config.ExposedPorts}}").contains("3000/tcp"));
    assert!(
        image.said.contains("ok      the tool is there") && image.said.contains("ok      six is there"),
        "{}",
        image.said
    );
}

/// Builds an example on Debian's Python in place of the official one, and verifies it.
fn example(name: &str) {
    let variants = format!("{ROOT}/examples/executors");
    let arguments = ["build", "-V", name, "--variants", &variants, "--base", "ipybox-bootstrap:bookworm"];
    let image = Image::build_with(name, ipybox().args(arguments).args(["--verify", "--uid", "1000"]));
    assert!(!image.said.contains("FAILED"), "{}", image.said);
}

#[test]
fn the_example_base_is_what_it_promises() {
    example("base");
}

#[test]
#[ignore = "hundreds of megabytes from the index; diagram, remotion and cuda need hosts beside it"]
fn the_larger_examples_are_what_they_promise() {
    ["chemscout", "ml"].into_iter().for_each(example);
}

#[test]
fn a_step_that_fails_is_told_by_its_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("dependencies.txt"), "").unwrap();
    let lines = [
        "description = \"own\"",
        "extends = \"any-base\"",
        "name = \"own\"",
        "[[step]]",
        "run = \"\"\"",
        "cd /tmp",
        "false",
        "\"\"\"",
        "",
    ];
    // As a checkout on Windows has it.
    fs::write(own.join("variant.toml"), lines.join("\r\n")).unwrap();
    let variants = folder.path().to_str().unwrap();
    let said = refused(&["-V", "own", "--variants", variants, "--base", &base("numpy"), "--no-bytecode"]);
    assert!(!said.contains("can't cd") && said.contains("it runs `cd /tmp`, and 1 more"), "{said}");
}

#[test]
fn calls_at_once_and_output_without_end_stay_within_their_memory() {
    let image = on("numpy", &[]);
    let limit = ["--memory", "768m", "--memory-swap", "768m"];
    let container = Container::with_port(PORT, &image.tag, &limit);
    let begun = Instant::now();
    thread::scope(|scope| {
        for number in 0..50 {
            let container = &container;
            scope.spawn(move || {
                let (what, code) = if number % 2 == 0 {
                    ("python", format!("{number}"))
                } else {
                    ("bash", format!("printf {number}"))
                };
                let ran = container.execute(what, &format!("w{}", number % 5), &code);
                assert_eq!(
                    (&ran["stdout"], &ran["exit_code"]),
                    (&number.to_string().into(), &0.into()),
                    "{ran}"
                );
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let ran = container.execute("python", "w0", "print('x' * 400_000_000)");
    assert!(ran["stdout"].as_str().unwrap().ends_with("[OUTPUT TRUNCATED]"), "{}", ran["exit_code"]);
    let ran = container.execute("bash", "w0", "head -c 400000000 /dev/zero | tr '\\0' x");
    assert!(ran["stdout"].as_str().unwrap().contains("truncated 399900000 characters"));
    assert_eq!(container.ask("GET", "/health", "").1["status"], "ok");
    assert_eq!(
        docker(&["inspect", "--format", "{{.State.OOMKilled}} {{.State.Running}}", &container.id]),
        "false true\n"
    );
}

#[test]
fn the_executor_server_passes_its_own_tests() {
    let (_folder, list) = list("pytest = \"*\"\n");
    let image = on("numpy", &["-d", &list]);
    let mount = format!("{ROOT}/tests/runtime:/tests:ro");
    let build_files = format!("{ROOT}/templates/build:/build:ro");
    let container = Container::with_port(PORT, &image.tag, &["--volume", &mount, "--volume", &build_files]);
    container.pytest(&["/tests/test_executor.py", "/tests/test_build.py"]);
}
