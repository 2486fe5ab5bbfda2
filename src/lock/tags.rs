//! Which wheels an interpreter takes, and which of several it prefers.

use crate::base::{Interpreter, Platform};

/// What decides which wheels an interpreter of `CPython` on Linux takes.
///
/// Rule: Python packaging, "Platform compatibility tags" (PEP 425, 600 and 656).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// The interpreter's minor version, where the major one is 3.
    minor: u32,
    /// Such as `x86_64`.
    machine: &'static str,
    libc: Libc,
}

/// A C library, and its version where the major one is the only one there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Libc {
    /// 2.N.
    Gnu(u32),
    /// 1.N.
    Musl(u32),
}

/// The oldest glibc of a distribution that gets packages still; what is taken where a base does not say.
const OLDEST_GLIBC: u32 = 28;

/// The minor versions of glibc that uv knows a platform for.
const KNOWN_GLIBC: [u32; 12] = [17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40];

impl Tags {
    /// Those of an interpreter; `None` where it is none of `CPython` 3, or of another kind of machine.
    #[must_use]
    pub fn of(interpreter: &Interpreter, platform: &Platform) -> Option<Self> {
        let mut parts = interpreter.version.split('.').map(|part| part.parse::<u32>().ok());
        let (Some(Some(3)), Some(Some(minor))) = (parts.next(), parts.next()) else { return None };
        let machine = match (platform.os.as_str(), platform.architecture.as_str()) {
            ("linux", "amd64") => "x86_64",
            ("linux", "arm64") => "aarch64",
            _ => return None,
        };
        let said = interpreter.libc.as_deref().and_then(|libc| libc.split_once(' '));
        let minor_of = |version: &str| version.split('.').nth(1).and_then(|minor| minor.parse().ok());
        let libc = match said {
            Some(("glibc", version)) => Libc::Gnu(minor_of(version)?),
            Some(("musl", version)) => Libc::Musl(minor_of(version)?),
            _ => Libc::Gnu(OLDEST_GLIBC),
        };
        (interpreter.implementation == "cpython").then_some(Self { minor, machine, libc })
    }

    /// The platform tag of the newest wheels it takes, such as `manylinux_2_36_x86_64`.
    #[must_use]
    pub fn platform(&self) -> String {
        match self.libc {
            Libc::Gnu(minor) => format!("manylinux_2_{minor}_{}", self.machine),
            Libc::Musl(minor) => format!("musllinux_1_{minor}_{}", self.machine),
        }
    }

    /// The newest platform that uv knows and whose wheels it takes, by uv's name for it.
    #[must_use]
    pub fn uv_platform(&self) -> String {
        match self.libc {
            Libc::Gnu(minor) => {
                let known = KNOWN_GLIBC.into_iter().rev().find(|known| *known <= minor).unwrap_or(17);
                format!("{}-manylinux_2_{known}", self.machine)
            }
            Libc::Musl(_) => format!("{}-unknown-linux-musl", self.machine),
        }
    }

    /// The environment markers that hold for it, as one.
    #[must_use]
    pub fn marker(&self) -> String {
        format!(
            "implementation_name == 'cpython' and python_version == '3.{}' and sys_platform == 'linux' and \
             platform_machine == '{}'",
            self.minor, self.machine
        )
    }

    /// The versions of Python that have the same tags.
    #[must_use]
    pub fn requires_python(&self) -> String {
        format!("==3.{}.*", self.minor)
    }

    /// How much a wheel is wanted, by its file's name: the smaller the better; `None` where it does not fit, or is no
    /// name of a wheel.
    #[must_use]
    pub fn rank(&self, file: &str) -> Option<(u32, u32, std::cmp::Reverse<u64>)> {
        let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
        let (build, [pythons, abis, platforms]) = match parts.as_slice() {
            [_, _, tags @ ..] if tags.len() == 3 => ("", [tags[0], tags[1], tags[2]]),
            [_, _, build, tags @ ..] if tags.len() == 3 => (*build, [tags[0], tags[1], tags[2]]),
            _ => return None,
        };
        // Of equal ones the later build is the better.
        let digits = build.bytes().take_while(u8::is_ascii_digit).count();
        let build = build[..digits].parse().unwrap_or(0);
        let pairs = pythons.split('.').flat_map(|python| abis.split('.').map(move |abi| (python, abi)));
        let ranks = pairs.flat_map(|(python, abi)| {
            platforms.split('.').filter_map(move |platform| self.rank_of(python, abi, platform))
        });
        ranks.min().map(|(kind, platform)| (kind, platform, std::cmp::Reverse(build)))
    }

