//! What a failed step means to whoever wrote the list: at their lines, in their words.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;

use pep440_rs::VersionSpecifiers;

use crate::deps::{Dependency, Name};
use crate::diagnostic::Diagnostic;
use crate::installer::Missing;
use crate::installer::words::{Cause, Fact, Term};
use crate::plan::{Learnt, Plan, Requirement, StepId};
use crate::request::FromSource;

/// What a failed build teaches of distributions that no index has as a wheel: what was known before and more, or `None`
/// where that is no cause of it, or where `may` does not let it be built.
#[must_use]
pub fn learn(
    plan: &Plan,
    needed: &[&Dependency],
    kernel: &[Requirement],
    step: StepId,
    output: &[String],
    may: &FromSource,
) -> Option<Learnt> {
    let packages = &plan.packages;
    let mut known = Learnt {
        names: packages.unbuilt.clone(),
        needs_compiler: !packages.build_apt.is_empty(),
        ..Learnt::default()
    };
    match (step, Cause::of(output)?) {
        (StepId::Packages | StepId::Resolve, Cause::NoSolution(facts)) => {
            let list = List { plan, needed, kernel };
            let Term { name, versions } = list.wheelless(&facts)?.clone();
            if packages.unbuilt.contains_key(&name) || !may.allows(&name) {
                return None;
            }
            let asked =
                list.entries(&name).next().map(|entry| Requirement::lower(entry).alternatives[0].clone());
            let of_others = facts.iter().rev().find_map(|fact| match fact {
                Fact::Needs(_, what) => {
                    what.iter().find(|term| term.name == name).map(|term| term.versions.as_str())
                }
                _ => None,
            });
            let said = || VersionSpecifiers::from_str(of_others.unwrap_or(&versions)).ok();
            known.names.insert(name, asked.or_else(said).unwrap_or_default());
            Some(known)
        }
        (StepId::Wheels, Cause::Unbuilt { missing: Some(missing), .. })
            if missing.is_of_compiler && !known.needs_compiler =>
        {
            known.needs_compiler = true;
            Some(known)
        }
        _ => None,
    }
}

/// What a failed step means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What to tell.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether the same build may work in a while.
    pub is_worth_a_retry: bool,
}

/// Explains the failure of a step by what it printed and how it ended; `None` where nothing of that is known.
///
/// `needed` are the entries of the list that are installed, and `kernel` is what the image itself needs beside them.
#[must_use]
pub fn explain(
    plan: &Plan,
    needed: &[&Dependency],
    kernel: &[Requirement],
    step: StepId,
    output: &[String],
    exit_code: Option<i32>,
) -> Option<Explanation> {
    let cause = Cause::of_step(output, exit_code);
    if let StepId::Own(number) = step {
        let own = own_step(plan, number)?;
        let diagnostics = [own].into_iter().chain(cause.as_ref().and_then(of_machine)).collect();
        return Some(Explanation { diagnostics, is_worth_a_retry: false });
    }
    let cause = cause?;
    if let Some(what) = of_machine(&cause) {
        return Some(refused(what));
    }
    if step == StepId::Copies || step == StepId::Python {
        return None;
    }
    let list = List { plan, needed, kernel };
    let at = |what: &str| list.entry(what).map(|entry| entry.at.clone());
    Some(match cause {
        Cause::NoSolution(facts) => {
            Explanation { diagnostics: list.unsolved(&facts), is_worth_a_retry: false }
        }
        Cause::HashMismatch { what } => refused(placed(
            Diagnostic::new(format!("the file of `{what}` is not the one that was promised"))
                .why("its hash is another, so that nothing was installed")
                .advice("try again; if it stays so, ask whoever runs the index, and do not use the file"),
            at(&what),
        )),
        Cause::Spoilt { what } => refused(placed(
            Diagnostic::new(format!("the file of `{what}` is no package"))
                .why("the index, or a proxy before it, sent something else")
                .advice("look at what its address gives; if it stays so, exclude the version with `!=`"),
            at(&what),
        )),
        Cause::Missing { address } => refused(placed(
            Diagnostic::new("a file that the index names is not there")
                .why(format!("`{address}` was not found"))
                .advice("if it was withdrawn, exclude its version with `!=`; if the index is a mirror, it is not complete"),
            at(file_name(&address)),
        )),
        Cause::Denied { address } => refused(placed(
            Diagnostic::new("the package index asks who wants to know")
                .why(format!("`{address}` wants credentials, or refuses them"))
                .advice(
                    "put `machine HOST login USER password PASSWORD` into `~/.netrc`, or correct what is there; nothing was \
                     taken from another index in its place",
                ),
            at(file_name(&address)),
        )),
        Cause::Unbuilt { name, why, missing } => refused(list.unbuilt(&name, &why, missing.as_deref())),
        Cause::NoDebianPackage { name } => refused(
            Diagnostic::new(format!("the base's distribution has no package `{name}`"))
                .advice("correct `--apt`, or `apt` in `variant.toml`"),
        ),
        Cause::Unreachable { address } => {
            let whose = if step == StepId::Apt { "the distribution's package server" } else { "the package index" };
            let what = Diagnostic::new(format!("{whose} does not answer"))
                .advice("check network, proxy and `--ca-cert`, then try again");
            let what = match address {
                Some(address) => what.why(format!("`{address}` cannot be had")),
                None => what,
            };
            Explanation { diagnostics: vec![what], is_worth_a_retry: true }
        }
        Cause::Certificate
        | Cause::Proxy
        | Cause::DiskFull
        | Cause::OutOfMemory
        | Cause::WrongArchitecture
        | Cause::MissingLibrary { .. } => return None,
    })
}

