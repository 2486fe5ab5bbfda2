//! `ipybox compose`: how an image is run, for Compose and for Kubernetes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::{Caller, Failure, FailureKind};
use crate::cli::{ComposeArgs, ComposeFormat, EngineArgs};
use crate::compose::{Composition, Facts, Service, Wishes, manifests, networks_of};
use crate::deps::MAX_BYTES;
use crate::diagnostic::{Diagnostic, Document};
use crate::engine::{Engine, Image, KnownEngines};
use crate::reference::Reference;
use crate::variant::executor_name;

pub(super) async fn run(args: ComposeArgs, caller: &Caller) -> Result<(), Failure> {
    fits(&args)?;
    let file = args.into.as_deref().map(Opened::read).transpose()?;
    let mut wishes = wishes(&args);
    if let Some(file) = file.as_ref().filter(|_| wishes.networks.is_empty()) {
        wishes.networks = networks_of(&file.document.text, &args.api_service);
    }
    let services = services(&args, &wishes, caller).await?;
    if args.format == ComposeFormat::K8s {
        return print(caller, &manifests(&services)?);
    }
    let composition = Composition::of(&services);
    let Some(file) = file else {
        for (name, url) in &composition.urls {
            caller.report.note(&format!("skill-compose finds it by `{name}={url}` in its API service"));
        }
        return print(caller, &composition.document());
    };
    let merged = composition
        .merge(&file.document.text, &args.api_service, args.replace)
        .map_err(|error| Failure::in_documents(file.document.clone().into(), vec![error.diagnostic()]))?;
    let shown = file.document.name();
    if merged.text == file.document.text {
        caller.report.note(&format!("`{shown}` has it already"));
    } else {
        file.write(&merged.text)?;
        let names: Vec<_> = services.iter().map(Service::key).collect();
        caller.report.note(&format!("`{shown}` has {} now", names.join(", ")));
    }
    if !merged.has_api {
        for (name, url) in &composition.urls {
            let what =
                format!("`{shown}` has no service `{}` to tell where the executor is", args.api_service);
            caller
                .report
                .warning(&what, &format!("add `{name}: {url}` to the environment of whoever asks it"));
        }
    }
    Ok(())
}

/// Refuses what cannot go together.
fn fits(args: &ComposeArgs) -> Result<(), Failure> {
    let refuse = |what: &str, advice: &str| Err(Failure::usage(Diagnostic::new(what).advice(advice)));
    let is_compose = args.format == ComposeFormat::Compose;
    if args.image.is_some() && args.names.len() > 1 {
        return refuse("several executors cannot have one image", "give one NAME with `--tag`");
    }
    if !args.publish.is_empty() && args.names.len() > 1 {
        return refuse("several executors cannot have one port", "give one NAME with `--publish`");
    }
    if args.any_uid && is_compose {
        return refuse("Compose runs what the image says", "use `--any-uid` with `--format k8s`");
    }
    let of_compose = args.build.is_some() || !args.profile.is_empty() || !args.network.is_empty();
    if !is_compose && (args.into.is_some() || of_compose || !args.publish.is_empty()) {
        return refuse(
            "Kubernetes has no such thing",
            "leave out `--into`, `--build`, `--profile`, `--network` and `--publish`",
        );
    }
    Ok(())
}

fn wishes(args: &ComposeArgs) -> Wishes {
    Wishes {
        build: args.build.clone(),
        profiles: args.profile.clone(),
        networks: args.network.clone(),
        memory: Some(args.memory).filter(|bytes| *bytes != 0),
        cpus: args.cpus,
        pids: Some(args.pids).filter(|pids| *pids != 0),
        publish: args.publish.clone(),
        any_uid: args.any_uid,
    }
}

