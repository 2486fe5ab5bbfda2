//! User names and passwords for the hosts of package indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use netrc::Netrc;

use crate::deps::Index;
use crate::diagnostic::{Diagnostic, Document};

/// What somebody says to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of the user.
    pub user: String,
    /// The password, or a token.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// Logins by host: those of the hosts that a build asks, and of no others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_host: BTreeMap<String, Login>,
    /// A netrc that others than its owner can read.
    pub readable: Option<PathBuf>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A netrc cannot be read.
    #[error("cannot read the netrc `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A netrc has another form.
    #[error("the netrc `{}` has a mistake", path.display())]
    Netrc {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<u32>,
    },
    /// One half of a login is set.
    #[error("`{0}` is set without its other half")]
    Half(String),
    /// Two logins are meant for one host.
    #[error("there are two logins for the host `{0}`")]
    Two(String),
    /// A login cannot stand in a netrc.
    #[error("the login for the host `{0}` holds a control character")]
    Control(String),
}

impl CredentialsError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Unreadable { source, .. } => {
                what.why(source.to_string()).advice("correct the file, or `NETRC`")
            }
            Self::Netrc { line, .. } => {
                let what = match line {
                    Some(line) => what.why(format!("at line {line}")),
                    None => what,
                };
                what.advice("write `machine HOST login USER password PASSWORD`; a password with a blank goes in quotes")
            }
            Self::Half(_) => what.advice("set both, `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`"),
            Self::Two(_) => what
                .why("build steps get a netrc, which has one for each host")
                .advice("give indexes of one host the same login"),
            Self::Control(_) => what.advice("correct it"),
        }
    }
}

impl Credentials {
    /// The logins for `hosts`, in lower case: of the variables for named indexes, else of addresses, else of the user's
    /// netrc.
    ///
    /// Rule: uv, "Authentication", "Providing credentials directly"; a netrc's `default` would go to every host, and
    /// does not count.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn read(
        hosts: &BTreeSet<String>,
        indexes: &[Index],
        of_addresses: &[(String, Login)],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialsError> {
        let mut found = Self::default();
        for index in indexes.iter().filter(|index| hosts.contains(&index.host())) {
            if let Some(login) =
                index.name.as_deref().map(|name| of_variables(name, variable)).transpose()?.flatten()
            {
                found.add(&index.host(), &login)?;
            }
        }
        let named: BTreeSet<String> = found.by_host.keys().cloned().collect();
        for (host, login) in
            of_addresses.iter().filter(|(host, _)| hosts.contains(host) && !named.contains(host))
        {
            found.add(host, login)?;
        }
        if hosts.iter().any(|host| !found.by_host.contains_key(host)) {
            found.complete(hosts, variable)?;
        }
        for (host, Login { user, password }) in &found.by_host {
            if [host, user, password].into_iter().any(|text| text.contains(char::is_control)) {
                return Err(CredentialsError::Control(host.clone()));
            }
        }
        Ok(found)
    }

    fn add(&mut self, host: &str, login: &Login) -> Result<(), CredentialsError> {
        match self.by_host.insert(host.to_owned(), login.clone()) {
            Some(earlier) if earlier != *login => Err(CredentialsError::Two(host.to_owned())),
            _ => Ok(()),
        }
    }

    /// Takes from the user's netrc what is not known yet.
    fn complete(
        &mut self,
        hosts: &BTreeSet<String>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), CredentialsError> {
        let named = variable("NETRC").map(PathBuf::from);
        let is_named = named.is_some();
        let Some(path) = named.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".netrc"))) else {
            return Ok(());
        };
        let text = match Document::read(&path, 1 << 20) {
            Ok(document) => document.text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => return Ok(()),
            Err(source) => return Err(CredentialsError::Unreadable { path, source }),
        };
        // What the parser says names what it does not understand, which may be a password.
        let parsed = text.parse::<Netrc>().map_err(|error| CredentialsError::Netrc {
            path: path.clone(),
            line: error
                .to_string()
                .rsplit_once("(line ")
                .and_then(|(_, line)| line.trim_end_matches(')').parse().ok()),
        })?;
        let mut used = false;
        let known = parsed.hosts.into_iter().filter(|(host, _)| host != "default");
        let known = known.map(|(host, known)| (host.to_ascii_lowercase(), known));
        for (host, known) in known.filter(|(host, _)| hosts.contains(host)) {
            let login = Login { user: known.login, password: known.password };
            used |= !self.by_host.contains_key(&host);
            self.by_host.entry(host).or_insert(login);
        }
        let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode());
        self.readable = (used && mode & 0o077 != 0).then_some(path);
        Ok(())
    }

    /// The hosts there are logins for.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.by_host.keys().map(String::as_str)
    }

    /// All logins, to hide them.
    pub fn logins(&self) -> impl Iterator<Item = &Login> {
        self.by_host.values()
    }

    /// A netrc with all of them; `None` where there are none.
    #[must_use]
    pub fn netrc(&self) -> Option<Vec<u8>> {
        let mut text = String::new();
        for (host, Login { user, password }) in &self.by_host {
            let _ = writeln!(text, "machine {host}\nlogin {}\npassword {}", quoted(user), quoted(password));
        }
        (!text.is_empty()).then(|| text.into_bytes())
    }
}

