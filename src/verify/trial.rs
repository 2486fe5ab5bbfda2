//! A container that is tried, and what its checks share.

use tokio::sync::OnceCell;

use super::Fault;
use super::subject::{Claim, Subject};
use super::wire::executor::Executor;
use super::wire::http::Server;
use super::wire::kernel::{Kernel, Outcome};
use crate::engine::{Container, Exec};
use crate::plan::SERVERS_PYTHON;
use crate::variant::Interface;

const FILES: &str = include_str!("contract/files.py");

/// A container that is tried.
pub(super) struct Trial<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) container: &'a Container,
    kernel: OnceCell<Kernel>,
    others: OnceCell<(Kernel, Kernel)>,
    files: OnceCell<Exec>,
}

impl<'a> Trial<'a> {
    pub(super) fn of(subject: &'a Subject<'a>, container: &'a Container) -> Self {
        let (kernel, others, files) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { subject, container, kernel, others, files }
    }

    /// The server behind a port of the container.
    pub(super) fn at(&self, port: u16) -> Result<Server, Fault> {
        let door = self.container.door(port).ok_or("the container has ended")?;
        Ok(Server { door, token: None, scheme: "token" })
    }

    /// The server that speaks an interface.
    pub(super) fn server(&self, interface: Interface) -> Result<Server, Fault> {
        self.at(self.subject.port(interface).ok_or("no server speaks it")?)
    }

    /// The executor, which speaks for the same workspace throughout.
    pub(super) fn executor(&self) -> Result<Executor, Fault> {
        Ok(Executor(self.server(Interface::Executor)?))
    }

    /// The kernel that code runs in, started when it is first asked for.
    pub(super) async fn kernel(&self) -> Result<&Kernel, Fault> {
        let gateway = self.server(Interface::Gateway)?;
        Ok(self.kernel.get_or_try_init(|| Kernel::start(&gateway)).await?)
    }

    /// That kernel and two more.
    pub(super) async fn three_kernels(&self) -> Result<[&Kernel; 3], Fault> {
        let gateway = self.server(Interface::Gateway)?;
        let two = async || tokio::try_join!(Kernel::start(&gateway), Kernel::start(&gateway));
        let (second, third) = self.others.get_or_try_init(two).await?;
        Ok([self.kernel().await?, second, third])
    }

    /// All that were started.
    pub(super) fn kernels(&self) -> Vec<&Kernel> {
        let others = self.others.get().map(|(second, third)| [second, third]);
        self.kernel.get().into_iter().chain(others.into_iter().flatten()).collect()
    }

    /// Runs Python the way a client of the image does; what it writes comes without white space at its end.
    pub(super) async fn python(&self, code: &str) -> Result<Outcome, Fault> {
        let outcome: Outcome = match self.executor() {
            Ok(executor) => executor.python(code).await?.into(),
            Err(_) => self.kernel().await?.run(code).await?,
        };
        Ok(Outcome { text: outcome.text.trim_end().to_owned(), ..outcome })
    }

    /// What is wrong with the files of the container; they are looked through once.
    pub(super) async fn files(&self) -> Result<&Exec, Fault> {
        let python = if self.subject.claims(Claim::Ours) { SERVERS_PYTHON } else { "python3" };
        let looked = async || self.container.exec("0:0", &[python, "-I", "-c", FILES]).await;
        Ok(self.files.get_or_try_init(looked).await?)
    }
}
