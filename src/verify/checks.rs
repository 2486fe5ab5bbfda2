//! The table of what is tried: the sequence, what is left out, and a table of `docs/variants.md` follow from it.

use std::future::ready;
use std::pin::Pin;

use super::Tried;
use super::contract::{exec, executor, gateway, image, resources};
use super::subject::{Claim, Subject};
use super::trial::Trial;
use crate::variant::Interface;
use Claim::{Exec, Firewall, Labelled, Ours, Speaks, Unprivileged};
use Interface::{Executor, Gateway, Resources};
use Stage::{Beside, Code, End, Entered, Foreign, Guarded, Start};

/// When a check runs. The stages in between run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// First, while nothing else runs.
    Start,
    /// Code, cell after cell and call after call.
    Code,
    /// Beside the code: what waits for something else.
    Beside,
    /// In a container of its own, whose servers ask for a token.
    Guarded,
    /// In a container that only sleeps.
    Entered,
    /// In a container whose root cannot be written, and whose user the image does not know.
    Foreign,
    /// At the end, while nothing else runs.
    End,
}

/// A way to try one thing.
type One = for<'a> fn(&'a Trial<'_>) -> Pin<Box<dyn Future<Output = Tried> + 'a>>;

/// How something is tried.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// By itself.
    One(One),
    /// The variant says how.
    OwnChecks,
}

/// Something that is tried.
#[derive(Clone, Copy)]
pub(super) struct Check {
    pub(super) stage: Stage,
    /// What should be, as it is told.
    pub(super) name: &'static str,
    /// What an image must claim for it to be tried.
    pub(super) of: &'static [Claim],
    /// Whether the rest of its stage makes no sense without it.
    pub(super) is_needed: bool,
    pub(super) run: Run,
}

const fn check(stage: Stage, of: &'static [Claim], name: &'static str, run: One) -> Check {
    Check { stage, name, of, is_needed: false, run: Run::One(run) }
}

const fn needed(check: Check) -> Check {
    Check { is_needed: true, ..check }
}

