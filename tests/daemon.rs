//! What real images do, on a real engine. A missing engine is a failure.
//!
//! `scripts/test` names the base image (`IPYBOX_TEST_BASE`) and the folder of the clients'
//! environments (`IPYBOX_TEST_CLIENTS`), and makes both where they are not there. `scripts/test --all` runs
//! the ignored ones, too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests are configured through the environment")]

mod engine;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use engine::{
    Container, Image, ROOT, base, client_with_buildkit, docker, ipybox, list, python_with, run, setting,
};

#[test]
fn basic_runs_code_keeps_state_loses_nothing_and_stops_at_once() {
    let image = Image::build("basic", &["-V", "basic"]);
    let container = Container::start(&image.tag, &[]);
    let shorts: Vec<String> = (0..100).map(|number| format!("print({number})")).collect();
    let mut cells = vec![
        "import numpy, pandas, sympy, matplotlib.pyplot; x = numpy.arange(7)",
        "print(x.sum(), pandas.Series(x).max(), sympy.Symbol('y') + 1)",
        "1 / 0",
        "print('after the error')",
        "print('x' * 5_000_000)",
        "import os; print(os.getcwd(), os.environ['HOME'], os.environ['PATH'].split(':')[0], os.getuid())",
        "!python -c 'import sys; print(sys.prefix)' && pip --version && touch /app/file /opt/venv/file",
    ];
    cells.extend(shorts.iter().map(String::as_str));
    let outcomes = container.cells(&cells);
    let text = |index: usize| outcomes[index].as_str().unwrap_or_default();
    assert_eq!(text(1), "21 6 y + 1");
    assert_eq!(outcomes[2]["error"], "ZeroDivisionError: division by zero");
    assert_eq!(text(3), "after the error");
    assert_eq!(text(4).len(), 5_000_000);
    let uid = rustix::process::getuid().as_raw();
    let uid = if uid == 0 { 1000 } else { uid };
    assert_eq!(text(5), format!("/app /home/ipybox /opt/venv/bin {uid}"));
    assert!(text(6).starts_with("/opt/venv") && text(6).contains("from /opt/venv/lib"), "{}", text(6));
    for (number, outcome) in outcomes[cells.len() - shorts.len()..].iter().enumerate() {
        assert_eq!(outcome, &number.to_string());
    }

    let mut busy = container.client().spawn().unwrap();
    busy.stdin.take().unwrap().write_all(br#"["import time; time.sleep(100)"]"#).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let stopped = container.stop();
    assert!(stopped < Duration::from_secs(2), "took {stopped:?}");
    let _ = busy.kill();
    let _ = busy.wait();
}

#[test]
#[ignore = "two more variants"]
fn example_and_eval_are_what_they_promise() {
    for variant in ["example", "eval"] {
        let image = Image::build(variant, &["-V", variant, "--verify"]);
        assert!(image.said.contains("ok      every dependency can be imported"), "{}", image.said);
        assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={}", image.id)]), "");
    }
}

#[test]
#[ignore = "the same servers under another user"]
fn an_image_that_runs_as_root_is_what_it_promises() {
    let (_folder, list) = list("");
    let image = Image::build("verified-root", &["-d", &list, "--root", "--verify"]);
    assert!(image.said.contains("ok      the firewall holds"), "{}", image.said);
}

/// Drives an image with one of the real clients; each script tells what it tries.
fn drive(client: &str, script: &str, image: &Image) {
    let mut command = Command::new(python_with(client));
    let output = command.arg(format!("{ROOT}/tests/clients/{script}")).arg(&image.tag).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client}: {}\n{printed}\n{said}", output.status);
}

#[test]
fn minimal_serves_ipybox_0_6() {
    drive("ipybox-0.6", "with_ipybox_0_6.py", &Image::build("ipybox-0.6", &[]));
}

#[test]
#[ignore = "the same interface as 0.6, but for one function"]
fn minimal_serves_ipybox_0_3() {
    drive("ipybox-0.3", "with_ipybox_0_3.py", &Image::build("ipybox-0.3", &[]));
}

#[test]
#[ignore = "it uses the client of ipybox"]
fn minimal_serves_freeact() {
    drive("freeact", "with_freeact.py", &Image::build("freeact", &[]));
}

#[test]
fn kernel_serves_smolagents() {
    drive("smolagents", "with_smolagents.py", &Image::build("smolagents", &["-V", "kernel", "--verify"]));
}

