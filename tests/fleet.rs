//! The images of an `ipybox.toml`: what is wrong with the file, and what becomes of them on a real engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod sandbox;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use engine::{base, docker, ipybox};
use sandbox::{Sandbox, refusal, text};

#[test]
fn every_mistake_of_a_file_is_told_with_its_line_before_anything_is_built() {
    for (name, file) in [
        (
            "circle",
            "[image.a]\nfrom = \"b\"\n\n[image.b]\nfrom = \"c\"\n\n[image.c]\nfrom = \"a\"\n\n[image.d]\nfrom = \"d\"\n",
        ),
        (
            "missing",
            "[image.minimal]\n\n[image.geo]\nfrom = \"minimall\"\n\n[image.other]\nfrom = \"nothing-like-it\"\n",
        ),
        (
            "same_tag",
            "[image.a]\nmatrix = { python = [\"3.12\", \"3.13\"] }\ntags = [\"latest\"]\n\n\
             [image.b]\nrepository = \"registry.invalid/one\"\n\n[image.c]\nrepository = \"registry.invalid/one\"\n",
        ),
        (
            "tags",
            "[fleet]\ntags = [\"{vesion}\", \"{nothing}\", \"{\", \"a b\", \"-x\", \"\"]\n\n[image.a]\ntags = []\n\n\
             [image.b]\ntags = \"latest\"\n",
        ),
        (
            "values",
            "[image.a]\ntags = [\"{version}-{python}\"]\n\n[image.b]\ntags = [\"{git.short}\"]\n\n\
             [image.c]\ntags = [\"{lock.short}\"]\n\n[image.d]\ntags = [\"{base}\"]\n",
        ),
        (
            "keys",
            "[fleet]\nverison = \"1\"\n\n[image.a]\ndependency = \"a.txt\"\nfrobnicate = 1\n\n[imagge.b]\n\n\
             [image.c]\nmatrix = { pythn = [\"3.12\"] }\ncopy = [{ source = \"x\", to = \"/y\" }]\n",
        ),
        (
            "kinds",
            "fleet = 1\n\n[image]\nx = 1\n\n[image.a]\nbase = 1\napt = \"curl\"\nroot = \"yes\"\nuid = 0\ngid = \"7\"\n\
             env = [\"A=1\"]\ncopy = \"a:b\"\nmatrix = 1\ntags = [1]\nlabels = { a = 1 }\n",
        ),
        (
            "contents",
            "[image.a]\nbase = \"UPPER\"\npython = \"2.7\"\nname = \"A b\"\napt = [\"curl;id\"]\ntools = \"me\"\n\
             env = { \"A B\" = \"x\", API_KEY = \"x\" }\nplatforms = [\"x\"]\nlock = \"lock.toml\"\ndependencies = [\"-\", \"\"]\n\
             copy = [{ from = \"a\", to = \"b\" }]\nfrom-source = [\"auto\", \"a b\"]\nrepository = \"x:1\"\n\
             labels = { \"ipybox.x\" = \"1\" }\nsecrets = [\"../x\"]\n\n[image.\"B:1\"]\n\n[image.\"registry.invalid/c\"]\n\n\
             [image.d]\nbase = \"oci:folder\"\n",
        ),
        (
            "beside",
            "[fleet]\nplatforms = [\"linux/amd64\"]\n\n[image.a]\n\n[image.b]\nfrom = \"a\"\nbase = \"x\"\n\
             matrix = { python = [\"3.12\"] }\n\n[image.c]\npython = \"3.12\"\nmatrix = { python = [\"3.12\"] }\nroot = true\nuid = 7\n\n\
             [image.d]\nfrom = \"a\"\nplatforms = [\"linux/arm64\"]\n\n[image.e]\nmatrix = {}\n",
        ),
        (
            "platforms",
            "[image.a]\nplatforms = [\"linux/amd64\"]\n\n[image.b]\nfrom = \"a\"\nplatforms = [\"linux/arm64\"]\n",
        ),
        (
            "variants",
            "[image.a]\nvariant = \"minimul\"\n\n[image.b]\nvariant = \"any-base\"\n\n[image.c]\nvariant = \"extend-base\"\n\n\
             [image.d]\nfrom = \"a\"\nroot = true\n\n[image.e]\nvariant = \"of-nobody\"\n",
        ),
        ("toml", "[image.a\nbase = x\n[image.b]\nname = \"a\"\nname = \"b\"\n"),
        ("empty", "# nothing\n"),
    ] {
        let sandbox = Sandbox::new();
        let output = sandbox.write("ipybox.toml", file).run(&["build"]);
        let all = format!("{}\n# ipybox.toml\n{file}", refusal(&output));
        insta::assert_snapshot!(format!("fleet_{name}"), all);
    }
}