/// What has to do with the machine and its network, and with nothing that a step is for.
fn of_machine(cause: &Cause) -> Option<Diagnostic> {
    Some(match cause {
        Cause::Certificate => Diagnostic::new("a server's certificate is not trusted in the build")
            .advice("name the certificates of your network with `--ca-cert FILE`, or by `SSL_CERT_FILE`"),
        Cause::Proxy => Diagnostic::new("the proxy lets nobody through")
            .advice("correct user and password in `HTTPS_PROXY` and `HTTP_PROXY`, or leave the host out with `NO_PROXY`"),
        Cause::DiskFull => Diagnostic::new("there is no space left where the engine keeps its images")
            .advice("`docker system df` shows what takes it"),
        Cause::OutOfMemory => Diagnostic::new("a program was ended for want of memory")
            .why("the engine, or its virtual machine, has not enough for this step")
            .advice("give the engine more memory, or let fewer builds run at once"),
        Cause::WrongArchitecture => Diagnostic::new("a program is for another kind of machine")
            .why("the base, or what a step brings, is for another architecture than the engine's")
            .advice("take a base for the engine's platform, which `docker version` shows"),
        Cause::MissingLibrary { file } => Diagnostic::new(format!("a program needs the library `{file}`"))
            .why("the image does not have it")
            .advice("add the Debian package that has it with `--apt`"),
        _ => return None,
    })
}

fn refused(what: Diagnostic) -> Explanation {
    Explanation { diagnostics: vec![what], is_worth_a_retry: false }
}

fn placed(what: Diagnostic, at: Option<Range<usize>>) -> Diagnostic {
    Diagnostic { at, ..what }
}

/// The last part of an address: the file, which begins with the distribution's name.
fn file_name(address: &str) -> &str {
    address.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn own_step(plan: &Plan, number: usize) -> Option<Diagnostic> {
    let run = plan.own_steps().nth(number)?.run.trim();
    let first = run.lines().next().unwrap_or_default().escape_debug().to_string();
    let more = match run.lines().count() {
        0 | 1 => String::new(),
        lines => format!(", and {} more", lines - 1),
    };
    Some(
        Diagnostic::new(format!("own step {} of the variant `{}` failed", number + 1, plan.variant))
            .why(format!("it runs `{first}`{more}"))
            .advice("`set -x` in front shows which command fails"),
    )
}

/// Whose words are used: the entries of a list, and what stands beside them.
struct List<'a> {
    plan: &'a Plan,
    needed: &'a [&'a Dependency],
    kernel: &'a [Requirement],
}

