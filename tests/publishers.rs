//! Several who publish: at once, one after the other was killed, for a platform each, and through what registries ask of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod fleets;
mod sandbox;
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use engine::{Image, base, docker};
use fleets::{FLEET, Fleet, inspected, moves, writes};
use ipybox::attest::Signer;
use ipybox::registry::{Blob, Image as Pushable};
use sandbox::text;
use serde_json::Value;
use served::image::client;
use served::{Fate, Proxy, Registry, Request, status};
use tokio_util::sync::CancellationToken;

const QUICK: [&str; 2] = ["--no-verify", "--unattested"];

/// What is the same after all of them.
type Tags = BTreeMap<String, String>;

/// Something that requests wait for.
#[derive(Default)]
struct Gate(Mutex<usize>, Condvar);

impl Gate {
    fn pass(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    /// Waits until so many have passed.
    fn wait(&self, count: usize) {
        let passed = self.0.lock().unwrap();
        let waited = self.1.wait_timeout_while(passed, Duration::from_secs(300), |passed| *passed < count);
        assert!(!waited.unwrap().1.timed_out(), "nobody came");
    }
}

fn begun(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn of_two_who_publish_at_once_one_moves_all_tags_and_the_other_is_told() {
    let registry = Registry::start();
    let one = Fleet::locked("at-once");
    one.published(&registry.address, &QUICK);
    let (other, first) = (one.elsewhere(), format!("{}-one", one.prefix));
    for round in 0..4 {
        let before = one.tags(&registry);
        // A single tag is all that such a run has to look at.
        let (text, names) = match round % 2 {
            0 => (FLEET.to_owned(), &[][..]),
            _ => (FLEET.replace("\"{version}\", ", ""), &[first.as_str()][..]),
        };
        one.describe(&text, &format!("one-{round}"));
        other.describe(&text, &format!("other-{round}"));
        // Both have seen the first tag where it was before either moves it.
        let meeting = Arc::new(Gate::default());
        let proxies = [(); 2].map(|()| {
            let (meeting, moved) = (meeting.clone(), AtomicUsize::new(0));
            Proxy::before(&registry.address, move |request| {
                if moves(request) && moved.fetch_add(1, Ordering::SeqCst) == 0 {
                    meeting.pass();
                    meeting.wait(2);
                    std::thread::sleep(Duration::from_millis(rand::random_range(0..60)));
                }
                Fate::Forward
            })
        });
        let running = [(&one, &proxies[0]), (&other, &proxies[1])]
            .map(|(fleet, proxy)| begun(fleet.command(&proxy.address, &[&QUICK, names].concat())));
        let [first, second] = running.map(|child| child.wait_with_output().unwrap());
        let told = format!("{}\n\n{}", one.said(&first), other.said(&second));
        let (winner, loser) = if first.status.success() { (&one, &second) } else { (&other, &first) };
        assert!(first.status.success() != second.status.success(), "{told}");
        assert_eq!(loser.status.code(), Some(1), "{told}");
        assert!(told.contains("somebody else has moved `"), "{told}");
        let (now, published) = (one.tags(&registry), published_by(winner));
        assert_eq!(
            (published.len(), moved(&before, &now)),
            if round % 2 == 0 { (4, 4) } else { (1, 1) },
            "{told}"
        );
        assert!(published.iter().all(|(name, digest)| now[name] == *digest), "{told}");
    }
}

/// What tags name by a fleet's record.
fn published_by(fleet: &Fleet) -> Tags {
    let record = fleet.record();
    let images = record["images"].as_array().unwrap().iter();
    let tags = images.flat_map(|image| {
        let tags = image["tags"].as_array().unwrap().iter();
        tags.map(|tag| {
            let name = tag["name"].as_str().unwrap().rsplit_once(&format!("{}-", fleet.prefix)).unwrap().1;
            (name.to_owned(), image["digest"].as_str().unwrap().to_owned())
        })
    });
    tags.collect()
}

#[test]
fn two_on_one_host_do_not_go_together_whatever_links_lead_to_the_fleet() {
    let registry = Registry::start();
    let fleet = Fleet::locked("host");
    let (held, gate) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let proxy = {
        let (held, gate) = (held.clone(), gate.clone());
        Proxy::before(&registry.address, move |request| {
            if writes(request) {
                held.pass();
                gate.wait(1);
            }
            Fate::Forward
        })
    };
    let first = begun(fleet.command(&proxy.address, &QUICK));
    held.wait(1);
    let link = fleet.folder.path().with_extension("link");
    symlink(fleet.folder.path(), &link).unwrap();
    for folder in [fleet.folder.path(), &link] {
        let second = fleet.command(&registry.address, &QUICK).current_dir(folder).output().unwrap();
        let said = fleet.said(&second);
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains("another process of this host publishes the same fleet"), "{said}");
    }
    fs::remove_file(&link).unwrap();
    gate.pass();
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", fleet.said(&first));
    assert_eq!(fleet.tags(&registry).len(), 4);
}

#[test]
fn a_fleet_is_published_through_passwords_private_authorities_and_tokens() {
    let fleet = Fleet::locked("asked");
    let one = format!("{}-one", fleet.prefix);
    let (tokens, _service) = Registry::with_tokens();
    for (registry, refusal) in [
        (Registry::with_password(), "docker login"),
        (tokens, "docker login"),
        (Registry::with_tls(), "--ca-cert"),
    ] {
        let (login, authority) = (registry.login(), registry.authority().display().to_string());
        let own: &[&str] = if refusal == "--ca-cert" { &["--ca-cert", &authority] } else { &[] };
        let published = |is_known: bool, arguments: &[&str]| {
            let own = if is_known { own } else { &[] };
            let mut command = fleet.command(&registry.address, &[arguments, own, &[&one]].concat());
            if is_known {
                command.env("DOCKER_CONFIG", login.path());
            }
            command.output().unwrap()
        };
        let stranger = published(false, &["--no-verify"]);
        let said = fleet.said(&stranger);
        assert!(stranger.status.code() == Some(1) && said.contains(refusal), "{said}");
        for (arguments, moved) in [(&["--no-verify"][..], "2 tags moved"), (&[], "no tag moved")] {
            let output = published(true, arguments);
            let said = fleet.said(&output);
            assert!(output.status.success() && said.contains(moved), "{said}");
        }
        let mut verify = engine::ipybox();
        verify.args(["verify", "--no-run", "--published"]).args(own);
        verify.arg(format!("{}/team/{one}:1.0", registry.address)).env("DOCKER_CONFIG", login.path());
        let found = served::run(&mut verify);
        assert!(found.contains("ok      image: bill of materials, unsigned, names it"), "{found}");
    }
}

/// The tags under which `--merge` looks for images, as it says where they are not there.
fn all_staged(output: &Output) -> Vec<String> {
    let said = text(&output.stderr);
    let tags = said.split("has no tag `").skip(1).map(|tag| tag.split('`').next().unwrap().to_owned());
    tags.collect()
}

fn staged(output: &Output) -> String {
    let [tag] = all_staged(output).try_into().unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    tag
}

#[test]
fn images_of_a_matrix_are_left_apart_and_those_for_no_platform_are_not_left_for_one() {
    let registry = Registry::start();
    let sandbox = sandbox::Sandbox::new();
    sandbox.write("ipybox.toml", "[image.tools]\nvariant = \"kernel\"\nmatrix = { python = [\"3.12\", \"3.13\"] }\ntags = [\"py{python}\"]\n");
    let place = format!("{}/team", registry.address);
    let merged = sandbox.run(&["publish", "--registry", &place, "--merge"]);
    let tags = all_staged(&merged);
    assert_eq!(tags.len(), 2, "{}", text(&merged.stderr));
    assert_ne!(tags[0], tags[1]);
    let part = sandbox.run(&["publish", "--registry", &place, "--shard", "1/1", "--platform", "linux/amd64"]);
    let said = text(&part.stderr);
    assert!(part.status.code() == Some(1) && said.contains("`tools-py3.12` is for no platform"), "{said}");
}

#[test]
fn what_is_signed_is_signed_once_whatever_others_say_about_it() {
    let registry = Registry::start();
    let fleet = Fleet::locked("signed");
    let signer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signer.py");
    let one = format!("{}-one", fleet.prefix);
    let repository = format!("{}/team/{one}", registry.address);
    fleet.published(&registry.address, &[&QUICK[..], &[&one]].concat());
    let digest = fleet.record()["images"][0]["digest"].as_str().unwrap().to_owned();
    let signatures = || {
        let listed = inspected(&format!("{repository}:{}", digest.replace(':', "-")));
        let kinds = listed["manifests"].as_array().unwrap().iter().map(|one| one["artifactType"].clone());
        kinds.filter(|kind| kind == "application/vnd.ipybox.test.signature+json").count()
    };
    // A scan, and a signature of somebody who is not known.
    let client = client(&registry.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let place = format!("team/{one}");
        let repository = client.repository(&place).unwrap();
        let subject = repository.head("latest").await.unwrap().unwrap();
        let scan = Blob::of("application/json", "{}");
        let scan = Pushable::artifact(&subject, "application/spdx+json", vec![scan], &BTreeMap::new());
        repository.attach(&scan, |_| ()).await.unwrap();
        let stranger = Signer { args: vec!["another key".into()], ..Signer::new(signer) };
        let foreign = stranger.sign(&subject, &CancellationToken::new()).await.unwrap();
        repository.attach(&foreign, |_| ()).await.unwrap();
    });
    assert_eq!(signatures(), 1);
    let arguments = [&QUICK[..], &["--signer", signer, "--signer-arg", "known", &one]].concat();
    for _ in 0..2 {
        let said = fleet.published(&registry.address, &arguments);
        assert!(said.contains("no tag moved"), "{said}");
        assert_eq!(signatures(), 2, "{said}");
    }
    let mut verify = engine::ipybox();
    verify.args(["verify", "--no-run", "--signer", signer, "--signer-arg", "known", "--published"]);
    served::run(verify.arg(format!("{repository}:latest")));
}

