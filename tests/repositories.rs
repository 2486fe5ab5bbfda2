//! What publishing needs of a registry: several repositories, several platforms, what is known already, large bodies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod served;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use ipybox::credentials::DockerCredential;
use ipybox::registry::{Blob, Entry, Manifest, OCI_INDEX, OCI_MANIFEST, Registry as Client, RegistryError};
use served::image::{Image, LAYER, REPOSITORY, client, first, hasty};
use served::{Fate, PASSWORD, Proxy, Registry, Request, USER, count, run, status};
use sha2::{Digest, Sha256};

/// What becomes of requests, which may depend on those before or not.
type Answering = fn(&Request) -> Fate;
type Rule = Box<dyn Fn(&Request) -> Fate + Send + Sync>;

/// How often a blob was sent, in any number of bodies.
fn uploads(requests: &[Request], blob: &Blob) -> usize {
    let ends = format!("digest={}", blob.digest.replace(':', "%3A"));
    requests.iter().filter(|request| request.is("PUT", &ends)).count()
}

/// Five images that share two layers.
fn fleet() -> Vec<(String, Image)> {
    let shared = Image::of(&[400_000, 90_000]);
    (0..5)
        .map(|number| {
            let image = Image::of(&[10_000 + number]).with(&shared.blobs[..2]);
            (format!("team/image{number}"), image)
        })
        .collect()
}

#[tokio::test]
async fn what_images_share_leaves_this_host_once_and_an_unchanged_fleet_is_one_question_per_tag() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let fleet = fleet();
    let publishing = client(&proxy.address);
    let push = |client| {
        let all: Vec<_> =
            fleet.iter().map(|(name, image)| image.push_to(client, name, &["latest"])).collect();
        try_join_all(all)
    };
    let summaries = push(&publishing).await.unwrap();
    let requests = proxy.taken();
    let blobs: BTreeMap<_, _> =
        fleet.iter().flat_map(|(_, image)| &image.blobs).map(|blob| (&blob.digest, blob)).collect();
    assert_eq!(blobs.len(), 5 * 2 + 2);
    for blob in blobs.values() {
        assert_eq!(uploads(&requests, blob), 1, "{}", blob.digest);
    }
    let sum = |part: fn(&ipybox::registry::Summary) -> usize| summaries.iter().map(part).sum::<usize>();
    assert_eq!((sum(|one| one.sent), sum(|one| one.mounted), sum(|one| one.unmounted)), (12, 8, 0));
    let bytes: u64 = blobs.values().map(|blob| blob.size).sum();
    assert_eq!(summaries.iter().map(|one| one.bytes).sum::<u64>(), bytes);

    for client in [&publishing, &client(&proxy.address)] {
        let summaries = push(client).await.unwrap();
        assert!(summaries.iter().all(|one| !one.is_new && one.sent == 0 && one.tags.is_empty()));
        let requests = proxy.taken();
        assert_eq!((requests.len(), count(&requests, "HEAD")), (5, 5), "{requests:?}");
    }

    // One that was found unchanged gives its layers to new ones.
    let fresh = client(&proxy.address);
    fleet[0].1.push_to(&fresh, &fleet[0].0, &["latest"]).await.unwrap();
    let summary = fleet[0].1.push_to(&fresh, "team/new", &["latest"]).await.unwrap();
    assert_eq!((summary.mounted, summary.sent), (4, 0));
}

#[tokio::test]
async fn where_nothing_is_mounted_all_is_sent_and_that_is_told() {
    let registry = Registry::start();
    let deaf = Proxy::before(&registry.address, |request| {
        if request.is("POST", "mount=") {
            return status("405 Method Not Allowed", "", "{}");
        }
        Fate::Forward
    });
    let client = client(&deaf.address);
    let fleet = fleet();
    let mut told = Vec::new();
    for (name, image) in &fleet {
        let summary = image.push_to(&client, name, &["1"]).await.unwrap();
        told.push((summary.sent, summary.unmounted));
    }
    assert_eq!(told, [(4, 0), (4, 2), (4, 2), (4, 2), (4, 2)]);
}

