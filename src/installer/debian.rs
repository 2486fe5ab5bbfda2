//! What a build of a source says that it misses, and which Debian package has it.

/// Something that a build looks for, and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What it is, for people.
    pub what: String,
    /// The Debian package that has it, where that is known.
    pub package: Option<&'static str>,
    /// Whether it comes with compilers and the interpreter's headers.
    pub is_of_compiler: bool,
}

/// Programs that come with compilers.
const COMPILERS: [&str; 9] = [
    "gcc",
    "g++",
    "cc",
    "c++",
    "clang",
    "make",
    "x86_64-linux-gnu-gcc",
    "aarch64-linux-gnu-gcc",
    "x86_64-linux-gnu-g++",
];

/// Headers by the beginning of their path.
const HEADERS: [(&str, &str); 58] = [
    ("alsa/", "libasound2-dev"),
    ("archive.h", "libarchive-dev"),
    ("bluetooth/", "libbluetooth-dev"),
    ("boost/", "libboost-all-dev"),
    ("bzlib.h", "libbz2-dev"),
    ("cairo", "libcairo2-dev"),
    ("crypt.h", "libcrypt-dev"),
    ("cups/", "libcups2-dev"),
    ("curl/", "libcurl4-openssl-dev"),
    ("dbus/", "libdbus-1-dev"),
    ("enchant", "libenchant-2-dev"),
    ("event.h", "libevent-dev"),
    ("expat.h", "libexpat1-dev"),
    ("ffi.h", "libffi-dev"),
    ("fftw3.h", "libfftw3-dev"),
    ("ft2build.h", "libfreetype-dev"),
    ("gdal", "libgdal-dev"),
    ("geos_c.h", "libgeos-dev"),
    ("glib", "libglib2.0-dev"),
    ("gmp.h", "libgmp-dev"),
    ("graphviz/", "libgraphviz-dev"),
    ("gssapi", "libkrb5-dev"),
    ("hdf5.h", "libhdf5-dev"),
    ("jpeglib.h", "libjpeg-dev"),
    ("krb5", "libkrb5-dev"),
    ("lber.h", "libldap2-dev"),
    ("ldap.h", "libldap2-dev"),
    ("leveldb/", "libleveldb-dev"),
    ("libpq-fe.h", "libpq-dev"),
    ("libusb", "libusb-1.0-0-dev"),
    ("libvirt/", "libvirt-dev"),
    ("libxml/", "libxml2-dev"),
    ("libxslt/", "libxslt1-dev"),
    ("lzma.h", "liblzma-dev"),
    ("magic.h", "libmagic-dev"),
    ("mpfr.h", "libmpfr-dev"),
    ("mpi.h", "libopenmpi-dev"),
    ("mysql", "default-libmysqlclient-dev"),
    ("ncurses.h", "libncurses-dev"),
    ("netcdf.h", "libnetcdf-dev"),
    ("openssl/", "libssl-dev"),
    ("pcap.h", "libpcap-dev"),
    ("pcre.h", "libpcre3-dev"),
    ("portaudio.h", "portaudio19-dev"),
    ("proj.h", "libproj-dev"),
    ("readline/", "libreadline-dev"),
    ("rocksdb/", "librocksdb-dev"),
    ("sasl/", "libsasl2-dev"),
    ("snappy", "libsnappy-dev"),
    ("sndfile.h", "libsndfile1-dev"),
    ("sql.h", "unixodbc-dev"),
    ("sqlite3.h", "libsqlite3-dev"),
    ("systemd/", "libsystemd-dev"),
    ("uuid/", "uuid-dev"),
    ("yaml.h", "libyaml-dev"),
    ("zlib.h", "zlib1g-dev"),
    ("zmq.h", "libzmq3-dev"),
    ("zstd.h", "libzstd-dev"),
];

/// Programs that are no compilers of C.
const PROGRAMS: [(&str, &str); 19] = [
    ("autoconf", "autoconf"),
    ("automake", "automake"),
    ("cargo", "cargo"),
    ("cmake", "cmake"),
    ("curl-config", "libcurl4-openssl-dev"),
    ("flex", "flex"),
    ("gdal-config", "libgdal-dev"),
    ("gfortran", "gfortran"),
    ("git", "git"),
    ("krb5-config", "libkrb5-dev"),
    ("libtool", "libtool"),
    ("mysql_config", "default-libmysqlclient-dev"),
    ("ninja", "ninja-build"),
    ("pg_config", "libpq-dev"),
    ("pkg-config", "pkg-config"),
    ("rustc", "rustc"),
    ("swig", "swig"),
    ("xml2-config", "libxml2-dev"),
    ("xslt-config", "libxslt1-dev"),
];

/// Libraries, without `lib`, whose package is not called as their headers' is.
const LIBRARIES: [(&str, &str); 10] = [
    ("crypto", "libssl-dev"),
    ("curl", "libcurl4-openssl-dev"),
    ("ffi", "libffi-dev"),
    ("mysqlclient", "default-libmysqlclient-dev"),
    ("pq", "libpq-dev"),
    ("python3", "python3-dev"),
    ("ssl", "libssl-dev"),
    ("xml2", "libxml2-dev"),
    ("xslt", "libxslt1-dev"),
    ("z", "zlib1g-dev"),
];