#[test]
fn machines_with_other_files_do_not_mix_whatever_commits_say() {
    let registry = Registry::start();
    let [one, other] = [(); 2].map(|()| sandbox::Sandbox::new());
    let files = [
        ("data/table.csv", "1"),
        ("list.txt", "-r more.txt\nown @ file:own\n"),
        ("more.txt", "six\n"),
        ("own/pyproject.toml", "[project]\nname = \"own\"\nversion = \"1\"\n"),
        ("own/own.py", "a = 1\n"),
        ("variants/mine/variant.toml", "description = \"x\"\nextends = \"kernel\"\n"),
        ("variants/mine/dependencies.txt", ""),
        ("templates/NOTES", "x"),
    ];
    let fleet = "[fleet]\nvariants = \"variants\"\n\n[image.a]\nvariant = \"mine\"\n\
                 dependencies = \"list.txt\"\ncopy = [{ from = \"data\", to = \"/data\" }]\n";
    for sandbox in [&one, &other] {
        for folder in ["data", "own", "variants/mine", "templates"] {
            fs::create_dir_all(sandbox.0.path().join(folder)).unwrap();
        }
        for (name, content) in files {
            sandbox.write(name, content);
        }
        sandbox.write("ipybox.toml", fleet);
    }
    let place = format!("{}/team", registry.address);
    let key =
        |sandbox: &sandbox::Sandbox| staged(&sandbox.run(&["publish", "--registry", &place, "--merge"]));
    let first = key(&one);
    assert_eq!(key(&other), first);
    let mut keys = BTreeSet::from([first]);
    for name in ["data/table.csv", "list.txt", "more.txt", "own/own.py", "variants/mine/dependencies.txt"] {
        let before = one.read(name);
        one.write(name, format!("{before}#\n"));
        assert!(keys.insert(key(&one)), "{name}");
        one.write(name, before);
    }
    assert!(!keys.insert(key(&one)));
    // What is not there cannot be compared.
    fs::remove_dir_all(one.0.path().join("data")).unwrap();
    let lacking = one.run(&["publish", "--registry", &place, "--merge"]);
    let said = text(&lacking.stderr);
    assert!(lacking.status.code() == Some(1) && said.contains("data"), "{said}");
}

