//! What is made of wheels is what uv makes of them, byte by byte. The wheels come through pip, from whichever index it knows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ipybox::base::Platform;
use ipybox::oci::wheel::{Environment, Wheel};
use ipybox::plan::Installer;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use engine::{cache, run};

/// Wheels with programs, data, headers, scripts, modules in C, and thousands of files.
const WHEELS: [&str; 15] = [
    "argcomplete",
    "debugpy",
    "greenlet",
    "ipykernel",
    "jupyter-client",
    "jupyterlab",
    "matplotlib",
    "numpy",
    "pandas",
    "pillow",
    "pip",
    "pyzmq",
    "ruff",
    "tomli-w",
    "tornado",
];

/// Files by path, without uv's own lock; each with its content and whether it is executable.
type Tree = BTreeMap<String, (Vec<u8>, bool)>;

fn uv() -> PathBuf {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = Platform { os: "linux".to_owned(), architecture: architecture.to_owned() };
    let installer = Installer::of(&platform).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(installer.obtain(&cache())).unwrap()
}

/// A folder's files as an index, from which uv takes them as from any other.
struct Index {
    server: Child,
    address: String,
}

impl Index {
    fn of(folder: &Path) -> Self {
        let arguments = ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d"];
        let mut server = Command::new("python3")
            .args(arguments)
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(' ').skip_while(|word| *word != "port").nth(1).unwrap().to_owned();
        Self { server, address: format!("http://127.0.0.1:{port}/") }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name() != ".lock" {
                let path = entry.path().to_str().unwrap().trim_start_matches('/').to_owned();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                assert!(matches!(mode, 0o664 | 0o775), "{path}: {mode:o}");
                found.insert(path, (fs::read(entry.path()).unwrap(), mode == 0o775));
            }
        }
    }
    found
}

/// What uv adds to an environment that it makes.
fn installed(uv: &Path, index: &Index, scratch: &Path, wheel: &str, prefix: &Path) -> Tree {
    let uv = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 002; exec \"$@\"", "sh"]).arg(uv).args(arguments);
        command
            .env("UV_CACHE_DIR", scratch.join("cache"))
            .env("UV_LINK_MODE", "copy")
            .env("UV_NO_CONFIG", "1");
        run(&mut command)
    };
    let python = prefix.join("bin/python");
    uv(&["venv", "--quiet", "--python", "python3", prefix.to_str().unwrap()]);
    let before = tree(prefix);
    let mut parts = wheel.split('-');
    let requirement = format!("{}=={}", parts.next().unwrap(), parts.next().unwrap());
    let install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--find-links", &index.address];
    uv(&[&install[..], &["--python", python.to_str().unwrap(), &requirement]].concat());
    let mut after = tree(prefix);
    after.retain(|path, _| !before.contains_key(path));
    after
}

/// What we add.
fn made(file: &Path, prefix: &Path) -> Tree {
    let version =
        run(Command::new("python3").args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]));
    let environment = Environment {
        prefix: prefix.to_str().unwrap().to_owned(),
        python: version.trim().to_owned(),
        cache_tag: None,
    };
    let name = file.file_name().unwrap().to_str().unwrap();
    let mut wheel = Wheel::open(File::open(file).unwrap(), name, &environment, None).unwrap();
    let mut made = Tree::new();
    for index in 0..wheel.files().len() {
        let mut content = Vec::new();
        wheel.write(index, &mut content).unwrap();
        let file = &wheel.files()[index];
        assert_eq!(content.len() as u64, file.size, "{}", file.path);
        made.insert(file.path.clone(), (content, file.is_executable));
    }
    made
}

fn compare(wheel: &str, made: &Tree, installed: &Tree) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(names(made), names(installed), "{wheel}");
    for (path, (content, is_executable)) in made {
        let (expected, expected_executable) = &installed[path];
        let text = |content| String::from_utf8_lossy(content).into_owned();
        assert!(content == expected, "{path}:\n{}\nuv:\n{}", text(content), text(expected));
        assert_eq!(is_executable, expected_executable, "{path}");
    }
}