/// Builds on an image with the plain client, and verifies the result, which must fail.
fn verify_with(image: &Image, name: &str, instructions: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let certificate = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
    fs::write(folder.path().join("company.pem"), certificate).unwrap();
    fs::write(folder.path().join("Dockerfile"), format!("FROM {}\n{instructions}\n", image.tag)).unwrap();
    let tag = Image::tag(name);
    let mut build = Command::new(client_with_buildkit().join("docker"));
    run(build.args(["build", "-t", &tag, "."]).current_dir(folder.path()).env("DOCKER_BUILDKIT", "1"));
    let broken = Image { id: String::new(), said: String::new(), tag };
    let output = ipybox().args(["verify", &broken.tag]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={}", broken.tag)]), "");
    printed
}

#[test]
fn what_is_broken_in_an_image_is_named() {
    let (_folder, list) = list("six = \"*\"\n");
    let image = Image::build("whole", &["-d", &list, "--uid", "1000", "--gid", "1000"]);
    let lib = "/opt/ipybox/lib/ipybox";
    let printed = verify_with(
        &image,
        "broken",
        &format!(
            "USER 0\nRUN rm /opt/ipybox/server/etc/jupyter/jupyter_kernel_gateway_config.py \
             && sed -i 's/\"stop_on_error\"\\] = False/\"stop_on_error\"] = True/' {lib}/kernel.py \
             && pip uninstall -yq six && chown 0 /opt/venv/bin/pip\nCOPY company.pem /app/\n\
             ENV INDEX_PASSWORD=hunter2\nUSER 1000:1000"
        ),
    );
    for (check, cause) in [
        ("no secret in environment and history", "`INDEX_PASSWORD` has a value"),
        ("an output of 5 MB is complete", "of 5000000 bytes arrived"),
        ("a cell right after an error runs", "did not run"),
        ("every dependency can be imported", "six: is not installed"),
        ("files belong to whom they should", "/opt/venv/bin/pip: does not belong to 1000:0"),
        ("no secret or certificate in files", "/app/company.pem: holds a certificate"),
    ] {
        let mut lines = printed.lines().skip_while(|line| !line.contains(check));
        assert!(lines.next().is_some_and(|line| line.starts_with("FAILED")), "{check}: {printed}");
        assert!(lines.next().unwrap().contains(cause), "{check}: {printed}");
    }
    assert!(!printed.contains("hunter2"));

    let printed = verify_with(&image, "dying", &format!("USER 0\nRUN rm -r {lib}/resource\nUSER 1000:1000"));
    assert!(printed.contains("FAILED  servers answer"), "{printed}");
    assert!(printed.contains("ipybox.resource") && printed.contains("not run everything else"), "{printed}");

    let python = "/opt/ipybox/server/bin/python -I -m";
    let printed = verify_with(
        &image,
        "half-dead",
        &format!(
            "CMD {python} kernel_gateway --ip=0.0.0.0 --port=8888 & exec {python} ipybox.resource.server"
        ),
    );
    assert!(printed.contains("FAILED  the end of a server ends the container"), "{printed}");
}

#[test]
fn an_image_that_fails_its_variants_own_check_gets_no_tag() {
    let folder = tempfile::tempdir().unwrap();
    let variant = folder.path().join("own");
    fs::create_dir(&variant).unwrap();
    let kernel = fs::read_to_string(format!("{ROOT}/variants/kernel/variant.toml")).unwrap();
    let check = "\n[[check]]\nname = \"the answer is 42\"\ncode = \"print(6 * 9)\"\nprints = \"42\"\n";
    fs::write(variant.join("variant.toml"), kernel + check).unwrap();
    fs::write(variant.join("dependencies.txt"), "").unwrap();
    let tag = Image::tag("unproved");
    let mut build = ipybox();
    build.args(["build", "--base", &base(), "-V", "own", "--verify", "--tag", &tag]);
    let output = build.arg("--variants").arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED  the answer is 42") && said.contains("54"), "{said}");
    assert_eq!((docker(&["images", "--quiet", &tag]).as_str(), output.stdout.len()), ("", 0));
}

#[test]
fn the_second_build_sends_little_and_a_rendered_context_gives_the_same() {
    let first = Image::build("minimal", &[]);
    let second = Image::build("minimal-again", &[]);
    assert_eq!(first.id, second.id);
    let sent = second.said.lines().find_map(|line| line.strip_prefix("sent ")).unwrap();
    let (number, _) = sent.split_once(" kB").expect("less than a megabyte is sent");
    assert!(number.parse::<u32>().unwrap() < 200, "{sent}");
    let steps = second.said.lines().filter(|line| line.contains("] RUN ")).count();
    assert_eq!((steps, second.said.matches(" cached").count() >= 5), (3, true), "{}", second.said);

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("context");
    run(ipybox().args(["render", "--base", &base(), "--out"]).arg(&out));
    let dockerfile = fs::read_to_string(out.join("Dockerfile")).unwrap();
    let command = dockerfile.lines().next().unwrap().strip_prefix("# ").unwrap();
    let tag = Image::tag("rendered");
    // The command as it stands, with a tag, by a client that has BuildKit.
    let command = command.strip_suffix(" .").unwrap().to_owned() + &format!(" -t {tag} .");
    let path = format!("{}:{}", client_with_buildkit().display(), setting("PATH"));
    run(Command::new("sh").args(["-ec", &command]).current_dir(&out).env("PATH", path));
    let rendered = Image { id: String::new(), said: String::new(), tag };
    for format in
        ["{{json .Config.Cmd}}", "{{json .Config.Env}}", "{{.Config.User}}", "{{json .Config.ExposedPorts}}"]
    {
        assert_eq!(rendered.inspect(format), first.inspect(format));
    }
    assert_eq!(rendered.layers(), first.layers());
    let container = Container::start(&rendered.tag, &[]);
    assert_eq!(container.cells(&["print(6 * 7)"]), ["42"]);
}

#[test]
fn programs_read_what_became_of_a_build() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (_folder, list) = list("");
    let tag = Image::tag("dry");
    let asked = ["build", "-V", "kernel", "-d", &list, "--base", &base(), "--tag", &tag];
    let output = ipybox().args(asked).arg("--dry-run").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = told.lines().filter(|line| !line.starts_with("load ")).collect();
    assert!(lines[0].starts_with(&format!("build kernel on {} (", base())), "{told}");
    let tagged = format!("tag {tag}");
    let steps = ["  install system packages", "  install the servers", "  install the packages"];
    assert_eq!(lines[1..], [&steps[..], &[tagged.as_str()]].concat());
    assert_eq!(docker(&["images", "--quiet", &tag]), "");

    let missing = path("missing/id");
    let refused = ipybox().args(asked).args(["--iidfile", &missing]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("missing/id"), "{said}");
    assert!(!said.contains("RUN"), "it is found out before the build: {said}");

    let (id, metadata) = (path("id"), path("metadata.json"));
    fs::write(&id, "of another build").unwrap();
    let output = ipybox().args(["build", "--base", "127.0.0.1:9/none", "--iidfile", &id]).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!std::path::Path::new(&id).exists(), "of a build that failed there is no file");
    let asked =
        ["-V", "kernel", "-d", &list, "--network", "host", "--iidfile", &id, "--metadata-file", &metadata];
    let image = Image::build("outcome", &asked);
    assert_eq!(fs::read_to_string(id).unwrap(), image.id);
    let told: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!((told["version"].as_u64(), told["image"].as_str()), (Some(1), Some(image.id.as_str())));
    assert_eq!(
        (told["tags"][0].as_str(), told["variant"].as_str()),
        (Some(image.tag.as_str()), Some("kernel"))
    );
    let layers = told["layers"].as_array().unwrap();
    assert_eq!(layers.last().unwrap()["step"], "install the packages");
    assert!(layers.iter().all(|layer| layer["bytes"].as_u64().unwrap() > 0));
    assert!(told["seconds"]["build"].as_f64().unwrap() <= told["seconds"]["total"].as_f64().unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing unfinished is left");
}