/// Stands in front of a registry until so many tags have moved. The next one moves, too, but who moves it hears nothing; with
/// what comes then nothing happens, or it is refused.
struct Stopping {
    proxy: Proxy,
    left: Arc<AtomicUsize>,
    stopped: Arc<Gate>,
}

const REFUSED: &str = "{\"errors\": [{\"code\": \"DENIED\", \"message\": \"not today\"}]}";

impl Stopping {
    fn before(registry: &Registry, then: fn() -> Fate) -> Self {
        let (left, stopped) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::<Gate>::default());
        let (counted, gate) = (left.clone(), stopped.clone());
        let proxy = Proxy::before(&registry.address, move |request| {
            if !moves(request) {
                return Fate::Forward;
            }
            let next = counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            match next {
                Ok(1) => Fate::Lose,
                Ok(_) => Fate::Forward,
                Err(_) => {
                    gate.pass();
                    then()
                }
            }
        });
        Self { proxy, left, stopped }
    }

    /// Publishes until so many tags have moved, and kills it.
    fn kill(&self, fleet: &Fleet, moved: usize) {
        self.left.store(moved, Ordering::SeqCst);
        *self.stopped.0.lock().unwrap() = 0;
        let mut child = begun(fleet.command(&self.proxy.address, &QUICK));
        self.stopped.wait(1);
        child.kill().unwrap();
        child.wait().unwrap();
        self.left.store(usize::MAX, Ordering::SeqCst);
    }
}

