//! `ipybox verify --published`: is an image what was published, and does it run?

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::push::failed;
use super::registries::Registries;
use super::verify::variant_of;
use super::{Caller, Failure};
use crate::attest::{Attestation, SIGNED, Signer, SignerError};
use crate::cli::{PublicationArgs, VerifyArgs};
use crate::diagnostic::Diagnostic;
use crate::engine::{EngineError, KnownEngines};
use crate::harmless::harmless;
use crate::inputs::trust;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Blob, Descriptor, Image, Manifest, Referrer, RegistryError, Repository};
use crate::report::{Report, Work, finding};
use crate::verify::{self, Finding, Verdict};

/// The largest text that is read, in bytes: a configuration, or what is said about an image.
const MOST_TEXT: u64 = 16 << 20;

/// How many layers or entries a manifest has at most.
const MOST_PARTS: usize = 512;

pub(super) async fn run(args: VerifyArgs, caller: &Caller) -> Result<(), Failure> {
    let name: Reference = args.image.parse().map_err(|error| {
        let what = Diagnostic::new(format!("`{}` names no published image", args.image.escape_debug()));
        Failure::usage(what.why(format!("{error}")).advice("name it, as `registry.example/team/sandbox:1`"))
    })?;
    let ssl_cert_file = caller.environment.ssl_cert_file.as_deref();
    let certificates = trust::bundle(ssl_cert_file, args.steps.ca_cert.as_deref())?;
    let mut checks = Checks { report: &caller.report, is_json: args.json, findings: Vec::new() };
    let PublicationArgs { signer, signer_arg, no_run, .. } = &args.publication;
    let signer = signer.as_ref().map(|program| Signer { args: signer_arg.clone(), ..Signer::new(program) });
    let looking = look(&name, signer.as_ref(), certificates.as_deref(), caller, &mut checks);
    let looked = caller.interrupt.run_until_cancelled(looking).await.ok_or_else(Failure::interrupted)?;
    let (whole, signature) = looked?;
    if !no_run {
        if verify::none_failed(&checks.findings) {
            start(&whole, &args, caller, &mut checks).await?;
        } else {
            checks.note(Finding {
                name: "the image runs".to_owned(),
                verdict: Verdict::NotRun,
                seconds: 0.0,
            });
        }
    }
    let passed = verify::none_failed(&checks.findings);
    if args.json {
        let report = json!({
            "image": whole, "passed": passed, "signature": signature, "checks": checks.findings,
        });
        let report = caller.report.redacted(&format!("{report:#}"));
        let written = caller.report.result(|out| writeln!(out, "{report}"));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
    }
    if passed {
        return Ok(());
    }
    let count = checks.findings.iter().filter(|check| check.has_failed()).count();
    let what = Diagnostic::new(format!("`{whole}` is not what should be published"));
    let why = format!("{count} of {} checks failed, as told above", checks.findings.len());
    Err(Failure::refused(what.why(why)))
}

/// What came of the checks, told one by one.
struct Checks<'a> {
    report: &'a Report,
    is_json: bool,
    findings: Vec<Finding>,
}

/// What a check finds instead of what should be.
enum Wrong {
    /// It is not so, and why.
    Here(String),
    /// It cannot be found out.
    Over(Failure),
}

impl Checks<'_> {
    fn note(&mut self, check: Finding) {
        if !self.is_json {
            let line = self.report.redacted(&finding(&check));
            // A reader that went away does not end the checks.
            let _ = self.report.result(|out| writeln!(out, "{line}"));
        }
        self.findings.push(check);
    }

    /// Tries one thing; `None` where it failed.
    async fn check<T>(
        &mut self,
        name: String,
        tried: impl Future<Output = Result<T, Wrong>>,
    ) -> Result<Option<T>, Failure> {
        let begun = Instant::now();
        let (verdict, found) = match tried.await {
            Ok(found) => (Verdict::Passed, Some(found)),
            Err(Wrong::Here(why)) => (Verdict::Failed(harmless(&why)), None),
            Err(Wrong::Over(failure)) => return Err(failure),
        };
        self.note(Finding { name: harmless(&name), verdict, seconds: begun.elapsed().as_secs_f64() });
        Ok(found)
    }
}

