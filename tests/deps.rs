//! What a person sees of `ipybox deps`: meanings, and mistakes with their places, reasons and fixes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sandbox;

use std::fs;

use sandbox::{Sandbox, refusal, text};

/// What is said of each list, as one snapshot.
fn said(lists: &[(&str, &str)]) -> String {
    let mut all = String::new();
    for (name, list) in lists {
        let sandbox = Sandbox::new();
        let output = sandbox.write(name, list).run(&["deps", name]);
        all += &format!(
            "# {name}\n{}\n# {}\n",
            list.escape_debug().to_string().replace("\\n", "\n"),
            refusal(&output)
        );
    }
    all
}

#[test]
fn mistakes_in_poetry_lines_are_explained_all_at_once() {
    for (name, list) in [
        (
            "constraints",
            "numpy = \">>2.2\"\npandas = \"=>1\"\nscipy = \"^1 || oops\"\nhttpx = \"1 ||\"\nrich = \"\"\n\
             six = \">1.14<2\"\nattrs = \"<>1\"\nruff = \"~>1.0\"\nmypy = \"^1.*\"\nuv = \">=1.0+local\"\nblack = \"1,,2\"\n",
        ),
        (
            "toml",
            "sympy ^1\nscipy: \"^1\"\nrequests==2.0 # pinned\nnumpy = \"^2\nhttpx = \"1\",\nrich\n= \"1\"\n\
             pandas = “^2”\nattrs[x] = \"^1\"\n",
        ),
        ("more_toml", "six => \"1\"\n\"a\" = \"^1\",\nb = { version = ^2 }\nc = [\n"),
        (
            "tables",
            "a = { version = \"1\", extra = [\"x\"] }\nb = { extras = \"x\", version = \"1\" }\n\
             c = { optional = true }\nd = { version = 1 }\ne = 1.5\nf = { version = \"1\", colour = \"red\" }\n\
             g = { version = \"1\", markers = \"python_versoin > '3'\" }\nh = { version = \"1\", platform = \">=x\" }\n\
             i = { verison = \"1\" }\nj = { version = \"1\", optional = \"true\" }\nk = { version = \"1\", extras = [1, \"a b\"] }\n\
             l = []\nm = [[\"1\"]]\nn = { version = \"1\", python = \">3,<2\" }\no = { version = true }\np = { version = \"1\", optional = 3 }\n",
        ),
        (
            "names",
            "numpy = \"1\"\nNumPy = \"2\"\nzope.interface = \"5\"\n\"a b\" = \"1\"\n\"-x\" = \"1\"\nnumpy = \"3\"\n",
        ),
        (
            "sources",
            "a = { git = \"https://host.invalid/a\", ref = \"v1\" }\nb = { git = \"../b\" }\nc = { git = \"git+https://host.invalid/c\" }\n\
             d = { git = \"https://host.invalid/d\", version = \"1\" }\ne = { url = \"ftp://host.invalid/e\" }\nf = { path = \"\" }\n\
             g = { path = \"g\", url = \"https://host.invalid/g\" }\nh = { file = \"h\", develop = true }\n\
             i = { git = \"https://host.invalid/i\", branch = \"--upload-pack=x\" }\nj = { path = \"j\", subdirectory = \"../k\" }\n\
             k = { git = \"https://me:secret@host.invalid/k.git@main\" }\nm = { git = \"me:secret@host.invalid:m\" }\nl = { version = \"1\", branch = \"x\" }\n",
        ),
        (
            "hostile",
            "\"$(touch x)\" = \"*\"\n\"a\\nRUN id\" = \"1\"\nnumpy = \"1; rm -rf /\"\n\
             b = { version = \"1\", markers = \"os_name == 'a\\nRUN id'\" }\nc = \"1\\u001b[31m\"\n\
             d = { git = \"https://host.invalid/d\", branch = \"a\\n--index-url=x\" }\n",
        ),
    ] {
        insta::assert_snapshot!(format!("poetry_{name}"), said(&[("dependencies.txt", list)]));
    }
}