#[tokio::test]
async fn two_images_for_one_repository_at_the_same_time_send_what_they_share_once() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let fleet = fleet();
    let client = client(&proxy.address);
    let (one, other) = tokio::join!(
        fleet[0].1.push_to(&client, REPOSITORY, &["0"]),
        fleet[1].1.push_to(&client, REPOSITORY, &["1"])
    );
    assert_eq!((one.unwrap().sent + other.unwrap().sent), 6);
    let requests = proxy.taken();
    for blob in &fleet[0].1.blobs {
        assert_eq!(uploads(&requests, blob), 1);
    }
    fleet[0].1.is_at(&registry, "0");
    fleet[1].1.is_at(&registry, "1");
}

#[tokio::test]
async fn an_index_of_two_platforms_is_what_others_copy() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let images = [Image::of(&[5000]), Image::of(&[6000])];
    let entry = |image: &Image, platform: &str| Entry {
        manifest: image.manifest.descriptor(),
        platform: platform.parse().unwrap(),
    };
    let notes = BTreeMap::from([("org.opencontainers.image.title".to_owned(), "of tests".to_owned())]);
    let index =
        Manifest::index(&[entry(&images[0], "linux/amd64"), entry(&images[1], "linux/arm64")], &notes);
    let client = client(&proxy.address);
    let repository = client.repository(REPOSITORY).unwrap();
    // One of the images is there already.
    images[0].push(&client, &[]).await.unwrap();
    proxy.taken();
    let [one, other] = images.each_ref().map(Image::whole);
    let summary = repository.push_index(&index, &[&one, &other], &["1", "2"], |_| ()).await.unwrap();
    assert_eq!((summary.sent, summary.there, summary.is_new), (2, 0, true));
    assert_eq!((summary.digest.as_str(), summary.tags.len()), (index.digest(), 2));
    let requests = proxy.taken();
    // The questions about manifests come before all else.
    let asked = requests.iter().take_while(|request| request.is("HEAD", "/manifests/")).count();
    assert_eq!(asked, 2 + 3, "{requests:?}");

    let again = repository.push_index(&index, &[&one, &other], &["1", "2"], |_| ()).await.unwrap();
    assert!(!again.is_new && again.tags.is_empty());
    assert_eq!(proxy.taken().len(), 2);

    let folder = tempfile::tempdir().unwrap();
    let source = format!("docker://{}/{REPOSITORY}:1", registry.address);
    let target = format!("oci:{}:copied", folder.path().display());
    run(Command::new("skopeo").args([
        "copy",
        "--all",
        "--quiet",
        "--src-tls-verify=false",
        &source,
        &target,
    ]));
    let copied = folder.path().join("blobs/sha256");
    for digest in [index.digest(), images[0].manifest.digest(), images[1].manifest.digest()] {
        assert!(copied.join(&digest["sha256:".len()..]).is_file(), "{digest}");
    }
    let read = repository.manifest("1").await.unwrap().unwrap();
    assert_eq!((read.media_type(), read.bytes()), (OCI_INDEX, index.bytes()));
    assert!(String::from_utf8_lossy(read.bytes()).contains("of tests"));

    // What others copied to is nothing new to us.
    let target = format!("docker://{}/team/theirs:1", registry.address);
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run(Command::new("skopeo").args(["copy", "--all", "--quiet"]).args(tls).args([&source, &target]));
    let theirs = client.repository("team/theirs").unwrap();
    assert!(!theirs.push_index(&index, &[&one, &other], &["1"], |_| ()).await.unwrap().is_new);
}

