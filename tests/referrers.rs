//! What is said about an image: listed by the registry, or under a tag where it keeps no lists.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod served;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ipybox::registry::{
    Blob, Descriptor, Image as Pushable, Manifest, OCI_INDEX, OCI_MANIFEST, Patience, RegistryError,
};
use served::image::{Image, REPOSITORY, client, hasty};
use served::{Fate, Proxy, Registry, Request, count, status};

const BILL: &str = "application/vnd.cyclonedx+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn about(subject: &Descriptor, artifact_type: &str, text: &str) -> Pushable {
    let notes = BTreeMap::from([("of".to_owned(), text.to_owned())]);
    Pushable::artifact(subject, artifact_type, vec![Blob::of(artifact_type, text.to_owned())], &notes)
}

fn tag(subject: &Descriptor) -> String {
    subject.digest.replace(':', "-")
}

#[tokio::test]
async fn without_a_list_of_the_registry_there_is_one_under_a_tag() {
    let registry = Registry::start();
    let proxy = Proxy::counting(&registry.address);
    let client = client(&proxy.address);
    let repository = client.repository(REPOSITORY).unwrap();
    let image = Image::of(&[1000]);
    image.push(&client, &["1"]).await.unwrap();
    let subject = image.manifest.descriptor();
    assert!(repository.referrers(&subject.digest, None).await.unwrap().is_empty());

    let (bill, signature) = (about(&subject, BILL, "{\"a\": 1}"), about(&subject, BUNDLE, "{}"));
    let summary = repository.attach(&bill, |_| ()).await.unwrap();
    assert_eq!((summary.is_new, summary.sent, summary.digest.as_str()), (true, 2, bill.manifest.digest()));
    let summary = repository.attach(&signature, |_| ()).await.unwrap();
    // Its two bytes are those of the empty configuration, which is there.
    assert_eq!((summary.sent, summary.there), (0, 1));
    let all = repository.referrers(&subject.digest, None).await.unwrap();
    assert_eq!(all.len(), 2);
    let bills = repository.referrers(&subject.digest, Some(BILL)).await.unwrap();
    assert_eq!(bills.len(), 1);
    assert_eq!((bills[0].digest.as_str(), bills[0].artifact_type.as_str()), (bill.manifest.digest(), BILL));
    assert_eq!(bills[0].annotations.as_ref().unwrap()["of"], "{\"a\": 1}");
    assert_eq!(bills[0].size, bill.manifest.bytes().len() as u64);

    let index = repository.manifest(&tag(&subject)).await.unwrap().unwrap();
    assert_eq!(index.media_type(), OCI_INDEX);
    let written = repository.manifest(signature.manifest.digest()).await.unwrap().unwrap();
    assert_eq!(written, signature.manifest);

    // What is listed is not pushed again.
    proxy.taken();
    assert!(!repository.attach(&bill, |_| ()).await.unwrap().is_new);
    let requests = proxy.taken();
    assert_eq!((count(&requests, "GET"), requests.len()), (2, 2));
    // What is there and no longer listed is listed again.
    repository.tag(&tag(&subject), &Manifest::index(&[], &BTreeMap::new())).await.unwrap();
    repository.attach(&bill, |_| ()).await.unwrap();
    assert_eq!(repository.referrers(&subject.digest, None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn lists_that_several_write_at_once_lose_nothing() {
    let registry = Registry::start();
    let image = Image::of(&[1000]);
    image.push(&client(&registry.address), &[]).await.unwrap();
    let subject = image.manifest.descriptor();
    let publishers: Vec<_> = (0..3).map(|_| client(&registry.address)).collect();
    let texts: Vec<Vec<Pushable>> = (0..3)
        .map(|publisher| {
            (0..3).map(|number| about(&subject, BILL, &format!("{publisher} {number}"))).collect()
        })
        .collect();
    let attach = async |publisher: usize| {
        let repository = publishers[publisher].repository(REPOSITORY).unwrap();
        let tell = |_: ipybox::registry::Pushed<'_>| ();
        let [one, two, three] = [0, 1, 2].map(|number| repository.attach(&texts[publisher][number], tell));
        let done = tokio::join!(one, two, three);
        done.0.and(done.1).and(done.2).unwrap();
    };
    tokio::join!(attach(0), attach(1), attach(2));
    let repository = publishers[0].repository(REPOSITORY).unwrap();
    let found = repository.referrers(&subject.digest, None).await.unwrap();
    let mut texts: Vec<&str> =
        found.iter().map(|found| found.annotations.as_ref().unwrap()["of"].as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["0 0", "0 1", "0 2", "1 0", "1 1", "1 2", "2 0", "2 1", "2 2"]);
}

/// A registry that keeps lists, of two on each page, and says so or not.
fn listing(registry: &Registry, says_so: bool, lists: bool) -> (Proxy, Arc<Mutex<Vec<serde_json::Value>>>) {
    let kept: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
    let known = kept.clone();
    let proxy = Proxy::before(&registry.address, move |request: &Request| {
        if request.is("GET", "/referrers/sha256:") {
            let from: usize =
                request.path.split_once("?from=").map_or(0, |(_, number)| number.parse().unwrap());
            let known = known.lock().unwrap();
            let known = if lists { known.as_slice() } else { &[] };
            let page = &known[from.min(known.len())..known.len().min(from + 2)];
            let path = request.path.split('?').next().unwrap();
            let next = if from + 2 < known.len() {
                format!("Link: <{path}?from={}>; rel=\"next\"\r\n", from + 2)
            } else {
                String::new()
            };
            let body = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page});
            return status("200 OK", &format!("Content-Type: {OCI_INDEX}\r\n{next}"), &body.to_string());
        }
        if says_so && request.is("PUT", "/manifests/sha256:") {
            let header = format!("OCI-Subject: sha256:{}\r\nDocker-Content-Digest", "5".repeat(64));
            return Fate::Instead("Docker-Content-Digest".to_owned(), header);
        }
        Fate::Forward
    });
    (proxy, kept)
}

fn listed(artifact: &Pushable, artifact_type: &str) -> serde_json::Value {
    serde_json::json!({"mediaType": OCI_MANIFEST, "digest": artifact.manifest.digest(),
        "size": artifact.manifest.bytes().len(), "artifactType": artifact_type})
}

#[tokio::test]
async fn a_registry_that_keeps_lists_is_asked_and_gets_no_tag() {
    let registry = Registry::start();
    let (proxy, kept) = listing(&registry, true, true);
    let client = client(&proxy.address);
    let repository = client.repository(REPOSITORY).unwrap();
    // Nobody has to have what something is said about.
    let digest = format!("sha256:{}", "5".repeat(64));
    let subject = Descriptor { digest, media_type: OCI_MANIFEST.to_owned(), size: 7 };
    let artifacts: Vec<Pushable> = (0..5)
        .map(|number| about(&subject, if number == 3 { BUNDLE } else { BILL }, &number.to_string()))
        .collect();
    for artifact in &artifacts {
        repository.attach(artifact, |_| ()).await.unwrap();
    }
    let tagged =
        |requests: &[Request]| requests.iter().any(|request| request.is("PUT", "/manifests/sha256-"));
    assert!(!tagged(&proxy.taken()));
    kept.lock().unwrap().extend(
        artifacts
            .iter()
            .enumerate()
            .map(|(number, one)| listed(one, if number == 3 { BUNDLE } else { BILL })),
    );
    let all = repository.referrers(&subject.digest, None).await.unwrap();
    let digests: Vec<&str> = all.iter().map(|found| found.digest.as_str()).collect();
    assert_eq!(digests, artifacts.iter().map(|one| one.manifest.digest()).collect::<Vec<_>>());
    assert_eq!(count(&proxy.taken(), "GET"), 3, "pages of two");
    assert_eq!(repository.referrers(&subject.digest, Some(BUNDLE)).await.unwrap().len(), 1);

    // Who lists without saying so is believed by the list; who says neither gets a tag, also where the list is empty.
    for (lists, has_tag) in [(true, false), (false, true)] {
        let registry = Registry::start();
        let (proxy, kept) = listing(&registry, false, lists);
        let artifact = about(&subject, BILL, "x");
        let client = client_of(&proxy);
        let repository = client.repository(REPOSITORY).unwrap();
        // It is listed once it is there.
        let attached = repository.attach(&artifact, |pushed| {
            if pushed.arrival.is_some() && kept.lock().unwrap().is_empty() {
                kept.lock().unwrap().push(listed(&artifact, BILL));
            }
        });
        attached.await.unwrap();
        assert_eq!(tagged(&proxy.taken()), has_tag);
        let found = repository.referrers(&subject.digest, Some(BILL)).await.unwrap();
        assert_eq!(found.len(), 1, "{lists}");
    }
}

fn client_of(proxy: &Proxy) -> ipybox::registry::Registry {
    client(&proxy.address)
}

#[tokio::test]
async fn what_is_no_list_is_left_as_it_is() {
    let registry = Registry::start();
    let client = client(&registry.address);
    let repository = client.repository(REPOSITORY).unwrap();
    let image = Image::of(&[1000]);
    let subject = image.manifest.descriptor();
    // An image that somebody gave the name of a list.
    image.push(&client, &[&tag(&subject)]).await.unwrap();
    let error = repository.attach(&about(&subject, BILL, "x"), |_| ()).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Nonsense { why, .. } if why.contains("no list")), "{error}");
    assert_eq!(repository.manifest(&tag(&subject)).await.unwrap().unwrap(), image.manifest);
    let error = repository.attach(&image.whole(), |_| ()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Name { .. }), "{error}");
    assert!(repository.referrers("latest", None).await.is_err());

    for answer in ["400 Bad Request", "405 Method Not Allowed", "200 OK"] {
        let proxy = Proxy::before(&registry.address, move |request| {
            if request.is("GET", "/referrers/") { status(answer, "", "<html>") } else { Fate::Forward }
        });
        let client = client_of(&proxy);
        let other = format!("team/a{}", &answer[..3]);
        let repository = client.repository(&other).unwrap();
        repository.attach(&about(&subject, BILL, answer), |_| ()).await.unwrap();
        assert_eq!(repository.referrers(&subject.digest, None).await.unwrap().len(), 1);
    }
    let broken = Proxy::before(&registry.address, |request| {
        let list = format!("Content-Type: {OCI_INDEX}\r\n");
        if request.is("GET", "/referrers/") { status("200 OK", &list, "{}") } else { Fate::Forward }
    });
    let client = client_of(&broken);
    let error = client.repository(REPOSITORY).unwrap().referrers(&subject.digest, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Nonsense { .. }), "{error}");
}

