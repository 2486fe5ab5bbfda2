//! What is said about a published image, and whether it is true. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod served;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use engine::{base, docker, ipybox, run};
use ipybox::attest::{Attestation, Published, SIGNED, Signer, bill, provenance};
use ipybox::base::Platform;
use ipybox::plan::Plan;
use ipybox::registry::{Blob, Descriptor, Entry, Image as Pushable, Manifest, OCI_INDEX, Registry as Client};
use serde_json::Value;
use served::Registry;
use served::image::{Image, REPOSITORY, client};
use tokio_util::sync::CancellationToken;

const SIGNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signer.py");

/// What signer and checker know.
const KEY: &str = "known-to-both";

fn plan() -> Plan {
    let mut command = ipybox();
    let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dependencies.txt"), "numpy = \"^2.2\"\n").unwrap();
    command.args(["plan", "--base-facts", facts, "--uid", "1000", "-d", "dependencies.txt"]);
    serde_json::from_str(&run(command.current_dir(&folder))).unwrap()
}

/// Says about a manifest what a publisher does.
async fn say(client: &Client, plan: &Plan, subject: &Descriptor, platform: &str) {
    let platform: Platform = platform.parse().unwrap();
    let published = Published {
        repository: "registry.invalid/team/app",
        manifest: subject,
        platform: &platform,
        created: None,
        base: None,
    };
    let repository = client.repository(REPOSITORY).unwrap();
    for (kind, said) in [
        (Attestation::Bill, bill(&published, plan, None)),
        (Attestation::Provenance, provenance(&published, plan, ipybox::attest::Inputs::default())),
    ] {
        repository.attach(&kind.artifact(subject, said), |_| ()).await.unwrap();
    }
}

/// A signature by whoever knows this key.
async fn signature(subject: &Descriptor, key: &str) -> Pushable {
    let signer = Signer { args: vec![key.into()], ..Signer::new(SIGNER) };
    signer.sign(subject, &CancellationToken::new()).await.unwrap()
}

fn verified(name: &str, arguments: &[&str]) -> Output {
    ipybox().args(["verify", "--published", name]).args(arguments).output().unwrap()
}