impl From<RegistryError> for Wrong {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Denied { .. } | RegistryError::Untrusted { .. } | RegistryError::Settings(_) => {
                Self::Over(failed(error))
            }
            error if error.is_worth_a_retry() => Self::Over(failed(error)),
            error => Self::Here(error.to_string()),
        }
    }
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Here(why.into()))
}

/// What a manifest of any kind says.
///
/// Rule: OCI image specification, "Image Manifest" and "Image Index".
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    manifests: Option<Vec<Part>>,
    #[serde(default)]
    subject: Option<Part>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

impl Part {
    fn descriptor(&self) -> Descriptor {
        let Self { media_type, digest, size, .. } = self.clone();
        Descriptor { digest, media_type, size }
    }
}

impl Said {
    fn of(manifest: &Manifest) -> Result<Self, Wrong> {
        let said: Self = serde_json::from_slice(manifest.bytes())
            .map_err(|error| Wrong::Here(format!("it is no manifest: {error}")))?;
        let most = said.layers.len().max(said.manifests.as_ref().map_or(0, Vec::len));
        match (&said.config, &said.manifests) {
            _ if most > MOST_PARTS => wrong(format!("it has more than {MOST_PARTS} parts")),
            (Some(_), None) | (None, Some(_)) => Ok(said),
            _ => wrong("it is neither the manifest of one image nor an index"),
        }
    }

    /// Configuration and layers.
    fn blobs(&self) -> impl Iterator<Item = &Part> {
        self.layers.iter().chain(&self.config)
    }
}

/// What is said about a manifest.
struct About {
    referrer: Referrer,
    manifest: Manifest,
    said: Said,
}

impl About {
    fn artifact_type(&self) -> &str {
        let of_config = self.said.config.as_ref().map(|config| config.media_type.as_str());
        self.said.artifact_type.as_deref().or(of_config).unwrap_or_default()
    }

    /// What of ours it is, where it is ours.
    fn attestation(&self) -> Option<Attestation> {
        let is_ours = self.said.annotations.as_ref().is_some_and(|notes| notes.contains_key(SIGNED));
        Attestation::of(self.artifact_type()).filter(|_| is_ours)
    }

    /// Whether it may be a signature: others' bills and statements are none.
    fn may_sign(&self) -> bool {
        let kind = self.artifact_type();
        Attestation::of(kind).is_none() && !["spdx", "sarif"].iter().any(|other| kind.contains(other))
    }
}

/// Looks at what a registry has under a name, and returns its name by digest and what became of its signatures.
async fn look(
    name: &Reference,
    signer: Option<&Signer>,
    certificates: Option<&[u8]>,
    caller: &Caller,
    checks: &mut Checks<'_>,
) -> Result<(String, &'static str), Failure> {
    let registries = Registries::of([name], certificates, caller).await?;
    let (place, repository) = (name.canonical(), registries.repository(name)?);
    let by = name.digest().or(name.tag()).unwrap_or("latest");
    let named = checks.check(format!("there is a `{by}`"), async {
        match repository.manifest(by).await? {
            Some(manifest) => Ok(manifest),
            None => {
                let what = Diagnostic::new(format!("there is no `{by}` of `{place}`"));
                Err(Wrong::Over(Failure::refused(what.advice("publish it first, or correct its name"))))
            }
        }
    });
    let Some(top) = named.await? else { return Ok((name.to_string(), "unknown")) };
    let described = top.descriptor();
    let whole = format!("{}@{}", name.repository(), described.digest);
    checks.check("it is there by its digest".to_owned(), fetched(&repository, &described)).await?;
    let Some(said) = checks.check("it is an image".to_owned(), async { Said::of(&top) }).await? else {
        return Ok((whole, "unknown"));
    };
    let mut signatures = Vec::new();
    let listed = said.manifests.clone().unwrap_or_default();
    if said.manifests.is_some() {
        let about = abouts("index", &repository, &described, checks).await?;
        signatures.push(("index".to_owned(), about));
        let several = checks
            .check("index: it names images".to_owned(), async {
                if listed.is_empty() { wrong("it names none") } else { Ok(()) }
            })
            .await?;
        if several.is_none() {
            return Ok((whole, "unknown"));
        }
        for entry in &listed {
            let place = entry.platform.as_ref().map_or(entry.digest.clone(), Platform::to_string);
            let named = entry.descriptor();
            let found = fetched(&repository, &named);
            let Some(manifest) = checks.check(format!("{place}: its manifest is there"), found).await? else {
                continue;
            };
            let platform = entry.platform.as_ref();
            signatures.push((place.clone(), image(&place, &manifest, platform, &repository, checks).await?));
        }
    } else {
        signatures.push(("image".to_owned(), image("image", &top, None, &repository, checks).await?));
    }
    let signature = signed(signatures, signer, &repository, caller, checks).await?;
    Ok((whole, signature))
}