#[test]
fn mistakes_in_quoted_requirements_are_explained_all_at_once() {
    insta::assert_snapshot!(said(&[(
        "dependencies.txt",
        "\"numpy>=2.2,<3\",\n\"pandas^2\",\n\"scipy~1\",\n\"a @ https:/x\",\n\"b; python_version\",\n\"c[x\",\n\"numpy\",\n42,\n\
         \"$(id)\",\n\"python>=3.11\",\n\"d>=2\"\n\"e (>=1\",\n\"f[a b]\",\n\"g @ https://host.invalid/g.whl x\",\n\"h~=1\",\n\
         \"i>=1\u{a0}\",\n\"j>=1\u{200b}\",\nk = \"^1\",\n\"l; os_name == 'a\\\\\\\\b'\",\nrich,\n\"m; os_name = 'nt'\",\n",
    )]));
}

#[test]
fn mistakes_in_requirements_files_are_explained_all_at_once() {
    insta::assert_snapshot!(said(&[
        (
            "requirements.txt",
            "-r missing.txt\n-r https://host.invalid/x.txt\n-r requirements.txt\n--index-url nowhere\n\
             --extra-index-url https://me:${IPYBOX_UNSET}@host.invalid/x\n-i https://me:secret@host.invalid/x\n\
             numpy==2.2.0 --hash=sha256:aaaa\nnumpy>=2 --hash=sha256:0123456789012345678901234567890123456789012345678901234567890123\n\
             ./local\n-e numpy\nscipy ^2\nfoo = \"^1\"\n\"bar>=1\",\n--pre --hash=x\nbaz>=1 --index-url x\n--pre pandas\n",
        ),
        (
            "more.txt",
            "--trusted-host x\n--no-index\n-f links\n--no-binary :all:\n--idex-url=https://host.invalid/simple\n--index https://host.invalid/\n--pre=1\n\
             --wat\n-r\na --hash='\nhttps://\nsvn+https://host.invalid/x#egg=x\nb==1 # fine\n./x.whl ; os_name == nt\n\
             python>=3\npandas>=2 scipy\n./a-1.0.tar.gz --hash=sha256:0123456789012345678901234567890123456789012345678901234567890123\n",
        ),
        ("hashes.txt", "--require-hashes\nnumpy==2.2.0\n"),
    ]));
}

#[test]
fn mistakes_in_projects_and_scripts_are_explained_all_at_once() {
    insta::assert_snapshot!(said(&[
        (
            "pyproject.toml",
            "numpy = \"1\"\n[project]\ndependancies = [\"a\"]\nrequires-python = \">=3.12,<3.10\"\ndependencies = [\"b^1\", 3, \"c\" \"d\"]\n\
             dynamic = [\"dependencies\"]\n[projct]\n[tool.poetry.dependancies]\nx = \"1\"\n[tool.uv.sources]\nb = { workspace = true }\n",
        ),
        (
            "more/../pyproject.toml",
            "[project]\ndependencies = \"b\"\n[tool.poetry.dependencies]\nx = \"=>1\"\n[[tool.poetry.source]]\nurl = \"https://host.invalid/\"\n\
             [[tool.poetry.source]]\nname = \"y\"\nurl = \"https://host.invalid/\"\npriority = \"explict\"\n",
        ),
        ("script.py", "# /// script\n# dependancies = [\"a\"]\n# wat = 1\n# dependencies = [\"b^1\", \"python>=3\"]\n# ///\n"),
        ("open.py", "# /// script\n# dependencies = []\nimport x\n"),
        ("two.py", "# /// script\n# ///\n# /// script\n# ///\n"),
        ("blank.py", "# /// script\n#dependencies = [\"a\"]\n# ///\n"),
    ].map(|(name, list)| (name.trim_start_matches("more/../"), list))));
}

#[test]
fn lists_of_other_tools_are_told_in_one_sentence() {
    insta::assert_snapshot!(said(&[
        (
            "setup.py",
            "from setuptools import setup\nsetup(\n    name=\"x\",\n    install_requires=[\"numpy>=2\", \"pandas\"],\n)\n"
        ),
        ("Pipfile", "[[source]]\nurl = \"https://host.invalid/\"\n[packages]\nrequests = \"*\"\n"),
        ("environment.yml", "name: x\nchannels:\n  - conda-forge\ndependencies:\n  - numpy\n"),
        ("list.json", "[\n  \"numpy\",\n  \"pandas\"\n]\n"),
        ("command.txt", "pip install numpy pandas\n"),
        ("merge.txt", "a>=1\n<<<<<<< HEAD\nb>=1\n=======\nb>=2\n>>>>>>> x\n"),
        ("fence.md", "```\nnumpy\n```\n"),
        ("table.txt", "[dependencies]\nnumpy = \"1\"\n"),
        ("plain.py", "import numpy\nprint(1)\n"),
        ("requires.txt", "install_requires=[\n  \"numpy\",\n],\n"),
    ]));
}