fn checking<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--no-run", "--signer", SIGNER, "--signer-arg", KEY], arguments].concat()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Puts other bytes into the place of a blob or manifest of a registry.
fn tamper(registry: &Registry, digest: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let digits = &digest["sha256:".len()..];
    let file = format!("storage/docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]);
    let file = registry.folder.path().join(file);
    let mut bytes = fs::read(&file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// A registry with an image of which everything is said, and a signature.
async fn whole() -> (Registry, Client, Image, Pushable) {
    let registry = Registry::start();
    let client = client(&registry.address);
    let image = Image::of(&[10_000, 500]);
    image.push(&client, &["1"]).await.unwrap();
    let subject = image.manifest.descriptor();
    say(&client, &plan(), &subject, "linux/amd64").await;
    let signature = signature(&subject, KEY).await;
    client.repository(REPOSITORY).unwrap().attach(&signature, |_| ()).await.unwrap();
    (registry, client, image, signature)
}

#[tokio::test]
async fn what_is_said_about_a_published_image_is_found_and_true() {
    let (registry, client, image, signature) = whole().await;
    let name = format!("{}/{REPOSITORY}:1", registry.address);
    let output = verified(&name, &checking(&["--json"]));
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], &report["signature"]), (&true.into(), &"good".into()));
    assert_eq!(report["image"], format!("{}/{REPOSITORY}@{}", registry.address, image.manifest.digest()));
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for wanted in ["bill of materials, unsigned, names it", "provenance, unsigned, names it", "has signed it"]
    {
        assert!(names.iter().any(|name| name.contains(wanted)), "{names:?}");
    }
    let output = verified(&name, &["--no-run"]);
    assert!(said(&output).contains("1 signatures are not checked") && output.status.success());

    // Others find all of it, too.
    let repository = client.repository(REPOSITORY).unwrap();
    let all = repository.referrers(image.manifest.digest(), None).await.unwrap();
    assert_eq!(all.len(), 3);
    let bills = repository.referrers(image.manifest.digest(), Some(Attestation::Bill.artifact_type())).await;
    assert_eq!(bills.unwrap()[0].annotations.as_ref().unwrap()[SIGNED], "no");
    let inspected = |by: &str| {
        let name = format!("docker://{}/{REPOSITORY}{by}", registry.address);
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &name]))
    };
    let listed = inspected(&format!(":{}", image.manifest.digest().replace(':', "-")));
    assert!(all.iter().all(|referrer| listed.contains(&referrer.digest)), "{listed}");
    assert_eq!(
        inspected(&format!("@{}", signature.manifest.digest())).as_bytes(),
        signature.manifest.bytes()
    );
    // The same is said once.
    say(&client, &plan(), &image.manifest.descriptor(), "linux/amd64").await;
    assert_eq!(repository.referrers(image.manifest.digest(), None).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_not_true_is_found_out() {
    let wrong = async |change: &dyn Fn(&Registry, &Image, &[String]), why: &str| {
        let (registry, client, image, _) = whole().await;
        let all = client.repository(REPOSITORY).unwrap().referrers(image.manifest.digest(), None).await;
        let all: Vec<String> = all.unwrap().into_iter().map(|referrer| referrer.digest).collect();
        change(&registry, &image, &all);
        let output = verified(&format!("{}/{REPOSITORY}:1", registry.address), &checking(&[]));
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why) && said(&output).contains("FAILED"), "{}", said(&output));
    };
    let cut = |registry: &Registry, image: &Image, _: &[String]| {
        tamper(registry, &image.blobs[0].digest, |bytes| bytes.truncate(100));
    };
    wrong(&cut, "there is no blob `sha256:").await;
    let other_config = |registry: &Registry, image: &Image, _: &[String]| {
        tamper(registry, &image.blobs[2].digest, |bytes| bytes[20] ^= 1);
    };
    wrong(&other_config, "its configuration fits").await;
    let other_manifest = |registry: &Registry, image: &Image, _: &[String]| {
        tamper(registry, image.manifest.digest(), |bytes| bytes.push(b' '));
    };
    wrong(&other_manifest, "belongs").await;
    let other_referrer = |registry: &Registry, _: &Image, all: &[String]| {
        tamper(registry, &all[0], |bytes| bytes.push(b' '));
    };
    wrong(&other_referrer, "application/vnd.cyclonedx+json is about it").await;
    let bill_of = |registry: &Registry, digest: &str| {
        let digits = &digest["sha256:".len()..];
        let file = format!("storage/docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]);
        let manifest: Value =
            serde_json::from_slice(&fs::read(registry.folder.path().join(file)).unwrap()).unwrap();
        manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
    };
    let other_bill = |registry: &Registry, _: &Image, all: &[String]| {
        tamper(registry, &bill_of(registry, &all[0]), |bytes| bytes[30] ^= 1);
    };
    wrong(&other_bill, "bill of materials, unsigned, names it").await;
    let other_signature = |registry: &Registry, _: &Image, all: &[String]| {
        tamper(registry, &bill_of(registry, &all[2]), |bytes| bytes[30] ^= 1);
    };
    wrong(&other_signature, "has signed it").await;
}

