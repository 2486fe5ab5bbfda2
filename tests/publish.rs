//! A fleet that goes to real registries: its order, its tags, and what is left where something fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod fleets;
mod sandbox;
mod served;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::{client_with_buildkit, docker, setting};
use fleets::{FLEET, Fleet, MORE, inspected, moves, writes};
use ipybox::registry::{Entry, Manifest};
use sandbox::text;
use serde_json::Value;
use served::{Fate, Proxy, Registry, status};

#[test]
fn a_fleet_is_published_once_and_then_what_changed() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let fleet = Fleet::new("whole");
    fleet.describe(&format!("{FLEET}{MORE}"), "whole");
    fleet.write("more.txt", "tomli = \"*\"\n");
    let dry = fleet.publish(&proxy.address, &["--dry-run"]);
    let printed = text(&dry.stdout).replace(&format!("{}-", fleet.prefix), "");
    assert!(dry.status.success() && printed.starts_with("one: to be built\n"), "{}", fleet.said(&dry));
    assert!(
        printed.contains("more: to be built on one\n") && printed.contains("/more:latest is new\n"),
        "{printed}"
    );
    assert!(!proxy.taken().iter().any(writes));

    let one = format!("{}-one", fleet.prefix);
    let said = fleet.published(&proxy.address, &[&one]);
    assert!(said.contains("1 image published in ") && said.contains("ok      a kernel ends"), "{said}");
    let verified = &fleet.record()["images"][0]["platforms"][0]["verified"];
    assert!(verified.as_str().unwrap().starts_with("by "), "{verified}");
    assert_eq!(fleet.tags(&registry).len(), 2);
    proxy.taken();

    let workflow = (fleet.folder.path().join("output"), fleet.folder.path().join("summary"));
    let mut command = fleet.command(&proxy.address, &["--manifest-dir", "pages", "--no-verify"]);
    let output = command.env("GITHUB_OUTPUT", &workflow.0).env("GITHUB_STEP_SUMMARY", &workflow.1).output();
    let output = output.unwrap();
    let said = fleet.said(&output);
    assert!(output.status.success() && said.contains("3 images published in "), "{said}");
    assert!(said.contains("4 tags moved"), "{said}");
    let tags = fleet.tags(&registry);
    assert_eq!(tags.len(), 6);
    assert_eq!(tags["one:1.0"], tags["one:latest"]);
    // Layers in common leave this host once, whatever repositories they are for.
    let requests = proxy.taken();
    let large = requests.iter().filter(|request| writes(request) && request.size > 2_000_000);
    let large: Vec<_> = large.map(|request| (&request.method, &request.path, request.size)).collect();
    // The packages of `other` alone: `one` is there, and has the base and the servers.
    assert_eq!(large.len(), 1, "{large:#?}\n{said}");

    let record = fleet.record();
    assert_eq!(record["images"][0]["digest"], tags["one:latest"].as_str());
    let packages = &record["images"][2]["platforms"][0]["inside"]["packages"];
    assert_eq!(packages["tomli"]["asked"]["by_list"], true, "{packages:#}");
    let page = fs::read_to_string(fleet.folder.path().join(format!("pages/{}-more.md", fleet.prefix)));
    let page = page.unwrap();
    assert!(page.contains("| tomli |") && page.contains(tags["more:latest"].as_str()), "{page}");
    let told = fs::read_to_string(workflow.0).unwrap();
    let images: Value = serde_json::from_str(told.strip_prefix("images=").unwrap()).unwrap();
    assert!(images[&one].as_str().unwrap().ends_with(tags["one:latest"].as_str()));
    assert!(fs::read_to_string(workflow.1).unwrap().contains("| image | tags |"));

    // What is pulled runs, and says what it is.
    for name in ["one", "more", "other"] {
        let whole = format!("{}/team/{}-{name}", registry.address, fleet.prefix);
        docker(&["pull", "--quiet", &format!("{whole}:latest")]);
        let run = ["run", "--rm", "--label", "ipybox.test", &format!("{whole}:latest")];
        assert_eq!(docker(&[&run[..], &["python", "-c", "print(6 * 7)"]].concat()).trim(), "42");
        let list = format!("{whole}:{}", tags[&format!("{name}:latest")].replace(':', "-"));
        let listed = inspected(&list);
        assert_eq!(listed["manifests"][0]["artifactType"], "application/vnd.cyclonedx+json", "{listed:#}");
        let to = format!("oci:{}", fleet.folder.path().join(name).display());
        let from = format!("docker://{whole}:latest");
        served::run(Command::new("skopeo").args(["copy", "--all", "--src-tls-verify=false", &from, &to]));
    }
    let manifest = inspected(&format!("{}/team/{}-more:latest", registry.address, fleet.prefix));
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.digest"], tags["one:latest"].as_str());
    assert!(annotations["org.opencontainers.image.licenses"].as_str().unwrap().starts_with("whole-"));

    // Again: one question for each tag, and nothing else.
    proxy.taken();
    let said = fleet.published(&proxy.address, &[]);
    assert!(said.contains("no tag moved"), "{said}");
    let requests = proxy.taken();
    let heads: Vec<_> = requests.iter().filter(|request| request.is("HEAD", "/manifests/")).collect();
    assert_eq!(heads.len(), 6, "{requests:#?}");
    assert!(
        requests.iter().all(|request| request.method == "HEAD" || request.path == "/v2/"),
        "{requests:#?}"
    );

    // Another list: one image.
    fleet.write("more.txt", "tomli = \"*\"\nsix = \"*\"\n");
    let said = fleet.published(&proxy.address, &["--no-verify"]);
    assert!(said.contains("2 tags moved"), "{said}");
    let now = fleet.tags(&registry);
    assert_eq!((&now["one:1.0"], &now["other:latest"]), (&tags["one:1.0"], &tags["other:latest"]));
    assert_ne!(now["more:latest"], tags["more:latest"]);
    let requests = proxy.taken();
    assert!(requests.iter().filter(|request| writes(request)).all(|request| request.path.contains("-more/")));
    let changes = &fleet.record()["images"][2]["platforms"][0]["changes"];
    assert!(changes.to_string().contains("six"), "{changes:#}");
    assert_eq!(fleet.record()["images"][2]["tags"][0]["before"], tags["more:1.0"].as_str());
}

