//! Everything that is read from this host before any decision.

pub mod checkout;
pub mod credentials;
pub mod folder;
pub mod git;
pub mod hashes;
pub mod indexes;
pub mod lists;
pub mod local;
pub mod python_archive;
pub mod secrets;
pub mod templates;
pub mod trust;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use credentials::{Credentials, CredentialsError, Login};
use git::GitError;
use hashes::KnownHashes;
use indexes::{AskedIndexes, IndexesError};
use local::{LocalError, LocalSource};
use python_archive::{PythonArchive, PythonArchiveError};
use sha2::{Digest, Sha256};
use templates::Templates;

use crate::archive::hexadecimal;
use crate::deps::{Dependency, Name, Source, Spec};
use crate::diagnostic::{Diagnostic, Documents};
use crate::plan::{Files, Installer, Materials, Packages};
use crate::request::Request;
use crate::secret;
use crate::variant::{Variant, VariantError, destination};

/// What a request names, read.
#[derive(Debug)]
pub struct Inputs {
    /// The kind of image.
    pub variant: Variant,
    /// What its Dockerfile and its files are made of.
    pub templates: Templates,
    /// The lists, with everything they include.
    pub documents: Documents,
    /// What they mean.
    pub spec: Spec,
    /// What is copied into the image, with its places there.
    pub copies: Vec<(String, LocalSource)>,
    /// An interpreter for a base that has none.
    pub python_archive: Option<PythonArchive>,
    /// Logins that addresses of indexes held.
    logins: Vec<(String, Login)>,
}