/// How many tags name something else.
fn moved(before: &Tags, now: &Tags) -> usize {
    now.iter().filter(|(name, digest)| before.get(*name) != Some(digest)).count()
}

fn record(fleet: &Fleet) -> String {
    fs::read_to_string(fleet.folder.path().join("publish.json")).unwrap()
}

#[test]
fn what_a_killed_run_left_is_foretold_and_finished_in_its_registry_alone() {
    let (registry, other) = (Registry::start(), Registry::start());
    let stopping = Stopping::before(&registry, || Fate::Stall);
    let fleet = Fleet::locked("left");
    let address = &stopping.proxy.address;
    fleet.published(address, &QUICK);
    let (before, written) = (fleet.tags(&registry), record(&fleet));
    fleet.describe(FLEET, "next");
    stopping.kill(&fleet, 3);
    let half = fleet.tags(&registry);
    assert_eq!((moved(&before, &half), record(&fleet)), (3, written));

    // A dry run tells what the next one would do, and does nothing of it.
    stopping.proxy.taken();
    let foretold = |address: &str| {
        let dry = fleet.publish(address, &["--dry-run"]);
        assert!(dry.status.success(), "{}", fleet.said(&dry));
        text(&dry.stdout).replace(&format!("{}-", fleet.prefix), "")
    };
    let told = foretold(address);
    assert!(
        told.starts_with("an earlier run was stopped while 4 tags moved; the next one finishes it first:\n")
    );
    assert_eq!((told.matches(" already\n").count(), told.matches(" would name ").count()), (3, 1), "{told}");
    assert!(!stopping.proxy.taken().iter().any(writes));

    // Another registry has nothing to do with it.
    let waits = format!(
        "an earlier run was stopped while 4 tags of `{address}` moved; the next one that goes there finishes it"
    );
    assert!(foretold(&other.address).starts_with(&waits));
    let said = fleet.published(&other.address, &QUICK);
    assert!(said.contains(&waits) && said.contains("4 tags moved"), "{said}");
    assert_eq!((fleet.tags(&other).len(), fleet.tags(&registry)), (4, half));

    // A link to the fleet leads to what it has left, and what was written for another registry does not stay.
    let link = fleet.folder.path().with_extension("link");
    symlink(fleet.folder.path(), &link).unwrap();
    let finishing = fleet.command(address, &QUICK).current_dir(&link).output().unwrap();
    fs::remove_file(&link).unwrap();
    let said = fleet.said(&finishing);
    assert!(
        finishing.status.success() && said.contains("while 4 tags moved; it is finished first"),
        "{said}"
    );
    let now = fleet.tags(&registry);
    assert_eq!((moved(&before, &now), published_by(&fleet)), (4, now.clone()));
    assert!(!foretold(address).contains("earlier run"));

    // What a kill after the last tag leaves is written by the next run.
    fleet.describe(FLEET, "third");
    let written = record(&fleet);
    stopping.kill(&fleet, 4);
    assert_eq!((moved(&now, &fleet.tags(&registry)), record(&fleet)), (4, written));
    fleet.published(address, &QUICK);
    let before = fleet.tags(&registry);
    assert_eq!(published_by(&fleet), before);

    // Where somebody else has moved one meanwhile, the others go back.
    fleet.describe(FLEET, "meanwhile");
    stopping.kill(&fleet, 2);
    let name = |image: &str| format!("docker://{}/team/{}-{image}:latest", registry.address, fleet.prefix);
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    served::run(Command::new("skopeo").arg("copy").args(plain).args([name("one"), name("other")]));
    let told = foretold(address);
    assert!(
        told.contains("somebody else has moved one of them: without `--force` the others go back"),
        "{told}"
    );
    assert_eq!(told.matches(" again\n").count(), 2, "{told}");
    let output = fleet.publish(address, &QUICK);
    let said = fleet.said(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("what others have moved stays where it is"),
        "{said}"
    );
    let now = fleet.tags(&registry);
    assert_eq!(moved(&before, &now), 1, "{said}");
    assert_ne!(now["other:latest"], before["other:latest"]);
    fleet.published(address, &QUICK);
    let before = fleet.tags(&registry);

    // Where a registry has lost what was pushed, tags go back.
    fleet.describe(FLEET, "lost");
    stopping.kill(&fleet, 2);
    let told = foretold(address);
    let lost = told.lines().find(|line| line.contains("/other:1.0 would name ")).unwrap();
    let lost = lost.rsplit(' ').next().unwrap();
    let url = format!("http://{}/v2/team/{}-other/manifests/{lost}", registry.address, fleet.prefix);
    served::run(Command::new("curl").args(["-sf", "-X", "DELETE", &url]));
    let told = foretold(address);
    assert!(told.contains("the registry no longer has all of what was pushed: the tags go back\n"), "{told}");
    let (again, stay) = (told.matches(" again\n").count(), told.matches(" stays where it is\n").count());
    assert_eq!((again, stay), (2, 2), "{told}");
    let said = fleet.published(address, &QUICK);
    assert!(said.contains("the tags go back") && said.contains("4 tags moved"), "{said}");
    assert_eq!(moved(&before, &fleet.tags(&registry)), 4);
}