/// A registry whose lists have pages of one entry with this text, and these headers, by the path and the next page's number.
fn pages(text: &str, headers: impl Fn(&str, usize) -> String + Send + Sync + 'static) -> Proxy {
    let text = text.to_owned();
    Proxy::before("", move |request: &Request| {
        let number: usize = request.path.rsplit_once(',').map_or(0, |(_, number)| number.parse().unwrap());
        let entry = serde_json::json!({"mediaType": OCI_MANIFEST, "digest": format!("sha256:{number:064x}"),
            "size": 7, "artifactType": BILL, "annotations": {"text": text}});
        let body = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
        let path = request.path.split('?').next().unwrap();
        let headers = format!("Content-Type: {OCI_INDEX}\r\n{}", headers(path, number + 1));
        status("200 OK", &headers, &body.to_string())
    })
}

#[tokio::test]
async fn a_list_goes_on_where_a_header_says_as_far_as_anybody_reads() {
    let digest = format!("sha256:{}", "5".repeat(64));
    let listed = async |proxy: &Proxy| {
        let client =
            ipybox::registry::Registry::new(&format!("http://{}", proxy.address), None, None).unwrap();
        client.repository(REPOSITORY).unwrap().referrers(&digest, None).await
    };
    // The address has a comma in it, and stands in the second header.
    let proxy = pages("", |path, next| {
        if next < 4 {
            format!("Link: <{path}>; rel=prev\r\nLink: <{path}?of=a,{next}>; rel=\"next\"\r\n")
        } else {
            String::new()
        }
    });
    assert_eq!(listed(&proxy).await.unwrap().len(), 4);

    // What is at another place is neither asked nor left out.
    let other = pages("", |_, _| String::new());
    let place = other.address.clone();
    let proxy = pages("", move |path, _| format!("Link: <http://{place}{path}>; rel=\"next\"\r\n"));
    let error = listed(&proxy).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Elsewhere { .. }), "{error}");
    assert!(other.taken().is_empty());
    let proxy = pages("", |_, _| "Link: <http://[>; rel=next\r\n".to_owned());
    assert!(matches!(listed(&proxy).await, Err(RegistryError::Nonsense { .. })));

    let endless = |path: &str, next| format!("Link: <{path}?of=a,{next}>; rel=next\r\n");
    for (text, pages_read, why) in [("", 100, "does not end"), (&*"x".repeat(4_000_000), 5, "16 MiB")] {
        let proxy = pages(text, endless);
        let error = listed(&proxy).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(count(&proxy.taken(), "GET"), pages_read);
    }
    let proxy = pages(&"x".repeat(5_000_000), endless);
    assert!(listed(&proxy).await.unwrap_err().to_string().contains("a page of its list has more than 4 MiB"));
}

#[tokio::test]
async fn what_the_last_try_wrote_into_a_list_counts() {
    let registry = Registry::start();
    let written = Arc::new(Mutex::new(0));
    let puts = written.clone();
    let proxy = Proxy::before(&registry.address, move |request| {
        let mut puts = puts.lock().unwrap();
        *puts += usize::from(request.is("PUT", "/manifests/sha256-"));
        // Others are faster until then.
        if request.is("GET", "/manifests/sha256-") && *puts < 10 {
            return status("404 Not Found", "", "{}");
        }
        Fate::Forward
    });
    let image = Image::of(&[100]);
    let patience = Patience { longest: std::time::Duration::from_millis(1), ..hasty() };
    let client = client_of(&proxy).patient(patience);
    image.push(&client, &["1"]).await.unwrap();
    let repository = client.repository(REPOSITORY).unwrap();
    let artifact = about(&image.manifest.descriptor(), BILL, "x");
    repository.attach(&artifact, |_| ()).await.unwrap();
    assert_eq!(*written.lock().unwrap(), 10);
    assert_eq!(repository.referrers(image.manifest.digest(), None).await.unwrap().len(), 1);
}