impl<'a> List<'a> {
    /// The entry of a distribution, by a text that begins with its name.
    fn entry(&self, text: &str) -> Option<&'a Dependency> {
        let name = text.split(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next)).next()?;
        // In the name of a file a hyphen stands before the version.
        let names = [Name::parse(name), Name::parse(name.split('-').next()?)];
        names.into_iter().flatten().find_map(|name| self.entries(&name).next())
    }

    fn entries(&self, name: &Name) -> impl Iterator<Item = &'a Dependency> + use<'a> {
        let name = name.clone();
        self.needed.iter().copied().filter(move |one| one.name == name)
    }

    /// What the image itself asks for, if that is this.
    fn of_image(&self, term: &Term) -> bool {
        let versions = |text: &str| VersionSpecifiers::from_str(text).ok();
        self.kernel.iter().any(|one| {
            one.name == term.name
                && one.alternatives.iter().any(|set| versions(&term.versions).as_ref() == Some(set))
        })
    }

    /// Whether uv speaks of one entry, and not of a conflict. On the way to one, versions without a wheel are passed
    /// over, too.
    fn is_alone(&self, facts: &[Fact]) -> bool {
        let asked = facts.iter().filter_map(Fact::asked).flatten();
        asked.count() < 2 && self.of_base(facts).is_empty()
    }

    /// What cannot be installed for want of a wheel.
    fn wheelless<'f>(&self, facts: &'f [Fact]) -> Option<&'f Term> {
        facts.iter().filter(|_| self.is_alone(facts)).find_map(|fact| match fact {
            Fact::NoWheel(term) => Some(term),
            _ => None,
        })
    }

    /// A source of which no wheel can be built.
    fn unbuilt(&self, name: &str, why: &str, missing: Option<&Missing>) -> Diagnostic {
        let what = Diagnostic::new(format!("`{name}` cannot be built from its source"));
        let what = match missing {
            Some(Missing { what: missing, package: Some(package), .. }) => what
                .why(format!("{missing} is missing"))
                .advice(format!("have it there for the build with `--build-apt {package}`")),
            Some(Missing { what: missing, is_of_compiler: true, .. }) => what
                .why(format!("{missing} is missing"))
                .advice("choose a base of Debian or Ubuntu, whose compilers are installed for the build"),
            Some(Missing { what: missing, .. }) => what
                .why(format!("{missing} is missing"))
                .advice("name the Debian package that has it with `--build-apt`"),
            None => what
                .why(why)
                .advice("its output stands above; another version, or a wheel of your own, may do"),
        };
        let name = Name::parse(name);
        let at = name.and_then(|name| self.entries(&name).next()).map(|entry| entry.at.clone());
        placed(what, at)
    }

    /// The refusals of a list that cannot be met.
    fn unsolved(&self, facts: &[Fact]) -> Vec<Diagnostic> {
        let asked: Vec<&Term> = facts.iter().filter_map(Fact::asked).flatten().collect();
        let is_alone = self.is_alone(facts);
        let cause = facts.iter().find_map(|fact| match fact {
            Fact::Unknown(name) => Some(self.unknown(name, facts)),
            Fact::NoWheel(term) if is_alone => Some(self.no_wheel(term, facts)),
            Fact::NoVersion(term) if is_alone => Some(self.no_version(term, facts)),
            _ => None,
        });
        if let Some(what) = cause {
            return vec![what];
        }
        let needs_others = facts.iter().any(|fact| matches!(fact, Fact::Needs(..)));
        if let ([term], false) = (&asked[..], needs_others) {
            return vec![self.no_version(term, facts)];
        }
        vec![self.conflict(&asked, facts)]
    }

    fn unknown(&self, name: &Name, facts: &[Fact]) -> Diagnostic {
        let what = Diagnostic::new(format!("there is no package `{name}`"))
            .why(self.because("no index that is asked has it", name, facts))
            .advice("correct its name, or describe the index that has it");
        placed(what, self.place(name, facts))
    }

    fn no_version(&self, term: &Term, facts: &[Fact]) -> Diagnostic {
        let Term { name, versions } = term;
        let what = if versions.is_empty() {
            format!("`{name}` has no versions")
        } else {
            format!("`{name}` has no version that meets `{versions}`")
        };
        let newest = facts.iter().find_map(|fact| match fact {
            Fact::Only(only) if only.name == *name => Some(format!("there is only `{only}`")),
            _ => None,
        });
        let why = newest.unwrap_or_else(|| "no index that is asked has one".to_owned());
        let what = Diagnostic::new(what)
            .why(self.because(&why, name, facts))
            .advice("correct the constraint, or describe an index that has such a version");
        placed(what, self.place(name, facts))
    }

    fn no_wheel(&self, term: &Term, facts: &[Fact]) -> Diagnostic {
        let Term { name, versions } = term;
        let platform = &self.plan.foundation.base.platform;
        let which =
            if versions.is_empty() { "no version".to_owned() } else { format!("no version of `{versions}`") };
        let why = format!(
            "{which} has one for Python {} on {}/{}",
            self.plan.foundation.interpreter.version, platform.os, platform.architecture
        );
        let what = Diagnostic::new(format!("`{name}` has no wheel that fits"))
            .why(self.because(&why, name, facts))
            .advice("choose another version or another `--python`, or let it be built from its source: `--from-source` says what may");
        placed(what, self.place(name, facts))
    }

    /// A reason, and on whose account the distribution is asked for where the list does not name it.
    fn because(&self, why: &str, name: &Name, facts: &[Fact]) -> String {
        match (self.entries(name).next(), needed_by(name, facts)) {
            (None, Some(by)) => format!("{why}, and `{by}` needs it"),
            _ => why.to_owned(),
        }
    }

    /// The entry of a distribution, or of the one that needs it.
    fn place(&self, name: &Name, facts: &[Fact]) -> Option<Range<usize>> {
        let mut name = name.clone();
        for _ in 0..=facts.len() {
            if let Some(entry) = self.entries(&name).next() {
                return Some(entry.at.clone());
            }
            name = needed_by(&name, facts)?;
        }
        None
    }

    /// Entries that cannot be installed together, or not beside what the image or its base has.
    fn conflict(&self, asked: &[&Term], facts: &[Fact]) -> Diagnostic {
        let of_image: Vec<&Term> = asked.iter().copied().filter(|term| self.of_image(term)).collect();
        let names: BTreeSet<&Name> =
            asked.iter().filter(|term| !of_image.contains(term)).map(|term| &term.name).collect();
        let mut involved: Vec<&Dependency> = names.iter().flat_map(|name| self.entries(name)).collect();
        involved.sort_by_key(|entry| entry.at.start);
        let of_base = self.of_base(facts);
        let Some((first, others)) = involved.split_first() else {
            return Diagnostic::new("the dependencies cannot be installed together")
                .advice("the installer's own reason stands above");
        };
        let reason = |entry: &Dependency| match self.needs(&entry.name, facts) {
            Some(needs) => format!("`{}` needs {needs}", entry.name),
            None => format!("this asks for `{}`", asks(entry)),
        };
        let mut beside: Vec<String> = of_image
            .iter()
            .map(|term| match self.needs(&term.name, facts) {
                Some(needs) => format!("the image itself needs `{}`, which needs {needs}", term.name),
                None => format!("the image itself needs `{term}`"),
            })
            .collect();
        if !of_base.is_empty() {
            beside.push(format!("the base has {} and keeps it", of_base.join(", ")));
        }
        let what = match (others.is_empty(), of_image.is_empty(), of_base.is_empty()) {
            (true, true, false) => {
                format!(
                    "`{}` cannot be installed on base image `{}`",
                    first.name, self.plan.foundation.base.reference
                )
            }
            (true, false, _) => {
                format!("`{}` cannot be installed beside what the image itself needs", first.name)
            }
            _ => {
                let names: BTreeSet<_> = involved.iter().map(|entry| format!("`{}`", entry.name)).collect();
                format!(
                    "{} cannot be installed together",
                    names.into_iter().collect::<Vec<_>>().join(" and ")
                )
            }
        };
        let why = std::iter::once(reason(first)).chain(beside).collect::<Vec<_>>().join(", and ");
        let advice = match (others.is_empty(), of_image.is_empty()) {
            (_, false) => "widen its constraint, or choose the variant `kernel`, which needs less".to_owned(),
            (true, true) => "widen its constraint, leave it out, or choose another base".to_owned(),
            (false, true) => "widen one of the constraints, or leave one of them out".to_owned(),
        };
        let mut what = Diagnostic::new(what).at(first.at.clone()).why(why).advice(advice);
        what.also = others.iter().map(|entry| (entry.at.clone(), reason(entry))).collect();
        what
    }

    /// What a distribution needs, in the last that uv says of it; but for what the base holds.
    fn needs(&self, name: &Name, facts: &[Fact]) -> Option<String> {
        let needed = facts.iter().rev().find_map(|fact| match fact {
            Fact::Needs(who, what) if who.name == *name => {
                let needed: Vec<_> = what.iter().filter(|term| !self.is_held(term)).collect();
                (!needed.is_empty()).then_some(needed)
            }
            _ => None,
        })?;
        Some(needed.iter().map(|term| format!("`{term}`")).collect::<Vec<_>>().join(" or "))
    }

    fn is_held(&self, term: &Term) -> bool {
        let version = self.plan.packages.held.get(&term.name).and_then(|held| held.version.as_ref());
        version.is_some_and(|version| term.versions == format!("=={version}"))
    }

    /// Distributions of the base that uv speaks of, with their versions.
    fn of_base(&self, facts: &[Fact]) -> Vec<String> {
        let held = |term: &Term| {
            self.is_held(term).then(|| format!("`{}` {}", term.name, term.versions.trim_start_matches('=')))
        };
        let terms = facts.iter().flat_map(Fact::terms).filter_map(held);
        terms.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What an entry asks for, as PEP 508 has it.
fn asks(entry: &Dependency) -> String {
    Requirement::lower(entry).to_string()
}

/// The distribution that needs another, in the last that uv says of it.
fn needed_by(name: &Name, facts: &[Fact]) -> Option<Name> {
    facts.iter().rev().find_map(|fact| match fact {
        Fact::Needs(who, what) if what.iter().any(|term| term.name == *name) => Some(who.name.clone()),
        _ => None,
    })
}