#[test]
fn a_bake_file_has_contexts_that_anybody_builds() {
    let fleet = Fleet::new("bake");
    fleet.describe(&format!("{FLEET}{MORE}"), "bake");
    fleet.write("more.txt", "tomli = \"*\"\n");
    fleet.published("registry.invalid", &["--print-bake", "baked"]);
    let folder = fleet.folder.path().join("baked");
    let bake: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("docker-bake.json")).unwrap()).unwrap();
    let name = |image: &str| format!("{}-{image}", fleet.prefix);
    assert_eq!(bake["group"]["default"]["targets"].as_array().unwrap().len(), 3);
    let more = &bake["target"][name("more")];
    assert_eq!(more["tags"][1], format!("registry.invalid/team/{}:latest", name("more")));
    assert_eq!(
        more["contexts"],
        serde_json::json!({ format!("{}:1.0", name("one")): format!("target:{}", name("one")) })
    );
    for (image, code) in [("other", "import idna"), ("more", "import six, tomli")] {
        let context = folder.join(context_of(&bake, &name(image)));
        let tag = format!("{}:baked", name(image));
        let dockerfile = fs::read_to_string(context.join("Dockerfile")).unwrap();
        let build = dockerfile.lines().next().unwrap().trim_start_matches("# ");
        let build = build.replace("docker build", &format!("docker build --label ipybox.test --tag {tag}"));
        let path = format!("{}:{}", client_with_buildkit().display(), setting("PATH"));
        served::run(Command::new("sh").args(["-ec", &build]).current_dir(&context).env("PATH", path));
        let ran = docker(&["run", "--rm", "--label", "ipybox.test", &tag, "python", "-c", code]);
        assert_eq!(ran, "", "{image}");
    }
}

fn context_of(bake: &Value, target: &str) -> String {
    bake["target"][target]["context"].as_str().unwrap().to_owned()
}