#[test]
fn mistakes_in_lists_of_all_images_come_before_the_first_build() {
    let sandbox = Sandbox::new();
    let file = "[image.a]\ndependencies = \"a.txt\"\n\n[image.b]\ndependencies = \"b.txt\"\n\n[image.c]\n";
    sandbox.write("ipybox.toml", file).write("a.txt", "numpy = \">>1\"\n").write("b.txt", "six = \"=>1\"\n");
    insta::assert_snapshot!("fleet_lists", refusal(&sandbox.run(&["build"])));
}

#[test]
fn what_is_wrong_with_any_image_comes_before_the_first_build() {
    let sandbox = Sandbox::new();
    sandbox
        .write("list.txt", "six = \"*\"\n")
        .write("bad.txt", "six = \"=>1\"\n")
        .write("pylock.list.toml", "");
    let own = "description = \"x\"\nextends = \"kernel\"\n[[step]]\nrun = \"true\"\nsecrets = [\"token\"]\n";
    for variant in ["minimal", "kernel", "extend-base"] {
        let shipped = Path::new(engine::ROOT).join("variants").join(variant);
        fs::create_dir_all(sandbox.0.path().join("own").join(variant)).unwrap();
        for file in ["variant.toml", "dependencies.txt"] {
            sandbox.write(&format!("own/{variant}/{file}"), fs::read(shipped.join(file)).unwrap());
        }
    }
    fs::create_dir_all(sandbox.0.path().join("own/closed")).unwrap();
    sandbox.write("own/closed/variant.toml", own).write("own/closed/dependencies.txt", "");
    let file = "\
[fleet]
variants = \"own\"
platforms = [\"linux/amd64\", \"linux/arm64\", \"linux/riscv64\"]

[image.list]
dependencies = \"bad.txt\"

[image.secret]
variant = \"closed\"
secrets = [\"token\"]

[image.other]
from = \"list\"
platforms = [\"linux/riscv64\"]

[image.one]
dependencies = \"list.txt\"
lock = \"pylock.list.toml\"

[image.two]
variant = \"kernel\"
dependencies = \"list.txt\"
lock = \"pylock.list.toml\"
";
    sandbox.write("ipybox.toml", file);
    let output = sandbox.run(&["build", "--secret", "id=stray,env=HOME"]);
    let architecture = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    insta::assert_snapshot!(
        "fleet_inputs",
        refusal(&output).replace(&format!("be for {architecture}"), "be for HERE")
    );
    // The platform that is asked for is for all of them.
    let said = text(&sandbox.run(&["build", "other", "--platform", "linux/riscv64"]).stderr);
    assert!(!said.contains("would be for") && said.contains("1 of 2 images"), "{said}");
}

#[test]
fn tags_tell_of_the_lock_and_the_day_of_the_build() {
    let sandbox = Sandbox::new();
    let file = "[image.a]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\ntags = [\"{lock.short}\"]\n";
    fs::create_dir(sandbox.0.path().join("there")).unwrap();
    sandbox.write("there/ipybox.toml", file).write("pylock.minimal-linux-arm64.toml", "");
    let build = |platform: &str| {
        sandbox.run(&["build", "--file", "there/ipybox.toml", "--platform", platform]).status.code().unwrap()
    };
    // The lock of a variant's own list is beside the file, and each platform has its own; there is no engine here.
    assert_eq!((build("linux/amd64"), build("linux/arm64")), (1, 1));
    sandbox.write("there/pylock.minimal-linux-arm64.toml", "");
    assert_eq!((build("linux/amd64"), build("linux/arm64")), (1, 75));
    sandbox.write("ipybox.toml", "[image.a]\ntags = [\"{date}\"]\n");
    for time in ["soon", "-1", "253402300800"] {
        let output = sandbox.command(&["build"]).env("SOURCE_DATE_EPOCH", time).output().unwrap();
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(&format!("`SOURCE_DATE_EPOCH` is `{time}`")),
            "{said}"
        );
    }
    let output = sandbox.command(&["build"]).env("SOURCE_DATE_EPOCH", "253402300799").output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
}

#[test]
fn one_image_and_a_fleet_are_told_apart() {
    let sandbox = Sandbox::new();
    // Without the file all is as it was.
    let told = |arguments: &[&str]| {
        let output = sandbox.run(arguments);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, said) = told(&["build", "sandbox"]);
    assert!(code == 2 && said.contains("ipybox build -t sandbox") && said.contains("ipybox init"), "{said}");
    let (code, said) = told(&["build", "--file", "other.toml"]);
    assert!(code == 1 && said.contains("cannot read `other.toml`"), "{said}");
    sandbox.write("ipybox.toml", "[image.a\n");
    let is_of_fleet = |said: &str| said.contains("ipybox.toml:1");
    assert!(is_of_fleet(&told(&["build"]).1));
    assert!(is_of_fleet(&told(&["build", "a", "--force", "--no-cache"]).1));
    for one in
        [["build", "-t", "x"], ["build", "-V", "minimal"], ["build", "--base", "x"], ["build", "--apt", "jq"]]
    {
        let (code, said) = told(&one);
        assert!(code == 75 && !said.contains("ipybox.toml"), "{one:?}: {said}");
    }
    for variable in ["IPYBOX_TAG", "IPYBOX_BASE", "IPYBOX_COPY"] {
        let mut command = sandbox.command(&["build"]);
        let value = if variable == "IPYBOX_COPY" { "ipybox.toml:/x" } else { "x" };
        let said = text(&command.env(variable, value).output().unwrap().stderr);
        assert!(!is_of_fleet(&said), "{variable}: {said}");
        assert!(said.contains("in place of those of `ipybox.toml`"), "{variable}: {said}");
        let mut command = sandbox.command(&["build", "a"]);
        let output = command.env(variable, value).output().unwrap();
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(&format!("`{variable}` describes")),
            "{said}"
        );
    }
    // What a variable turns off describes nothing.
    for (variable, value) in [("IPYBOX_ROOT", "0"), ("IPYBOX_NO_BYTECODE", "false"), ("IPYBOX_PUSH", "off")] {
        let output = sandbox.command(&["build"]).env(variable, value).output().unwrap();
        assert!(is_of_fleet(&text(&output.stderr)), "{variable}: {}", text(&output.stderr));
    }
    let (code, said) = told(&["build", "a", "--apt", "jq"]);
    assert!(code == 2 && said.contains("`--apt` describes one image"), "{said}");
    sandbox.write("ipybox.toml", "[image.a]\n[image.\"b\"]\nplatforms = [\"linux/amd64\"]\n");
    let (code, said) = told(&["build", "aa", "c"]);
    assert!(code == 2 && said.contains("no image `aa`") && said.contains("no image `c`"), "{said}");
    let (code, said) = told(&["build", "--build-arg", "MODEL=x"]);
    assert!(code == 2 && said.contains("`--build-arg MODEL` describes one image"), "{said}");
    let (code, said) = told(&["build", "--platform", "linux/arm64"]);
    assert!(code == 2 && said.contains("`b` is not for linux/arm64"), "{said}");
    let (code, said) = told(&["build", "--jobs", "0"]);
    assert!(code == 2, "{said}");
}

#[test]
fn a_first_file_is_written_once() {
    let sandbox = Sandbox::new();
    sandbox.write("dependencies.txt", "six = \"*\"\n").write("requirements-dev.txt", "rich\n");
    sandbox.write("notes.txt", "No list at all, but words.\n").write("pylock.toml", "");
    let output = sandbox.run(&["init"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("`dependencies.txt`, `requirements-dev.txt`"),
        "{}",
        text(&output.stderr)
    );
    let written = sandbox.read("ipybox.toml");
    assert!(
        written.contains("[image.dev]\n") && written.contains("Versions are those of pylock.toml"),
        "{written}"
    );
    let output = sandbox.run(&["init"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("--force"));
    sandbox.write("ipybox.toml", "");
    assert!(sandbox.run(&["init", "--force"]).status.success());
    assert_eq!(sandbox.read("ipybox.toml"), written);
    // What is written is right; there is no engine here.
    assert_eq!(sandbox.run(&["build"]).status.code(), Some(75));
    let schema: serde_json::Value =
        serde_json::from_slice(&sandbox.run(&["init", "--schema"]).stdout).unwrap();
    assert_eq!(schema["title"], "ipybox.toml");
}

/// A folder with a fleet, whose images are gone when the test is over.
struct Fleet {
    folder: tempfile::TempDir,
    prefix: String,
}

impl Fleet {
    /// `NAME` in the text stands for what is in front of every name.
    fn new(name: &str, text: &str) -> Self {
        let fleet = Self {
            folder: tempfile::tempdir().unwrap(),
            prefix: format!("ipybox-test-{}-{name}", std::process::id()),
        };
        fleet.write("ipybox.toml", &text.replace("NAME", &fleet.prefix).replace("BASE", &base()));
        fleet
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn build(&self, arguments: &[&str]) -> Output {
        let mut command = ipybox();
        command.arg("build").args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    fn id(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.prefix);
        let output = Command::new("docker").args(["inspect", "--format", "{{.Id}}", &name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What is said, with this run's names taken out.
    fn said(&self, output: &Output) -> String {
        text(&output.stderr).replace(&format!("{}-", self.prefix), "")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let listed = Command::new("docker").args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        for image in listed.lines().filter(|image| image.starts_with(&format!("{}-", self.prefix))).rev() {
            let _ = Command::new("docker").args(["rmi", "--force", image]).output();
        }
    }
}

const THREE: &str = "\
[fleet]
version = \"1.0\"
variants = \"own\"

[image.NAME-more]
from = \"NAME-one\"
variant = \"extend-base\"
dependencies = \"more.txt\"

[image.NAME-one]
variant = \"kernel\"
base = \"BASE\"
dependencies = \"none.txt\"
tags = [\"{version}\", \"latest\"]

[image.NAME-other]
variant = \"kernel\"
base = \"BASE\"
dependencies = \"none.txt\"
env = { A = \"1\" }
";

/// Variants like the shipped ones, and one that fails.
fn three(name: &str) -> Fleet {
    let fleet = Fleet::new(name, THREE);
    for variant in ["kernel", "extend-base"] {
        let shipped = Path::new(engine::ROOT).join("variants").join(variant);
        for file in ["variant.toml", "dependencies.txt"] {
            fleet.write(&format!("own/{variant}/{file}"), &fs::read_to_string(shipped.join(file)).unwrap());
        }
    }
    fleet.write("none.txt", "");
    fleet.write("more.txt", "six = \"*\"\n");
    fleet
}

#[test]
fn images_are_built_in_their_order_and_once() {
    let fleet = three("order");
    // What there is to do is no failure that stops others.
    let check = fleet.build(&["--check", "--fail-fast"]);
    let said = fleet.said(&check);
    assert_eq!(check.status.code(), Some(3), "{said}");
    for name in ["one:1.0", "other:latest"] {
        assert!(said.contains(&format!("{name} is not there yet")), "{said}");
    }
    assert_eq!(fleet.id("one"), "");
    let output = fleet.build(&["--jobs", "2"]);
    let said = fleet.said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\n3 built in "), "{said}");
    // Each line says whose it is.
    let all = said.lines().count();
    let named = said
        .lines()
        .filter(|line| ["one | ", "more | ", "other | "].iter().any(|name| line.starts_with(name)));
    assert_eq!(named.count(), all - 1, "{said}");
    let ids = text(&output.stdout).replace(&format!("{}-", fleet.prefix), "");
    let told = format!("one {}\nmore {}\nother {}\n", fleet.id("one"), fleet.id("more"), fleet.id("other"));
    assert_eq!(ids, told);
    assert_eq!(fleet.id("one"), fleet.id("one:1.0"));
    let layers = |name: &str| docker(&["inspect", "--format", "{{json .RootFS.Layers}}", &fleet.id(name)]);
    assert!(layers("more").starts_with(layers("one").trim().trim_end_matches(']')));
    assert_eq!(
        docker(&["run", "--rm", "--label", "ipybox.test", &fleet.id("one"), "id", "-u"]).trim(),
        "1000"
    );

    let again = fleet.build(&[]);
    assert!(fleet.said(&again).contains("\n3 up to date in "), "{}", fleet.said(&again));
    assert_eq!(text(&again.stdout), text(&output.stdout));
    assert_eq!(fleet.build(&["--check"]).status.code(), Some(0));

    // One image alone, and what it is built on.
    fleet.write("more.txt", "six = \"*\"\nidna = \"*\"\n");
    let check = fleet.build(&["--check", "--message-format", "json"]);
    assert_eq!(check.status.code(), Some(3));
    let lines: Vec<serde_json::Value> =
        text(&check.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["image"] == format!("{}-more", fleet.prefix).as_str()), "{lines:?}");
    let other = fleet.build(&[&format!("{}-other", fleet.prefix)]);
    assert!(fleet.said(&other).contains("\n1 up to date in "), "{}", fleet.said(&other));
    let more = fleet.build(&[&format!("{}-more", fleet.prefix)]);
    let said = fleet.said(&more);
    assert!(said.contains("\n1 built, 1 up to date in ") && said.contains("idna"), "{said}");
    // By options it is one image as ever.
    let name = format!("{}-x", fleet.prefix);
    let one =
        fleet.build(&["-V", "kernel", "-d", "none.txt", "--base", &base(), "--check", "-t", &name, "--root"]);
    assert!(fleet.said(&one).contains("x is not there yet"), "{}", fleet.said(&one));

    let dry = fleet.build(&["--dry-run"]);
    let printed = text(&dry.stdout).replace(&format!("{}-", fleet.prefix), "");
    assert!(printed.starts_with("one:\n") && printed.contains("tag more:latest\n"), "{printed}");
}

#[test]
fn what_fails_takes_with_it_only_what_is_built_on_it() {
    let fleet = three("failing");
    fleet.write(
        "own/broken/variant.toml",
        "description = \"x\"\nextends = \"kernel\"\n[[step]]\nrun = \"exit 7\"\n",
    );
    fleet.write("own/broken/dependencies.txt", "");
    let file = fs::read_to_string(fleet.folder.path().join("ipybox.toml")).unwrap();
    let broken = file.replacen("variant = \"kernel\"", "variant = \"broken\"", 1);
    fleet.write("ipybox.toml", &broken);
    let dry = fleet.build(&["--dry-run"]);
    let printed = text(&dry.stdout).replace(&format!("{}-", fleet.prefix), "");
    assert!(printed.contains("more:\nbuild on one, once that is there\n"), "{printed}");
    let output = fleet.build(&[]);
    let said = fleet.said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\n1 built, 1 failed, 1 not begun in "), "{said}");
    assert!(
        said.contains("2 of 3 images are not there")
            && said.contains("`more` is built on `one`, `one` failed"),
        "{said}"
    );
    assert!(said.contains("one | error: ") && said.contains("exit 7"), "{said}");
    assert!(!fleet.id("other").is_empty() && fleet.id("one").is_empty() && fleet.id("more").is_empty());
    // The other is there already, so that one that is begun alone stops the rest.
    let output = fleet.build(&["--fail-fast", "--jobs", "1", "--force"]);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && !said.contains("1 built"), "{said}");
}

/// The platform of this host.
fn here() -> String {
    docker(&["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"]).trim().to_owned()
}

#[test]
fn images_of_a_matrix_need_no_lock_and_have_their_own() {
    let file = "[image.NAME-each]\nvariant = \"kernel\"\ndependencies = \"list.txt\"\ntags = [\"{base}\"]\n\
                matrix.base = { one = \"BASE\", two = \"BASE\" }\n";
    let fleet = Fleet::new("matrix", file);
    fleet.write("list.txt", "six = \"<1.17\"\n");
    // Equal images are one, which none of two builds at once takes from the other.
    let output = fleet.build(&["--reproducible", "--jobs", "2"]);
    let said = fleet.said(&output);
    assert!(output.status.success() && said.contains("2 built in "), "{said}");
    assert_eq!(fleet.id("each:one"), fleet.id("each:two"));
    let lock = format!("pylock.{}-each-one.toml", fleet.prefix);
    let arguments = ["lock", "-V", "kernel", "-d", "list.txt", "--base", &base(), "--lock", &lock];
    engine::run(ipybox().args(arguments).current_dir(fleet.folder.path()));
    let output = fleet.build(&[]);
    let said = fleet.said(&output);
    assert!(output.status.success() && said.contains("1 built, 1 up to date in "), "{said}");
    assert!(said.contains("each-one | built "), "{said}");
    // Proofs of images that are there take turns as well.
    let log = fleet.folder.path().join("log");
    let mut proving = ipybox();
    proving
        .args(["build", "--verify", "--jobs", "1", "--progress", "plain"])
        .current_dir(fleet.folder.path());
    let mut proving = proving.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let proofs = || fs::read_to_string(&log).unwrap().matches("verifying the image").count();
    let begun = Instant::now();
    while proofs() == 0 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(3));
    engine::run(Command::new("kill").args(["-INT", &proving.id().to_string()]));
    assert_eq!(proving.wait().unwrap().code(), Some(130));
    assert_eq!(proofs(), 1, "{}", fs::read_to_string(&log).unwrap());
}

#[test]
fn images_that_share_a_lock_bring_it_up_to_date_once() {
    let of = |name: &str, more: &str| {
        format!(
            "[image.NAME-{name}]\nvariant = \"kernel\"\nbase = \"BASE\"\ndependencies = \"list.txt\"\n\
             env = {{ A = \"{name}\" }}\nplatforms = [\"{}\"]\n{more}\n",
            here()
        )
    };
    let file = of("one", "") + &of("two", "");
    let fleet = Fleet::new("locks", &file);
    fleet.write("list.txt", "six = \"*\"\n");
    let lock = format!("pylock.list-{}.toml", here().replace('/', "-"));
    let arguments =
        ["lock", "-V", "kernel", "-d", "list.txt", "--base", &base(), "--platform", &here(), "--lock", &lock];
    let make = || engine::run(ipybox().args(arguments).current_dir(fleet.folder.path()));
    make();
    fleet.write("list.txt", "six = \"*\"\nidna = \"*\"\n");
    let output = fleet.build(&["--jobs", "2"]);
    let said = fleet.said(&output);
    assert!(output.status.success() && said.contains("2 built in "), "{said}");
    assert_eq!(said.matches("is brought up to date").count(), 1, "{said}");
    let written = fs::read_to_string(fleet.folder.path().join(&lock)).unwrap();
    assert!(written.contains("generation = 1\n"), "{written}");

    // A tag that tells of the lock wants it as it is to be.
    let told = file.replacen("env = ", "tags = [\"{lock.short}\"]\nenv = ", 1);
    fleet.write("ipybox.toml", &told.replace("NAME", &fleet.prefix).replace("BASE", &base()));
    fleet.write("list.txt", "six = \"*\"\n");
    let output = fleet.build(&[]);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("2 failed in "), "{said}");
    assert_eq!(said.matches("`{lock.short}` in a tag of the image tells its digest").count(), 2, "{said}");
    assert_eq!(fs::read_to_string(fleet.folder.path().join(&lock)).unwrap(), written);
    make();
    let output = fleet.build(&[]);
    assert!(output.status.success(), "{}", fleet.said(&output));
}

#[test]
fn what_is_built_on_another_is_for_its_platform_and_nobody_is_asked_for_it() {
    let fleet = three("platform");
    let file = fs::read_to_string(fleet.folder.path().join("ipybox.toml")).unwrap();
    let other = "platforms = [\"linux/riscv64\"]\ndependencies = \"more.txt\"";
    fleet.write("ipybox.toml", &file.replacen("dependencies = \"more.txt\"", other, 1));
    let output = fleet.build(&[&format!("{}-more", fleet.prefix)]);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("1 built, 1 failed in "), "{said}");
    assert!(said.contains("and not for linux/riscv64") && said.contains("the same `platforms`"), "{said}");
}