#[test]
fn neither_certificates_nor_proxies_nor_the_installer_stay_in_the_image() {
    let mark = format!("ipybox-mark-{:x}", std::process::id() ^ 0x5eed_c0de);
    let (folder, list) = list("six = \"*\"\n");
    let certificates = folder.path().join("ca.pem");
    let host = std::env::var("SSL_CERT_FILE").unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let bundle = fs::read_to_string(host).unwrap();
    fs::write(&certificates, format!("# {mark}\n{bundle}")).unwrap();
    let mut command = ipybox();
    command.args(["build", "--base", &base(), "-d", &list, "--no-cache", "--ca-cert"]).arg(&certificates);
    let image = Image::build_with("clean", command.env("NO_PROXY", format!("{mark}.invalid")));

    assert!(!image.said.contains(&mark));
    assert!(!docker(&["history", "--no-trunc", &image.tag]).contains(&mark));
    assert!(!docker(&["inspect", &image.tag]).contains(&mark));
    // It would be found, were it there.
    assert_eq!(image.saved_holds(&[mark.as_bytes(), b"/opt/ipybox/server"]), [false, true]);
    let find = "find / -xdev -name uv -o -xdev -name uvx -o -xdev -path '*ipybox/ca*'";
    let names =
        docker(&["run", "--rm", "--user", "0", "--label", "ipybox.test", &image.tag, "sh", "-c", find]);
    assert_eq!(names, "");
}