/// The files of dependencies, by distribution.
pub type Sources = BTreeMap<Name, LocalSource>;

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// There is no such variant, or it is not right.
    #[error(transparent)]
    Variant(#[from] VariantError),
    /// A list cannot be read.
    #[error("cannot read the dependency list `{}`", path.display())]
    List {
        /// As it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Lists are read, and are not right.
    #[error("the dependency list has mistakes")]
    Mistakes {
        /// The lists.
        documents: Documents,
        /// All of their mistakes.
        mistakes: Vec<Diagnostic>,
    },
    /// A template cannot be read.
    #[error("cannot read the template `{}`", path.display())]
    Template {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A variant names requirements of its servers that are not there.
    #[error("the variant `{variant}` has an unknown `lock`")]
    UnknownLock {
        /// The variant.
        variant: String,
        /// What it names.
        lock: String,
        /// What it could.
        known: Vec<String>,
    },
    /// The package indexes of this host cannot be told.
    #[error(transparent)]
    Indexes(#[from] IndexesError),
    /// A file of this host cannot be had.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// An archive is no interpreter.
    #[error(transparent)]
    PythonArchive(#[from] PythonArchiveError),
    /// A folder has files for places that the image needs for itself.
    #[error("cannot copy to `{}`", place.escape_debug())]
    Place {
        /// The place.
        place: String,
        /// Why not.
        why: &'static str,
    },
    /// A variable of the image would be a secret that everybody can read.
    #[error("the variable `{0}` looks like a secret")]
    Secret(String),
    /// A build argument would be a secret that everybody can read.
    #[error("the build argument `{0}` looks like a secret")]
    SecretArgument(String),
    /// Nothing would see a build argument.
    #[error("no step uses the build argument `{0}`")]
    UnusedArgument(String),
}

impl Inputs {
    /// Reads all that `request` names, but for files whose hash is `known`. Nothing is contacted, and lists may ask `variable` for what the environment
    /// holds.
    ///
    /// # Errors
    ///
    /// The first [`InputsError`]; all mistakes of the lists are one.
    pub async fn read(
        request: &Request,
        known: &KnownHashes,
        variable: fn(&str) -> Option<String>,
    ) -> Result<Self, InputsError> {
        let (request, known) = (request.clone(), known.clone());
        on_another_thread(move || Self::read_here(&request, &known, &variable)).await
    }

    fn read_here(
        request: &Request,
        known: &KnownHashes,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, InputsError> {
        let variant = Variant::read(&request.variant, request.variants.as_deref())?;
        let documents = if request.dependencies.is_empty() {
            variant.dependencies.clone().into()
        } else {
            lists::documents(&request.dependencies)?
        };
        let (documents, mut spec) = lists::read(documents, &request.selection, variable)?;
        let asked = AskedIndexes::read(&request.indexes, spec.indexes, variable)?;
        spec.indexes = asked.indexes;
        let templates = match &request.templates {
            None => Templates::shipped(),
            Some(folder) => {
                Templates::read(folder).map_err(|(path, source)| InputsError::Template { path, source })?
            }
        };
        if templates.get(&format!("runtime/{}", variant.lock)).is_none() {
            let known = templates.locks().map(str::to_owned).collect();
            return Err(InputsError::UnknownLock { variant: variant.name, lock: variant.lock, known });
        }
        let names = request.env.keys().chain(variant.env.keys());
        if let Some(name) = names.into_iter().find(|name| secret::is_telling(name))
            && !request.allow_secret_env
        {
            return Err(InputsError::Secret(name.clone()));
        }
        if let Some(name) = request.args.keys().find(|name| secret::is_telling(name))
            && !request.allow_secret_env
        {
            return Err(InputsError::SecretArgument(name.clone()));
        }
        if let Some(name) = request.args.keys().next()
            && variant.steps.is_empty()
            && request.templates.is_none()
        {
            return Err(InputsError::UnusedArgument(name.clone()));
        }
        let python_archive = request.python_archive.as_deref().map(PythonArchive::read).transpose()?;
        let copies = copies(request, &variant, known)?;
        Ok(Self { variant, templates, documents, spec, copies, python_archive, logins: asked.logins })
    }

    /// What the hosts of a plan want to know, and no others.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn credentials(
        &self,
        packages: &Packages,
        variable: fn(&str) -> Option<String>,
    ) -> Result<Credentials, CredentialsError> {
        Credentials::read(&packages.hosts(), &self.spec.indexes, &self.logins, &variable)
    }

    /// What a plan is made of, but for what its list brings.
    #[must_use]
    pub fn materials(&self, installer: Option<Installer>) -> Materials {
        Materials {
            templates: self.templates.digest(),
            installer,
            python_archive: self.python_archive.as_ref().map(PythonArchive::planned),
            copies: self.copies.iter().map(|(to, files)| (to.clone(), files.planned())).collect(),
            sources: BTreeMap::new(),
        }
    }

    /// SHA-256 over everything that was read, and over the files of dependencies that lie on this host: the same on hosts that
    /// have the same of it, wherever it lies there.
    ///
    /// # Errors
    ///
    /// [`LocalError`], of the variant's folder; what is wrong with dependencies is told by builds that need them.
    pub async fn digest(&self, known: &KnownHashes) -> Result<String, LocalError> {
        let mut parts = vec![self.templates.digest()];
        parts.extend(self.python_archive.as_ref().map(|archive| archive.planned().sha256));
        parts.extend(self.documents.iter().map(|list| list.text.clone()));
        parts.extend(self.copies.iter().map(|(to, files)| format!("{to}\0{:?}", files.planned())));
        if let Some(folder) = self.variant.folder.clone() {
            let known = known.clone();
            let own = on_another_thread(move || LocalSource::read_all(&folder, &known)).await?;
            parts.push(own.planned().digest);
        }
        for dependency in &self.spec.dependencies {
            let Source::Path { path, subdirectory, .. } = &dependency.source else { continue };
            let path = lists::folder(&self.documents, dependency).join(path);
            if let Ok(source) = local(path, subdirectory.clone(), known).await {
                parts.push(format!("{}\0{:?}", dependency.name, source.planned()));
            }
        }
        Ok(hexadecimal(&Sha256::digest(parts.join("\0"))))
    }

    /// The files of the dependencies that come from this host or a repository, and all that is wrong with them.
    /// `tell` hears what takes its time.
    ///
    /// # Errors
    ///
    /// The first repository that cannot be reached now.
    pub async fn sources(
        &self,
        needed: &[&Dependency],
        cache: &Path,
        known: &KnownHashes,
        mut tell: impl FnMut(&str),
    ) -> Result<(Sources, Vec<Diagnostic>), GitError> {
        let mut sources = Sources::new();
        let mut mistakes = Vec::new();
        for dependency in needed {
            let place = |what: Diagnostic| what.at(dependency.at.clone());
            let read = match &dependency.source {
                Source::Path { path, subdirectory, .. } => {
                    let path = lists::folder(&self.documents, dependency).join(path);
                    local(path, subdirectory.clone(), known).await
                }
                Source::Git { url, reference, subdirectory, .. } => {
                    match git::fetch(url, reference.as_deref(), cache, &mut tell).await {
                        Ok(commit) => local(commit.folder, subdirectory.clone(), known)
                            .await
                            .map(|source| source.at_commit(commit.id)),
                        Err(error) if error.is_worth_a_retry() => return Err(error),
                        Err(error) => {
                            mistakes.push(place(error.diagnostic()));
                            continue;
                        }
                    }
                }
                Source::Registry { .. } | Source::Url { .. } => continue,
            };
            match read {
                // Of two places of one distribution the plan says that they are two.
                Ok(source) => drop(sources.entry(dependency.name.clone()).or_insert(source)),
                Err(error) => mistakes.push(place(error.diagnostic())),
            }
        }
        Ok((sources, mistakes))
    }
}

async fn local(
    path: PathBuf,
    subdirectory: Option<String>,
    known: &KnownHashes,
) -> Result<LocalSource, LocalError> {
    let known = known.clone();
    on_another_thread(move || LocalSource::read(&path, subdirectory.as_deref(), &known)).await
}

/// Reads and hashes where nothing else waits for it: large files take long, and signals and the engine do not wait.
async fn on_another_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What a plan knows of files of dependencies.
#[must_use]
pub fn planned(sources: &Sources) -> BTreeMap<Name, Files> {
    sources.iter().map(|(name, source)| (name.clone(), source.planned())).collect()
}

/// What request and variant copy into the image. A variant copies nothing from outside of its folder.
fn copies(
    request: &Request,
    variant: &Variant,
    known: &KnownHashes,
) -> Result<Vec<(String, LocalSource)>, InputsError> {
    let mut copies = Vec::new();
    if let Some(folder) = &variant.folder {
        for copy in &variant.copies {
            copies.push((copy.to.clone(), LocalSource::read_inside(folder, &copy.from, known)?));
        }
    }
    for (from, to) in &request.copies {
        copies.push((to.clone(), LocalSource::read_all(from, known)?));
    }
    for (to, files) in &copies {
        for file in files.files().iter().filter(|_| files.file().is_none()) {
            let place = format!("{}/{}", to.trim_end_matches('/'), file.name);
            if let Err(why) = destination(&place) {
                return Err(InputsError::Place { place, why });
            }
        }
    }
    Ok(copies)
}

impl InputsError {
    /// The refusals, and the texts they speak of.
    #[must_use]
    pub fn diagnostics(self) -> (Documents, Vec<Diagnostic>) {
        let what = Diagnostic::new(self.to_string());
        let what = match self {
            Self::Variant(error) => {
                let (document, what) = error.diagnostic();
                return (document.map(Documents::from).unwrap_or_default(), vec![what]);
            }
            Self::Mistakes { documents, mistakes } => return (documents, mistakes),
            Self::List { path, source } if source.kind() == io::ErrorKind::NotFound => {
                Diagnostic::new(format!("there is no dependency list `{}`", path.display()))
                    .advice("check the path, or leave out `-d` for the variant's own list")
            }
            Self::List { source, .. } | Self::Template { source, .. } => what.why(source.to_string()),
            Self::UnknownLock { lock, known, .. } => what
                .why(format!("there is no `{}` in `runtime/` of the templates", lock.escape_debug()))
                .advice(format!("name one of {}", known.join(", "))),
            Self::Indexes(error) => error.diagnostic(),
            Self::Local(error) => error.diagnostic(),
            Self::PythonArchive(error) => error.diagnostic(),
            Self::Place { why, .. } => what.why(why),
            Self::Secret(_) => what
                .why("everybody who has the image can read its environment")
                .advice("give it to containers when they start, or use `--allow-secret-env` if it is none"),
            Self::SecretArgument(name) => {
                what.why("everybody who has the image can read it in its history").advice(format!(
                    "give it with `--secret id={},env={name}` to the steps that name it",
                    name.to_lowercase()
                ))
            }
            Self::UnusedArgument(_) => what
                .why("build arguments are for the `[[step]]`s of a variant, and it has none")
                .advice("use `--env` for the image's environment"),
        };
        (Documents::default(), vec![what])
    }
}