/// The login of a named index.
///
/// Rule: uv, "Providing credentials directly": upper case, and `_` for what is no letter and no digit.
fn of_variables(
    name: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Login>, CredentialsError> {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(plain).collect();
    let [user, password] = ["USERNAME", "PASSWORD"].map(|what| format!("UV_INDEX_{name}_{what}"));
    match (variable(&user), variable(&password)) {
        (None, None) => Ok(None),
        (Some(user), Some(password)) => Ok(Some(Login { user, password })),
        (Some(_), None) => Err(CredentialsError::Half(user)),
        (None, Some(_)) => Err(CredentialsError::Half(password)),
    }
}

/// A word of a netrc as uv and `templates/build/index.py` read it.
fn quoted(text: &str) -> String {
    let is_plain = |character: char| !character.is_whitespace() && !"\"'\\".contains(character);
    if !text.is_empty() && !text.starts_with('#') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::deps::Priority;

    fn index(name: &str, url: &str) -> Index {
        Index::of(Some(name), url, Priority::Extra).unwrap()
    }

    fn read(
        indexes: &[Index],
        of_addresses: &[(String, Login)],
        variables: &[(&str, &str)],
    ) -> Result<Credentials, CredentialsError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let hosts = indexes.iter().map(Index::host).collect();
        Credentials::read(&hosts, indexes, of_addresses, &variable)
    }

    fn text(credentials: &Credentials) -> String {
        String::from_utf8(credentials.netrc().unwrap_or_default()).unwrap()
    }

    #[test]
    fn each_host_gets_its_own_login_and_others_none() {
        let home = tempfile::tempdir().unwrap();
        let netrc = home.path().join(".netrc");
        fs::write(
            &netrc,
            "machine one.test login n1 password p1\nmachine two.test login n2 password \"p 2\"\n\
             machine other.test login x password y\ndefault login d password d\n",
        )
        .unwrap();
        let at = ("HOME", home.path().to_str().unwrap());
        let indexes = [
            index("my-one", "https://one.test:8443/simple"),
            index("b", "https://two.test/"),
            index("c", "https://c.test/"),
        ];
        let given = Login { user: "a".to_owned(), password: "b".to_owned() };
        let of_addresses = [("two.test".to_owned(), given.clone()), ("unasked.test".to_owned(), given)];
        let found = read(&indexes, &[], &[at]).unwrap();
        assert_eq!(
            text(&found),
            "machine one.test\nlogin n1\npassword p1\nmachine two.test\nlogin n2\npassword \"p 2\"\n"
        );
        assert_eq!(found.readable, Some(netrc.clone()));
        fs::set_permissions(&netrc, fs::Permissions::from_mode(0o600)).unwrap();
        let variables = [at, ("UV_INDEX_MY_ONE_USERNAME", "v"), ("UV_INDEX_MY_ONE_PASSWORD", "w")];
        let found = read(&indexes, &of_addresses, &variables).unwrap();
        assert_eq!(
            text(&found),
            "machine one.test\nlogin v\npassword w\nmachine two.test\nlogin a\npassword b\n"
        );
        assert_eq!(found.readable, None);
        assert!(!format!("{:?}", found.logins().collect::<Vec<_>>()).contains('w'));
    }

    #[test]
    fn what_is_wrong_is_told_without_a_password() {
        let home = tempfile::tempdir().unwrap();
        let netrc = home.path().join("netrc");
        fs::write(&netrc, "machine a.test\nlogin u password my secret\n").unwrap();
        let at = ("NETRC", netrc.to_str().unwrap());
        let one = [index("a", "https://a.test/")];
        let error = read(&one, &[], &[at]).unwrap_err();
        let told = format!("{:?} {error:?}", error.diagnostic());
        assert!(told.contains("at line 3") || told.contains("at line 2"), "{told}");
        assert!(!told.contains("secret"), "{told}");
        assert!(matches!(
            read(&one, &[], &[("NETRC", "/missing")]),
            Err(CredentialsError::Unreadable { .. })
        ));
        let half = read(&one, &[], &[("UV_INDEX_A_USERNAME", "u")]);
        assert!(matches!(half, Err(CredentialsError::Half(name)) if name == "UV_INDEX_A_USERNAME"));
        let two = [index("a", "https://a.test/"), index("b", "https://a.test/b")];
        let variables =
            ["A", "B"].map(|name| [format!("UV_INDEX_{name}_USERNAME"), format!("UV_INDEX_{name}_PASSWORD")]);
        let variables: Vec<_> =
            variables.as_flattened().iter().map(|name| (name.as_str(), name.as_str())).collect();
        assert!(matches!(read(&two, &[], &variables), Err(CredentialsError::Two(host)) if host == "a.test"));
        let control = [("UV_INDEX_A_USERNAME", "u"), ("UV_INDEX_A_PASSWORD", "a\nmachine b.test")];
        assert!(matches!(read(&one, &[], &control), Err(CredentialsError::Control(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(user in "[^\\p{Cc}]{1,20}", password in "[^\\p{Cc}]{0,20}") {
            let login = Login { user: user.clone(), password: password.clone() };
            let credentials =
                Credentials { by_host: [("a.test".to_owned(), login)].into(), readable: None };
            let parsed: Netrc = text(&credentials).parse().unwrap();
            let found = &parsed.hosts["a.test"];
            prop_assert_eq!((&found.login, &found.password), (&user, &password));
        }
    }
}