#[tokio::test]
async fn layers_of_known_diff_ids_are_not_packed_again() {
    let registry = Registry::start();
    let client = client(&registry.address);
    let image = Image::of(&[70_000, 3000]);
    image.push(&client, &["1"]).await.unwrap();
    let index = Manifest::index(
        &[Entry { manifest: image.manifest.descriptor(), platform: "linux/amd64".parse().unwrap() }],
        &BTreeMap::new(),
    );
    let repository = client.repository(REPOSITORY).unwrap();
    repository.push_index(&index, &[&image.whole()], &["all"], |_| ()).await.unwrap();
    for by in ["1", "all", index.digest()] {
        let layers = repository.layers(by).await.unwrap();
        let packed: Vec<&str> = layers.values().map(|layer| layer.digest.as_str()).collect();
        assert_eq!(layers.len(), 2);
        assert!(image.blobs[..2].iter().all(|blob| packed.contains(&blob.digest.as_str())));
        assert!(layers.keys().all(|diff_id| diff_id.starts_with("sha256:")));
    }
    assert!(repository.layers("none").await.unwrap().is_empty());

    // They are pushed by name, and what the registry lost is not.
    let mut next = Image::of(&[100]);
    next.blobs.extend(image.blobs[..2].iter().map(|blob| Blob::known(&blob.descriptor())));
    assert_eq!(next.push(&client, &["2"]).await.unwrap().there, 2);
    let lost = Blob::known(&Blob::of(LAYER, "never pushed").descriptor());
    next.blobs.push(lost);
    next.manifest = Manifest::new(next.manifest.media_type(), format!("{} ", "{}"));
    let error = next.push(&client, &["3"]).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Content { why, .. } if why.contains("no longer")), "{error}");
}

#[tokio::test]
async fn an_index_of_more_images_than_anybody_has_is_not_read() {
    for (count, reads) in [(64, 65), (65, 1)] {
        let entry = |number: usize| serde_json::json!({"mediaType": OCI_MANIFEST, "size": 7, "digest": format!("sha256:{number:064x}")});
        let entries: Vec<_> = (0..count).map(entry).collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        let said = index.to_string();
        let proxy = Proxy::before("", move |request| {
            if request.is("GET", "/manifests/all") {
                return status("200 OK", &format!("Content-Type: {OCI_INDEX}\r\n"), &said);
            }
            status("404 Not Found", "", "")
        });
        let client = Client::new(&format!("http://{}", proxy.address), None, None).unwrap().patient(hasty());
        let layers = client.repository(REPOSITORY).unwrap().layers("all").await;
        assert_eq!(proxy.taken().len(), reads);
        match layers {
            Ok(layers) => assert!(count == 64 && layers.is_empty()),
            Err(error) => assert!(count == 65 && error.to_string().contains("names 65 of them"), "{error}"),
        }
    }
}

#[tokio::test]
async fn layers_of_a_base_are_read_only_where_they_cannot_be_mounted() {
    let (here, there) = (Registry::start(), Registry::start());
    let base = Image::of(&[250_000, 100]);
    base.push_to(&client(&here.address), "team/base", &["1"]).await.unwrap();
    let proxy = Proxy::counting(&here.address);
    let source = Arc::new(client(&proxy.address));
    let of_base = base.blobs[..2].iter().map(|blob| {
        let mut layer = source.blob("team/base", &blob.descriptor()).unwrap();
        layer.mount_from = Some("team/base".to_owned());
        layer
    });
    let image = Image::of(&[500]).with(&of_base.collect::<Vec<_>>());
    let summary = image.push(&source, &["1"]).await.unwrap();
    assert_eq!((summary.mounted, summary.sent), (2, 2));
    assert_eq!(count(&proxy.taken(), "GET"), 0);

    let elsewhere = client(&there.address);
    let summary = image.push(&elsewhere, &["1"]).await.unwrap();
    assert_eq!((summary.sent, summary.unmounted), (4, 2));
    assert_eq!(count(&proxy.taken(), "GET"), 2);
    let summary = image.push_to(&elsewhere, "team/other", &["1"]).await.unwrap();
    assert_eq!((summary.mounted, proxy.taken().len()), (4, 0));
    image.is_at(&there, "1");
}

/// Where bytes are hashed.
struct Hash(Sha256);
impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A layer of so many bytes that is never in memory.
fn large(size: u64, seed: u8) -> Blob {
    let write = move |to: &mut dyn Write| {
        let block: Vec<u8> = (0..=250).map(|byte: u8| byte ^ seed).cycle().take(1 << 20).collect();
        let mut left = size;
        while left > 0 {
            let now = usize::try_from(left.min(1 << 20)).unwrap();
            to.write_all(&block[..now])?;
            left -= now as u64;
        }
        Ok(())
    };
    let mut hash = Hash(Sha256::new());
    write(&mut hash).unwrap();
    let digits = served::image::hexadecimal(&hash.0.finalize());
    Blob {
        digest: format!("sha256:{digits}"),
        size,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        content: Arc::new(write),
        mount_from: None,
    }
}

