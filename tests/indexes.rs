//! What a build makes of package indexes that are wrong in one way, on a real engine. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use engine::{Image, ROOT, base, docker, ipybox, list, python_with};

/// `tests/index/serve.py`, on an address that build steps reach.
struct Index {
    server: Child,
    address: String,
}

/// Prints where a container reaches this host. The engine tells a network's gateway only where somebody chose it.
const HOST: &str = "
import socket
for row in open('/proc/net/route'):
    _, destination, gateway, *_ = row.split()
    if destination == '00000000':
        print(socket.inet_ntoa(bytes.fromhex(gateway)[::-1]))
        break";

impl Index {
    fn serve() -> Self {
        let mut server = Command::new(python_with("ipybox-0.6"))
            .arg(format!("{ROOT}/tests/index/serve.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let host = docker(&["run", "--rm", "--label", "ipybox.test", &base(), "python3", "-c", HOST]);
        Self { server, address: format!("http://{}:{}", host.trim(), port.trim()) }
    }

    /// A list that takes `ours` from the index with this fault.
    fn list(&self, fault: &str, constraint: &str) -> String {
        format!(
            "[tool.poetry.dependencies]\nours = {{ version = \"{constraint}\", source = \"inner\" }}\n\
             [[tool.poetry.source]]\nname = \"inner\"\nurl = \"{}/{fault}/simple/\"\npriority = \"explicit\"\n",
            self.address
        )
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A base on which the installer asks each address once.
fn impatient_base() -> Image {
    Image::commit("impatient", None, &["ENV UV_HTTP_RETRIES=0"])
}

/// Builds; the exit code, what was said, and the version of `ours` in the image, where there is one.
fn build(base: &Image, name: &str, text: &str) -> (i32, String, Option<String>) {
    let (_folder, list) = list(text);
    let tag = Image::tag(name);
    let mut command = ipybox();
    command.args(["build", "-V", "kernel", "--no-bytecode", "--base", &base.tag, "-d", &list, "-t", &tag]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let version = output.status.success().then(|| {
        let image = Image { tag, id: String::new(), said: String::new() };
        image.run(&["python", "-c", "import ours; print(ours.version)"]).trim().to_owned()
    });
    (output.status.code().unwrap(), said, version)
}

/// What a build is to make of a fault: its exit code, and what it says.
struct Try {
    fault: &'static str,
    told: (i32, &'static str),
    /// With a name for it.
    constraint: (&'static str, &'static str),
}

#[test]
fn a_faulty_index_is_told_by_its_cause_and_gives_no_other_version() {
    let (index, base) = (Index::serve(), impatient_base());
    let unreachable = (75, "the package index does not answer");
    let refuses = (1, "the package index asks who wants to know");
    let cases = [
        ("hash", (1, "the file of `ours==2.0` is not the one that was promised")),
        ("html", (1, "the file of `ours==2.0` is no package")),
        ("empty", (1, "the file of `ours==2.0` is no package")),
        ("cut", unreachable),
        ("login", (1, "`ours` has no version")),
        ("file-401", refuses),
        ("file-403", refuses),
        ("file-404", (1, "a file that the index names is not there")),
        ("file-429", unreachable),
        ("file-500", unreachable),
        ("file-503", unreachable),
        ("page-401", refuses),
        ("page-403", refuses),
        ("page-404", (1, "there is no package `ours`")),
        ("page-429", unreachable),
        ("page-500", unreachable),
        ("page-503", unreachable),
    ];
    // Without a union, with one, and where the installer itself could fall back.
    let constraints = [("plain", ">=2"), ("union", "<1.5 || >=2"), ("open", ">=1")];
    let tries =
        cases.iter().flat_map(|&(fault, told)| constraints.map(|constraint| Try { fault, told, constraint }));
    let tries: Vec<Try> = tries.collect();
    let wrong: Vec<String> = thread::scope(|scope| {
        let part = |tries: &[Try]| {
            let mut wrong = Vec::new();
            for &Try { fault, told: (code, words), constraint: (name, constraint) } in tries {
                let (found, said, version) =
                    build(&base, &format!("{fault}-{name}"), &index.list(fault, constraint));
                if found != code || !said.contains(words) || version.is_some() {
                    wrong.push(format!("{fault}, `{constraint}`: {found}, {version:?}\n{said}"));
                }
            }
            wrong
        };
        let (one, other) = tries.split_at(tries.len() / 2);
        let other = scope.spawn(move || part(other));
        [part(one), other.join().unwrap()].concat()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for (name, constraint) in constraints {
        let (code, said, version) = build(&base, &format!("none-{name}"), &index.list("none", constraint));
        assert_eq!((code, version.as_deref()), (0, Some("2.0")), "{said}");
    }
    let (code, said, version) = build(&base, "older", &index.list("none", "<1.5 || >=9"));
    assert_eq!((code, version.as_deref()), (0, Some("1.0")), "{said}");
    assert!(said.contains("trying the next"), "{said}");
}