/// Everything that writes fails once, each in a run of its own.
#[test]
fn what_fails_at_any_step_leaves_or_restores_every_tag() {
    let registry = Registry::start();
    let fleet = Fleet::locked("failing");
    fleet.published(&registry.address, &["--no-verify"]);
    let before = fleet.tags(&registry);
    assert_eq!(before.len(), 4);
    let mut moved = 0;
    for step in 0.. {
        // Every image is another each time, so that each run has all steps.
        fleet.describe(FLEET, &format!("step-{step}"));
        let written = Arc::new(AtomicUsize::new(0));
        let counted = written.clone();
        let proxy = Proxy::before(&registry.address, move |request| {
            let refused = (writes(request) && !request.path.ends_with("/blobs/uploads/"))
                .then(|| counted.fetch_add(1, Ordering::SeqCst))
                .is_some_and(|number| number == step);
            if refused {
                let body = "{\"errors\": [{\"code\": \"DENIED\", \"message\": \"not today\"}]}";
                status("403 Forbidden", "Content-Type: application/json\r\n", body)
            } else {
                Fate::Forward
            }
        });
        let output = fleet.publish(&proxy.address, &["--no-verify", "--jobs", "1"]);
        if output.status.success() {
            assert!(step > 8, "{step}");
            break;
        }
        let said = fleet.said(&output);
        assert!(output.status.code() == Some(1) && said.contains("not today"), "{step}: {said}");
        assert_eq!(fleet.tags(&registry), before, "{step}: {said}");
        let has_moved = proxy.taken().iter().any(moves);
        assert!(!has_moved || said.contains("all tags name what they did before"), "{step}: {said}");
        moved += usize::from(has_moved);
    }
    assert_eq!(moved, 4);
    let after = fleet.tags(&registry);
    assert!(before.iter().all(|(name, digest)| after[name] != *digest));

    // New tags that a registry does not give up stay, and keep no other from going back.
    fleet.describe(&FLEET.replace("\"1.0\"", "\"2.0\""), "last");
    let moved = AtomicUsize::new(0);
    let proxy = Proxy::before(&registry.address, move |request| {
        let is_last = moves(request) && moved.fetch_add(1, Ordering::SeqCst) == 3;
        let refused = is_last || request.method == "DELETE";
        if refused { status("403 Forbidden", "", "") } else { Fate::Forward }
    });
    let output = fleet.publish(&proxy.address, &["--no-verify"]);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("is new, and stays"), "{said}");
    assert_eq!(fleet.tags(&registry), after, "{said}");
}

#[test]
fn tags_keep_the_platforms_that_others_have_pushed() {
    let registry = Registry::start();
    let fleet = Fleet::locked("platforms");
    let several = FLEET.replace("[fleet]\n", "[fleet]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n");
    fleet.describe(&several, "first");
    let one = format!("{}-one", fleet.prefix);
    let said = fleet.published(&registry.address, &["--no-verify", &one]);
    assert!(said.contains("`one` is published for linux/amd64 alone"), "{said}");
    // Somebody adds the other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = ipybox::registry::Registry::new(&registry.address, None, None).unwrap();
        let repository = client.repository(&format!("team/{one}")).unwrap();
        let named = repository.manifest("latest").await.unwrap().unwrap();
        let named: Value = serde_json::from_slice(named.bytes()).unwrap();
        assert_eq!(named["manifests"].as_array().unwrap().len(), 1, "{named:#}");
        let digest = named["manifests"][0]["digest"].as_str().unwrap();
        let manifest = repository.manifest(digest).await.unwrap().unwrap().descriptor();
        let entry =
            |platform: &str| Entry { manifest: manifest.clone(), platform: platform.parse().unwrap() };
        let both = [entry("linux/amd64"), entry("linux/arm64")];
        let list = Manifest::index(&both, &BTreeMap::new());
        repository.tag("latest", &list).await.unwrap();
        repository.tag("1.0", &list).await.unwrap();
    });
    fleet.describe(&several, "second");
    let output = fleet.publish(&registry.address, &["--no-verify", &one]);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("no longer be there for linux/arm64"), "{said}");
    fleet.published(&registry.address, &["--no-verify", "--force", &one]);
}