#[test]
fn groups_and_extras_that_are_not_there_are_refused() {
    let sandbox = Sandbox::new();
    let project = "[project]\ndependencies = []\n[project.optional-dependencies]\nviz = []\n\
                   [dependency-groups]\ntest = [{ include-group = \"lnt\" }, { x = 1 }]\nlint = [{ include-group = \"lint\" }]\nbad = 3\n\
                   [tool.poetry.extras]\npg = [\"psycopg\"]\n";
    sandbox.write("pyproject.toml", project).write("list.txt", "a = \"1\"\n");
    for (name, arguments) in [
        ("unknown", ["pyproject.toml", "--group", "tst", "--extra", "vis", "--extra", "pg"].as_slice()),
        ("broken", &["pyproject.toml", "--group", "test", "--group", "lint", "--group", "bad"]),
        ("none", &["list.txt", "--group", "test", "--extra", "x"]),
    ] {
        let output = sandbox.run(&[&["deps"], arguments].concat());
        insta::assert_snapshot!(format!("selection_{name}"), refusal(&output));
    }
}

const LIST: &str = "python = \">=3.11,<4.0\"\nnumpy = \"^2.2\"\npandas = { version = \"<1.5 || >=2.1\", extras = [\"b\", \"a\"] }\n\
                    scipy = { version = \"*\", optional = true }\ng = { git = \"git@host.invalid:g/h.git\", tag = \"v1\" }\n";

#[test]
fn meanings_are_printed_in_three_forms() {
    let sandbox = Sandbox::new();
    sandbox.write("dependencies.txt", LIST);
    let print =
        |arguments: &[&str]| text(&sandbox.run(&[&["deps", "dependencies.txt"], arguments].concat()).stdout);
    insta::assert_snapshot!("deps_pep508", print(&[]));
    insta::assert_snapshot!("deps_json", print(&["--format", "json"]));
    let output = sandbox.run(&["deps", "dependencies.txt", "--format", "requirements"]);
    insta::assert_snapshot!("deps_requirements_refused", refusal(&output));
    sandbox.write(
        "requirements.txt",
        "-i https://host.invalid/simple\nnumpy==2.2.0 --hash=sha256:0123456789012345678901234567890123456789012345678901234567890123\n",
    );
    let output = sandbox.run(&["deps", "requirements.txt", "--format", "requirements"]);
    assert_eq!(text(&output.stdout), sandbox.read("requirements.txt").replace("-i ", "--index-url "));
}

#[test]
fn mistakes_are_told_to_programs_too() {
    let sandbox = Sandbox::new();
    sandbox.write("a,b.txt", "ä = \"1\"\nnumpy = \"=>1\"\n");
    for format in ["json", "github"] {
        let output = sandbox.run(&["deps", "a,b.txt", "--message-format", format]);
        insta::assert_snapshot!(format!("message_{format}"), refusal(&output));
    }
}