/// The services that are meant, as their images say.
async fn services(args: &ComposeArgs, wishes: &Wishes, caller: &Caller) -> Result<Vec<Service>, Failure> {
    let names: Vec<Option<&str>> = match args.names.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let engine = Asked::connect(&args.engine, caller).await?;
    let mut services = Vec::new();
    for name in names {
        let image = match (&args.image, name) {
            (Some(image), _) => image.clone(),
            (None, name) => Service::image_of(name.unwrap_or_default())
                .map_err(|why| Failure::usage(Diagnostic::new("no image can have this name").why(why)))?,
        };
        let facts = match engine.image(&image).await? {
            Found::Image(found) => Facts::of(&found).ok_or_else(|| {
                let what = format!("`{image}` has neither an executor nor a kernel gateway");
                Failure::refused(Diagnostic::new(what).advice("name an image that `ipybox build` made"))
            })?,
            Found::Nothing(why) => match name {
                None => {
                    let what = Diagnostic::new(format!("nothing is known of `{image}`: {why}"));
                    return Err(Failure::refused(
                        what.advice("build or pull it first, or say the NAME of an executor"),
                    ));
                }
                Some(_) => {
                    caller.report.note(&format!(
                        "{why}, so `{image}` is taken for an executor as `ipybox build -V any-base` makes it"
                    ));
                    Facts::of_executor()
                }
            },
        };
        let name = match name {
            Some(name) => name.to_owned(),
            None => own_name(&facts, &image)?,
        };
        services.push(Service { name, image, facts, wishes: wishes.clone() });
    }
    let mut seen = BTreeMap::new();
    for service in &services {
        let name = service.name.replace('_', "-");
        if let Some(other) = seen.insert(name, &service.name) {
            let what = format!("`{other}` and `{}` cannot be told apart", service.name);
            let why = "Kubernetes and the names of variables know no difference between `-` and `_`";
            return Err(Failure::refused(Diagnostic::new(what).why(why).advice("rename one of them")));
        }
    }
    Ok(services)
}

/// What an image calls itself.
fn own_name(facts: &Facts, image: &Reference) -> Result<String, Failure> {
    let last = image.repository().rsplit('/').next().unwrap_or_default().replace('.', "-");
    let name = if facts.is_executor { facts.name.clone() } else { executor_name(&last).ok() };
    name.ok_or_else(|| {
        let what = Diagnostic::new(format!("`{image}` says no name that a service can have"));
        Failure::usage(what.advice("give NAME beside `--tag`"))
    })
}

/// An engine, or why there is none.
enum Asked {
    Engine(Box<Engine>),
    Nobody(String),
}

/// An image, or why nothing is known of it.
enum Found {
    Image(Box<Image>),
    Nothing(String),
}

impl Asked {
    async fn connect(asked: &EngineArgs, caller: &Caller) -> Result<Self, Failure> {
        match super::engine(asked, &KnownEngines::default(), caller).await {
            Ok(engine) => Ok(Self::Engine(Box::new(engine))),
            Err(failure) if failure.kind == FailureKind::Unreachable => {
                let what = failure.diagnostics.first().map(|first| first.what.clone());
                Ok(Self::Nobody(what.unwrap_or_else(|| "no engine answers".to_owned())))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn image(&self, name: &Reference) -> Result<Found, Failure> {
        match self {
            Self::Nobody(why) => Ok(Found::Nothing(why.clone())),
            Self::Engine(engine) => Ok(match engine.image(&name.to_string()).await? {
                Some(image) => Found::Image(Box::new(image)),
                None => Found::Nothing("the engine does not have it".to_owned()),
            }),
        }
    }
}

/// A file that may get more; one that is not there is an empty one.
struct Opened {
    document: Document,
    /// A byte order mark, where it begins with one.
    mark: &'static str,
    exists: bool,
}

impl Opened {
    fn read(path: &Path) -> Result<Self, Failure> {
        let begins_with_mark = |path: &Path| {
            let mut begin = [0; 3];
            std::fs::File::open(path)
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut begin))
                .is_ok_and(|()| begin == *b"\xef\xbb\xbf")
        };
        match Document::read(path, MAX_BYTES) {
            Ok(document) => {
                let mark = if begins_with_mark(path) { "\u{feff}" } else { "" };
                Ok(Self { document, mark, exists: true })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Self { document: Document::new(path, ""), mark: "", exists: false })
            }
            Err(error) => {
                let what = Diagnostic::new(format!("cannot read `{}`", path.display()));
                Err(Failure::refused(what.why(error.to_string()).advice("name a Compose file")))
            }
        }
    }

    /// Writes it whole, or not at all.
    fn write(&self, text: &str) -> Result<(), Failure> {
        let path = &self.document.path;
        let text = format!("{}{text}", self.mark);
        let written = if self.exists {
            super::deps::write(path, &text)
        } else {
            std::fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()))
        };
        written.map_err(|error| Failure::unwritable(&format!("`{}`", path.display()), &error))
    }
}

fn print(caller: &Caller, text: &str) -> Result<(), Failure> {
    let written = caller.report.result(|out| out.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}