#[test]
fn a_record_stays_until_it_is_no_longer_so() {
    let registry = Registry::start();
    let stopping = Stopping::before(&registry, || status("403 Forbidden", "", REFUSED));
    let fleet = Fleet::locked("record");
    let pages = fleet.folder.path().join("pages");
    let arguments = [&QUICK[..], &["--manifest-dir", "pages"]].concat();
    fleet.published(&stopping.proxy.address, &arguments);
    let (before, written) = (fleet.tags(&registry), record(&fleet));

    // Tags that went back are as the record says.
    fleet.describe(FLEET, "refused");
    let refusing = AtomicUsize::new(0);
    let once = Proxy::before(&registry.address, move |request| {
        let refused = moves(request) && refusing.fetch_add(1, Ordering::SeqCst) == 2;
        if refused { status("403 Forbidden", "", REFUSED) } else { Fate::Forward }
    });
    let output = fleet.publish(&once.address, &arguments);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("all tags name what they did before"), "{said}");
    assert_eq!((fleet.tags(&registry), record(&fleet)), (before.clone(), written));
    assert_eq!(pages.read_dir().unwrap().count(), 2);

    // Such a one that is new stays, where the registry removes none.
    let newer = Proxy::before(&registry.address, |request| {
        let refused = moves(request) && request.path.ends_with("/2.1");
        if refused { status("403 Forbidden", "", REFUSED) } else { Fate::Forward }
    });
    fleet.describe(&FLEET.replace("\"{version}\"", "\"2.0\", \"2.1\""), "newer");
    let output = fleet.publish(&newer.address, &arguments);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("new tags stay"), "{said}");
    assert_eq!(fleet.tags(&registry), before);
    fleet.describe(FLEET, "refused");

    // Tags that could not go back are not.
    stopping.left.store(2, Ordering::SeqCst);
    let output = fleet.publish(&stopping.proxy.address, &arguments);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("not all tags name what they did"), "{said}");
    assert_eq!(moved(&before, &fleet.tags(&registry)), 2);
    assert!(!fleet.folder.path().join("publish.json").exists());
    assert_eq!(pages.read_dir().unwrap().count(), 0);
    stopping.left.store(usize::MAX, Ordering::SeqCst);
    fleet.published(&stopping.proxy.address, &arguments);
    let now = fleet.tags(&registry);
    assert_eq!((moved(&before, &now), published_by(&fleet)), (4, now.clone()));
    assert_eq!(pages.read_dir().unwrap().count(), 2);

    // What fails before any tag moves leaves everything as it was.
    fleet.describe(FLEET, "outside");
    let written = record(&fleet);
    let away = Path::new("no/such/folder/publish.json").display().to_string();
    let fails = |command: &mut Command, why: &str| {
        let output = command.output().unwrap();
        let said = fleet.said(&output);
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
        assert_eq!((fleet.tags(&registry), record(&fleet)), (now.clone(), written.clone()), "{said}");
    };
    let address = &stopping.proxy.address;
    stopping.proxy.taken();
    fails(&mut fleet.command(address, &[&arguments[..], &["--record", &away]].concat()), "cannot write to");
    fails(
        &mut fleet.command(address, &[&QUICK[..], &["--manifest-dir", "one.txt"]].concat()),
        "cannot write to",
    );
    fails(&mut fleet.command(address, &[&QUICK[..], &["--signer", "false"]].concat()), "`false`");
    let elsewhere = fleet.elsewhere();
    fs::write(elsewhere.own_cache().join("publishing"), "no folder").unwrap();
    let mut unjournaled = elsewhere.command(address, &QUICK);
    fails(unjournaled.current_dir(fleet.folder.path()), "nothing can be published");
    assert!(!stopping.proxy.taken().iter().any(moves));
}