/// A manifest by its digest.
async fn fetched(repository: &Repository<'_>, named: &Descriptor) -> Result<Manifest, Wrong> {
    let Some(manifest) = repository.manifest(&named.digest).await? else {
        return wrong("the registry does not have it by its digest");
    };
    let found = manifest.descriptor();
    if found == *named {
        return Ok(manifest);
    }
    let Descriptor { digest, media_type, size } = found;
    wrong(format!("the registry has `{digest}` of {size} bytes, {media_type}"))
}

/// Looks at the manifest of one image and at what is said about it.
async fn image(
    place: &str,
    manifest: &Manifest,
    platform: Option<&Platform>,
    repository: &Repository<'_>,
    checks: &mut Checks<'_>,
) -> Result<Vec<About>, Failure> {
    let said = checks.check(format!("{place}: it is one image"), async {
        match Said::of(manifest)? {
            Said { manifests: Some(_), .. } => wrong("it is an index of further images"),
            said => Ok(said),
        }
    });
    let Some(said) = said.await? else { return Ok(Vec::new()) };
    let count = said.layers.len();
    checks.check(format!("{place}: its {count} layers are there"), present(&said.layers, repository)).await?;
    checks.check(format!("{place}: its configuration fits"), configured(&said, platform, repository)).await?;
    let described = manifest.descriptor();
    let abouts = abouts(place, repository, &described, checks).await?;
    for kind in Attestation::ALL {
        let ours: Vec<_> = abouts.iter().filter(|about| about.attestation() == Some(kind)).collect();
        let name = format!("{place}: {}, unsigned, names it", kind.noun());
        if ours.is_empty() {
            let name = format!("{place}: {} (there is none)", kind.noun());
            checks.note(Finding { name, verdict: Verdict::NotRun, seconds: 0.0 });
            continue;
        }
        checks
            .check(name, async {
                for about in ours {
                    let [layer] = about.said.layers.as_slice() else {
                        return wrong(format!("`{}` has not one layer", about.referrer.digest));
                    };
                    let bytes = text(repository, layer).await?;
                    kind.check(&bytes, &described.digest).map_err(Wrong::Here)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(abouts)
}

/// Whether a repository has blobs, each in its size.
async fn present(blobs: &[Part], repository: &Repository<'_>) -> Result<(), Wrong> {
    for blob in blobs {
        if !repository.has(&blob.descriptor()).await? {
            return wrong(format!("there is no blob `{}` of {} bytes", blob.digest, blob.size));
        }
    }
    Ok(())
}

async fn text(repository: &Repository<'_>, blob: &Part) -> Result<Vec<u8>, Wrong> {
    if blob.size > MOST_TEXT {
        return wrong(format!("`{}` is larger than 16 MiB", blob.digest));
    }
    Ok(repository.small(&blob.descriptor()).await?)
}

/// Whether the configuration of an image is there, and is for its layers and its platform.
async fn configured(
    said: &Said,
    platform: Option<&Platform>,
    repository: &Repository<'_>,
) -> Result<(), Wrong> {
    let Some(config) = &said.config else { return wrong("it has none") };
    let bytes = text(repository, config).await?;
    let Ok(config) = serde_json::from_slice::<Value>(&bytes) else { return wrong("it is no JSON") };
    if let Some(platform) = platform {
        let is_so =
            config["os"] == platform.os.as_str() && config["architecture"] == platform.architecture.as_str();
        if !is_so {
            let said = |name: &str| config[name].as_str().unwrap_or("nothing");
            return wrong(format!("it is for {}/{}", said("os"), said("architecture")));
        }
    }
    let diff_ids = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
    if diff_ids != said.layers.len() {
        return wrong(format!("it is for {diff_ids} layers"));
    }
    Ok(())
}

/// What is said about a manifest, as far as it is what the list says, and about this.
async fn abouts(
    place: &str,
    repository: &Repository<'_>,
    subject: &Descriptor,
    checks: &mut Checks<'_>,
) -> Result<Vec<About>, Failure> {
    let listed = async { Ok(repository.referrers(&subject.digest, None).await?) };
    let Some(referrers) = checks.check(format!("{place}: what is said about it is listed"), listed).await?
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for referrer in referrers {
        let kind = if referrer.artifact_type.is_empty() { "artifact" } else { &referrer.artifact_type };
        let name = format!("{place}: {kind} is about it");
        found.extend(checks.check(name, about(&referrer, subject, repository)).await?);
    }
    Ok(found)
}

async fn about(
    referrer: &Referrer,
    subject: &Descriptor,
    repository: &Repository<'_>,
) -> Result<About, Wrong> {
    let Referrer { digest, media_type, size, .. } = referrer.clone();
    let manifest = fetched(repository, &Descriptor { digest, media_type, size }).await?;
    let said = Said::of(&manifest)?;
    match &said.subject {
        Some(named) if named.descriptor() == *subject => {}
        Some(named) => return wrong(format!("it is about `{}`", named.digest)),
        None => return wrong("it is about nothing"),
    }
    for blob in said.blobs() {
        if !repository.has(&blob.descriptor()).await? {
            return wrong(format!("there is no blob `{}` of {} bytes", blob.digest, blob.size));
        }
    }
    let about = About { referrer: referrer.clone(), manifest, said };
    let kind = about.artifact_type();
    if !referrer.artifact_type.is_empty() && kind != referrer.artifact_type {
        return wrong(format!("it is listed as `{}`, and is `{kind}`", referrer.artifact_type));
    }
    Ok(about)
}

/// Has signatures checked: of what the name stands for, or, where that has no good one, of each of its images. What others say
/// about an index takes nothing from what its images have.
async fn signed(
    mut places: Vec<(String, Vec<About>)>,
    signer: Option<&Signer>,
    repository: &Repository<'_>,
    caller: &Caller,
    checks: &mut Checks<'_>,
) -> Result<&'static str, Failure> {
    for (_, abouts) in &mut places {
        abouts.retain(About::may_sign);
    }
    let Some(signer) = signer else {
        let count: usize = places.iter().map(|(_, abouts)| abouts.len()).sum();
        let (told, signature) = match count {
            0 => ("it is not signed".to_owned(), "none"),
            count => (
                format!("{count} signatures are not checked: `--signer TOOL` names what checks them"),
                "unchecked",
            ),
        };
        caller.report.note(&told);
        return Ok(signature);
    };
    let (top, images) = places.split_first().expect("a name stands for something");
    let name = |place: &str| format!("{place}: somebody who may has signed it");
    let vouched = async |abouts| vouched(abouts, signer, repository, caller).await;
    if !images.is_empty() && !top.1.is_empty() {
        let (began, place) = (Instant::now(), &top.0);
        let seconds = |began: Instant| began.elapsed().as_secs_f64();
        match vouched(&top.1).await {
            Ok(()) => {
                let (name, seconds) = (name(place), seconds(began));
                checks.note(Finding { name, verdict: Verdict::Passed, seconds });
                return Ok("good");
            }
            Err(Wrong::Here(why)) => {
                let name = format!(
                    "{} (its images need one each: {})",
                    name(place),
                    harmless(&why).replace('\n', "; ")
                );
                checks.note(Finding { name, verdict: Verdict::NotRun, seconds: seconds(began) });
            }
            Err(Wrong::Over(failure)) => return Err(failure),
        }
    }
    let mut all = "good";
    for (place, abouts) in if images.is_empty() { std::slice::from_ref(top) } else { images } {
        if checks.check(name(place), vouched(abouts)).await?.is_none() {
            all = "bad";
        }
    }
    Ok(all)
}

/// Whether one of these is a good signature.
async fn vouched(
    abouts: &[About],
    signer: &Signer,
    repository: &Repository<'_>,
    caller: &Caller,
) -> Result<(), Wrong> {
    let mut others = Vec::new();
    for about in abouts {
        match is_good(about, signer, repository, caller).await {
            Ok(()) => return Ok(()),
            Err(Wrong::Here(why)) => others.push(format!("`{}`: {why}", about.referrer.digest)),
            Err(over) => return Err(over),
        }
    }
    if others.is_empty() { wrong("it is not signed") } else { wrong(others.join("\n")) }
}

async fn is_good(
    about: &About,
    signer: &Signer,
    repository: &Repository<'_>,
    caller: &Caller,
) -> Result<(), Wrong> {
    let artifact = whole(about, repository).await?;
    match signer.verify(&artifact, &caller.interrupt).await {
        Ok(()) => Ok(()),
        Err(error @ SignerError::Failed { .. }) => wrong(error.diagnostic().why),
        Err(SignerError::Interrupted) => Err(Wrong::Over(Failure::interrupted())),
        Err(error) => Err(Wrong::Over(Failure::refused(error.diagnostic()))),
    }
}

/// The first signature of a manifest that a signer takes for a good one; what others say about it is none.
pub(super) async fn good_signature(
    subject: &Descriptor,
    signer: &Signer,
    repository: &Repository<'_>,
    caller: &Caller,
) -> Result<Option<Referrer>, Failure> {
    for referrer in repository.referrers(&subject.digest, None).await.map_err(failed)? {
        let looking = async {
            let about = about(&referrer, subject, repository).await?;
            if !about.may_sign() {
                return wrong("it is no signature");
            }
            is_good(&about, signer, repository, caller).await
        };
        match looking.await {
            Ok(()) => return Ok(Some(referrer)),
            Err(Wrong::Here(_)) => {}
            Err(Wrong::Over(failure)) => return Err(failure),
        }
    }
    Ok(None)
}

/// An artifact with all that it consists of.
async fn whole(about: &About, repository: &Repository<'_>) -> Result<Image, Wrong> {
    if about.said.blobs().map(|blob| blob.size).sum::<u64>() > MOST_TEXT {
        return wrong(format!("`{}` is larger than 16 MiB", about.referrer.digest));
    }
    let mut blobs = Vec::new();
    for blob in about.said.blobs() {
        blobs.push(Blob::of(&blob.media_type, text(repository, blob).await?));
    }
    Ok(Image { manifest: about.manifest.clone(), blobs })
}

/// Pulls an image by its digest and tries it, as `ipybox verify` does. An engine that did not have it does not keep it.
async fn start(
    whole: &str,
    args: &VerifyArgs,
    caller: &Caller,
    checks: &mut Checks<'_>,
) -> Result<(), Failure> {
    let engine = super::engine(&args.engine, &KnownEngines::default(), caller).await?;
    let reference: Reference = whole.parse().expect("a repository and a digest are a name");
    let was_there = engine.image(whole).await?.is_some();
    let pulled = checks.check("the engine pulls it".to_owned(), async {
        let (began, work) = (Instant::now(), Work::Pull(whole.to_owned()));
        if was_there {
            return Ok(());
        }
        caller.report.began(&work);
        match engine.pull(&reference, None, |layer| caller.report.layer(&layer)).await {
            Ok(()) => {
                caller.report.ended(&work, began.elapsed());
                Ok(())
            }
            Err(error @ EngineError::Pull { .. }) if !error.is_worth_a_retry() => {
                let Diagnostic { what, why, .. } = error.diagnostic();
                wrong(format!("{what}: {why}"))
            }
            Err(error) => Err(Wrong::Over(error.into())),
        }
    });
    if pulled.await?.is_none() {
        return Ok(());
    }
    let tried = async {
        let Some(image) = engine.image(whole).await? else {
            return Err(Failure::refused(Diagnostic::new(format!("the engine has lost `{whole}`"))));
        };
        let folder = args.own.variants.as_deref();
        let variant = variant_of(&image, args.variant.as_deref(), folder, &caller.report)?;
        verify::verify(&engine, &image, &variant, |check| checks.note(check.clone())).await?;
        Ok(())
    };
    let tried = tried.await;
    if !was_there {
        engine.untag(whole).await?;
    }
    tried
}
