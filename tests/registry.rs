//! Pushing to a real registry, and to one behind a network that does its worst.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "figures are for who runs them")]

mod served;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ipybox::credentials::DockerCredential;
use ipybox::registry::{
    Arrival, Blob, Descriptor, Manifest, OCI_MANIFEST, Patience, Pushed, Registry as Client, RegistryError,
    Summary,
};
use served::image::{Image, LAYER, REPOSITORY, client, digest, first, hasty, hexadecimal};
use served::{Fate, Keeping, PASSWORD, Proxy, Registry, Request, USER, count, run, status};
use sha2::{Digest, Sha256};

fn somebody(password: &str) -> DockerCredential {
    DockerCredential::UsernamePassword(USER.to_owned(), password.to_owned())
}

#[tokio::test]
async fn an_image_is_pushed_once_and_then_only_its_tags_move() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let image = Image::of(&[300_000, 1_000, 0]);
    let furthest = RefCell::new(BTreeMap::new());
    let tell = |pushed: Pushed<'_>| {
        furthest.borrow_mut().insert(pushed.digest.to_owned(), (pushed.done, pushed.arrival));
    };
    // The same blob may be in it twice.
    let mut blobs = image.blobs.clone();
    blobs.push(blobs[0].clone());
    let client = client(&proxy.address);
    let twice = Image { blobs, manifest: image.manifest.clone() }.whole();
    let repository = client.repository(REPOSITORY).unwrap();
    let summary = repository.push(&twice, &["1", "latest"], tell).await.unwrap();
    assert_eq!((summary.is_new, summary.sent, summary.there), (true, 4, 0));
    assert_eq!(summary.tags, ["1", "latest"]);
    assert_eq!(summary.bytes, image.blobs.iter().map(|blob| blob.size).sum::<u64>());
    for blob in &image.blobs {
        assert_eq!(furthest.borrow()[&blob.digest], (blob.size, Some(Arrival::Sent)));
    }
    image.is_at(&registry, "1");
    image.is_at(&registry, "latest");
    let inspected = run(Command::new("skopeo").args([
        "inspect",
        "--tls-verify=false",
        &format!("docker://{}/{REPOSITORY}:1", registry.address),
    ]));
    assert!(inspected.contains(image.manifest.digest()) && inspected.contains("ipybox.test"), "{inspected}");
    proxy.taken();

    let summary = image.push(&client, &["1", "latest"]).await.unwrap();
    let nothing = Summary { digest: image.manifest.digest().to_owned(), ..Summary::default() };
    assert_eq!(summary, nothing);
    let requests = proxy.taken();
    assert_eq!((requests.len(), count(&requests, "HEAD")), (2, 2), "{requests:?}");

    let summary = image.push(&client, &["2"]).await.unwrap();
    assert_eq!(summary, Summary { tags: vec!["2".to_owned()], ..nothing });
    let requests = proxy.taken();
    assert_eq!((count(&requests, "HEAD"), count(&requests, "PUT"), requests.len()), (2, 1, 3));

    // What is shared is not sent again.
    let mut other = Image::of(&[500]);
    other.blobs.push(image.blobs[0].clone());
    let summary = other.push(&client, &["3"]).await.unwrap();
    assert_eq!((summary.sent, summary.there, summary.is_new), (2, 1, true));

    let read = client.repository(REPOSITORY).unwrap().manifest("2").await.unwrap().unwrap();
    assert_eq!(read, image.manifest);
    let found = client.repository(REPOSITORY).unwrap().head(image.manifest.digest()).await.unwrap().unwrap();
    assert_eq!((found.digest.as_str(), found.media_type.as_str()), (image.manifest.digest(), OCI_MANIFEST));
    assert_eq!(found.size, image.manifest.bytes().len() as u64);
    assert_eq!(client.repository(REPOSITORY).unwrap().manifest("none").await.unwrap(), None);
    assert_eq!(client.repository("nobody/none").unwrap().head("1").await.unwrap(), None);
    assert_eq!(registry.sessions(), 0);
}

#[tokio::test]
async fn an_engine_pulls_what_was_pushed() {
    let registry = Registry::start();
    let image = Image::of(&[10_000, 20_000]);
    image.push(&client(&registry.address), &["pulled"]).await.unwrap();
    let name = format!("{}/{REPOSITORY}:pulled", registry.address);
    run(Command::new("docker").args(["pull", "--quiet", &name]));
    let label = run(Command::new("docker").args([
        "inspect",
        "--format",
        "{{index .Config.Labels \"ipybox.test\"}} {{json .RepoDigests}}",
        &name,
    ]));
    run(Command::new("docker").args(["rmi", &name]));
    assert!(label.starts_with("registry ") && label.contains(image.manifest.digest()), "{label}");
}