#[tokio::test]
async fn what_is_about_something_else_and_signed_by_somebody_else_does_not_count() {
    let registry = Registry::start();
    let client = client(&registry.address);
    let image = Image::of(&[100]);
    image.push(&client, &["1"]).await.unwrap();
    let (subject, plan) = (image.manifest.descriptor(), plan());
    let repository = client.repository(REPOSITORY).unwrap();
    let name = format!("{}/{REPOSITORY}:1", registry.address);
    let unsigned = verified(&name, &checking(&[]));
    assert_eq!(unsigned.status.code(), Some(1));
    assert!(said(&unsigned).contains("it is not signed"), "{}", said(&unsigned));
    let plain = verified(&name, &["--no-run"]);
    assert!(plain.status.success() && said(&plain).contains("it is not signed"), "{}", said(&plain));

    repository.attach(&signature(&subject, "of-somebody-else").await, |_| ()).await.unwrap();
    let foreign = verified(&name, &checking(&[]));
    assert!(said(&foreign).contains("nobody who is known has signed this"), "{}", said(&foreign));
    assert_eq!(foreign.status.code(), Some(1));
    // One that counts is enough.
    repository.attach(&signature(&subject, KEY).await, |_| ()).await.unwrap();
    assert!(verified(&name, &checking(&[])).status.success());

    // A bill of another image that says that it is about this one.
    let other = Manifest::new(subject.media_type.as_str(), "{}").descriptor();
    let platform: Platform = "linux/amd64".parse().unwrap();
    let of_other =
        Published { repository: "x/y", manifest: &other, platform: &platform, created: None, base: None };
    let lie = Attestation::Bill.artifact(&subject, bill(&of_other, &plan, None));
    repository.attach(&lie, |_| ()).await.unwrap();
    let lied = verified(&name, &["--no-run"]);
    assert_eq!(lied.status.code(), Some(1));
    assert!(said(&lied).contains("it is about something else"), "{}", said(&lied));

    // A list that names what is about something else.
    let image = Image::of(&[200]);
    image.push(&client, &["2"]).await.unwrap();
    let listed = repository.manifest(&subject.digest.replace(':', "-")).await.unwrap().unwrap();
    repository.tag(&image.manifest.digest().replace(':', "-"), &listed).await.unwrap();
    let listed = verified(&format!("{}/{REPOSITORY}:2", registry.address), &["--no-run"]);
    assert_eq!(listed.status.code(), Some(1));
    assert!(said(&listed).contains(&format!("it is about `{}`", subject.digest)), "{}", said(&listed));

    let absent = verified(&format!("{}/{REPOSITORY}:3", registry.address), &["--no-run"]);
    assert_eq!(absent.status.code(), Some(1), "{}", said(&absent));
    assert!(said(&absent).contains("there is no `3` of `"), "{}", said(&absent));
    drop(registry);
    let gone = verified(&name, &["--no-run"]);
    assert_eq!(gone.status.code(), Some(75), "{}", said(&gone));
    assert_eq!(verified("Not/A/Name", &[]).status.code(), Some(2));
}

#[tokio::test]
async fn every_platform_of_an_index_is_looked_at() {
    let registry = Registry::start();
    let client = client(&registry.address);
    let repository = client.repository(REPOSITORY).unwrap();
    let images = [Image::of(&[100]), Image::of(&[200])];
    let platforms = ["linux/amd64", "linux/arm64"];
    let entries: Vec<Entry> = images
        .iter()
        .zip(platforms)
        .map(|(image, platform)| Entry {
            manifest: image.manifest.descriptor(),
            platform: platform.parse().unwrap(),
        })
        .collect();
    let index = Manifest::index(&entries, &BTreeMap::new());
    assert_eq!(index.media_type(), OCI_INDEX);
    let wholes = images.each_ref().map(Image::whole);
    let pushed: Vec<&Pushable> = wholes.iter().collect();
    repository.push_index(&index, &pushed, &["1"], |_| ()).await.unwrap();
    for (image, platform) in images.iter().zip(platforms) {
        let subject = image.manifest.descriptor();
        say(&client, &plan(), &subject, platform).await;
        repository.attach(&signature(&subject, KEY).await, |_| ()).await.unwrap();
    }
    let name = format!("{}/{REPOSITORY}:1", registry.address);
    let output = verified(&name, &checking(&[]));
    let told = said(&output);
    // Each is signed; the configuration of the second says that it is for another processor.
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("it is for linux/amd64") && told.matches("FAILED").count() == 1, "{told}");
    for platform in platforms {
        for what in ["its 1 layers are there", "provenance, unsigned, names it", "has signed it"] {
            assert!(told.contains(&format!("ok      {platform}: ")) && told.contains(what), "{told}");
        }
    }
    // One for the index that does not count takes nothing from those of its images.
    repository.attach(&signature(&index.descriptor(), "other").await, |_| ()).await.unwrap();
    assert!(said(&verified(&name, &checking(&[]))).contains("nobody who is known has signed this"));
    tamper(&registry, images[0].manifest.digest(), |bytes| bytes.push(b' '));
    assert_eq!(verified(&name, &["--no-run"]).status.code(), Some(1));
}