#[test]
fn builds_without_cache_from_two_folders_have_equal_layers() {
    let list = "numpy = \"^2.2\"\nrich = \"*\"\n";
    let build = |name, how: &[&str]| {
        let (folder, _) = self::list(list);
        let mut command = ipybox();
        command.args(["build", "--base", &base(), "-d", "dependencies.txt"]).args(how);
        Image::build_with(name, command.current_dir(folder.path()))
    };
    let (first, second) =
        (build("first", &["--no-cache"]), build("second", &["--no-cache", "--reproducible"]));
    assert_ne!(first.id, second.id, "the second build was not a build of its own");
    assert_eq!(first.layers(), second.layers());
    // With one time in their configuration they are the same image, and that one runs.
    let first = build("first", &["--reproducible"]);
    assert_eq!(first.id, second.id);
    assert_eq!(first.inspect("{{.Created}}"), "1980-01-01T00:00:00Z");
    assert_eq!(first.run(&["python", "-c", "import rich; print(1)"]), "1\n");
    assert!(build("first", &["--reproducible"]).said.contains("up to date"));
}

/// Commits everything in a folder to a repository of its own.
fn commit(folder: &Path) {
    for arguments in [["init", "-q", "."].as_slice(), &["add", "--all"], &["commit", "-qm", "x"]] {
        let who = ["-c", "user.name=x", "-c", "user.email=x@host.invalid"];
        run(Command::new("git").args(who).args(arguments).current_dir(folder));
    }
}

fn project(folder: &Path, name: &str, module: &str) {
    fs::create_dir_all(folder.join(name)).unwrap();
    fs::write(folder.join(name).join("__init__.py"), module).unwrap();
    let text = format!(
        "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
         [project]\nname = \"{name}\"\nversion = \"1.2\"\ndependencies = [\"six\"]\n\
         [project.optional-dependencies]\nmore = [\"tomli\"]\n[tool.setuptools]\npackages = [\"{name}\"]\n"
    );
    fs::write(folder.join("pyproject.toml"), text).unwrap();
}

#[test]
fn projects_become_wheels_and_alternatives_are_tried() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    project(&path("a folder/sub dir"), "ours", "where = 'folder'");
    project(&path("repository/lib"), "theirs", "where = 'repository'");
    fs::create_dir_all(path("a folder/.git")).unwrap();
    commit(&path("repository"));
    let list = format!(
        "ours = {{ path = \"a folder\", subdirectory = \"sub dir\", extras = [\"more\"], develop = true }}\n\
         theirs = {{ git = \"file://{}\", subdirectory = \"lib\" }}\n\
         rich = \">=99 || ^13\"\nattrs = \"<20 || >=23.1 || 22.*\"\ncolorama = {{ version = \"*\", platform = \"win32\" }}\n",
        path("repository").display()
    );
    fs::write(path("dependencies.txt"), list).unwrap();
    let hash = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254";
    fs::write(path("pinned.txt"), format!("-c bounds.txt\nsix==1.16.0 --hash=sha256:{hash}\n")).unwrap();
    fs::write(path("bounds.txt"), "tomli<2.1\nunrelated<1\n").unwrap();
    let arguments = [
        "build",
        "-V",
        "kernel",
        "--base",
        &base(),
        "--no-cache",
        "-d",
        "dependencies.txt",
        "-d",
        "pinned.txt",
    ];
    let build = |name| Image::build_with(name, ipybox().args(arguments).current_dir(folder.path()));
    let (first, second) = (build("projects"), build("projects-again"));
    assert_eq!(first.layers(), second.layers());
    assert!(first.said.contains("trying the next"), "{}", first.said);
    let script = "import ours, theirs, tomli, importlib.metadata as m; \
                  print(ours.where, theirs.where, *(m.version(n) for n in ('rich', 'attrs', 'six', 'tomli')))";
    let printed = first.run(&["python", "-c", script]);
    let words: Vec<_> = printed.split_whitespace().collect();
    assert_eq!(words[..2], ["folder", "repository"]);
    assert!(words[2].starts_with("13.") && !words[3].starts_with("22."), "{printed}");
    assert_eq!(words[4..], ["1.16.0", "2.0.2"]);
    assert_eq!(
        first.run(&[
            "sh",
            "-c",
            "ls -d /wheels /dev/ipybox 2>/dev/null; pip list 2>/dev/null | grep -c colorama || true"
        ]),
        "0\n"
    );

    let wrong = hash.replace('8', "9");
    fs::write(path("pinned.txt"), format!("six==1.16.0 --hash=sha256:{wrong}\n")).unwrap();
    let tag = Image::tag("wrong-hash");
    let output = ipybox().args(arguments).args(["-t", &tag]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the file of `six` is not the one that was promised"), "{said}");
}