#[tokio::test]
async fn a_password_is_asked_for_and_a_wrong_one_is_asked_for_once() {
    let registry = Registry::with_password();
    let image = Image::of(&[1000]);
    let proxy = Proxy::counting(&registry.address);
    for (credential, known) in [(None, false), (Some(somebody("wrong")), true)] {
        let client = Client::new(&proxy.address, credential, None).unwrap().patient(hasty());
        let error = image.push(&client, &["1"]).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { known: it, .. } if it == known), "{error}");
        let told = format!("{:?} {error:?} {client:?}", error.diagnostic());
        assert!(told.contains("docker login") && !told.contains("wrong"), "{told}");
        assert!(proxy.taken().len() <= 3);
    }
    let client = Client::new(&proxy.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    image.push(&client, &["1"]).await.unwrap();
    let requests = proxy.taken();
    // The first is without, and no other.
    assert_eq!(requests.iter().filter(|request| request.header("authorization").is_none()).count(), 1);
    assert!(client.repository(REPOSITORY).unwrap().manifest("1").await.unwrap().is_some());
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_its_certificate_is_given() {
    let registry = Registry::with_tls();
    let image = Image::of(&[100_000]);
    let error = image.push(&client(&registry.address), &["1"]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Untrusted { .. }), "{error}");
    let authority = fs::read(registry.authority()).unwrap();
    for address in [registry.address.clone(), format!("https://{}", registry.address)] {
        let client = Client::new(&address, None, Some(&authority)).unwrap().patient(hasty());
        image.push(&client, &["1"]).await.unwrap();
        assert_eq!(
            client.repository(REPOSITORY).unwrap().manifest("1").await.unwrap().unwrap(),
            image.manifest
        );
    }
    // Whom it is asked to speak to without TLS hears nothing else.
    let plain = Client::new(&format!("http://{}", registry.address), None, None).unwrap().patient(hasty());
    assert!(image.push(&plain, &["1"]).await.is_err());
}