#[test]
fn what_a_killed_run_has_begun_is_finished_by_the_next() {
    let registry = Registry::start();
    let fleet = Fleet::locked("killed");
    let (seen, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let proxy = {
        let (seen, most) = (seen.clone(), most.clone());
        Proxy::before(&registry.address, move |_| {
            if seen.fetch_add(1, Ordering::SeqCst) < most.load(Ordering::SeqCst) {
                Fate::Forward
            } else {
                Fate::Stall
            }
        })
    };
    fleet.published(&proxy.address, &["--no-verify", "--unattested"]);
    // As many requests as a change takes, of which the last ones move tags.
    fleet.describe(FLEET, "first");
    seen.store(0, Ordering::SeqCst);
    fleet.published(&proxy.address, &["--no-verify", "--unattested"]);
    let all = seen.load(Ordering::SeqCst);
    let mut before = fleet.tags(&registry);
    let mut halves = 0;
    let points = (1..all - 16).step_by(all / 6).chain((all - 16..all).step_by(2));
    for point in points {
        fleet.describe(FLEET, &format!("point-{point}"));
        seen.store(0, Ordering::SeqCst);
        most.store(point, Ordering::SeqCst);
        let mut command = fleet.command(&proxy.address, &["--no-verify", "--unattested"]);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while seen.load(Ordering::SeqCst) <= point && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        child.wait().unwrap();
        most.store(usize::MAX, Ordering::SeqCst);
        let now = fleet.tags(&registry);
        let moved = now.iter().filter(|(name, digest)| before[*name] != **digest).count();
        proxy.taken();
        let said = fleet.published(&proxy.address, &["--no-verify", "--unattested"]);
        if moved > 0 && moved < 4 {
            halves += 1;
            assert!(said.contains("an earlier run was stopped while 4 tags moved"), "{said}");
        }
        // What was sent whole is not sent again.
        let sent = proxy.taken().iter().filter(|request| request.is("PUT", "digest=")).count();
        assert!(sent <= 6, "{point}: {sent} blobs were sent again: {said}");
        let now = fleet.tags(&registry);
        assert!(now.iter().all(|(name, digest)| before[name] != *digest), "{point}: {said}");
        before = now;
    }
    assert!(halves > 0, "no kill came while tags moved");
}

#[test]
fn a_tag_that_somebody_else_moved_is_left_alone() {
    let registry = Registry::start();
    let fleet = Fleet::locked("meanwhile");
    fleet.published(&registry.address, &["--no-verify"]);
    let before = fleet.tags(&registry);
    fleet.write("other.txt", "tomli = \"*\"\n");
    // Somebody moves it while what is new is on its way.
    let repository = format!("{}/team/{}", registry.address, fleet.prefix);
    let (from, to) =
        (format!("docker://{repository}-one:latest"), format!("docker://{repository}-other:latest"));
    let behind = registry.address.clone();
    let once = AtomicUsize::new(0);
    let proxy = Proxy::before(&behind, move |request| {
        if writes(request) && once.fetch_add(1, Ordering::SeqCst) == 0 {
            let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
            served::run(Command::new("skopeo").arg("copy").args(plain).args([&from, &to]));
        }
        Fate::Forward
    });
    let output = fleet.publish(&proxy.address, &["--no-verify"]);
    let said = fleet.said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("somebody else has moved") && said.contains("--force"), "{said}");
    let now = fleet.tags(&registry);
    assert_eq!(now["other:latest"], before["one:latest"]);
    assert_eq!(now["other:1.0"], before["other:1.0"]);
    let said = fleet.published(&registry.address, &["--no-verify"]);
    assert!(said.contains("2 tags moved"), "{said}");
}