#[test]
fn a_base_that_the_registry_has_stays_in_the_engine() {
    let registry = Registry::start();
    let fleet = Fleet::locked("base");
    fleet.published(&registry.address, &QUICK);
    let before = fleet.tags(&registry);
    // A machine whose cache has wheels, and nothing that was ever packed.
    let other = fleet.elsewhere();
    other.forget_packed();
    other.describe(FLEET, "other");
    let said = other.published(&registry.address, &QUICK);
    assert!(said.contains("4 tags moved"), "{said}");
    assert_eq!(moved(&before, &other.tags(&registry)), 4);
    let packed = other.packed();
    assert!(packed < 20_000_000, "{packed} bytes were packed: {said}");
    // What is put together from here and there is whole.
    let one = format!("{}/team/{}-one:latest", registry.address, fleet.prefix);
    docker(&["rmi", "--force", &one]);
    docker(&["pull", "--quiet", &one]);
    let ran =
        docker(&["run", "--rm", "--label", "ipybox.test", &one, "python", "-c", "import six; print(1)"]);
    assert_eq!(ran, "1\n");
    // A registry that has lost a layer gets it again.
    let base = inspected(&one)["layers"][0]["digest"].as_str().unwrap().to_owned();
    let storage = registry.folder.path().join("storage/docker/registry/v2");
    fs::remove_dir_all(storage.join("blobs/sha256").join(&base[7..9]).join(&base[7..])).unwrap();
    other.forget_packed();
    other.describe(FLEET, "lost");
    other.published(&registry.address, &QUICK);
    assert!(other.packed() > 20_000_000);
}

/// The tests' base, said to be for another processor; what is in it runs here all the same.
fn base_for_another() -> Image {
    let id = docker(&["inspect", "--format", "{{.Id}}", &base()]);
    let script = format!(
        "docker save {} | LC_ALL=C sed 's/\"architecture\":\"amd64\"/\"architecture\":\"arm64\"/g' | docker load -q",
        id.trim()
    );
    let loaded = served::run(Command::new("sh").args(["-ec", &script]));
    named("base-for-another", loaded.trim().strip_prefix("Loaded image ID: ").unwrap())
}

/// Another name of an image, gone with the value.
fn named(name: &str, image: &str) -> Image {
    let tag = Image::tag(name);
    docker(&["tag", image, &tag]);
    Image { tag, id: image.to_owned(), said: String::new() }
}