#[tokio::test]
async fn a_token_is_had_per_repository_and_had_anew_when_it_no_longer_counts() {
    let (registry, service) = Registry::with_tokens();
    let error = image_of_one().push(&client(&registry.address), &["1"]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { known: false, .. }), "{error}");
    service.taken();

    // Each token is good for five requests.
    let used = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    let realm = service.address.clone();
    let proxy = Proxy::before(&registry.address, move |request| {
        let Some(token) = request.header("authorization") else { return Fate::Forward };
        let mut used = used.lock().unwrap();
        let count = used.entry(token.to_owned()).or_default();
        *count += 1;
        if *count > 5 {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{realm}/token\",service=\"registry of tests\",\
                 error=\"invalid_token\"\r\n"
            );
            return status("401 Unauthorized", &challenge, "{}");
        }
        Fate::Forward
    });
    let client = Client::new(&proxy.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    let mut image = Image::of(&[9_000_000, 2_000]);
    // In parts, so that tokens change in the middle of a blob.
    let part = Proxy::before(&proxy.address, |request| {
        if request.method == "PUT" && request.size > 5_000_000 {
            return Fate::SayAtOnce("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n".to_owned());
        }
        Fate::Forward
    });
    let through = Client::new(&part.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    image.push(&through, &["1"]).await.unwrap();
    let asked = service.taken();
    assert!((3..12).contains(&asked.len()), "{}", asked.len());
    assert!(asked.iter().all(|request| request.path.contains("team%2Fapp")), "{asked:?}");
    let requests = part.taken();
    assert!(
        requests.iter().all(|request| request
            .header("authorization")
            .is_none_or(|header| header.starts_with("Bearer ")))
    );

    // Another repository gets a token of its own, and a mount one for both.
    for blob in &mut image.blobs {
        blob.mount_from = Some(REPOSITORY.to_owned());
    }
    let summary = image.push_to(&client, "team/other", &["1"]).await.unwrap();
    assert_eq!((summary.mounted, summary.sent), (3, 0));
    let asked = service.taken();
    assert!(
        asked.iter().any(
            |request| request.path.contains("team%2Fother") && request.path.contains("team%2Fapp%3Apull")
        )
    );
    assert!(asked.iter().all(|request| !request.path.contains("team%2Fapp%3Apull%2Cpush")), "{asked:?}");
}

#[tokio::test]
async fn a_scope_that_one_repository_needs_is_asked_for_by_no_other() {
    let registry = Registry::start();
    let service = Proxy::before("", |request| {
        if request.path.contains("hidden") {
            return status("403 Forbidden", "", "{}");
        }
        status("200 OK", "", "{\"token\": \"of-tests\", \"expires_in\": 300}")
    });
    let realm = service.address.clone();
    let proxy = Proxy::before(&registry.address, move |request| {
        if request.header("authorization").is_some() {
            return Fate::Forward;
        }
        let scope = if request.path.contains("/team/one/") { "repository:hidden/one:pull" } else { "" };
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{realm}/token\",service=\"tests\",scope=\"{scope}\"\r\n"
        );
        status("401 Unauthorized", &challenge, "{}")
    });
    let client = Client::new(&proxy.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    let image = image_of_one();
    let error = image.push_to(&client, "team/one", &["1"]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    service.taken();
    image.push_to(&client, "team/two", &["1"]).await.unwrap();
    let asked = service.taken();
    assert!(!asked.is_empty() && asked.iter().all(|request| !request.path.contains("one")), "{asked:?}");
}

fn image_of_one() -> Image {
    Image::of(&[1000])
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted_and_a_refused_mount_goes_on_in_its_session() {
    let registry = Registry::start();
    let mut image = Image::of(&[200_000, 100]);
    image.push(&client(&registry.address), &["1"]).await.unwrap();
    for blob in &mut image.blobs {
        blob.mount_from = Some(REPOSITORY.to_owned());
    }
    let proxy = Proxy::counting(&registry.address);
    let through = client(&proxy.address);
    let summary = image.push_to(&through, "team/other", &["1"]).await.unwrap();
    assert_eq!((summary.mounted, summary.sent, summary.bytes), (3, 0, 0));
    assert_eq!(count(&proxy.taken(), "PATCH"), 0);

    // It has not what it is said to have, and opens a session instead.
    for blob in &mut image.blobs {
        blob.mount_from = Some("nobody/none".to_owned());
    }
    // Another client does not know where they are now.
    let through = client(&proxy.address);
    let summary = image.push_to(&through, "team/third", &["1"]).await.unwrap();
    assert_eq!((summary.mounted, summary.unmounted, summary.sent), (0, 3, 3));
    assert_eq!(count(&proxy.taken(), "POST"), 3);

    // One that does not know of mounts, or does not let us read there, takes the bytes.
    for answer in
        ["404 Not Found", "403 Forbidden", "405 Method Not Allowed", "500 Oops", "503 Busy", "504 Late"]
    {
        let deaf = Proxy::before(&registry.address, move |request| {
            if request.is("POST", "mount=") { status(answer, "", "{}") } else { Fate::Forward }
        });
        let repository = format!("team/a{}", &answer[..3]);
        let client = client(&deaf.address);
        let summary = image.push_to(&client, &repository, &["1"]).await.unwrap();
        assert_eq!((summary.mounted, summary.sent), (0, 3));
        let mounts = deaf.taken().iter().filter(|request| request.is("POST", "mount=")).count();
        assert!(mounts <= 3 * 3, "{answer}: {mounts}");
    }

    // One that leads to somebody else gets nothing more.
    let leading = Proxy::before(&registry.address, |request| {
        let elsewhere = "Location: https://other.invalid/\r\n";
        if request.is("POST", "mount=") { status("307 Go", elsewhere, "") } else { Fate::Forward }
    });
    let error = image.push_to(&client(&leading.address), "team/led", &["1"]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Elsewhere { .. }), "{error}");
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    const BUSY: &str = "{\"errors\": [{\"code\": \"TOOMANYREQUESTS\", \"message\": \"slow down\"}]}";
    type Rule = Box<dyn Fn(&Request) -> Fate + Send + Sync>;
    let is_of_blobs = |request: &Request| request.path.contains("/blobs/");
    let puts_blob = |request: &Request| request.is("PUT", "digest=");
    let puts_manifest = |request: &Request| request.is("PUT", "/manifests/");
    let rows: Vec<(&str, Rule)> = vec![
        ("503", Box::new(first(3, is_of_blobs, || status("503 Busy", "", "")))),
        ("500 at the end", Box::new(first(2, puts_blob, || status("500 Oops", "", "")))),
        ("429", Box::new(first(2, puts_manifest, || status("429 Slow", "Retry-After: 1\r\n", BUSY)))),
        ("its code counts", Box::new(first(2, puts_blob, || status("403 Forbidden", "", BUSY)))),
        ("408, 502, 504", {
            let number = AtomicUsize::new(0);
            Box::new(first(6, is_of_blobs, move || {
                status(["408 T", "502 B", "504 G"][number.fetch_add(1, Ordering::Relaxed) % 3], "", "")
            }))
        }),
        ("a stalled question", Box::new(first(1, is_of_blobs, || Fate::Stall))),
        ("a cut before", Box::new(first(2, |request| request.method == "POST", || Fate::Cut(0)))),
        ("a cut body", Box::new(first(1, puts_blob, || Fate::Cut(40_000)))),
        ("a lost answer", Box::new(first(1, puts_blob, || Fate::Lose))),
        ("a lost manifest", Box::new(first(1, puts_manifest, || Fate::Lose))),
        ("nothing", Box::new(first(2, is_of_blobs, || Fate::Say(String::new())))),
        ("a gone session", Box::new(first(1, puts_blob, || status("404 Not Found", "", "{}")))),
        ("a spoilt session", Box::new(first(2, puts_blob, || status("400 Bad Request", "", "{}")))),
    ];
    for (name, rule) in rows {
        let registry = Registry::start();
        let proxy = Proxy::before(&registry.address, rule);
        let image = Image::of(&[150_000, 3_000]);
        let begun = Instant::now();
        let pushed = image.push(&client(&proxy.address), &["1"]).await;
        pushed.unwrap_or_else(|error| panic!("{name}: {error}"));
        if name == "429" {
            assert!(begun.elapsed() > Duration::from_secs(1));
        }
        image.is_at(&registry, "1");
    }
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_the_registry_says_that_it_is() {
    type Rule = Box<dyn Fn(&Request) -> Fate + Send + Sync>;
    let whole = |request: &Request| request.is("PUT", "digest=") && request.size > 1_000_000;
    let third = |request: &Request| request.method == "PATCH";
    let rows: Vec<(&str, Rule)> = vec![
        ("the whole", Box::new(first(1, whole, || Fate::Cut(5_000_000)))),
        ("the whole, and parts", {
            let (cut, parts) =
                (first(1, whole, || Fate::Cut(5_000_000)), first(2, third, || Fate::Cut(300_000)));
            Box::new(move |request| match cut(request) {
                Fate::Forward => parts(request),
                fate => fate,
            })
        }),
        ("lost answers", {
            let (cut, parts) = (first(1, whole, || Fate::Cut(70_000)), first(2, third, || Fate::Lose));
            Box::new(move |request| match cut(request) {
                Fate::Forward => parts(request),
                fate => fate,
            })
        }),
        ("a registry that takes less than it gets", {
            let (cut, parts) = (
                first(1, whole, || Fate::Cut(0)),
                first(2, third, || Fate::Instead("Range: 0-4194303".to_owned(), "Range: 0-99".to_owned())),
            );
            Box::new(move |request| match cut(request) {
                Fate::Forward => parts(request),
                fate => fate,
            })
        }),
        ("a stalled part", {
            let (cut, parts) = (first(1, whole, || Fate::Cut(0)), first(1, third, || Fate::Stall));
            Box::new(move |request| match cut(request) {
                Fate::Forward => parts(request),
                fate => fate,
            })
        }),
    ];
    for (name, rule) in rows {
        let registry = Registry::start();
        let proxy = Proxy::before(&registry.address, rule);
        let image = Image::of(&[9_000_000]);
        let told = RefCell::new(Vec::new());
        let tell = |pushed: Pushed<'_>| {
            if pushed.size > 1_000_000 {
                told.borrow_mut().push(pushed.done);
            }
        };
        let client = client(&proxy.address);
        let repository = client.repository(REPOSITORY).unwrap();
        let pushed = repository.push(&image.whole(), &["1"], tell).await;
        let summary = pushed.unwrap_or_else(|error| panic!("{name}: {error}"));
        image.is_at(&registry, "1");
        let size = image.blobs[0].size;
        assert!(told.borrow().iter().all(|&done| done <= size) && told.borrow().last() == Some(&size));
        let requests = proxy.taken();
        let patched: usize =
            requests.iter().filter(|request| request.method == "PATCH").map(|request| request.size).sum();
        println!(
            "{name}: {} bytes sent of {size}, {patched} in parts, {} requests",
            summary.bytes,
            requests.len()
        );
        assert!(count(&requests, "PATCH") > 0, "{name}");
    }
}

#[tokio::test]
async fn nothing_is_sent_twice_to_a_registry_that_kept_it() {
    let whole = |request: &Request| request.is("PUT", "digest=") && request.size > 1_000_000;
    for (cut, parts) in [(5_000_000, 0), (70_000, 300_000), (2, 4_000_000), (0, 2)] {
        let keeping = Keeping::default();
        let (cutting, cutting_parts) = (
            first(1, whole, move || Fate::Cut(cut)),
            first(3, |request| request.method == "PATCH", move || Fate::Cut(parts)),
        );
        let proxy = Proxy::before(&keeping.start(), move |request| match cutting(request) {
            Fate::Forward => cutting_parts(request),
            fate => fate,
        });
        let mut image = Image::of(&[20_000_000]);
        image.blobs.truncate(1);
        let summary = image.push(&client(&proxy.address), &[]).await.unwrap();
        let (bytes, received) = keeping.blob();
        assert_eq!(digest(&bytes), image.blobs[0].digest);
        assert_eq!(received as u64, image.blobs[0].size, "{cut} {parts}");
        assert!(summary.bytes >= received as u64);
    }
}

#[tokio::test]
async fn a_registry_that_always_loses_what_it_had_is_given_up() {
    let registry = Registry::start();
    let proxy = Proxy::before(&registry.address, |request| {
        let is_later = request.header("content-range").is_some_and(|range| !range.starts_with("0-"));
        let is_whole = request.is("PUT", "digest=") && request.size > 0;
        if is_later || is_whole { Fate::Lose } else { Fate::Forward }
    });
    // The whole is refused, so that it goes in parts.
    let small = Proxy::before(&proxy.address, |request| {
        if request.size > 5_000_000 { status("413 Too Large", "", "") } else { Fate::Forward }
    });
    let error = Image::of(&[9_000_000]).push(&client(&small.address), &["1"]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(count(&small.taken(), "PATCH") <= 60);
}

/// What is answered to some requests.
type Answering = fn() -> Fate;

#[tokio::test]
async fn bodies_become_as_small_as_something_on_the_way_wants_them() {
    for (limit, at_once) in [(1_000_000, false), (1_000_000, true), (100_000, false)] {
        let registry = Registry::start();
        let proxy = Proxy::before(&registry.address, move |request| {
            if request.size <= limit {
                return Fate::Forward;
            }
            let said = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
            if at_once { Fate::SayAtOnce(said) } else { Fate::Say(said) }
        });
        let image = Image::of(&[5_000_000, 10]);
        image.push(&client(&proxy.address), &["1"]).await.unwrap();
        image.is_at(&registry, "1");
        assert_eq!(registry.sessions(), 0);
    }
    // Not everything on the way says that it is the size.
    let rows: [(&str, usize, Answering); 5] = [
        ("400", 100_000, || status("400 Bad Request", "", "<html>")),
        ("501", 1_000_000, || status("501 Not Implemented", "", "")),
        ("502", 5 << 20, || status("502 Bad Gateway", "", "")),
        ("cut", 1_000_000, || Fate::Cut(0)),
        ("cut within", 1_000_000, || Fate::Cut(500_000)),
    ];
    for (name, limit, answer) in rows {
        let registry = Registry::start();
        let proxy =
            Proxy::before(
                &registry.address,
                move |request| {
                    if request.size > limit { answer() } else { Fate::Forward }
                },
            );
        let image = Image::of(&[9_000_000, 10]);
        let pushed = image.push(&client(&proxy.address), &["1"]).await;
        pushed.unwrap_or_else(|error| panic!("{name}: {error}"));
        image.is_at(&registry, "1");
        let large = proxy.taken().iter().filter(|request| request.size > limit).count();
        assert!(large <= 8, "{name}: {large}");
    }
    let registry = Registry::start();
    let proxy = Proxy::before(&registry.address, |request| {
        if request.size > 1000 && request.path.contains("/blobs/") {
            return status("413 Too Large", "", "");
        }
        Fate::Forward
    });
    let error = Image::of(&[500_000]).push(&client(&proxy.address), &["1"]).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Refused { why, .. } if why.contains("413")), "{error}");
    assert!(registry.sessions() <= 1);
}

#[tokio::test]
async fn parts_are_as_large_as_a_registry_asks_for() {
    for (least, parts) in [("5000000", 2), ("8000000", 2), ("40000000", 1)] {
        let registry = Registry::start();
        let cut =
            first(1, |request| request.is("PUT", "digest=") && request.size > 1_000_000, || Fate::Cut(0));
        let proxy = Proxy::before(&registry.address, move |request| match request.method.as_str() {
            "POST" => Fate::Instead(
                "Docker-Upload-Uuid".to_owned(),
                format!("OCI-Chunk-Min-Length: {least}\r\nDocker-Upload-Uuid"),
            ),
            _ => cut(request),
        });
        let image = Image::of(&[9_000_000]);
        image.push(&client(&proxy.address), &["1"]).await.unwrap();
        image.is_at(&registry, "1");
        let requests = proxy.taken();
        assert_eq!(count(&requests, "PATCH"), parts, "{least}: {requests:?}");
        let small = |request: &&Request| request.method == "PATCH" && request.size < least.parse().unwrap();
        assert!(requests.iter().filter(small).count() <= 1);
    }
}

#[tokio::test]
async fn what_is_no_registry_is_told_as_what_it_is() {
    type Check = fn(&RegistryError) -> bool;
    type Rule = fn(&Request) -> Fate;
    let page = "<html>Welcome!</html>";
    let nonsense: Check = |error| matches!(error, RegistryError::Nonsense { .. });
    let unreachable: Check = |error| matches!(error, RegistryError::Unreachable { .. });
    let denied: Check = |error| matches!(error, RegistryError::Denied { .. });
    let refused: Check = |error| matches!(error, RegistryError::Refused { .. });
    let wrong: Check = |error| matches!(error, RegistryError::Digest { .. });
    let elsewhere: Check = |error| matches!(error, RegistryError::Elsewhere { .. });
    let rows: [(&str, Rule, Check); 14] = [
        (
            "a page for all",
            |_| status("200 OK", "Content-Type: text/html\r\n", "<html>Welcome!</html>"),
            nonsense,
        ),
        ("no HTTP", |_| Fate::Say("220 mail.invalid ESMTP\r\n".to_owned()), unreachable),
        ("silence", |_| Fate::Stall, unreachable),
        ("401 without a challenge", |_| status("401 Unauthorized", "", "{}"), denied),
        ("403", |_| status("403 Forbidden", "", "{\"errors\":[{\"code\":\"DENIED\"}]}"), denied),
        (
            "409",
            |request| if request.method == "POST" { status("409 Conflict", "", "[]") } else { Fate::Forward },
            refused,
        ),
        ("418", |_| status("418 Teapot", "", "[1, {}]"), refused),
        ("circles", |_| status("307 Go", "Location: /v2/\r\n", ""), nonsense),
        ("nowhere", |_| status("307 Go", "", ""), nonsense),
        (
            "no place",
            |request| if request.method == "POST" { status("202 Accepted", "", "") } else { Fate::Forward },
            nonsense,
        ),
        (
            "a place of another kind",
            |request| {
                if request.method == "POST" {
                    status("202 Accepted", "Location: http://other.invalid/\r\n", "")
                } else {
                    Fate::Forward
                }
            },
            elsewhere,
        ),
        (
            "a write that leads elsewhere",
            |request| {
                if request.method == "POST" {
                    status("307 Go", "Location: https://other.invalid/\r\n", "")
                } else {
                    Fate::Forward
                }
            },
            elsewhere,
        ),
        (
            "a digest that is not the blob's",
            |request| {
                if request.is("PUT", "digest=") {
                    let header = format!("Docker-Content-Digest: sha256:{}\r\n", "0".repeat(64));
                    return status("201 Created", &header, "");
                }
                Fate::Forward
            },
            wrong,
        ),
        (
            "a digest that is not the manifest's",
            |request| {
                if request.is("PUT", "/manifests/") {
                    let header = format!("Docker-Content-Digest: sha256:{}\r\n", "0".repeat(64));
                    return status("201 Created", &header, "");
                }
                Fate::Forward
            },
            wrong,
        ),
    ];
    for (name, rule, check) in rows {
        let registry = Registry::start();
        let proxy = Proxy::before(&registry.address, rule);
        let patience =
            Patience { total: Duration::from_secs(1), silence: Duration::from_millis(200), ..hasty() };
        let client = Client::new(&format!("http://{}", proxy.address), None, None).unwrap().patient(patience);
        let error = image_of_one().push(&client, &["1"]).await.unwrap_err();
        assert!(check(&error), "{name}: {error:?}");
        assert_eq!(
            error.is_worth_a_retry(),
            matches!(error, RegistryError::Unreachable { .. }),
            "{name}: {error}"
        );
        assert!(error.diagnostic().fix.is_some() && !error.to_string().contains(page), "{name}");
        // Of the blob beside the one that failed nobody may have heard yet where its session is.
        assert!(registry.sessions() <= 1, "{name}");
    }
    let nobody = format!("127.0.0.1:{}", served::free_port());
    let error = image_of_one().push(&client(&nobody), &["1"]).await.unwrap_err();
    assert!(unreachable(&error) && error.is_worth_a_retry(), "{error}");
}

#[tokio::test]
async fn nobody_else_hears_a_password() {
    let registry = Registry::with_password();
    let image = Image::of(&[100_000]);
    let other = Proxy::counting(&registry.address);
    let other_address = other.address.clone();
    let proxy = Proxy::before(&registry.address, move |request| {
        if request.is("GET", "/blobs/sha256") {
            return status("307 Go", &format!("Location: http://{other_address}{}\r\n", request.path), "");
        }
        Fate::Forward
    });
    let client = Client::new(&proxy.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    image.push(&client, &["1"]).await.unwrap();
    let layer = Descriptor {
        digest: image.blobs[0].digest.clone(),
        media_type: LAYER.to_owned(),
        size: image.blobs[0].size,
    };
    // The other one wants to know as well, and is not told.
    let error = client.repository(REPOSITORY).unwrap().blob(&layer).unwrap().next().await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    let requests = other.taken();
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");

    // A session elsewhere gets the bytes and nothing else.
    let storage = Proxy::before("", |request| {
        assert_eq!(request.header("authorization"), None);
        status("201 Created", "", "")
    });
    let place = storage.address.clone();
    let leading = Proxy::before(&registry.address, move |request| {
        if request.method == "POST" {
            return status("202 Accepted", &format!("Location: http://{place}/store?state=1\r\n"), "");
        }
        Fate::Forward
    });
    let client = Client::new(&leading.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    // The registry itself never got them.
    assert!(Image::of(&[1000]).push(&client, &["1"]).await.is_err());
    let requests = storage.taken();
    assert!(requests.iter().any(|request| request.is("PUT", "/store?state=1&digest=sha256")));
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");

    // A token service without TLS that is elsewhere is not asked.
    let fishing = Proxy::before("", |_| {
        let challenge = "WWW-Authenticate: Bearer realm=\"http://fishing.invalid/token\"\r\n";
        status("401 Unauthorized", challenge, "")
    });
    let client = Client::new(&fishing.address, Some(somebody(PASSWORD)), None).unwrap().patient(hasty());
    let error = client.repository(REPOSITORY).unwrap().manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Elsewhere { .. }), "{error}");
}

#[tokio::test]
async fn what_is_read_is_what_its_digest_says() {
    const OTHER: &str = r#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}"#;
    let registry = Registry::start();
    let image = Image::of(&[3_000_000]);
    image.push(&client(&registry.address), &["1"]).await.unwrap();
    let layer = Descriptor {
        digest: image.blobs[0].digest.clone(),
        media_type: LAYER.to_owned(),
        size: image.blobs[0].size,
    };
    let read = async |client: &Client, layer: &Descriptor| {
        let mut download = client.repository(REPOSITORY)?.blob(layer)?;
        let mut bytes = Vec::new();
        while let Some(next) = download.next().await? {
            bytes.extend_from_slice(&next);
        }
        Ok::<_, RegistryError>(bytes)
    };
    assert_eq!(digest(&read(&client(&registry.address), &layer).await.unwrap()), layer.digest);

    // What is cut goes on, also where the registry begins anew.
    let cut = Proxy::before(
        &registry.address,
        first(2, |request| request.is("GET", "/blobs/"), || Fate::Half(1_000_000)),
    );
    assert_eq!(digest(&read(&client(&cut.address), &layer).await.unwrap()), layer.digest);
    let requests = cut.taken();
    assert!(requests.iter().any(|request| request.header("range") == Some("bytes=1000000-")), "{requests:?}");
    let half = first(1, |request| request.is("GET", "/blobs/"), || Fate::Half(1_000_000));
    let deaf = Proxy::before(&registry.address, move |request| match half(request) {
        Fate::Forward => Fate::Without("range"),
        fate => fate,
    });
    assert_eq!(digest(&read(&client(&deaf.address), &layer).await.unwrap()), layer.digest);

    let other = Proxy::before(&registry.address, |request| {
        if request.is("GET", "/blobs/") || request.is("GET", "/manifests/sha256") {
            return status("200 OK", "", OTHER);
        }
        Fate::Forward
    });
    let through = client(&other.address);
    let same = Descriptor { size: OTHER.len() as u64, ..layer.clone() };
    assert!(matches!(read(&through, &same).await, Err(RegistryError::Digest { .. })));
    let short = Descriptor { size: 10, ..layer.clone() };
    assert!(matches!(read(&through, &short).await, Err(RegistryError::Nonsense { .. })));
    let error = through.repository(REPOSITORY).unwrap().manifest(image.manifest.digest()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    let missing = Descriptor { digest: digest(b"missing"), ..layer };
    assert!(matches!(read(&client(&registry.address), &missing).await, Err(RegistryError::Refused { .. })));
}

#[tokio::test]
async fn what_is_not_its_digest_is_not_pushed_and_its_session_ends() {
    let registry = Registry::start();
    let mut image = Image::of(&[100_000]);
    image.blobs[0].digest = digest(b"something else");
    let error = image.push(&client(&registry.address), &["1"]).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Content { why, .. } if why.contains("its bytes are those of")),
        "{error}"
    );
    assert_eq!(registry.sessions(), 0);
    assert_eq!(client(&registry.address).repository(REPOSITORY).unwrap().manifest("1").await.unwrap(), None);

    let mut image = Image::of(&[100_000]);
    image.blobs[0].content = Arc::new(|_: &mut dyn Write| Err(std::io::Error::other("the disk is gone")));
    let error = image.push(&client(&registry.address), &["1"]).await.unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    for (repository, tag) in
        [("Team/app", "1"), ("team/../x", "1"), ("team/app?x", "1"), ("team/app", "a/b"), ("", "1")]
    {
        let client = client(&registry.address);
        let error = image.push_to(&client, repository, &[tag]).await.unwrap_err();
        assert!(matches!(error, RegistryError::Name { .. }), "{repository} {tag}: {error}");
    }
}