impl Missing {
    /// What the output of a build says is missing; the last counts, since what was looked for first may have been a
    /// question.
    #[must_use]
    pub fn of(output: &[String]) -> Option<Self> {
        output.iter().rev().find_map(|line| header(line).or_else(|| library(line)).or_else(|| program(line)))
    }
}

/// `x.c:1:10: fatal error: ffi.h: No such file or directory`
fn header(line: &str) -> Option<Missing> {
    let (_, rest) = line.split_once("fatal error: ")?;
    let path = rest.split(": No such file").next()?.trim_end_matches(" file not found").trim_matches('\'');
    let found = HEADERS.iter().find(|(begin, _)| path.starts_with(begin));
    Some(Missing {
        what: format!("the header `{}`", path.escape_debug()),
        package: found.map(|(_, package)| *package),
        is_of_compiler: ["Python.h", "pyconfig.h", "stdio.h", "stdlib.h"].contains(&path),
    })
}

/// `/usr/bin/ld: cannot find -lpq: No such file or directory`
fn library(line: &str) -> Option<Missing> {
    let (_, rest) = line.split_once("cannot find -l")?;
    let name = rest.split([':', ' ']).next()?;
    let found = LIBRARIES.iter().find(|(library, _)| *library == name);
    let package = found.map(|(_, package)| *package);
    Some(Missing {
        what: format!("the library `lib{}`", name.escape_debug()),
        package,
        is_of_compiler: false,
    })
}

/// A program, in the words of Python, shells, setuptools and packages that look for one themselves.
fn program(line: &str) -> Option<Missing> {
    let quoted = |text: &str| text.split(['\'', '"', '`']).nth(1).map(str::to_owned);
    let name = if let Some((_, rest)) = line.split_once("No such file or directory: ") {
        quoted(rest)?
    } else if line.contains("error: command '") && line.contains("No such file or directory")
        || line.contains("unable to execute '")
        || line.contains("Could not find executable")
    {
        quoted(line)?
    } else {
        let before = line
            .split_once(": command not found")
            .or_else(|| line.split_once(": not found"))
            .or_else(|| line.split_once(" executable not found"))
            .or_else(|| line.split_once(" is not installed"))?;
        before.0.split_whitespace().next_back()?.trim_matches(['`', '\'', '"']).to_owned()
    };
    let name = name.rsplit('/').next()?;
    let is_of_compiler = COMPILERS.contains(&name);
    let found = PROGRAMS.iter().find(|(program, _)| *program == name);
    (is_of_compiler || found.is_some()).then(|| Missing {
        what: format!("the program `{name}`"),
        package: found.map(|(_, package)| *package),
        is_of_compiler,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_miss_is_known_by_their_words() {
        for (line, what, package, is_of_compiler) in [
            (
                "psycopg/psycopg.h:31:10: fatal error: Python.h: No such file or directory",
                "Python.h",
                None,
                true,
            ),
            (
                "src/a.c:1:10: fatal error: libpq-fe.h: No such file or directory",
                "libpq-fe.h",
                Some("libpq-dev"),
                false,
            ),
            (
                "./x.h:2:10: fatal error: 'openssl/ssl.h' file not found",
                "openssl/ssl.h",
                Some("libssl-dev"),
                false,
            ),
            ("      error: command 'gcc' failed: No such file or directory", "gcc", None, true),
            (
                "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
                "x86_64-linux-gnu-gcc",
                None,
                true,
            ),
            ("  Error: pg_config executable not found.", "pg_config", Some("libpq-dev"), false),
            (
                "  FileNotFoundError: [Errno 2] No such file or directory: 'cmake'",
                "cmake",
                Some("cmake"),
                false,
            ),
            (
                "/bin/sh: 1: mysql_config: not found",
                "mysql_config",
                Some("default-libmysqlclient-dev"),
                false,
            ),
            ("/usr/bin/ld: cannot find -lpq: No such file or directory", "libpq", Some("libpq-dev"), false),
            ("a.c:1:10: fatal error: acme.h: No such file or directory", "acme.h", None, false),
        ] {
            let found = Missing::of(&[line.to_owned()]).unwrap_or_else(|| panic!("nothing for {line}"));
            assert!(found.what.contains(what), "{found:?}");
            assert_eq!((found.package, found.is_of_compiler), (package, is_of_compiler), "for {line}");
        }
        for line in
            ["FileNotFoundError: [Errno 2] No such file or directory: 'VERSION.txt'", "module not found"]
        {
            assert_eq!(Missing::of(&[line.to_owned()]), None);
        }
    }

    #[test]
    fn tables_are_sorted() {
        assert!(HEADERS.is_sorted() && PROGRAMS.is_sorted() && LIBRARIES.is_sorted());
    }
}