/// The checks of a stage for one image, in their order.
pub(super) fn of(stage: Stage, subject: &Subject<'_>) -> impl Iterator<Item = &'static Check> {
    CHECKS
        .iter()
        .filter(move |check| check.stage == stage && check.of.iter().all(|&claim| subject.claims(claim)))
}

const ALL: &[Claim] = &[];
const OURS: &[Claim] = &[Ours];
const GATEWAY: &[Claim] = &[Speaks(Gateway)];
const RESOURCES: &[Claim] = &[Speaks(Gateway), Speaks(Resources)];
const EXECUTOR: &[Claim] = &[Speaks(Executor)];
const OUR_EXECUTOR: &[Claim] = &[Speaks(Executor), Ours];

const ENTERED: &[Claim] = &[Exec];
const ANYBODY: &[Claim] = &[Exec, Unprivileged];

static CHECKS: &[Check] = &[
    check(Start, ALL, "no secret in environment and history", |t| {
        Box::pin(ready(image::no_secret_is_told(t)))
    }),
    needed(check(Start, ALL, "servers answer", |t| Box::pin(image::servers_answer(t)))),
    check(Code, EXECUTOR, "its health is told", |t| Box::pin(executor::health_is_told(t))),
    check(Code, EXECUTOR, "code runs", |t| Box::pin(executor::code_runs(t))),
    check(Code, EXECUTOR, "state is kept", |t| Box::pin(executor::state_is_kept(t))),
    check(Code, EXECUTOR, "commands run", |t| Box::pin(executor::commands_run(t))),
    check(Code, EXECUTOR, "an error is told", |t| Box::pin(executor::errors_are_told(t))),
    check(Code, OUR_EXECUTOR, "a timeout interrupts", |t| Box::pin(executor::timeout_interrupts(t))),
    check(Code, OUR_EXECUTOR, "a timeout ends commands with their children", |t| {
        Box::pin(executor::timeout_kills(t))
    }),
    check(Code, OUR_EXECUTOR, "a dead kernel is replaced", |t| {
        Box::pin(executor::dead_kernels_are_replaced(t))
    }),
    check(Code, OUR_EXECUTOR, "variables last for one call", |t| {
        Box::pin(executor::variables_are_restored(t))
    }),
    check(Code, OUR_EXECUTOR, "workspaces keep apart", |t| Box::pin(executor::workspaces_keep_apart(t))),
    check(Code, OUR_EXECUTOR, "50 calls at once are answered", |t| Box::pin(executor::calls_at_once(t))),
    needed(check(Code, GATEWAY, "a kernel starts", |t| Box::pin(gateway::kernel_starts(t)))),
    check(Code, GATEWAY, "code runs", |t| Box::pin(gateway::code_runs(t))),
    check(Code, GATEWAY, "state is kept", |t| Box::pin(gateway::state_is_kept(t))),
    check(Code, GATEWAY, "a cell right after an error runs", |t| {
        Box::pin(gateway::cells_after_errors_run(t))
    }),
    check(Code, GATEWAY, "an output of 5 MB is complete", |t| Box::pin(gateway::long_output_is_complete(t))),
    check(Code, GATEWAY, "three kernels keep apart", |t| Box::pin(gateway::kernels_keep_apart(t))),
    check(Code, GATEWAY, "300 short outputs are complete", |t| {
        Box::pin(gateway::short_outputs_are_complete(t))
    }),
    check(Code, &[Labelled], "every dependency can be imported", |t| Box::pin(image::dependencies_import(t))),
    check(Code, ALL, "installed packages agree", |t| Box::pin(image::packages_agree(t))),
    check(Code, OURS, "code can install packages", |t| Box::pin(image::code_installs(t))),
    Check { stage: Code, name: "the variant's own checks", of: ALL, is_needed: false, run: Run::OwnChecks },
    check(Beside, GATEWAY, "a timeout interrupts", |t| Box::pin(gateway::timeout_interrupts(t))),
    check(Beside, ALL, "no secret or certificate in files", |t| Box::pin(image::no_secret_in_files(t))),
    check(Beside, OURS, "files belong to whom they should", |t| Box::pin(image::files_have_owners(t))),
    check(Beside, OURS, "the health check passes", |t| Box::pin(image::health_check_passes(t))),
    check(Beside, RESOURCES, "files go in and out", |t| Box::pin(resources::files_go_in_and_out(t))),
    check(Beside, RESOURCES, "sources of modules are told", |t| Box::pin(resources::sources_are_told(t))),
    check(Beside, RESOURCES, "MCP tools become functions", |t| {
        Box::pin(resources::tools_become_functions(t))
    }),
    check(Guarded, &[Speaks(Gateway), Ours], "a token is asked for", |t| {
        Box::pin(gateway::token_is_asked_for(t))
    }),
    check(Guarded, OUR_EXECUTOR, "a token is asked for", |t| Box::pin(executor::token_is_asked_for(t))),
    check(Guarded, OURS, "the end of a server ends the container", |t| {
        Box::pin(image::end_of_a_server_is_the_end(t))
    }),
    check(Entered, ENTERED, "every shell finds the packages", |t| Box::pin(exec::packages_are_found(t))),
    check(Entered, ANYBODY, "any user of group 0 may write", |t| Box::pin(exec::group_0_may_write(t))),
    check(Entered, &[Speaks(Gateway), Exec], "environments made inside see the packages", |t| {
        Box::pin(exec::environments_inside_see_ours(t))
    }),
    check(Entered, ENTERED, "other commands count as healthy", |t| Box::pin(exec::others_are_healthy(t))),
    check(Foreign, ANYBODY, "a stranger of group 0 runs it read-only", |t| {
        Box::pin(exec::strangers_run_code(t))
    }),
    check(End, &[Speaks(Gateway), Firewall], "the firewall holds", |t| Box::pin(gateway::firewall_holds(t))),
    check(End, GATEWAY, "a kernel ends", |t| Box::pin(gateway::kernels_end(t))),
    check(End, OUR_EXECUTOR, "a kernel ends", |t| Box::pin(executor::kernels_end(t))),
    check(End, OURS, "SIGTERM ends it within 2 s", |t| Box::pin(image::sigterm_ends_it(t))),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The page's last table: what is tried, with which claims.
    #[test]
    fn the_page_says_what_is_tried() {
        let page = fs::read_to_string("docs/variants.md").expect("a page");
        for check in CHECKS {
            let images = match check.of {
                [] => "all",
                [Labelled] => "with the label `ipybox.dependencies`",
                [Ours] => "all of this program",
                [Exec] => "with `exec` in the label `ipybox.serves`",
                [Exec, Unprivileged] => "with `exec` in the label `ipybox.serves`, but root's",
                [Speaks(Gateway), Exec] => "with `kernel-gateway` and `exec` in the label `ipybox.serves`",
                [Speaks(Gateway)] => "with a kernel gateway",
                [Speaks(Gateway), Ours] => "with a kernel gateway of this program",
                [Speaks(Gateway), Firewall] => "with a kernel gateway and `iptables` in `apt`",
                [Speaks(Gateway), Speaks(Resources)] => "with a resource server",
                [Speaks(Executor)] => "with an executor server",
                [Speaks(Executor), Ours] => "with the executor server of any-base",
                _ => panic!("no words for what `{}` is for", check.name),
            };
            let row = format!("| {} | {images} |", check.name);
            assert!(page.contains(&row), "docs/variants.md lacks\n{row}");
        }
    }
}