/// A wheel that has what is rare.
fn odd(folder: &Path) -> PathBuf {
    const POINTS: &str = "[console_scripts]\n# none\nrun = odd.main:Main.run [extra, other]\npip3 = odd:pip\npip3.7 = odd:pip\n\
                          [gui_scripts]\nshow=odd:show\n[odd]\nx = y\n";
    let path = folder.join("Odd.Name-1.0+local-1-py3-none-any.whl");
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    let mut record = String::from("odd.dist-info-/gone.py,sha256=x,1\n\"odd_name-1.dist-info/RECORD\",,\n");
    for (path, mode, content) in [
        ("odd/__init__.py", 0o644, "pass\n"),
        ("odd/run by hand.sh", 0o711, "#!/bin/sh\n"),
        ("odd/only its owner runs", 0o744, ""),
        ("odd/a,b \"c\".txt", 0o600, "x"),
        ("odd/é.txt", 0o600, "é"),
        ("odd/__pycache__/x.pyc", 0o600, ""),
        ("odd_other.data/data/x", 0o644, ""),
        ("odd_name-1.data/scripts/plain", 0o644, "#!/bin/sh\n"),
        ("odd_name-1.data/scripts/rewritten", 0o644, "#!python3 -x\nprint(1)\n"),
        ("odd_name-1.data/scripts/windows", 0o644, "#!pythonw\r\nprint(1)\r\n"),
        ("odd_name-1.data/scripts/short", 0o644, "#!python"),
        ("odd_name-1.data/scripts/run-script.py", 0o644, "not installed"),
        ("odd_name-1.data/headers/sub/odd.h", 0o644, "int x;\n"),
        ("odd_name-1.data/data/etc/odd.conf", 0o755, "x = 1\n"),
        ("odd_name-1.data/data/lib/odd.py", 0o644, ""),
        ("odd_name-1.data/purelib/odd_pure.py", 0o644, ""),
        ("odd_name-1.data/platlib/odd/plat.py", 0o644, ""),
        ("odd_name-1.dist-info/entry_points.txt", 0o644, POINTS),
        ("odd_name-1.dist-info/METADATA", 0o644, "Metadata-Version: 2.1\nName: Odd.Name\nVersion: 1.0\n"),
        (
            "odd_name-1.dist-info/WHEEL",
            0o644,
            "Wheel-Version: 1.9\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
        ),
    ] {
        let options = SimpleFileOptions::default().unix_permissions(mode);
        zip.start_file(path, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
        let digits = hash(content);
        // Sizes may be missing, and paths as they like.
        let size = if path.contains("txt") { String::new() } else { content.len().to_string() };
        let spelled = if path.ends_with("conf") { format!("/{path}") } else { path.to_owned() };
        record += &format!("\"{}\",sha256={digits},{size}\r\n", spelled.replace('"', "\"\""));
    }
    zip.start_file("odd_name-1.dist-info/RECORD", SimpleFileOptions::default()).unwrap();
    zip.write_all(record.as_bytes()).unwrap();
    zip.start_file("odd_name-1.dist-info/RECORD.jws", SimpleFileOptions::default()).unwrap();
    zip.finish().unwrap();
    path
}

fn hash(content: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(content))
}

#[test]
fn wheels_become_what_uv_makes_of_them() {
    let scratch = tempfile::tempdir().unwrap();
    let wheels = scratch.path().join("wheels");
    let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d"];
    run(Command::new("python3").args(download).arg(&wheels).args(WHEELS));
    let odd = odd(&wheels);
    let (index, uv) = (Index::of(&wheels), uv());
    let mut files: Vec<_> = wheels.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), WHEELS.len() + 1);
    files.sort();
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let prefix = scratch.path().join(number.to_string());
        compare(name, &made(file, &prefix), &installed(&uv, &index, scratch.path(), name, &prefix));
    }
    let name = odd.file_name().unwrap().to_str().unwrap();
    for prefix in ["with space and ' quote".to_owned(), "x".repeat(120)] {
        let prefix = scratch.path().join(prefix);
        compare(name, &made(&odd, &prefix), &installed(&uv, &index, scratch.path(), name, &prefix));
    }
}