#[test]
fn machines_for_two_platforms_make_one_index_that_others_copy() {
    let registry = Registry::start();
    let fleet = Fleet::new("index");
    let one = format!("{}-one", fleet.prefix);
    let repository = format!("{}/team/{one}", registry.address);
    // A registry that removes tags, where the one of Debian does not.
    let storage = registry.folder.path().join("storage/docker/registry/v2/repositories");
    let removing = Proxy::before(&registry.address, move |request: &Request| {
        if request.method != "DELETE" {
            return Fate::Forward;
        }
        let (repository, tag) = request.path.strip_prefix("/v2/").unwrap().split_once("/manifests/").unwrap();
        fs::remove_dir_all(storage.join(repository).join("_manifests/tags").join(tag)).unwrap();
        status("202 Accepted", "", "")
    });
    let several = FLEET.replace("[fleet]\n", "[fleet]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n");
    fleet.describe(&several.replace("BASE", &Image::tag("base-of-index")), "index");
    let other = base_for_another();
    for (platform, of_base) in [("linux/amd64", &base()), ("linux/arm64", &other.tag)] {
        // On each machine it is of the image for that one.
        let _base = named("base-of-index", of_base);
        let part = ["--no-verify", "--shard", "1/1", "--platform", platform, &one];
        let mut command = fleet.command(&removing.address, &part);
        // Each machine has an installer that runs there.
        let own =
            engine::cache().join("uv").read_dir().unwrap().flatten().find(|entry| entry.path().is_file());
        let output = command.arg("--uv").arg(own.unwrap().path()).output().unwrap();
        let said = fleet.said(&output);
        assert!(output.status.success() && said.contains("no tag moved"), "{said}");
    }
    // Somebody else has left something as well.
    let foreign = "ipybox-0123456789abcdef-linux-amd64";
    let tags = || {
        let url = format!("http://{}/v2/team/{one}/tags/list", registry.address);
        let listed: Value =
            serde_json::from_str(&served::run(Command::new("curl").args(["-sf", &url]))).unwrap();
        let tags = listed["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
        tags.filter(|tag| !tag.starts_with("sha256-")).collect::<BTreeSet<String>>()
    };
    let staged = tags();
    assert_eq!(staged.len(), 2, "{staged:?}");
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let from = format!("docker://{repository}:{}", staged.first().unwrap());
    let to = format!("docker://{repository}:{foreign}");
    served::run(Command::new("skopeo").arg("copy").args(plain).args([&from, &to]));
    let merge = ["--merge", "--manifest-dir", "pages", &one];
    let said = fleet.published(&removing.address, &merge);
    assert!(said.contains("2 tags moved"), "{said}");
    assert_eq!(tags(), ["1.0", "latest", foreign].map(str::to_owned).into());

    // Record and page tell what the other machines have found.
    let platforms = &fleet.record()["images"][0]["platforms"];
    let page = fs::read_to_string(fleet.folder.path().join(format!("pages/{one}.md"))).unwrap();
    for part in platforms.as_array().unwrap() {
        assert!(part["packages"]["six"].is_string() && part["packages"]["ipykernel"].is_string(), "{part:#}");
        assert_eq!(part["about"].as_array().unwrap().len(), 2, "{part:#}");
    }
    assert_eq!(page.matches("| six | ").count(), 2, "{page}");

    // Others copy the index, each image of it by its platform, and all that is said about them.
    let folder = fleet.folder.path();
    let copied = |before: &[&str], from: &str, to: &str| {
        let (from, to) =
            (format!("docker://{repository}{from}"), format!("oci:{}", folder.join(to).display()));
        let mut copy = Command::new("skopeo");
        served::run(copy.args(before).args(["copy", "--src-tls-verify=false", &from, &to]));
    };
    let index = inspected(&format!("{repository}:1.0"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    served::run(
        Command::new("skopeo")
            .args(["copy", "--all", "--src-tls-verify=false"])
            .args([format!("docker://{repository}:latest"), format!("oci:{}", folder.join("all").display())]),
    );
    for entry in index["manifests"].as_array().unwrap() {
        let architecture = entry["platform"]["architecture"].as_str().unwrap();
        copied(&["--override-os", "linux", "--override-arch", architecture], ":latest", architecture);
        let layout = format!("oci:{}", folder.join(architecture).display());
        let config = served::run(Command::new("skopeo").args(["inspect", "--config", &layout]));
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["architecture"], architecture);
        let digest = entry["digest"].as_str().unwrap();
        let listed = inspected(&format!("{repository}:{}", digest.replace(':', "-")));
        let kinds: BTreeSet<&str> = listed["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let referrer = one["digest"].as_str().unwrap();
                copied(&[], &format!("@{referrer}"), &format!("said-{}", &referrer[7..19]));
                one["artifactType"].as_str().unwrap()
            })
            .collect();
        assert_eq!(kinds, BTreeSet::from(["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]));
    }
}

/// Kills come at any request, before it is heard or after, and at any time behind it.
#[test]
#[ignore = "it takes nine minutes; scripts/test --all runs it"]
fn whoever_is_killed_anywhere_sends_at_most_one_blob_again_and_leaves_no_tag_between() {
    let registry = Registry::start();
    let fleet = Fleet::locked("kills");
    let stop = Arc::new((AtomicUsize::new(usize::MAX), AtomicUsize::new(0)));
    let proxy = {
        let stop = stop.clone();
        Proxy::before(&registry.address, move |_| {
            let number = stop.1.fetch_add(1, Ordering::SeqCst);
            match number.cmp(&stop.0.load(Ordering::SeqCst)) {
                std::cmp::Ordering::Less => Fate::Forward,
                std::cmp::Ordering::Equal if rand::random() => Fate::Lose,
                _ => Fate::Stall,
            }
        })
    };
    // Packages that no other run has had, so that layers travel each time.
    let change = |number: usize| {
        let lists = ["one.txt", "other.txt"];
        let known = ["tomli", "attrs", "iniconfig", "pluggy", "certifi", "colorama"];
        for (list, own) in lists.iter().zip(["six", "idna"]) {
            let more = known.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
            let lines = [own].into_iter().chain(more.map(|(_, name)| *name));
            let lines: Vec<_> = lines.map(|name| format!("{name} = \"*\"\n")).collect();
            fleet.write(list, &lines.concat());
            let mut lock = engine::ipybox();
            lock.args(["lock", "-V", "kernel", "--base", &base(), "-d", list])
                .current_dir(fleet.folder.path());
            served::run(&mut lock);
        }
    };
    let blobs = |requests: &[Request], end: usize| {
        let sent = requests.iter().take(end).filter(|request| request.is("PUT", "digest="));
        sent.map(|request| {
            let (repository, _) = request.path.split_once("/blobs/").unwrap();
            format!("{repository} {}", request.path.split_once("digest=").unwrap().1)
        })
        .collect::<BTreeSet<String>>()
    };
    fleet.published(&proxy.address, &["--no-verify"]);
    change(63);
    stop.1.store(0, Ordering::SeqCst);
    fleet.published(&proxy.address, &["--no-verify"]);
    let all = stop.1.load(Ordering::SeqCst);
    let (mut before, mut between) = (fleet.tags(&registry), 0);
    for number in 1..=50 {
        change(number);
        let point = rand::random_range(0..all);
        proxy.taken();
        stop.0.store(point, Ordering::SeqCst);
        stop.1.store(0, Ordering::SeqCst);
        let mut child = begun(fleet.command(&proxy.address, &["--no-verify"]));
        let begun = Instant::now();
        while stop.1.load(Ordering::SeqCst) <= point && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(120));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(rand::random_range(0..40)));
        let _ = child.kill();
        child.wait().unwrap();
        stop.0.store(usize::MAX, Ordering::SeqCst);
        let sent = blobs(&proxy.taken(), point + 1);
        between += usize::from((1..4).contains(&moved(&before, &fleet.tags(&registry))));
        let said = fleet.published(&proxy.address, &["--no-verify"]);
        let again: Vec<String> = blobs(&proxy.taken(), usize::MAX).intersection(&sent).cloned().collect();
        assert!(again.len() <= 1, "{number} at {point} of {all}: {again:#?}\n{said}");
        let now = fleet.tags(&registry);
        assert_eq!(moved(&before, &now), 4, "{number} at {point} of {all}: {said}");
        assert_eq!(now, published_by(&fleet), "{said}");
        before = now;
    }
    assert!(between > 0, "no kill came while tags moved");
}