#[test]
fn what_has_one_answer_is_mended_and_nothing_else() {
    let sandbox = Sandbox::new();
    let check = |name: &str| sandbox.run(&["deps", "--check", name]).status.code();
    let broken =
        "# mine\nnumpy = \"=>1\" # keep\nscipy ^1 # me\nrich = { version = \"1\", extra = [\"x\"] }\r\n";
    sandbox
        .write("all.txt", broken)
        .write("some.txt", "a = \"=>1\"\nb = \"oops\"\n")
        .write("right.txt", "a = \"1\"\n");
    assert_eq!([check("all.txt"), check("some.txt"), check("right.txt")], [Some(3), Some(1), Some(0)]);
    let output = sandbox.run(&["deps", "--fix", "all.txt"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), "mended 3 mistakes\n".to_owned()));
    let mended = "# mine\nnumpy = \">=1\" # keep\nscipy = \"^1\" # me\nrich = { version = \"1\", extras = [\"x\"] }\r\n";
    assert_eq!(sandbox.read("all.txt"), mended);
    let output = sandbox.run(&["deps", "--fix", "some.txt"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(sandbox.read("some.txt"), "a = \">=1\"\nb = \"oops\"\n");
    assert_eq!(sandbox.run(&["deps", "--fix", "right.txt"]).status.code(), Some(0));
    assert_eq!(sandbox.run(&["deps", "--fix", "-"]).status.code(), Some(2));
    // What is mended twice would be mended wrongly, and what turns into another form is left alone.
    for astray in [
        "[group.dev.dependencies]\nx = \"1\"\n",
        "a.b.c = \"^1\"\nfoo.bar = ^2\n",
        "a = [\n  {version = \"1\"},\nb = \"1\"\n",
    ] {
        sandbox.write("astray.txt", astray);
        let output = sandbox.run(&["deps", "--fix", "astray.txt"]);
        assert_eq!(output.status.code(), Some(1), "{astray}");
    }
}

#[test]
fn no_list_takes_long() {
    let repeated = |piece: &str, number: usize| piece.repeat(number);
    let lines = |number, line: fn(usize) -> String| (0..number).map(line).collect::<Vec<_>>().concat();
    for (name, list) in [
        ("alternatives.txt", format!("a = \"{}\"\n", repeated("<1||>=2,<3||", 40_000))),
        ("zeros.txt", format!("a = \"<2{} || >=9\"\n", repeated(".0", 400_000))),
        ("names.txt", lines(60_000, |at| format!("a{at} = \"1\"\n"))),
        ("duplicates.txt", repeated("a>=1\n", 200_000)),
        ("quoted.txt", repeated("\"a^1\",", 160_000)),
        ("brackets.txt", format!("a = {}", repeated("[", 900_000))),
        ("marker.txt", format!("a; {}os_name == 'x'", repeated("(", 900_000))),
        ("continued.txt", repeated("\\\n", 450_000)),
        (
            "pyproject.toml",
            format!(
                "[dependency-groups]\n{}",
                lines(30_000, |at| format!("a{at} = [{{ include-group = \"a{}\" }}]\n", at + 1))
            ),
        ),
        (
            "long.toml",
            format!(
                "[dependency-groups]\n{} = []\nb = [{{ include-group = \"{}\" }}]\n",
                repeated("x", 450_000),
                repeated("y", 450_000)
            ),
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write(name, &list);
        let begun = std::time::Instant::now();
        let group: &[&str] = match name {
            "long.toml" => &["--group", "b"],
            "pyproject.toml" => &["--group", "a0"],
            _ => &[],
        };
        let arguments = ["deps", "--message-format", "json", "--format", "json", name];
        let output = sandbox.run(&[&arguments, group].concat());
        assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {}", output.status);
        // Unoptimized code on a busy machine; a quadratic would take minutes.
        assert!(begun.elapsed().as_secs() < 20, "{name}: {:?}", begun.elapsed());
    }
}

#[test]
fn what_projects_say_to_uv_counts_or_is_refused() {
    let sandbox = Sandbox::new();
    let project = "[project]\nname = \"x\"\nversion = \"1\"\nrequires-python = \">=3.10\"\ndependencies = [\"a\", \"b>=1\"]\n";
    let read = "[tool.uv]\nconstraint-dependencies = [\"c<2\"]\nextra-index-url = [\"https://extra.invalid/simple\"]\n\
                dev-dependencies = [\"d\"]\ncompile-bytecode = true\nindex-strategy = \"first-index\"\n\
                [tool.uv.sources]\na = { index = \"inner\" }\nunused = { path = \"x\" }\n\
                [[tool.uv.index]]\nname = \"inner\"\nurl = \"https://inner.invalid/simple\"\nexplicit = true\n\
                [[tool.uv.index]]\nurl = \"https://default.invalid/simple\"\ndefault = true\n";
    sandbox.write("pyproject.toml", format!("{project}{read}"));
    let output = sandbox.run(&["deps", "--format", "json", "--group", "dev", "pyproject.toml"]);
    insta::assert_snapshot!("uv_read", text(&output.stdout));
    let refused = "[tool.uv]\noverride-dependencies = [\"b<1\"]\nno-index = true\nfind-links = [\"x\"]\nexclude-newer = \"2026-01-01\"\n\
                   prerelease = \"allow\"\nindex-strategy = \"unsafe-best-match\"\nnews = 1\n\
                   [tool.uv.pip]\nresolution = \"lowest\"\nindex-url = \"https://me:secret@h.invalid/simple\"\n\
                   [tool.uv.sources]\na = { git = \"https://h.invalid/a\" }\nb = [{ index = \"x\", marker = \"os_name == 'nt'\" }]\n\
                   [[tool.uv.index]]\nname = \"flat\"\nurl = \"https://h.invalid/files\"\nformat = \"flat\"\n\
                   [[tool.uv.index]]\nname = \"none\"\n";
    sandbox.write("pyproject.toml", format!("{project}{refused}"));
    insta::assert_snapshot!("uv_refused", refusal(&sandbox.run(&["deps", "pyproject.toml"])));
    let lines = "[tool.uv]\noverride-dependencies = [\"b<1\"]\n[[tool.uv.index]]\nurl = \"https://h.invalid/simple\"\n";
    let metadata = format!("dependencies = [\"a\"]\n{lines}")
        .lines()
        .fold(String::new(), |text, line| text + "# " + line + "\n");
    sandbox.write("script.py", format!("# /// script\n{metadata}# ///\nimport a\n"));
    insta::assert_snapshot!("uv_script", refusal(&sandbox.run(&["deps", "script.py"])));
}

#[test]
fn projects_that_ask_for_nothing_or_twice_are_told() {
    for (name, project) in [
        ("settings", "[build-system]\nrequires = [\"setuptools\"]\n[tool.black]\nline-length = 100\n"),
        (
            "flit",
            "[build-system]\nrequires = [\"flit\"]\n[tool.flit.metadata]\nmodule = \"x\"\nrequires = [\"a\"]\n",
        ),
        ("dynamic", "[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\ndependencies = [\"a\"]\n"),
        ("groups", "[dependency-groups]\ndev = [\"a\"]\nDev = [\"b\"]\n"),
        ("address", "[tool.poetry.dependencies]\na = \"1\"\n[[tool.poetry.source]]\nname = \"inner\"\n"),
        ("short", "[tool.poetry.dependencies]\na = { git = \"git@host.invalid:x/y.git@04d9\" }\n"),
    ] {
        let sandbox = Sandbox::new();
        let group: &[&str] = if name == "groups" { &["--group", "dev"] } else { &[] };
        let arguments = [&["deps", "pyproject.toml"], group].concat();
        insta::assert_snapshot!(
            format!("project_{name}"),
            refusal(&sandbox.write("pyproject.toml", project).run(&arguments))
        );
    }
    let sandbox = Sandbox::new();
    let usual = "[tool.poetry.dependencies]\na = { version = \"1\", source = \"PyPI\" }\n[[tool.poetry.source]]\nname = \"PyPI\"\n";
    let output = sandbox.write("pyproject.toml", usual).run(&["deps", "pyproject.toml"]);
    assert_eq!(text(&output.stdout), "a==1\n");
}

#[test]
fn lines_that_pip_reads_in_its_own_way_keep_their_meaning_or_are_refused() {
    let sandbox = Sandbox::new();
    let read = "-e git+https://h.invalid/ray@abc#egg=ray[tune,rllib]&subdirectory=python\n\
                python_ldap @ https://h.invalid/x-1-py3-none-any.whl; sys_platform == \"win32\"\n";
    let output = sandbox.write("requirements.txt", read).run(&["deps", "requirements.txt"]);
    assert_eq!(
        text(&output.stdout),
        "ray[rllib,tune] @ git+https://h.invalid/ray@abc#subdirectory=python\n\
         python-ldap @ https://h.invalid/x-1-py3-none-any.whl ; sys_platform == \"win32\"\n",
        "{}",
        text(&output.stderr)
    );
    sandbox.write("refused.txt", "git+git@host.invalid:org/repo.git@v1#egg=package\n");
    insta::assert_snapshot!("pip_short_address", refusal(&sandbox.run(&["deps", "refused.txt"])));
    sandbox.write("old.txt", "requests\rnumpy\r");
    insta::assert_snapshot!("pip_carriage_returns", refusal(&sandbox.run(&["deps", "old.txt"])));
    // Nothing of it is mended into another name.
    assert_eq!(sandbox.run(&["deps", "--fix", "old.txt"]).status.code(), Some(1));
    assert_eq!(sandbox.read("old.txt"), "requests\rnumpy\r");
}

#[test]
fn what_is_nearly_a_constraint_is_mended_in_its_own_way() {
    let list = "a = \">=6.3.2[toml]\"\nb = \"@latest\"\nc = \"newest\"\nd = \">=1 and <2\"\ne = \">=1;<2\"\nf = \"\u{2265}1.2\"\n\
                g = \"@1.2\"\nh = \">='1.2'\"\ni = \"~> 1.2.3\"\nj = \">=1&<2\"\nk = \"=> 2\"\n";
    let sandbox = Sandbox::new();
    sandbox.write("dependencies.txt", list);
    insta::assert_snapshot!("constraint_almost", refusal(&sandbox.run(&["deps", "dependencies.txt"])));
    assert_eq!(sandbox.run(&["deps", "--fix", "dependencies.txt"]).status.code(), Some(1));
    let mended = sandbox.read("dependencies.txt");
    assert_eq!(
        mended.lines().skip(1).collect::<Vec<_>>(),
        [
            "b = \"*\"",
            "c = \"*\"",
            "d = \">=1 , <2\"",
            "e = \">=1,<2\"",
            "f = \">=1.2\"",
            "g = \"==1.2\"",
            "h = \">=1.2\"",
            "i = \"~=1.2.3\"",
            "j = \">=1,<2\"",
            "k = \">=2\"",
        ]
    );
}

#[test]
fn what_a_format_cannot_say_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write("bounds.txt", "urllib3<3\n");
    sandbox.write("list.txt", "-c bounds.txt\n--extra-index-url https://h.invalid/simple\n--index-url https://i.invalid/simple\nrequests\n");
    insta::assert_snapshot!(
        "format_requirements_bounds",
        refusal(&sandbox.run(&["deps", "--format", "requirements", "list.txt"]))
    );
    let output = sandbox.run(&["deps", "list.txt"]);
    assert_eq!(text(&output.stdout), "requests\n");
    assert!(text(&output.stderr).contains("constraints are left out, of `urllib3`"));
    let project = "[project]\nname = \"x\"\nrequires-python = \"3.11\"\n[tool.poetry.extras]\nconsole = [\"aioconsole>=0.6.0\"]\n";
    sandbox.write("pyproject.toml", project);
    insta::assert_snapshot!(
        "project_versions",
        refusal(&sandbox.run(&["deps", "--extra", "console", "pyproject.toml"]))
    );
}

#[test]
fn lists_in_folders_whose_names_are_not_text_are_read_and_mended() {
    use std::os::unix::ffi::OsStrExt;

    let sandbox = Sandbox::new();
    let folder = sandbox.0.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("more.txt"), "scipy\n").unwrap();
    fs::write(folder.join("list.txt"), "-r more.txt\nnumpy\n").unwrap();
    fs::write(folder.join("poetry.txt"), "numpy = \"=>1\"\n").unwrap();
    let run =
        |arguments: &[&str], list: &str| sandbox.command(arguments).arg(folder.join(list)).output().unwrap();
    let output = run(&["deps"], "list.txt");
    assert_eq!(text(&output.stdout), "numpy\nscipy\n", "{}", text(&output.stderr));
    let output = run(&["deps", "--fix"], "poetry.txt");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(folder.join("poetry.txt")).unwrap(), "numpy = \">=1\"\n");
    fs::write(folder.join("broken.txt"), "numpy = \"oops\"\n").unwrap();
    let said = String::from_utf8(run(&["deps"], "broken.txt").stderr).unwrap();
    assert!(said.contains("caf\u{fffd}/broken.txt:1:10"), "{said}");
}

#[test]
fn words_do_not_hide_the_way_out() {
    let lists = [
        (
            "allows.txt",
            "a = { version = \"^1\", allows-prereleases = true }\nb = { version = \"^1\", allow-prereleases = true, allows-prereleases = true }\nc = { version = \"^1\", allows-prereleases = false }\n",
        ),
        ("blank.txt", "numpy\u{a0}= \"^1\"\n"),
        ("indented.py", "def main():\n    # /// script\n    # dependencies = [\"x\"]\n    # ///\n    pass\n"),
        ("conda.txt", "# platform: linux-64\naffine=2.3.0=py_0\nnumpy=1.2.3=py_1\n"),
        ("environment.yml", "name: x\nchannels:\n  - defaults\ndependencies:\n  - numpy=1.2\n"),
        ("requirements.txt", "${pkg}==2.3\nscipy==1\n"),
    ];
    insta::assert_snapshot!("words_that_hid", said(&lists));
}