#[tokio::test]
async fn what_others_say_about_an_index_hides_no_signature_of_its_images() {
    let registry = Registry::start();
    let client = client(&registry.address);
    let repository = client.repository(REPOSITORY).unwrap();
    let images = [Image::of(&[100]), Image::of(&[200])];
    let entry = |image: &Image| Entry {
        manifest: image.manifest.descriptor(),
        platform: "linux/amd64".parse().unwrap(),
    };
    let index = Manifest::index(&images.each_ref().map(entry), &BTreeMap::new());
    let wholes = images.each_ref().map(Image::whole);
    let pushed: Vec<&Pushable> = wholes.iter().collect();
    repository.push_index(&index, &pushed, &["1"], |_| ()).await.unwrap();
    let report = Blob::of("application/vnd.example.report", "nothing was found");
    let foreign = Pushable::artifact(
        &index.descriptor(),
        "application/vnd.example.report",
        vec![report],
        &BTreeMap::new(),
    );
    repository.attach(&foreign, |_| ()).await.unwrap();
    let by_others = signature(&index.descriptor(), "of-somebody-else").await;
    repository.attach(&by_others, |_| ()).await.unwrap();
    let name = format!("{}/{REPOSITORY}:1", registry.address);
    for (number, image) in images.iter().enumerate() {
        let some = verified(&name, &checking(&["--json"]));
        let report: Value = serde_json::from_slice(&some.stdout).unwrap();
        assert_eq!((some.status.code(), &report["signature"]), (Some(1), &"bad".into()), "{number}");
        let ours = signature(&image.manifest.descriptor(), KEY).await;
        repository.attach(&ours, |_| ()).await.unwrap();
    }
    let all = verified(&name, &checking(&[]));
    let told = said(&all);
    assert!(all.status.success(), "{told}");
    assert_eq!(told.matches("ok      linux/amd64: somebody who may has signed it").count(), 2, "{told}");
    assert!(
        told.contains("not run index: somebody who may has signed it (its images need one each"),
        "{told}"
    );
    // A good one of the index is one for all of them.
    let other = Image::of(&[300]);
    let index = Manifest::index(&[entry(&images[0]), entry(&other)], &BTreeMap::new());
    repository.push_index(&index, &[&wholes[0], &other.whole()], &["2"], |_| ()).await.unwrap();
    repository.attach(&signature(&index.descriptor(), KEY).await, |_| ()).await.unwrap();
    let whole = verified(&format!("{}/{REPOSITORY}:2", registry.address), &checking(&[]));
    assert!(whole.status.success() && said(&whole).contains("ok      index: somebody"), "{}", said(&whole));
}

#[tokio::test]
async fn a_published_image_is_pulled_and_runs_and_the_engine_does_not_keep_it() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dependencies.txt"), "").unwrap();
    let name = format!("{}/{REPOSITORY}:1", registry.address);
    let mut build = ipybox();
    build.args(["build", "--base", &base(), "-d", "dependencies.txt", "-V", "kernel", "--push", "-t", &name]);
    run(build.current_dir(&folder));
    docker(&["rmi", &name]);
    let client = client(&registry.address);
    let repository = client.repository(REPOSITORY).unwrap();
    let subject = repository.head("1").await.unwrap().unwrap();
    say(&client, &plan(), &subject, "linux/amd64").await;
    let good = verified(&name, &[]);
    assert!(good.status.success(), "{}", said(&good));
    assert!(said(&good).contains("the engine pulls it"), "{}", said(&good));
    let digest = format!("{}/{REPOSITORY}@{}", registry.address, subject.digest);
    let kept = Command::new("docker").args(["image", "inspect", &digest]).output().unwrap();
    assert!(!kept.status.success(), "the engine keeps `{digest}`");
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_never_started() {
    let registry = Registry::start();
    let client = client(&registry.address);
    let image = Image::of(&[5000]);
    image.push(&client, &["1"]).await.unwrap();
    let name = format!("{}/{REPOSITORY}:1", registry.address);
    let unsigned = verified(&name, &["--signer", SIGNER, "--signer-arg", KEY]);
    assert_eq!(unsigned.status.code(), Some(1));
    assert!(said(&unsigned).contains("not run the image runs"), "{}", said(&unsigned));
    // In the same size only who reads all of it finds it out.
    tamper(&registry, &image.blobs[0].digest, |bytes| bytes[2500] ^= 1);
    assert!(verified(&name, &["--no-run"]).status.success());
    let other = verified(&name, &[]);
    assert_eq!(other.status.code(), Some(1), "{}", said(&other));
    assert!(said(&other).contains("FAILED  the engine pulls it"), "{}", said(&other));
    assert!(!said(&other).contains("servers answer"), "{}", said(&other));
    let without = ipybox().args(["verify", "x", "--no-run"]).output().unwrap();
    assert_eq!(without.status.code(), Some(2), "{}", said(&without));
}
