//! Who an image runs as, and a base's users and groups with the image's own added.

use serde::{Deserialize, Serialize};

/// Who an image runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum User {
    /// An unprivileged user with these ids.
    Unprivileged {
        /// User id; never 0.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// The superuser, as images of ipybox 0.6 built with `--root`.
    Root,
    /// Whoever the base runs as.
    Inherited {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl User {
    /// The ids its files belong to.
    #[must_use]
    pub fn ids(self) -> (u32, u32) {
        match self {
            Self::Unprivileged { uid, gid } | Self::Inherited { uid, gid } => (uid, gid),
            Self::Root => (0, 0),
        }
    }

    /// The ids of what it may write. The group is always root's, whose members clusters start containers as when they
    /// choose the user id themselves.
    #[must_use]
    pub fn owner(self) -> (u32, u32) {
        (self.ids().0, 0)
    }

    /// Whether it is a user of the image's own.
    #[must_use]
    pub fn is_unprivileged(self) -> bool {
        matches!(self, Self::Unprivileged { .. })
    }

    /// Its home directory; `None` where that is the base's matter.
    #[must_use]
    pub fn home(self) -> Option<&'static str> {
        match self {
            Self::Unprivileged { .. } => Some("/home/ipybox"),
            Self::Root => Some("/root"),
            Self::Inherited { .. } => None,
        }
    }
}

/// Name of the unprivileged user and of its group.
pub const NAME: &str = "ipybox";

/// `/etc/passwd` with a line for `user`; `None` where nothing changes.
///
/// Where the uid is taken, the line stands before the other's, so that the id is looked up as this
/// user: the files are read from the top, and the first match counts.
#[must_use]
pub fn passwd(base: &str, user: User) -> Option<String> {
    let User::Unprivileged { uid, gid } = user else {
        return None;
    };
    let home = user.home().expect("an unprivileged user has a home");
    let line = format!("{NAME}:x:{uid}:{gid}::{home}:/bin/sh");
    Some(with_line(base, &line, |fields| fields.nth(2) == Some(&uid.to_string())))
}

/// `/etc/group` with a line for the group of `user`; `None` where nothing changes, also because
/// the gid has a name already.
#[must_use]
pub fn group(base: &str, user: User) -> Option<String> {
    let User::Unprivileged { gid, .. } = user else {
        return None;
    };
    let gid = gid.to_string();
    let taken = base.lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() != Some(NAME) && fields.nth(1) == Some(&gid)
    });
    (!taken).then(|| with_line(base, &format!("{NAME}:x:{gid}:"), |_| false))
}

/// The ids that a container of a configuration with this `user` runs with; `None` where they are not known.
///
/// Rule: OCI image specification, "User": `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`.
#[must_use]
pub fn ids(passwd: &str, groups: &str, user: &str) -> Option<(u32, u32)> {
    let field = |line: &str, index: usize| line.split(':').nth(index).and_then(|text| text.parse().ok());
    let line_of = |file: &'_ str, name: &str, index: usize| {
        let is = |line: &&str| line.split(':').nth(index) == Some(name);
        file.lines().find(is).map(str::to_owned)
    };
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let line = line_of(passwd, user, 0).or_else(|| line_of(passwd, user, 2));
    let uid = user.parse().ok().or_else(|| field(line.as_deref()?, 2))?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| field(&line_of(groups, group, 0)?, 2))?,
        None => line.and_then(|line| field(&line, 3)).unwrap_or(0),
    };
    Some((uid, gid))
}

/// `file` with `line` before the first line that `comes_after` holds for, and without any other
/// line of this name.
fn with_line(file: &str, line: &str, comes_after: impl Fn(&mut std::str::Split<'_, char>) -> bool) -> String {
    let mut lines: Vec<_> = file.lines().filter(|line| line.split(':').next() != Some(NAME)).collect();
    let position = lines.iter().position(|line| comes_after(&mut line.split(':'))).unwrap_or(lines.len());
    lines.insert(position, line);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n";
    const GROUP: &str = "root:x:0:\ndialout:x:20:\nusers:x:100:\nnode:x:1000:\n";

    #[test]
    fn a_taken_uid_is_looked_up_as_our_user() {
        let lines = passwd(PASSWD, User::Unprivileged { uid: 1000, gid: 20 }).unwrap();
        let first = lines.lines().find(|line| line.contains(":x:1000:")).unwrap();
        assert_eq!(first, "ipybox:x:1000:20::/home/ipybox:/bin/sh");
        assert!(lines.starts_with("root:") && lines.ends_with('\n'));
    }

    #[test]
    fn a_free_uid_comes_last_and_an_older_line_of_the_name_goes() {
        let base = "root:x:0:0::/root:/bin/sh\nipybox:x:501:501::/home/x:/bin/sh";
        assert_eq!(
            passwd(base, User::Unprivileged { uid: 7, gid: 8 }).unwrap(),
            "root:x:0:0::/root:/bin/sh\nipybox:x:7:8::/home/ipybox:/bin/sh\n"
        );
    }

    #[test]
    fn a_gid_that_has_a_name_keeps_it() {
        for gid in [0, 20, 100, 1000] {
            assert_eq!(group(GROUP, User::Unprivileged { uid: 1, gid }), None);
        }
        let lines = group(GROUP, User::Unprivileged { uid: 1, gid: 5 }).unwrap();
        assert!(lines.ends_with("node:x:1000:\nipybox:x:5:\n"));
        assert_eq!(group(GROUP, User::Root), None);
    }

    #[test]
    fn the_user_of_a_configuration_has_ids() {
        for (user, expected) in [
            ("", Some((0, 0))),
            ("root", Some((0, 0))),
            ("node", Some((1000, 1000))),
            ("1000", Some((1000, 1000))),
            ("7", Some((7, 0))),
            ("7:8", Some((7, 8))),
            ("node:users", Some((1000, 100))),
            ("nobody", None),
            ("node:nothing", None),
        ] {
            assert_eq!(ids(PASSWD, GROUP, user), expected, "for {user:?}");
        }
    }

    #[test]
    fn a_base_without_accounts_gets_ours() {
        let user = User::Unprivileged { uid: 7, gid: 8 };
        assert_eq!(passwd("", user).unwrap(), "ipybox:x:7:8::/home/ipybox:/bin/sh\n");
        assert_eq!(group("", user).unwrap(), "ipybox:x:8:\n");
    }
}