    fn rank_of(&self, python: &str, abi: &str, platform: &str) -> Option<(u32, u32)> {
        let platform = self.rank_of_platform(platform)?;
        let own = format!("cp3{}", self.minor);
        let minor_of = |text: &str| match text {
            "3" => Some(None),
            text => text.strip_prefix('3')?.parse::<u32>().ok().map(Some),
        };
        let kind = match (python.strip_prefix("cp"), python.strip_prefix("py"), abi) {
            _ if python == own && abi == own => 0,
            (Some(version), _, "abi3") => match self.older(minor_of(version)??)? {
                0 => 1,
                older => older + 2,
            },
            _ if python == own && abi == "none" => 2,
            // `py312` comes before `py3`, and that before `py311`.
            (_, Some(version), "none") => match minor_of(version)? {
                Some(minor) if minor == self.minor => 100,
                Some(minor) => self.older(minor)? + 101,
                None => 101,
            },
            _ => return None,
        };
        // What fits everywhere comes behind what was made for such a platform.
        Some((if platform == ANY { kind + 1000 } else { kind }, platform))
    }

    /// How much older another minor version is; none that is newer.
    fn older(&self, minor: u32) -> Option<u32> {
        self.minor.checked_sub(minor)
    }

    fn rank_of_platform(&self, tag: &str) -> Option<u32> {
        if tag == "any" {
            return Some(ANY);
        }
        let tag = tag.strip_suffix(self.machine)?.strip_suffix('_')?;
        let (own, other) = match (self.libc, tag) {
            (_, "linux") => return Some(ANY - 1),
            (Libc::Gnu(own), "manylinux1") => (own, 5),
            (Libc::Gnu(own), "manylinux2010") => (own, 12),
            (Libc::Gnu(own), "manylinux2014") => (own, 17),
            (Libc::Gnu(own), tag) => (own, tag.strip_prefix("manylinux_2_")?.parse().ok()?),
            (Libc::Musl(own), tag) => (own, tag.strip_prefix("musllinux_1_")?.parse().ok()?),
        };
        own.checked_sub(other)
    }
}

/// The rank of the platform `any`: the last.
const ANY: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(version: &str, libc: Option<&str>, architecture: &str) -> Option<Tags> {
        let interpreter = Interpreter {
            path: "/usr/bin/python3".to_owned(),
            version: version.to_owned(),
            implementation: "cpython".to_owned(),
            libc: libc.map(str::to_owned),
        };
        Tags::of(&interpreter, &Platform { os: "linux".to_owned(), architecture: architecture.to_owned() })
    }

    /// The order of `packaging.tags` for `CPython` 3.12 with glibc 2.36, of some that it has.
    #[test]
    fn wheels_are_preferred_as_installers_do() {
        let tags = tags("3.12.8", Some("glibc 2.36"), "amd64").unwrap();
        let in_order = [
            "x-1-cp312-cp312-manylinux_2_36_x86_64.whl",
            "x-1-cp312-cp312-manylinux_2_28_x86_64.manylinux_2_27_x86_64.whl",
            "x-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "x-1-cp312-cp312-manylinux1_x86_64.whl",
            "x-1-cp312-cp312-linux_x86_64.whl",
            "x-1-cp312-abi3-manylinux_2_28_x86_64.whl",
            "x-1-cp312-none-manylinux_2_28_x86_64.whl",
            "x-1-cp39-abi3-manylinux_2_28_x86_64.whl",
            "x-1-py312-none-manylinux_2_28_x86_64.whl",
            "x-1-py3-none-manylinux_2_28_x86_64.whl",
            "x-1-cp312-none-any.whl",
            "x-1-py312-none-any.whl",
            "x-1-py2.py3-none-any.whl",
        ];
        let ranks: Vec<_> = in_order.iter().map(|name| tags.rank(name).expect(name)).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
        for other in [
            "x-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            "x-1-cp312-cp312-manylinux_2_37_x86_64.whl",
            "x-1-cp312-cp312-musllinux_1_2_x86_64.whl",
            "x-1-cp312-cp312-manylinux_2_28_aarch64.whl",
            "x-1-cp313-abi3-manylinux_2_28_x86_64.whl",
            "x-1-py2-none-any.whl",
            "x-1-cp312-cp312-win_amd64.whl",
            "x-1.tar.gz",
            "x.whl",
        ] {
            assert_eq!(tags.rank(other), None, "{other}");
        }
        assert!(tags.rank("x-1-2-py3-none-any.whl") < tags.rank("x-1-1-py3-none-any.whl"));
        assert_eq!(tags.uv_platform(), "x86_64-manylinux_2_36");
    }

    #[test]
    fn other_machines_and_libraries_have_tags_of_their_own() {
        let musl = tags("3.11.2", Some("musl 1.2.4"), "arm64").unwrap();
        assert_eq!(musl.platform(), "musllinux_1_2_aarch64");
        assert!(musl.rank("x-1-cp311-cp311-musllinux_1_1_aarch64.whl").is_some());
        assert!(musl.rank("x-1-cp311-cp311-manylinux_2_17_aarch64.whl").is_none());
        assert_eq!(tags("3.11.2", None, "amd64").unwrap().platform(), "manylinux_2_28_x86_64");
        assert_eq!(
            tags("3.11.2", Some("glibc 2.30"), "amd64").unwrap().uv_platform(),
            "x86_64-manylinux_2_28"
        );
        assert_eq!(tags("2.7.18", None, "amd64"), None);
        assert_eq!(tags("3.11.2", None, "riscv64"), None);
    }
}