/// What a script of the clients' interpreter serves as a package index with one distribution.
const INDEX: &str = r#"
import http.server, pathlib, sys, zipfile
folder = pathlib.Path("simple/ours")
folder.mkdir(parents=True)
with zipfile.ZipFile(folder / "ours-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("ours-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    wheel.writestr("ours-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("ours-1.0.dist-info/RECORD", "")
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

#[test]
fn the_installer_asks_the_indexes_that_a_list_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Command::new(python_with("ipybox-0.6"));
    server.args(["-c", INDEX]).current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = server.spawn().unwrap();
    let mut port = String::new();
    let mut printed = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut printed, &mut port).unwrap();
    let url = format!("http://127.0.0.1:{}/simple", port.trim());
    let source = |priority: &str| {
        format!(
            "[tool.poetry.dependencies]\nours = {{ version = \"^1\", source = \"inner\" }}\nsix = \"*\"\n\
             [[tool.poetry.source]]\nname = \"inner\"\nurl = \"{url}\"\npriority = \"{priority}\"\n"
        )
    };
    for (number, list) in
        [source("explicit"), format!("--extra-index-url {url}\nours\nsix\n")].iter().enumerate()
    {
        fs::write(folder.path().join("list"), list).unwrap();
        let out = folder.path().join(format!("context-{number}"));
        run(ipybox()
            .args(["render", "--base", &base(), "-d"])
            .arg(folder.path().join("list"))
            .arg("--out")
            .arg(&out));
        let mut uv = Command::new(out.join("uv"));
        uv.args(["pip", "compile", "--no-header", "--no-annotate", "01/pyproject.toml"]);
        uv.current_dir(out.join("request")).env("UV_CONFIG_FILE", "uv.toml");
        let resolved = run(&mut uv);
        assert!(resolved.contains("ours==1.0\n") && resolved.contains("six=="), "{list}: {resolved}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn the_user_has_the_ids_that_were_asked_for_even_where_they_are_taken() {
    let (_folder, list) = list("");
    let script = "id -u; id -g; whoami; echo $HOME; pwd; touch ~/x /app/x /opt/venv/x && echo writable";
    for (name, arguments, expected) in [
        (
            "taken",
            ["--uid", "33", "--gid", "20"].as_slice(),
            "33\n20\nipybox\n/home/ipybox\n/app\nwritable\n",
        ),
        (
            "free",
            &["--uid", "12345", "--gid", "54321"],
            "12345\n54321\nipybox\n/home/ipybox\n/app\nwritable\n",
        ),
        ("gid-0", &["--uid", "1000", "--gid", "0"], "1000\n0\nipybox\n/home/ipybox\n/app\nwritable\n"),
        ("root", &["--root"], "0\n0\nroot\n/root\n/app\nwritable\n"),
    ] {
        let image = Image::build(name, &[&["-V", "kernel", "-d", &list], arguments].concat());
        assert_eq!(image.run(&["sh", "-c", script]), expected, "for {arguments:?}");
        if name == "taken" {
            let owners = image.run(&[
                "sh",
                "-c",
                "stat -c '%u:%g' /opt/venv/bin/pip /opt/ipybox/server /opt/ipybox/lib",
            ]);
            assert_eq!(owners, "33:0\n0:0\n0:0\n");
            let container = Container::start(&image.tag, &["--cap-drop", "ALL"]);
            assert_eq!(container.cells(&["print(1 + 1)"]), ["2"]);
        }
    }
}

#[test]
fn a_failed_build_says_why_and_leaves_no_tag() {
    // Unknown versions, a project that is published as source alone, one that nobody has published, two that do not
    // go together, and one that does not go together with the image. None of them gets new versions.
    for (variant, list, told) in [
        ("kernel", "six = \"*\"\ntoml = \"^99\"\n", "version"),
        ("kernel", "docopt = \"0.6.2\"\n", "wheel"),
        ("kernel", "ipybox-has-no-such-package = \"*\"\n", "unknown"),
        ("kernel", "ipywidgets = \"7.7.1\"\nsix = \"*\"\nwidgetsnbextension = \"^4\"\n", "conflict"),
        ("minimal", "pydantic = \"^1.10\"\n", "image"),
    ] {
        let (_folder, list) = self::list(list);
        let tag = Image::tag("failed");
        let limit = if told == "wheel" { "never" } else { "auto" };
        let arguments =
            ["build", "--progress", "quiet", "-V", variant, "--base", &base(), "-d", &list, "-t", &tag];
        let output = ipybox().args(arguments).args(["--from-source", limit]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
        // What the installer said stands before it, and has versions that come and go.
        let refusal =
            said.find("error: `").or_else(|| said.find("error: there is")).map_or("", |at| &said[at..]);
        insta::assert_snapshot!(format!("refused_{told}"), refusal.replace(&list, "dependencies.txt"));
        assert_eq!(docker(&["images", "--quiet", &tag]), "");
    }
}

#[test]
fn a_proxy_reaches_the_steps() {
    let (_folder, list) = list("");
    let tag = Image::tag("proxy");
    // Builds share a step that runs in both, whatever their proxies are: no other build has one on this base.
    let own = Image::commit("proxied", None, &["LABEL ipybox.test.proxy=\"\""]);
    let mut command = ipybox();
    command.args(["build", "-V", "kernel", "--base", &own.tag, "-d", &list, "-t", &tag, "--no-cache"]);
    // Nobody listens there, so that a step that heard of it cannot reach the index.
    let output = command.env("HTTPS_PROXY", "http://127.0.0.1:9").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("the package index does not answer"), "{said}");
    assert_eq!(docker(&["images", "--quiet", &tag]), "");
}

/// Interrupts a command once `until` is said, or after a second; it must end at once.
fn interrupt(command: &mut Command, until: Option<&str>, signal: &str, code: i32) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while until.is_some_and(|until| !line.contains(until)) {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0);
    }
    std::thread::sleep(Duration::from_millis(if until.is_some() { 500 } else { 1500 }));
    let begun = Instant::now();
    run(Command::new("kill").args([signal, &child.id().to_string()]));
    // What it says until it ends must be read, or it could not say it.
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code));
    assert!(begun.elapsed() < Duration::from_secs(4), "took {:?}", begun.elapsed());
}