#[tokio::test]
async fn whoever_is_interrupted_leaves_no_tag_and_the_next_goes_on() {
    let registry = Registry::start();
    let image = Image::of(&[3_000_000, 2_000_000, 1_000_000]);
    let client = client(&registry.address);
    image_of_one().push(&client, &["1"]).await.unwrap();
    for milliseconds in [1, 3, 7, 12, 20, 30, 45] {
        let pushing = image.push(&client, &["1"]);
        let _ = tokio::time::timeout(Duration::from_millis(milliseconds), pushing).await;
        let there = client.repository(REPOSITORY).unwrap().manifest("1").await.unwrap().unwrap();
        if there == image.manifest {
            image.is_at(&registry, "1");
        }
    }
    image.push(&client, &["1"]).await.unwrap();
    image.is_at(&registry, "1");
}

/// Prints what a blob of two gigabytes takes, beside `skopeo copy` of the same; run on demand.
#[tokio::test]
#[ignore = "takes minutes and gigabytes"]
async fn a_large_blob_takes_little_memory() {
    const SIZE: u64 = 2 << 30;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let layout = folder.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    // Half of it is zeroes, in runs.
    let write = |to: &mut dyn Write| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = vec![0_u8; 1 << 20];
        for number in 0..SIZE >> 20 {
            if number % 2 == 0 {
                for word in block.chunks_exact_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    word.copy_from_slice(&state.to_le_bytes());
                }
            } else {
                block.fill(0);
            }
            to.write_all(&block)?;
        }
        Ok::<_, std::io::Error>(())
    };
    let file = folder.path().join("blob");
    let mut hash = Sha256::new();
    let mut out = fs::File::create(&file).unwrap();
    write(&mut out).unwrap();
    let mut block = vec![0; 1 << 20];
    let mut written = fs::File::open(&file).unwrap();
    for _ in 0..SIZE >> 20 {
        written.read_exact(&mut block).unwrap();
        hash.update(&block);
    }
    let digits = hexadecimal(&hash.finalize());
    fs::rename(&file, blobs.join(&digits)).unwrap();
    let place = blobs.join(&digits);
    let layer = Blob {
        digest: format!("sha256:{digits}"),
        size: SIZE,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        content: Arc::new(move |to: &mut dyn Write| {
            std::io::copy(&mut fs::File::open(&place)?, &mut &mut *to).map(|_| ())
        }),
        mount_from: None,
    };
    let text = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [&layer.digest]}})
    .to_string();
    let config = Blob::of("application/vnd.oci.image.config.v1+json", text.clone().into_bytes());
    let described = |blob: &Blob| serde_json::json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size});
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(&config), "layers": [described(&layer)]});
    let manifest = Manifest::new(OCI_MANIFEST, manifest.to_string());
    fs::write(blobs.join(&config.digest["sha256:".len()..]), text).unwrap();
    fs::write(blobs.join(&manifest.digest()["sha256:".len()..]), manifest.bytes()).unwrap();
    fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}").unwrap();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"mediaType": OCI_MANIFEST,
        "digest": manifest.digest(), "size": manifest.bytes().len()}]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let image = Image { blobs: vec![layer, config], manifest };
    for round in 0..3 {
        let registry = Registry::start();
        let client = Client::new(&registry.address, None, None).unwrap();
        let begun = Instant::now();
        image.push(&client, &["1"]).await.unwrap();
        let ours = begun.elapsed();
        drop(registry);
        let registry = Registry::start();
        let begun = Instant::now();
        let target = format!("docker://{}/{REPOSITORY}:1", registry.address);
        let source = format!("oci:{}", layout.display());
        run(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", &source, &target]));
        let theirs = begun.elapsed();
        let memory = fs::read_to_string("/proc/self/status").unwrap();
        let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        println!("round {round}: ours {ours:.2?}, skopeo {theirs:.2?}, {peak}");
    }
}