#[tokio::test]
async fn large_blobs_go_in_large_parts_or_in_those_that_something_on_the_way_takes() {
    const SIZE: u64 = 130_000_000;
    let rows: [(&str, Answering, usize); 3] = [
        ("all is taken", |_| Fate::Forward, 3),
        (
            "a proxy takes 100 MB",
            |request| {
                if request.size > 100_000_000 { status("413 Too Large", "", "") } else { Fate::Forward }
            },
            3,
        ),
        (
            "a PATCH of 4 MiB",
            |request| {
                let is_large = request.method == "PATCH" && request.size > 4 << 20;
                if is_large { status("413 Too Large", "", "") } else { Fate::Forward }
            },
            1 + 31,
        ),
    ];
    for (name, rule, parts) in rows {
        let registry = Registry::start();
        let proxy = Proxy::before(&registry.address, rule);
        let client = client(&proxy.address);
        let mut image = Image::of(&[]);
        image.blobs = vec![large(SIZE, 0)];
        let repository = client.repository(REPOSITORY).unwrap();
        // The blob alone: there is no manifest for it.
        let _ = repository.push(&image.whole(), &[], |_| ()).await;
        let requests = proxy.taken();
        let sizes: Vec<usize> =
            requests.iter().filter(|request| request.method == "PATCH").map(|request| request.size).collect();
        assert_eq!(sizes.len(), parts, "{name}: {sizes:?}");
        let digits = &image.blobs[0].digest["sha256:".len()..];
        let data = format!("storage/docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]);
        assert_eq!(fs::metadata(registry.folder.path().join(data)).unwrap().len(), SIZE, "{name}");
        // What was learnt of one counts for the next.
        image.blobs = vec![large(70_000_000, 7)];
        let _ = repository.push(&image.whole(), &[], |_| ()).await;
        let requests = proxy.taken();
        let most = requests.iter().filter(|request| request.method == "PATCH").map(|request| request.size);
        assert!(most.max().unwrap() <= if parts > 3 { 4 << 20 } else { 64_000_000 }, "{name}");
    }
}

#[tokio::test]
async fn a_large_blob_of_two_repositories_goes_once_whatever_the_network_does() {
    const SIZE: u64 = 70_000_000;
    let registry = Registry::start();
    let is_part = |request: &Request| request.method == "PATCH";
    let slow = first(2, |request| request.method == "POST", || status("429 Slow", "Retry-After: 1\r\n", ""));
    let number = AtomicUsize::new(0);
    let cut = move |request: &Request| is_part(request) && number.fetch_add(1, Ordering::Relaxed) == 7;
    let proxy = Proxy::before(&registry.address, move |request| {
        if request.size > 100_000_000 || (is_part(request) && request.size > 4 << 20) {
            return status("413 Too Large", "", "");
        }
        if cut(request) { Fate::Cut(2_000_000) } else { slow(request) }
    });
    let shared = large(SIZE, 11);
    let images = [500, 600].map(|size| Image::of(&[size]).with(std::slice::from_ref(&shared)));
    let client = client(&proxy.address);
    let begun = Instant::now();
    let (one, other) =
        tokio::join!(images[0].push(&client, &["1"]), images[1].push_to(&client, "team/other", &["1"]));
    let summaries = [one.unwrap(), other.unwrap()];
    assert!(begun.elapsed() > Duration::from_secs(1));
    assert_eq!(summaries.iter().map(|one| one.sent).sum::<usize>(), 2 * 2 + 1);
    assert_eq!(summaries.iter().map(|one| one.mounted).sum::<usize>(), 1);
    let requests = proxy.taken();
    assert_eq!(uploads(&requests, &shared), 1);
    assert!(requests.iter().all(|request| request.size <= 64_000_000));
    // One part is refused for its size, and one sent again behind the cut.
    let small: usize = requests
        .iter()
        .filter(|request| is_part(request))
        .map(|one| one.size)
        .filter(|size| *size <= 4 << 20)
        .sum();
    assert!((SIZE..=SIZE + 8 * (4 << 20)).contains(&(small as u64)), "{small}");
    images[0].is_at(&registry, "1");
}

#[tokio::test]
async fn a_large_part_that_is_cut_or_stalls_is_sent_again() {
    const SIZE: u64 = 80_000_000;
    let is_part = |request: &Request| request.method == "PATCH";
    let rows: Vec<(&str, Rule)> = vec![
        ("cut", Box::new(first(1, is_part, || Fate::Cut(20_000_000)))),
        ("stalled", Box::new(first(1, is_part, || Fate::Stall))),
        ("lost", Box::new(first(1, is_part, || Fate::Lose))),
        ("busy", Box::new(first(2, is_part, || status("503 Busy", "", "")))),
        ("too large at once", {
            let said = || Fate::SayAtOnce("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n".to_owned());
            Box::new(first(1, |request| request.size > 50_000_000, said))
        }),
    ];
    for (name, rule) in rows {
        let registry = Registry::start();
        let proxy = Proxy::before(&registry.address, rule);
        let mut image = Image::of(&[]);
        image.blobs = vec![large(SIZE, 3)];
        let client = client(&proxy.address);
        let _ = client.repository(REPOSITORY).unwrap().push(&image.whole(), &[], |_| ()).await;
        let digits = &image.blobs[0].digest["sha256:".len()..];
        let data = format!("storage/docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]);
        assert_eq!(fs::metadata(registry.folder.path().join(data)).unwrap().len(), SIZE, "{name}");
    }
}

#[tokio::test]
async fn manifests_are_put_by_digest_and_tags_moved_to_them() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let client = client(&proxy.address);
    let repository = client.repository(REPOSITORY).unwrap();
    let [one, other] = [Image::of(&[100]), Image::of(&[200])];
    let summary = one.push(&client, &[]).await.unwrap();
    assert_eq!((summary.digest.as_str(), summary.is_new), (one.manifest.digest(), true));
    assert!(repository.heads(&["1", "latest"]).await.unwrap().is_empty());
    repository.tag("latest", &one.manifest).await.unwrap();
    repository.tag("1", &one.manifest).await.unwrap();
    other.push(&client, &["2"]).await.unwrap();
    repository.tag("latest", &other.manifest).await.unwrap();
    proxy.taken();
    let heads = repository.heads(&["1", "2", "latest", "none", one.manifest.digest()]).await.unwrap();
    assert_eq!(count(&proxy.taken(), "HEAD"), 5);
    let digests: Vec<(&str, &str)> =
        heads.iter().map(|(by, found)| (&by[..1], found.digest.as_str())).collect();
    let [one_is, other_is] = [one.manifest.digest(), other.manifest.digest()];
    assert_eq!(digests, [("1", one_is), ("2", other_is), ("l", other_is), ("s", one_is)]);
    // The same manifest can be written again, and goes nowhere without its blobs.
    repository.put(&one.manifest).await.unwrap();
    let error = client.repository("team/empty").unwrap().put(&one.manifest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    assert!(error.diagnostic().fix.is_some());
    for wrong in [one_is, "a/b", ""] {
        let error = repository.tag(wrong, &one.manifest).await.unwrap_err();
        assert!(matches!(error, RegistryError::Name { .. }), "{error}");
    }
}

#[tokio::test]
async fn another_host_is_sent_no_password_wherever_a_registry_leads() {
    let registry = Registry::with_password();
    let image = Image::of(&[1000]);
    let behind = registry.address.clone();
    let other = Proxy::before(&behind, |_| status("404 Not Found", "", ""));
    let place = other.address.clone();
    let proxy = Proxy::before(&registry.address, move |request| {
        if matches!(request.method.as_str(), "HEAD" | "GET") && request.path != "/v2/" {
            return status("307 Go", &format!("Location: http://{place}{}\r\n", request.path), "");
        }
        Fate::Forward
    });
    let somebody = |address: &str| {
        let login = DockerCredential::UsernamePassword(USER.to_owned(), PASSWORD.to_owned());
        Client::new(address, Some(login), None).unwrap().patient(hasty())
    };
    let client = somebody(&proxy.address);
    image.push(&client, &["1"]).await.unwrap();
    let requests = other.taken();
    assert!(requests.len() >= 4);
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");
    let there = somebody(&registry.address);
    let found = there.repository(REPOSITORY).unwrap().head("1").await.unwrap().unwrap();
    assert_eq!(found.digest, image.manifest.digest());
}