#[test]
fn shards_give_the_same_as_one() {
    let (registry, parts) = (Registry::start(), Registry::start());
    let fleet = Fleet::locked("shards");
    let third = "\n[image.NAME-more]\nvariant = \"kernel\"\nbase = \"BASE\"\ndependencies = \"one.txt\"\nlabels = { n = \"3\" }\n";
    fleet.describe(&format!("{FLEET}{third}"), "shards");
    fleet.published(&registry.address, &["--no-verify"]);
    let whole = fleet.tags(&registry);
    let output = fleet.publish(&parts.address, &["--merge"]);
    let said = fleet.said(&output);
    assert!(output.status.code() == Some(1) && said.contains("nobody has pushed `one`"), "{said}");
    for part in ["1/3", "2/3", "3/3"] {
        let said = fleet.published(&parts.address, &["--no-verify", "--shard", part]);
        assert!(said.contains("no tag moved"), "{said}");
        assert_eq!(fleet.tags(&parts).len(), 0);
    }
    let said = fleet.published(&parts.address, &["--merge"]);
    assert!(said.contains("6 tags moved"), "{said}");
    assert_eq!(whole.len(), 6);
    assert_eq!(fleet.tags(&parts), whole);
    let matrix = fleet.publish(&parts.address, &["--print-matrix"]);
    let matrix: Value = serde_json::from_slice(&matrix.stdout).unwrap();
    assert_eq!(matrix["include"].as_array().unwrap().len(), 3);
}

#[test]
fn a_fleet_shares_what_all_its_images_are_made_of() {
    let registry = Registry::start();
    let fleet = Fleet::locked("caches");
    let cache = format!("{}/team/cache", registry.address);
    let options = |option, machine: &str| {
        let folder = fleet.folder.path().join(machine);
        let installer = std::path::Path::new(&setting("IPYBOX_TEST_CLIENTS")).with_file_name("test-cache/uv");
        fs::create_dir_all(&folder).unwrap();
        let _ = std::os::unix::fs::symlink(&installer, folder.join("uv"));
        ["--no-verify", "--unattested", option, &cache, "--cache-dir", machine].map(str::to_owned)
    };
    let published = |option, machine| {
        let options = options(option, machine);
        fleet.published(&registry.address, &options.each_ref().map(String::as_str))
    };
    let said = published("--cache-to", "first");
    assert!(said.contains(&format!("sharing packages as {cache}")), "{said}");
    let keys = || {
        let shared = inspected(&cache);
        let layers = shared["layers"].as_array().unwrap().clone();
        let keys = layers.iter().map(|layer| layer["annotations"]["ipybox.segment.key"].to_string());
        keys.collect::<std::collections::BTreeSet<_>>()
    };
    let all = keys();
    assert!(said.contains(&format!("{cache}: {} packages, ", all.len())), "{said}");
    // Nobody has made anything here: images that are there are made of what is there.
    let said = published("--cache-to", "second");
    assert!(said.contains(&format!("has all {} packages already", all.len())), "{said}");
    assert_eq!(keys(), all);
    // Each takes what the other has not taken yet.
    fleet.describe(FLEET, "other");
    let said = published("--cache-from", "third");
    let taken: usize = said
        .lines()
        .filter_map(|line| line.split_once(&format!("{cache}: ")))
        .map(|(_, rest)| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(taken, all.len(), "{said}");
    let wheels = fleet.folder.path().join("third/layers/wheels");
    assert!(!wheels.exists() || wheels.read_dir().unwrap().next().is_none());
}

#[test]
fn what_cannot_be_published_is_told_before_anything_is_built() {
    let sandbox = sandbox::Sandbox::new();
    sandbox.write("ipybox.toml", "[image.a]\n[image.b]\nrepository = \"registry.invalid/b\"\n");
    let told = |arguments: &[&str]| {
        let output = sandbox.run(arguments);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, said) = told(&["publish"]);
    assert!(code == 2 && said.contains("not said where `a` is published"), "{said}");
    let (code, said) = told(&["publish", "--registry", "team"]);
    assert!(code == 2 && said.contains("begins with its host"), "{said}");
    let (code, said) = told(&["publish", "--registry", "registry.invalid/x", "-t", "x"]);
    assert!(code == 2 && said.contains("`--tag` means nothing"), "{said}");
    let (code, said) = told(&["publish", "--registry", "registry.invalid/x", "--shard", "4/3"]);
    assert!(code == 2 && said.contains("such as `1/3`"), "{said}");
    sandbox.write("ipybox.toml", "[image.\"a.b\"]\n[image.a_b]\n");
    let (code, said) = told(&["publish", "--registry", "registry.invalid/x", "--print-bake", "bake"]);
    assert!(code == 1 && said.contains("`a.b` and `a_b` are one target"), "{said}");
}