/// Containers of an image, whatever became of them.
fn containers_of(image: &Image) -> String {
    docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={}", image.id)])
}

#[test]
fn an_interrupted_build_ends_in_the_engine_and_leaves_nothing() {
    let (folder, list) = list("pandas = \"*\"\n");
    let tag = Image::tag("interrupted");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut build = ipybox();
        build.args(["build", "-V", "kernel", "--base", &base(), "-d", &list, "-t", &tag, "--no-cache"]);
        interrupt(&mut build, Some("RUN install the servers"), signal, code);
        assert_eq!(docker(&["images", "--quiet", &tag]), "");
    }
    // The same while a base is asked for its facts: its Python does not answer.
    let script = folder.path().join("python3");
    fs::write(&script, "#!/bin/sh\nsleep 50\n").unwrap();
    run(Command::new("chmod").arg("755").arg(&script));
    let silent = Image::commit("silent", Some((&script, "/usr/local/bin/python3")), &[]);
    let mut plan = ipybox();
    plan.args(["build", "-V", "kernel", "--base", &silent.tag, "-d", &list, "-t", &tag]);
    interrupt(&mut plan, None, "-INT", 130);
    assert_eq!(containers_of(&silent), "");
    // A process that is killed cannot remove its container. The next one does, once its time is over.
    let until = "ipybox.until=1";
    let left = docker(&["create", "--label", "ipybox.test", "--label", until, &silent.tag, "true"]);
    interrupt(&mut plan, None, "-TERM", 143);
    assert_eq!(containers_of(&silent), "", "{left}");
}

#[test]
fn a_base_with_settings_of_its_own_is_built_on_all_the_same() {
    let odd = r#"/a b:/c"d:/e\f:/$HOME:/${X:-y}:/usr/bin:/bin:/it's#:/§"#;
    let folder = tempfile::tempdir().unwrap();
    let settings = "[project]\nname = \"x\"\nversion = \"1\"\n[tool.uv]\nrequired-version = \"==0.0.1\"\n";
    fs::write(folder.path().join("pyproject.toml"), settings).unwrap();
    let quoted = odd.replace('\\', r"\\").replace('"', "\\\"").replace('$', "\\$");
    let dockerfile = format!(
        "FROM {}\nCOPY pyproject.toml /app/\nENV PATH=\"{quoted}\"\nUSER 65534\nWORKDIR /tmp\n\
         STOPSIGNAL SIGQUIT\nHEALTHCHECK CMD false\nENTRYPOINT [\"/bin/false\"]\nSHELL [\"/bin/false\"]\n",
        base()
    );
    fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    let tag = Image::tag("odd-base");
    let client = client_with_buildkit().join("docker");
    let mut build = Command::new(client);
    run(build.args(["build", "-t", &tag, "."]).current_dir(folder.path()).env("DOCKER_BUILDKIT", "1"));
    let odd_base = Image { tag, id: String::new(), said: String::new() };
    assert!(odd_base.inspect("{{json .Config.Env}}").contains("it's"));
    let short = odd_base.inspect("{{.Id}}").replace("sha256:", "")[..12].to_owned();
    // The name it is built on under would keep it in the engine.
    let _private = Image { tag: format!("ipybox-base:{short}"), id: String::new(), said: String::new() };

    let (_folder, list) = list("");
    let mut command = ipybox();
    let image = Image::build_with(
        "odd",
        command.args(["build", "-V", "kernel", "--base", &odd_base.tag, "-d", &list]),
    );
    let env: Vec<String> = serde_json::from_str(&image.inspect("{{json .Config.Env}}")).unwrap();
    assert!(env.contains(&format!("PATH=/opt/venv/bin:{odd}")), "{env:?}");
    let container = Container::start(&image.tag, &[]);
    assert_eq!(container.cells(&["print(2 + 2)"]), ["4"]);
    assert!(container.stop() < Duration::from_secs(2));
}

#[test]
fn the_files_of_the_image_pass_their_own_tests() {
    let (_folder, list) = list("httpx = \"*\"\npytest = \"*\"\n");
    let image = Image::build("runtime", &["-d", &list]);
    let mount = format!("{ROOT}/tests/runtime:/tests:ro");
    let container = Container::start(&image.tag, &["--volume", &mount]);
    let others = ["--ignore=/tests/test_executor.py", "--ignore=/tests/test_build.py", "/tests"];
    container.pytest(&others);
}

#[test]
fn a_step_that_fails_tells_no_password_of_a_proxy_and_commands_no_runner() {
    let folder = tempfile::tempdir().unwrap();
    let variant = folder.path().join("mine");
    fs::create_dir(&variant).unwrap();
    let step = "echo '::error::forged'; echo '  ##[group]forged'; env | grep -i proxy; exit 3";
    let text = format!(
        "description = \"mine\"\nextends = \"kernel\"\n[[step]]\nat = \"foundation\"\nrun = {step:?}\n"
    );
    fs::write(variant.join("variant.toml"), text).unwrap();
    fs::write(variant.join("dependencies.txt"), "").unwrap();
    let mut command = ipybox();
    command.args(["build", "-V", "mine", "--base", &base(), "-t", &Image::tag("password"), "--variants"]);
    // An address that the steps before do not need, so that they are cached.
    command
        .arg(folder.path())
        .env("FTP_PROXY", "http://user:s3cret%21@127.0.0.1:9")
        .env("GITHUB_ACTIONS", "true");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("own step 1 of the variant `mine` failed") && said.contains("FTP_PROXY=http://***"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    let mut heard = true;
    for line in said.lines() {
        assert!(!line.contains("##["), "{line}");
        if let Some(token) = line.strip_prefix("::stop-commands::") {
            assert!(heard && said.contains(&format!("\n::{token}::")));
            heard = false;
        } else if line.starts_with("::ipybox-") {
            heard = true;
        } else {
            let is_ours = line.starts_with("::group::#") || line == "::endgroup::";
            assert!(!heard || is_ours || !line.trim_start().starts_with("::"), "{line}");
        }
    }
    assert!(heard);
}

#[test]
fn a_gateway_on_another_port_is_proved_with_its_firewall() {
    let folder = tempfile::tempdir().unwrap();
    let variant = folder.path().join("mine");
    fs::create_dir(&variant).unwrap();
    let text = "description = \"mine\"\nextends = \"kernel\"\napt = [\"iptables\"]\n[[server]]\nport = 9000\ninterface = \"gateway\"\n\
                command = [\"kernel_gateway\", \"--ip=0.0.0.0\", \"--port=9000\"]\n";
    fs::write(variant.join("variant.toml"), text).unwrap();
    fs::write(variant.join("dependencies.txt"), "").unwrap();
    let variants = folder.path().to_str().unwrap();
    let image = Image::build("port-9000", &["-V", "mine", "--variants", variants, "--verify"]);
    assert!(image.said.contains("ok      the firewall holds"), "{}", image.said);
    let refused = ipybox().args(["verify", &image.tag]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("the variant `mine`, which is not known here") && said.contains("--variants DIR"),
        "{said}"
    );
}

/// What `tmux` shows of a build in a terminal of so many columns, once the build is over.
fn watched(columns: &str, list: &str) -> String {
    let tag = Image::tag("watched");
    let command = ipybox();
    let program = command.get_program().to_str().unwrap().to_owned();
    let cache =
        command.get_envs().find(|(name, _)| *name == "IPYBOX_CACHE_DIR").unwrap().1.unwrap().to_owned();
    let build = format!(
        "IPYBOX_CACHE_DIR='{}' CI= GITHUB_ACTIONS= {program} build -V kernel --base {} -d {list} -t {tag}; echo ended; sleep 60",
        cache.display(),
        base()
    );
    let socket = format!("ipybox-test-{}-{columns}", std::process::id());
    let tmux = |arguments: &[&str]| engine::run(Command::new("tmux").args(["-L", &socket]).args(arguments));
    tmux(&["new-session", "-d", "-x", columns, "-y", "24", &build]);
    let begun = Instant::now();
    let screen = loop {
        let screen = tmux(&["capture-pane", "-p", "-S", "-100"]);
        if screen.lines().any(|line| line == "ended") {
            break screen;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{screen}");
        std::thread::sleep(Duration::from_millis(100));
    };
    tmux(&["kill-server"]);
    Command::new("docker").args(["rmi", &tag]).output().unwrap();
    screen
}

#[test]
#[ignore = "needs tmux; scripts/test --all runs it"]
fn a_build_leaves_its_steps_on_terminals_of_every_width() {
    let (_folder, list) = list("httpx = \"*\"\n");
    let _built = Image::build("unwatched", &["-V", "kernel", "-d", &list]);
    let joined = |columns| {
        let screen = watched(columns, &list);
        assert!(!screen.contains("building the image") && !screen.contains("run     "), "{screen}");
        let steps = screen
            .lines()
            .filter(|line| line.starts_with("cached  "))
            .map(|line| line.chars().take(30).collect());
        steps.collect::<Vec<String>>()
    };
    let wide = joined("132");
    assert!(wide.iter().any(|line| line == "cached  install the packages"), "{wide:?}");
    assert_eq!(joined("80"), wide);
    assert_eq!(joined("40"), wide);
}

#[test]
fn a_build_that_changes_nothing_does_nothing_and_others_say_why() {
    let (folder, list) = list("numpy = \"^2.2\"\nidna = \"*\"\n");
    let tag = Image::tag("fresh");
    let build = |more: &[&str]| {
        let mut command = ipybox();
        command
            .args(["build", "-V", "kernel", "--no-bytecode", "--base", &base(), "-d", &list, "-t", &tag])
            .args(more);
        let output = command.output().unwrap();
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        (output.status.code().unwrap(), id, String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, said) = build(&["--check"]);
    assert!(code == 3 && said.contains(&format!("{tag} is not there yet")), "{said}");
    let (_, id, said) = build(&[]);
    assert!(said.contains("built ") && said.contains("since there is no lock"), "{said}");
    let image = Image { tag: tag.clone(), id: id.clone(), said };
    let up_to_date = |list_text: &str| {
        fs::write(&list, list_text).unwrap();
        let (code, again, said) = build(&[]);
        assert_eq!((code, &again), (0, &id), "{said}");
        assert!(said.contains("up to date") && !said.contains('#'), "{said}");
        assert_eq!(build(&["--check"]).0, 0);
    };
    up_to_date("numpy = \"^2.2\"\nidna = \"*\"\n");
    up_to_date("# another order, and a comment\nidna = \"*\"\n\nnumpy = \"^2.2\"\n");

    // A further tag of the same plan is a name, and no build.
    let other = Image::tag("fresh-too");
    let (_, again, said) = build(&["-t", &other]);
    assert!(again == id && said.contains("tagged") && !said.contains('#'), "{said}");
    let _other = Image { tag: other, id: id.clone(), said };

    fs::write(&list, "numpy = \"^2.3\"\nrich = \"*\"\n").unwrap();
    let id_file = folder.path().join("id");
    fs::write(&id_file, "of the last build").unwrap();
    let asked = ["--check", "--env", "MODE=s3cret", "--apt", "tree", "--iidfile", id_file.to_str().unwrap()];
    let (code, _, said) = build(&asked);
    assert_eq!(fs::read_to_string(&id_file).unwrap(), "of the last build");
    assert_eq!(code, 3, "{said}");
    for change in [
        &format!("numpy: >=2.2,<3.0 → >=2.3,<3.0 ({list}:1)") as &str,
        &format!("rich is new ({list}:2)"),
        "idna is gone",
        "the Debian package `tree` is new",
        "the variable `MODE` is new",
    ] {
        assert!(said.contains(change), "{change}: {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    let mut diff = ipybox();
    diff.args(["plan", "-V", "kernel", "--no-bytecode", "--base", &base(), "-d", &list, "--json", "--diff"]);
    let told: serde_json::Value = serde_json::from_str(&run(diff.arg(&tag))).unwrap();
    let paths = told["changes"].as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap());
    assert!(paths.clone().any(|path| path == "packages.requirements.numpy"), "{told}");
    assert_eq!(image.inspect("{{.Id}}"), id);

    // What was made of the image has its labels, and is another.
    fs::write(&list, "numpy = \"^2.2\"\nidna = \"*\"\n").unwrap();
    let container = docker(&["create", "--label", "ipybox.test", &tag, "true"]);
    docker(&["commit", "--change", "ENV X=1", container.trim(), &tag]);
    docker(&["rm", container.trim()]);
    let (code, _, said) = build(&["--check"]);
    assert!(code == 3 && said.contains("was changed since"), "{said}");
    let (_, again, said) = build(&[]);
    assert_eq!(again, id, "{said}");
    let (_, _, said) = build(&["--force"]);
    assert!(said.contains('#') && said.contains("built "), "{said}");
    drop(folder);
}
