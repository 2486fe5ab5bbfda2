#!/usr/bin/env python3
"""Records what pip and packaging answer, as the oracle of this project's own readers.

    python3.11 -m venv VENV && VENV/bin/pip install pip==25.3 packaging==25.0
    VENV/bin/python tests/pip/record.py                      # rewrites *.jsonl and environments.json
    VENV/bin/python tests/pip/record.py collect FOLDER       # rewrites wheels.txt from a site-packages

Nothing is downloaded and nothing but files beside this one is written. The same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import logging
import os
import random
import re
import sys
import tempfile
import warnings
from itertools import product, zip_longest
from optparse import Values
from pathlib import Path
from typing import Any, Iterable, Iterator

import packaging
import pip
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pip._internal.index.collector import LinkCollector
from pip._internal.index.package_finder import PackageFinder
from pip._internal.models.search_scope import SearchScope
from pip._internal.models.selection_prefs import SelectionPreferences
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements

HERE = Path(__file__).resolve().parent
PINNED = {"pip": "25.3", "packaging": "25.0"}
MAX_VERSIONS = 25
MAX_WHEELS = 1100
DEFAULT_INDEX = "https://default.example.invalid/simple"

# --- environments ------------------------------------------------------------------------------------------------

LINUX = ("posix", "linux", "Linux")
MACOS = ("posix", "darwin", "Darwin")
WINDOWS = ("nt", "win32", "Windows")
PLATFORMS: list[tuple[str, str, tuple[str, str, str], str, str, str]] = [
    # python, implementation, platform, machine, release, version
    ("3.8.20", "cpython", LINUX, "x86_64", "5.4.0-150-generic", "#167-Ubuntu SMP Mon May 15 17:35:05 UTC 2023"),
    ("3.9.2", "cpython", LINUX, "aarch64", "6.1.0", "#1 SMP Debian 6.1.0-1"),
    ("3.9.19", "pypy", LINUX, "x86_64", "6.8.0-31-generic", "#31-Ubuntu SMP PREEMPT_DYNAMIC"),
    ("3.10.12", "cpython", WINDOWS, "AMD64", "10", "10.0.19045"),
    ("3.11.9", "cpython", LINUX, "x86_64", "6.6.13", "#1 SMP Fri Jan 26 00:00:00 UTC 2024"),
    ("3.11.0", "cpython", MACOS, "arm64", "22.6.0", "Darwin Kernel Version 22.6.0"),
    ("3.12.3", "cpython", LINUX, "armv7l", "6.6.31+rpt-rpi-v7", "#1 SMP Raspbian 1:6.6.31-1+rpt1"),
    ("3.12.7", "cpython", MACOS, "x86_64", "23.4.0", "Darwin Kernel Version 23.4.0"),
    ("3.13.1", "cpython", WINDOWS, "ARM64", "11", "10.0.26100"),
    ("3.13.0", "cpython", LINUX, "s390x", "4.18.0", "#1 SMP"),
    ("3.14.0", "cpython", LINUX, "x86_64", "6.12.0", "#1 SMP PREEMPT_DYNAMIC"),
    ("3.14.0rc2", "cpython", WINDOWS, "AMD64", "2022Server", "10.0.20348"),
]


def environments() -> list[dict[str, str]]:
    answer = []
    for python, implementation, (os_name, sys_platform, system), machine, release, version in PLATFORMS:
        answer.append({
            "implementation_name": implementation,
            "implementation_version": "7.3.16" if implementation == "pypy" else python,
            "os_name": os_name,
            "platform_machine": machine,
            "platform_python_implementation": {"cpython": "CPython", "pypy": "PyPy"}[implementation],
            "platform_release": release,
            "platform_system": system,
            "platform_version": version,
            "python_full_version": python,
            "python_version": ".".join(python.split(".")[:2]),
            "sys_platform": sys_platform,
        })
    return answer


# --- single requirements: answers --------------------------------------------------------------------------------


def release(version: Version, parts: Iterable[int]) -> str:
    epoch = f"{version.epoch}!" if version.epoch else ""
    return epoch + ".".join(map(str, parts))


def neighbours(version: Version) -> list[str]:
    """Versions around one version, the most telling first."""
    parts = version.release
    public = str(version).split("+")[0]
    padded = (*parts, 0, 0)[: max(3, len(parts))]
    around = [str(version), release(version, (*parts[:-1], parts[-1] + 1))]
    if parts[-1]:
        around.append(release(version, (*parts[:-1], parts[-1] - 1)))
    around += [release(version, parts) + suffix for suffix in (".dev0", "rc1", ".post1", "a1")]
    around.append(public + "+local")
    around.append(release(version, (padded[0], padded[1] + 1)) + ".dev0")
    around.append(release(version, (padded[0] + 1,)) + ".dev0")
    around += [release(version, (padded[0] + 1, 0)), release(version, parts) + ".1", release(version, (*parts, 0))]
    return around


def grid(specifiers: SpecifierSet) -> list[str]:
    versions = []
    for text in sorted({specifier.version for specifier in specifiers}):
        with contextlib.suppress(InvalidVersion):
            versions.append(Version(text.removesuffix(".*")))
    rounds = zip_longest(*(neighbours(version) for version in sorted(set(versions))))
    chosen = dict.fromkeys(["0", "9999"])
    for text in (text for one in rounds for text in one if text):
        if len(chosen) < MAX_VERSIONS:
            chosen.setdefault(text)
    return sorted(chosen, key=lambda text: (Version(text), text))


def marker_char(requirement: Requirement, environment: dict[str, str]) -> str:
    assert requirement.marker is not None
    try:
        return "01"[requirement.marker.evaluate({**environment, "extra": ""})]
    except Exception:  # UndefinedComparison, InvalidVersion, KeyError where no variable is compared, ...
        return "?"


def requirement_answer(text: str, places: list[dict[str, str]]) -> dict[str, Any]:
    try:
        requirement = Requirement(text)
        versions = grid(requirement.specifier)
        inside = [v for v in versions if requirement.specifier.contains(v, prereleases=True)]
    except Exception as error:  # InvalidRequirement, and what packaging lets through: SyntaxError of an escape, ...
        if type(error).__name__ != "InvalidRequirement":
            print(f"note: {type(error).__name__} for {text[:60]!r}", file=sys.stderr)
        return {"text": text, "refused": True}
    return {
        "text": text,
        "name": canonicalize_name(requirement.name),
        "extras": sorted({canonicalize_name(extra) for extra in requirement.extras}),
        "in": " ".join(inside),
        "out": " ".join(v for v in versions if v not in inside),
        "marker": "".join(marker_char(requirement, place) for place in places) if requirement.marker else None,
        "url": requirement.url,
    }


# --- single requirements: questions ------------------------------------------------------------------------------

NAMES = """
    numpy NumPy Foo.Bar foo_bar foo-bar foo--bar foo_.-bar a 0 9lives x1 1 python A.B.C n-u.m_p-y zope.interface
    -numpy numpy- .numpy numpy. _numpy numpy_ numpy-- num!py num$py naïve Åland числа 数学 num\u200bpy ａｂｃ ¹ ½x
    """.split()
EXTRAS = [
    "[]", "[ ]", "[a]", "[ a ]", "[a,b]", "[a, b]", "[a ,b]", "[ a , b ]", "[A.B,c_D]", "[b,a,b]", "[a_b,a-b]", " [a]",
    "[a,]", "[,a]", "[,]", "[a,,b]", "[a b]", "[a;b]", "[a", "a]", "[[a]]", "[a][b]", "[-a]", "[a-]", "[a.]", "[*]",
    "[a\t,\tb]", "[\ta]", "[é]", "[1]", "[a>1]", "['a']", "[a\n]", "[all]", "[.]", "()", "[a]()", "[a]@", "[a];",
]
OPERATORS = ["==", "!=", "<", "<=", ">", ">=", "~=", "==="]
WRONG_OPERATORS = ["^", "~", "=", "=>", "=<", "<>", "!", "====", "> =", "= =", "~ =", "≥", "==!", "~>", "><", ":", "@",
                   "<==", "!==", "=~", "-", "+", "|", "is", "in"]
VERSIONS = """
    1 1.0 1.0.0 2.2.1 0 0.0 00 01.02 1.2.3.4.5 2024.10.1 1!2.0 0!1 1.0a1 1.0.a.1 1.0-alpha1 1.0ALPHA 1.0b2 1.0rc1 1.0c1
    1.0.pre3 1.0preview 1.0.post1 1.0-1 1.0post 1.0.rev4 1.0-r5 1.0.dev3 1.0dev 1.0a1.dev2 1.0a1.post2.dev3 1.0+local
    1.0+ubuntu.1 1.0+UBUNTU-1_2 1.0+a..b 1.0+ 1.0+é 1.* 1.0.* 1.*.* *  1.0a1.* 1.0.post1.* 1.0+local.* 1.0.dev0.* v1.0 V2
    1!1.* 1..0 .1 1. 1.0. 1.0- 1.x 1.0x latest 1.0rc 1_0 1.0_1 1,0 1.0a.b 1!1!1 ! 1.0.0.0 99999999999999999999.1
    1.2.3-beta.4 1.0.0-rc.1 20.04 0.1.0a0 1.0.post0 1.0a 1.0.dev 2.0.0.dev0+git.abc 1e5 0x10 1.0² ١.٠ -1 +1
    """.split()
SETS = [
    ">=1,<2", ">=1 , <2", ">= 1,< 2", ">=1,<2,", ">=1,,<2", ",>=1", ",", ",,", ">=1,<2,,", ">=1 <2", ">=1;<2", ">=1&<2",
    ">=1||<2", ">=1, <2, !=1.5", ">=1.0,<2.0,!=1.3.*", "~=1.4.2", "~=1", "~=1.4a5", "~=2.2.post3", "~=1!2.3", "==1.*,!=1.2.*",
    ">1.0a1", ">1.0", ">1.0.post1", "<1.0", "<1.0a1", "<1.0.post1", "<=1.0+local", ">=1.0+x", "==1.0+x", "!=1.0+x", "===1.0",
    "=== 1.0", "===1.0,", "===1.0,>0", "===foo", "===1.0+x;", "=== ", "===", "===1.0)", "===*", "===1.0-é", ">=1\t,\t<2",
    "(>=1)", "( >=1 )", "(>=1,<2)", "( >=1 , <2 )", "(>=1,<2,)", "()", "( )", "(,)", "(>=1", ">=1)", "((>=1))", "(>=1)(<2)",
    "(>=1),<2", "(>=1) <2", ">=1,(<2)", "(1.0)", "(===1.0)", "(=== 1.0 )", "(==1.*)", "[>=1]", "{>=1}", ">=1\n", ">=1\n,<2",
    ">=1\r", "\n>=1", ">=\n1", ">=\u00a01", ">=1\u00a0", "\u3000>=1", ">=1 \\", ">='1'", '>="1"', ">=1 # note", ">=1#note",
    ">=1 --hash=sha256:00", "==1.0.*.dev1", "!=1.*", "<1.*", ">=1.*", "~=1.*", "~=1.0.*", "===1.*", ">=1.0-1", "==1.0-1",
    "==1.0.0.0.0", "==1", "!=1", "<1.dev0", ">=1.dev0", "==1.0rc1", ">=2,<1", "==1,==2", ">1,>2,>3,>4,>5,>6,>7,>8", "<0", "<=0",
    ">=1.0-beta", "<2.0-dev", ">=1.0.0-alpha.1", "==v1.0", ">=V1", "==1.0.POST1", "==1.0A1", "== 1.0 , != 1.0", "~=3.1.0.0",
    "~=0.0", "~=0.0.0", ">0", ">=0", "<9999", "==9999.*", "==0.*", "!=0.*", "<2!0", ">=1!0", "==1!0.*", "~=1.4.5.0,!=1.4.5.3",
]
MARKERS = [
    "python_version<'3.10'", 'python_version >= "3.12"', "python_version=='3.9'", "python_version in '3.8 3.9'",
    "python_version not in '3.8,3.9'", "python_version not  in '3.8'", "python_version notin '3.8'", "python_version ~= '3.11'",
    "python_version === '3.11'", "python_version == '3.*'", "python_version != '3.1*'", "python_version > '3'", "python_version < '4'",
    "python_full_version < '3.11.4'", "python_full_version >= '3.14.0rc1'", "python_full_version == '3.11.*'",
    "python_full_version <= '3.9.2'", "'3.10' <= python_version", "'3.10' > python_full_version", "'linux' in sys_platform",
    "'x86' in platform_machine", "platform_machine in 'x86_64 aarch64'", "sys_platform == 'win32'", 'sys_platform!="darwin"',
    "sys.platform == 'linux'", "os.name == 'nt'", "os_name == 'posix'", "platform.machine == 'arm64'", "platform.version > '1'",
    "platform.python_implementation == 'PyPy'", "python_implementation == 'CPython'", "platform_python_implementation != 'PyPy'",
    "platform_system == 'Windows'", "platform_system in 'Linux Darwin'", "platform_release >= '6'", "platform_release == '10'",
    "platform_release < '20.0.0'", "platform_version >= '10.0.2'", "platform_version == ''", "implementation_name == 'cpython'",
    "implementation_version >= '3.12'", "implementation_version ~= '7.3'", "extra == 'test'", "extra == ''", "'test' == extra",
    "extra != 'test'", "extra in 'a b'", "extra == 'Foo_Bar'", "'x' in extras", "'x' in dependency_groups", "extras == 'x'",
    "sys_platform > 'linux'", "sys_platform < 'm'", "sys_platform >= 'linux'", "sys_platform ~= 'linux'", "sys_platform === 'linux'",
    "platform_machine == 'X86_64'", "os_name == sys_platform", "python_version == python_version", "'a' == 'a'", "'3' < '4'",
    "python_version < '3.10' and sys_platform == 'linux'", "python_version < '3.10' or sys_platform == 'linux'",
    "python_version < '3.10' and sys_platform == 'win32' or os_name == 'posix'",
    "os_name == 'posix' or python_version < '3.10' and sys_platform == 'win32'",
    "(os_name == 'posix' or python_version < '3.10') and sys_platform == 'linux'", "(os_name=='nt')", "((os_name=='nt'))",
    "( os_name=='nt' )and( python_version>'3' )", "os_name=='nt'and python_version>'3'", "os_name=='nt' and", "and os_name=='nt'",
    "os_name=='nt' AND python_version>'3'", "os_name=='nt' && python_version>'3'", "not os_name=='nt'", "(os_name=='nt'",
    "os_name=='nt')", "()", "", " ", "os_name", "'nt'", "os_name==", "=='nt'", "os_name = 'nt'", "os_name == nt", "os_name == 'nt",
    "os_name == \"nt'", "os_name == 'n\"t'", "os_name == \"n't\"", "os_name == 'n\\'t'", "os_name == '\\x6et'", "os_name == '\\n'",
    "os_name == '\\q'", "os_name == '\\x'", "os_name == '\\'", "os_name == 'p' 'osix'", "os_name == u'nt'", "os_name == ''", "os_name == 'é'",
    "platform == 'linux'", "python == '3'", "Python_Version > '3'", "python_version > 3", "python_version > '3' ;", "; python_version > '3'",
    "python_version > '3', os_name == 'nt'", "python_version > '3' # note", "python_version=='3.11' or python_version=='3.12' or extra=='x'",
    "os_name not in 'nt'", "'nt' not in os_name", "os_name in ''", "'' in os_name", "python_version == '3.11.*'", "python_version < '3.9.2'",
    "python_version >= 'foo'", "python_version == 'foo'", "python_version != 'foo'", "python_version in 'foo'", "python_version == ''",
    "python_version >= ' 3.10 '", "python_version >= 'v3.10'", "python_version == '3.10.0'", "python_version ~= '3'", "python_version=='3.1'",
    "python_version >= '3.9,<4'", "python_version <> '3'", "python_version => '3'", "platform_version == '1 2'", "os_name == 'nt'\n",
    "\nos_name == 'nt'", "os_name\t==\t'nt'", "os_name == 'a;b'", "os_name == 'a#b'", "os_name == ' #b'", "os_name\u00a0== 'nt'",
    "os_name == 'posix' and (python_version >= '3.9' and (platform_machine == 'x86_64' or platform_machine == 'aarch64'))",
    "python_version >= '3.8' and python_version < '3.13' and platform_python_implementation == 'CPython' and extra == 'dev'",
    "python_full_version not in '3.9.2 3.12.3'", "python_full_version in '3.14.0rc2'", "python_full_version ~= '3.12.0'",
    "python_full_version > '3.14.0'", "python_full_version < '3.14'", "python_full_version == '3.14'", "python_full_version != '3.14.0rc2'",
    "sys_platform == 'linux2'", "sys_platform == 'cygwin'", "'win' in sys_platform", "'3.9' in python_version", "'3.1' in python_version",
    "os_name=='\x00'", "os_name in ('nt', 'posix')", "os_name in ['nt']", "os_name == None", "true", "os_name == 'nt' if x",
]
URLS = [
    "https://example.invalid/a.whl", "https://example.invalid/a-1.0-py3-none-any.whl#sha256=00", "http://example.invalid/a.zip",
    "file:///x", "file:///C:/x y", "file:x", "file://localhost/x", "git+ssh://git@example.invalid/r.git", "git+https://example.invalid/r.git@main",
    "git+https://example.invalid/r.git@v1.0#egg=x&subdirectory=y", "git+file:///srv/r", "hg+https://example.invalid/r", "svn+svn://example.invalid/r",
    "git@example.invalid:o/r.git", "ssh://example.invalid/r", "https://user:pw@example.invalid/a.whl", "https://${TOKEN}@example.invalid/a.whl",
    "https://example.invalid/a%20b.whl", "https://example.invalid/é.whl", "https://[::1]/a.whl", "https://example.invalid:99999/a.whl", "../x",
    "./x", "/abs/x", "x", "x.whl", "C:\\x\\y.whl", "//example.invalid/a", "https:", "://", "https://", "http:///x", "#frag", "?q", "a,b", ">=1", "==1.0",
    "https://example.invalid/a.whl,https://example.invalid/b.whl", "https://example.invalid/a(b).whl", "https://example.invalid/a;b.whl",
    "<https://example.invalid/a.whl>", "'https://example.invalid/a.whl'", "https://example.invalid/a.whl\\", "data:,x", "HTTPS://EXAMPLE.INVALID/A",
]
URL_FORMS = ["name @ {}", "name@{}", "name@ {}", "name @{}", "name[a,b] @ {}", "name @ {} ; os_name == 'posix'", "name @ {}; os_name == 'posix'",
             "name @ {};os_name == 'posix'", "name @ {} ;os_name=='posix'"]
WILD = [
    "", " ", "\t", "#", "# comment", "numpy # comment", "numpy#comment", "numpy;", "numpy ;", "numpy ; ", "numpy,", ";", "@", "@ https://example.invalid/a",
    "name @", "name @ ", "name@", "name @ ;", "name @ ; os_name=='nt'", "name @ x y", "name @ x\ty", "name @ x ;", "name @ x ; ", "name @ x;", "name @\thttps://example.invalid/a.whl",
    "name\t@ x", "name @ x\n", "name @ x\n; os_name=='nt'", "name @ \nx", "name @ x  ", "name (>=1) @ x", "name>=1 @ x", "name @ x >=1", "name @ x [a]",
    "numpy pandas", "numpy, pandas", "numpy;pandas", "numpy\npandas", "numpy\r\n", "numpy\n", "\nnumpy", "\ufeffnumpy", "numpy\ufeff", "numpy\x00", "nu\x00mpy",
    "\x0bnumpy", "numpy\x0c", "numpy\x1c", "numpy\x85", "numpy\u2028", "numpy\u00a0", "numpy \u00a0>=1", "numpy\u00a0>=1", "  numpy  ", "\tnumpy\t>=\t1\t",
    "numpy == 1.0", "numpy ==1.0", "numpy== 1.0", "numpy==1.0 ; python_version < '3'", "numpy==1.0;python_version<'3'", "numpy 1.0", "numpy=1.0", "numpy 1",
    "numpy-1.0", "numpy==1.0-py3", "numpy==1.0.0=py39_0", "numpy::1", "conda-forge::numpy", "numpy=1.0=py39", "./numpy", "../numpy", "numpy/", "numpy.whl",
    "numpy-1.0-py3-none-any.whl", "https://example.invalid/a.whl", "git+https://example.invalid/r.git", "-e .", "-r x.txt", "--pre", "-", "--", ".", "..", "...",
    "numpy*", "*", "num*py", "numpy?", "numpy>=1.0 or numpy<2", "numpy>=1.0 and <2", "numpy (1.0)", "numpy (>= 1.0)", "numpy(>=1.0)", "numpy()", "numpy( )",
    "numpy (>=1.0) ; extra == 'x'", "numpy (>=1.0) extra == 'x'", "numpy[a](>=1)", "numpy (>=1)[a]", "numpy>=1[a]", "numpy[a]>=1", "numpy [a] >=1", "numpy[a] ; extra=='b'",
    "'numpy'", '"numpy"', "`numpy`", "$(numpy)", "${NUMPY}", "%numpy%", "<numpy>", "numpy\\", "numpy \\", "numpy>=1 \\\n<2", "a" * 300, "a" * 300 + ">=1", "A-" * 60 + "z",
    "numpy>=" + "1." * 60 + "1", "numpy==" + "9" * 200, "numpy" + ">=1," * 30 + "<2", "numpy>=1,<2 ; (" + "os_name=='posix' and " * 20 + "os_name=='posix')",
    "numpy ; " + "(" * 20 + "os_name=='posix'" + ")" * 20, "numpy ; " + "(" * 20 + "os_name=='posix'" + ")" * 19,
    "requests[security]>=2.8.1,==2.8.* ; python_version < '2.7'", "pip @ https://example.invalid/pip/archive/1.3.1.zip#sha1=da9234ee9982d4bbb3c72346a6de940a148ea686",
    "A", "A.B-C_D", "aa", "name", "name<=1", "name>=3", "name>=3,", "name>=3,<2", "name@http://foo.invalid", "name [fred,bar] @ http://foo.invalid ; python_version=='2.7'",
    "name[quux, strange];python_version<'2.7' and platform_version=='2'", "name; os_name=='a' or os_name=='b'", "name; os_name=='a' and os_name=='b' or os_name=='c'",
    "name; os_name=='a' and (os_name=='b' or os_name=='c')", "name; (os_name=='a' or os_name=='b') and os_name=='c'",
    "numpy>=1.0,<2.0.0a0", "torch==2.1.0+cu118", "torch>=2.1.0+cu118", "torch==2.1.0+cu118;platform_system!='Darwin'", "tensorflow-macos; sys_platform=='darwin' and platform_machine=='arm64'",
    "pytz>dev", "pytz>=2011k", "foo==2004d", "setuptools>=40.8.0,!=60.9.0", "importlib-metadata; python_version<\"3.8\"", "typing_extensions>=4.0.0; python_version < '3.10'",
    "backports.zoneinfo>=0.2.1;python_version<'3.9'", "ruamel.yaml.clib>=0.2.7;platform_python_implementation=='CPython' and python_version<'3.13'", "pywin32>=226; platform_system=='Windows'",
    "colorama>=0.4.6; sys_platform=='win32'", "jax[cuda12_pip]", "uvicorn[standard]>=0.12.0", "black[jupyter]==24.*", "Django~=4.2", "python-dateutil>=2.8.2", "pyyaml!=6.0.0,!=5.4.0,!=5.4.1",
    "protobuf>=3.20.2,<6.0.0dev,!=4.21.0,!=4.21.1", "grpcio<2.0dev,>=1.33.2", "google-api-core[grpc]!=2.0.*,!=2.1.*,<3.0.0dev,>=1.34.1", "attrs>=19.2.0 ", "six>=1.5.*", "pyzmq>=13.*",
    "tornado>=4.0,<7,!=6.0.0,!=6.0.1,!=6.0.2", "numpy>=1.21.2; platform_system!=\"Darwin\" and python_version>=\"3.10\"", "sphinxcontrib-napoleon (>=0.7) ; extra == 'docs'",
    "docutils (<0.19,>=0.14)", "requests (>=2.5.0,<3.0.0) ; python_version >= \"3.7\" and python_version < \"4.0\"", "pytest (>=7,!=7.1.0) ; extra == \"test\"", "mypy>=1;extra=='dev'",
    "numpy>=1.0;python_version>='3.8'and python_version<'4'", "numpy>1.0;'3.8'<python_version", "numpy ~=1.0", "numpy~=1.0.0,>=1.0.3", "numpy >=1.0 , ; os_name=='posix'", "numpy @ file:./x",
]
DAMAGE = ["", " ", "  ", ",", ";", "=", ">", "<", "!", "~", "^", "[", "]", "(", ")", "'", '"', "@", "#", "-", ".", "_", "*", "+", "\t", "\n", "1", "a", "\\", "é", "\u00a0"]
BASES = [
    "Foo.Bar[a,B_c] >=1.2,<2 ; os_name == 'posix'", "numpy>=1.2.3,!=1.4.*", "numpy (>=1.2,<2.0a1) ; python_version >= \"3.10\"", "a[b]==1.0+local", "zope.interface ~= 5.4.1",
    "name[x] @ https://example.invalid/a.whl ; sys_platform == 'win32'", "x===1.0 ; extra == 'y'", "b>1!2.0.post1,<=3.0.dev4", "c ; (os_name=='nt' or 'linux' in sys_platform) and python_version not in '3.8'",
]


def generated() -> Iterator[str]:
    chance = random.Random(508)
    yield from WILD
    for name in NAMES:
        yield from (name, f"{name}>=1", f" {name} [a] ~= 1.1 ")
    for extras in EXTRAS:
        yield from (f"numpy{extras}", f"numpy{extras} >=1", f"numpy{extras};os_name=='posix'")
    for index, (version, operator) in enumerate(product(VERSIONS, OPERATORS)):
        yield ("p{}{}", "p {} {}", "p({}{})", "p{} {} ")[index % 4].format(operator, version)
    for operator, version in product(WRONG_OPERATORS, ["1.0", "1.*", ""]):
        yield f"numpy{operator}{version}"
    for specifiers in SETS:
        yield from (f"numpy{specifiers}", f"numpy {specifiers} ; python_version > '3.10'")
    for marker in MARKERS:
        yield from (f"numpy; {marker}", f"numpy[a]>=1.0;{marker}")
    for url, form in product(URLS, URL_FORMS):
        if form in URL_FORMS[:2] or chance.random() < 0.3:
            yield form.format(url)
    for _ in range(400):
        parts = [chance.choice(options) for options in (NAMES[:16], ["", "", *EXTRAS[:10]], ["", *SETS[:60]], ["", *MARKERS[:70]])]
        space = chance.choice(["", " ", "  ", "\t"])
        yield space.join([*parts[:3], *([";", parts[3]] if parts[3] else [])])
    for _ in range(650):
        base = chance.choice(BASES)
        at = chance.randrange(len(base) + 1)
        yield base[:at] + chance.choice(DAMAGE) + base[at + chance.randrange(3):]


def wheels() -> list[str]:
    return (HERE / "wheels.txt").read_text(encoding="utf-8").splitlines()


def collect(folder: str) -> list[str]:
    """The Requires-Dist of everything installed in a folder, one of each shape, thinned evenly."""
    shapes: dict[str, str] = {}
    texts = {text for one in importlib.metadata.distributions(path=[folder]) for text in one.requires or []}
    for text in sorted(texts):
        if "://" not in text and text.isprintable():
            shapes.setdefault(re.sub(r"^[\w.-]+|extra == .[^'\"]*.", "", text), text)
    found = sorted(shapes.values())
    return [found[index * len(found) // MAX_WHEELS] for index in range(MAX_WHEELS)] if len(found) > MAX_WHEELS else found


# --- whole files: questions --------------------------------------------------------------------------------------

A, B = "a" * 64, "b" * 64
Case = dict[str, str]


def one(text: str, **others: str) -> Case:
    """A requirements.txt and further files: `x__y` is the file `x/y.txt`."""
    return {"requirements.txt": text, **{name.replace("__", "/") + ".txt": other for name, other in others.items()}}


FILES: list[tuple[Case, dict[str, str]]] = [(case, {}) for case in [
    # plain lines, white space, ends of lines
    one(""), one("\n"), one("\n\n \n\t\n"), one("numpy"), one("numpy\n"), one("numpy\npandas\n"), one("numpy\n\n\npandas"), one("  numpy  \n"), one("\tnumpy\t\n"),
    one("numpy\r\npandas\r\n"), one("numpy\rpandas\r"), one("numpy\r\r\npandas"), one("\ufeffnumpy\n"), one("\ufeff# coding: latin-1\né\n"), one("numpy\n\ufeffpandas\n"),
    one("\ufeff\ufeffnumpy\n"), one("numpy\x0bpandas\n"), one("numpy\x0cpandas\n"), one("\x0c\nnumpy\n"), one("numpy\x1cpandas\n"), one("numpy\x1dpandas\x1escipy\x1fx\n"),
    one("numpy\x85pandas\n"), one("numpy\u2028pandas\u2029scipy\n"), one("numpy\u00a0\n"), one("\u00a0numpy\n"), one("\u3000numpy\n"), one("numpy\u200b\n"), one("numpy\x00\n"), one("numpy \x00 pandas\n"),
    one("numpy == 1.0\n"), one("numpy  ==  1.0 , < 2\n"), one("numpy\t==\t1.0\n"), one("numpy==1.0   ; python_version<'3'\n"), one("numpy pandas\n"), one("numpy, pandas\n"), one("numpy; pandas\n"),
    one("é\n"), one("ｎumpy\n"), one("numpy==\n"), one("===\n"), one("numpy^2\n"), one("[section]\nnumpy = 1\n"), one("numpy = \"^1.0\"\n"), one("'numpy'\n"), one("\"numpy>=1\",\n"), one("NumPy[A_b, c]>=1\n"),
    # comments
    one("# only\n"), one("#only\n"), one("   # only\n"), one("\t#only\n"), one("numpy # one\n"), one("numpy  #one\n"), one("numpy\t# one\n"), one("numpy#one\n"), one("numpy== 1.0#one\n"), one("numpy #\n"),
    one("numpy # one # two\n"), one("numpy#one # two\n"), one("# a\n# b\nnumpy\n"), one("numpy\u00a0# nbsp\n"), one("numpy ; os_name == '#a'\n"), one("numpy ; os_name == ' #a'\n"), one("numpy ; os_name == \"a # b\"\n"),
    one("-r other.txt # why\n", other="numpy\n"), one("-r other.txt#why\n", other="numpy\n"), one("--pre # why\n"), one("--pre#why\n"), one("-i https://example.invalid/s # why\n"), one("-i https://example.invalid/s#why\n"),
    one("git+https://example.invalid/r.git#egg=x\n"), one("git+https://example.invalid/r.git #egg=x\n"), one("git+https://example.invalid/r.git@main#egg=x&subdirectory=y # note\n"),
    one("numpy -- # x\n"), one("; comment\n"), one("// comment\n"), one("numpy // comment\n"), one("\\# numpy\n"), one("numpy \\# x\n"),
    # continuations
    one("numpy \\\n==1.0\n"), one("numpy\\\n==1.0\n"), one("numpy \\\n  ==1.0\n"), one("num\\\npy\n"), one("numpy \\"), one("numpy \\\n"), one("numpy \\\n\n==1.0\n"), one("numpy \\ \n==1.0\n"), one("numpy \\\t\n==1.0\n"),
    one("numpy \\\n# note\n==1.0\n"), one("numpy \\\n  # note\n==1.0\n"), one("numpy \\\n# note \\\n==1.0\n"), one("numpy \\\n==1.0 \\\n# note\npandas\n"), one("# note \\\nnumpy\n"), one("  # note \\\nnumpy\n"),
    one("numpy # note \\\npandas\nscipy\n"), one("numpy#note \\\n==1\n"), one("numpy \\\n==1.0 # note \\\n,<2\npandas\n"), one("numpy\\\\\n==1.0\n"), one("numpy \\\\\\\n==1.0\n"), one("\\\nnumpy\n"), one("\\\n\\\nnumpy\n"),
    one("\\numpy\\\n==1\n"), one("\\numpy\n"), one("numpy \\\r\n==1.0\r\n"), one("numpy \\\n\\\n==1\n"), one("\\"), one("\\\\\n"), one("numpy \\\n-r other.txt\n", other="x\n"), one("-r \\\nother.txt\n", other="x\n"),
    one("-r other.txt \\\nnumpy\n", other="x\n"), one("numpy\n\\\npandas\n"), one("numpy>=1,\\\n    <2 ; \\\n    os_name == 'posix'\n"), one("numpy \\\x0c==1\n"), one("\\#numpy\\\nx\n"),
    # includes
    one("-r other.txt\n", other="numpy\n"), one("-rother.txt\n", other="numpy\n"), one("-r=other.txt\n", other="numpy\n"), one("--requirement=other.txt\n", other="numpy\n"), one("--requirement other.txt\n", other="numpy\n"),
    one("--requirements other.txt\n", other="numpy\n"), one("--req other.txt\n", other="numpy\n"), one("--re other.txt\n", other="numpy\n"), one("-r\tother.txt\n", other="numpy\n"), one("-r   other.txt   \n", other="numpy\n"),
    one("  -r other.txt\n", other="numpy\n"), one("-r ./other.txt\n", other="numpy\n"), one("-r 'other.txt'\n", other="numpy\n"), one("-r \"a b.txt\"\n", **{"a b": "numpy\n"}), one("-r a b.txt\n", **{"a b": "numpy\n"}),
    one("-r a\\ b.txt\n", **{"a b": "numpy\n"}), one("-r missing.txt\n"), one("numpy\n-r missing.txt\n"), one("-r\n"), one("-r ''\n"), one("-r .\n"), one("-r other.txt pandas\n", other="numpy\n"), one("pandas -r other.txt\n", other="numpy\n"),
    one("pandas -r missing.txt\n"), one("-r a.txt -r b.txt\n", a="numpy\n", b="pandas\n"), one("-r a.txt -c b.txt\n", a="numpy\n", b="pandas\n"), one("-c b.txt -r a.txt\n", a="numpy\n", b="pandas\n"),
    one("-r a.txt\nx\n-r b.txt\n", a="numpy\n", b="pandas\n"), one("-r a.txt\n-r a.txt\n", a="numpy\n"), one("-r sub/a.txt\n", sub__a="-r b.txt\nnumpy\n", sub__b="pandas\n"), one("-r sub/a.txt\n", sub__a="-r b.txt\nnumpy\n", b="pandas\n"),
    one("-r sub/a.txt\n", sub__a="-r ../b.txt\nnumpy\n", b="pandas\n"), one("-r sub/deep/a.txt\n", sub__deep__a="-r ../c.txt\n", sub__c="-r ../d.txt\n", d="numpy\n"), one("-r sub/a.txt\n", sub__a="./local\n-e ../up\n-f links\n-r ./b.txt\n", sub__b="x\n"),
    one("-r requirements.txt\n"), one("-r ./requirements.txt\n"), one("-r a.txt\n", a="-r requirements.txt\n"), one("-r a.txt\n", a="-r b.txt\n", b="-r a.txt\n"), one("-r a.txt\n-r b.txt\n", a="-r c.txt\n", b="-r c.txt\n", c="numpy\n"),
    one("-r a.txt\n", a="\ufeffnumpy # x\r\n"), one("-r a.txt\n", a="numpy \\"), one("-r a.txt\nx\n", a="--pre\n-i https://example.invalid/inner\nnumpy\n"), one("-r https://example.invalid/r.txt\n"), one("-r file:other.txt\n", other="numpy\n"),
    one("-i https://example.invalid/s -r a.txt\n", a="numpy\n"), one("-r a.txt --pre\n", a="numpy\n"), one("-r a.txt\n", a=""), one("-r a%20b.txt\n", **{"a b": "numpy\n"}), one("-R other.txt\n", other="numpy\n"), one("@other.txt\n", other="numpy\n"),
    # constraints
    one("-c constraints.txt\nnumpy\n", constraints="numpy<2\n"), one("-cconstraints.txt\nnumpy\n", constraints="numpy<2\n"), one("--constraint constraints.txt\n", constraints="numpy<2\n"), one("--constraint=constraints.txt\n", constraints="numpy<2\n"),
    one("--constraints constraints.txt\n", constraints="numpy<2\n"), one("-c missing.txt\n"), one("-c a.txt\n", a="-r b.txt\nnumpy\n", b="pandas\n"), one("-c a.txt\n", a="-c b.txt\nnumpy\n", b="pandas\n"), one("-r a.txt\n", a="-c b.txt\nnumpy\n", b="pandas\n"),
    one("-c a.txt\n", a="numpy[extra]<2\n"), one("-c a.txt\n", a="-e ./x\n"), one("-c a.txt\n", a="./x\nhttps://example.invalid/x.zip\nx @ https://example.invalid/x.zip\n"), one("-c a.txt\n", a=f"numpy==1 --hash=sha256:{A}\n"),
    one("-c a.txt\n", a="--pre\n-i https://example.invalid/s\n"), one("-c requirements.txt\n"), one("numpy -c a.txt\n", a="numpy<2\n"), one("-c a.txt\nnumpy\n-c a.txt\n", a="numpy<2\n"), one("-c sub/a.txt\n", sub__a="-c b.txt\n", sub__b="x<1\n"),
    # hashes
    one(f"numpy==1.0 --hash=sha256:{A}\n"), one(f"numpy==1.0 --hash=sha256:{A} --hash=sha256:{B}\n"), one(f"numpy==1.0 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\npandas\n"), one(f"numpy==1.0 --hash sha256:{A}\n"),
    one(f"numpy==1.0 --hash=sha384:{A} --hash=sha512:{B} --hash=sha256:{A}\n"), one("numpy==1.0 --hash=md5:00\n"), one("numpy==1.0 --hash=sha1:00\n"), one("numpy==1.0 --hash=SHA256:00\n"), one("numpy==1.0 --hash=sha256\n"),
    one("numpy==1.0 --hash=sha256:\n"), one("numpy==1.0 --hash=sha256:xyz\n"), one(f"numpy==1.0 --hash=sha256:{A.upper()}\n"), one("numpy==1.0 --hash=\n"), one("numpy==1.0 --hash\n"), one(f"--hash=sha256:{A}\n"),
    one(f"numpy==1.0 ; os_name=='posix' --hash=sha256:{A}\n"), one(f"numpy==1.0 --hash=sha256:{A} ; os_name=='posix'\n"), one(f"numpy==1.0 --hash=sha256:{A} # via x\n"), one(f"numpy==1.0 --hash=sha256:{A}\\\n --hash=sha256:{B}\n"),
    one(f"numpy==1.0--hash=sha256:{A}\n"), one(f"numpy==1.0\t--hash=sha256:{A}\n"), one(f"numpy==1.0 \\\n\t--hash=sha256:{A}\n"), one(f"numpy==1.0 --hash=sha256:{A}\t--hash=sha256:{B}\n"), one(f"numpy==1.0 --hash='sha256:{A}'\n"),
    one(f"-e . --hash=sha256:{A}\n"), one(f"x @ https://example.invalid/x.whl --hash=sha256:{A}\n"), one(f"numpy==1.0 \\\n    --hash=sha256:{A} \\\n    # via x\n    --hash=sha256:{B}\n"), one(f"numpy==1.0 --hash=sha256:{A}:{B}\n"),
    one(f"numpy==1.0 \\\n    --hash=sha256:{A}\n    # via\n    #   x\npandas==2 \\\n    --hash=sha256:{B}\n    # via y\n"), one(f"numpy==1.0 --has=sha256:{A}\n"), one(f"numpy==1.0 --hash=sha256:{A} --hash=sha256:{A}\n"), one("numpy==1.0 --hash=sha256:0 pandas\n"),
    # indexes
    one("-i https://example.invalid/s\n"), one("-ihttps://example.invalid/s\n"), one("-i=https://example.invalid/s\n"), one("--index-url=https://example.invalid/s\n"), one("--index-url https://example.invalid/s\n"), one("--pypi-url https://example.invalid/s\n"),
    one("--index https://example.invalid/s\n"), one("-i https://example.invalid/a\n-i https://example.invalid/b\n"), one("--extra-index-url https://example.invalid/x\n"), one("--extra-index-url=https://example.invalid/x --extra-index-url https://example.invalid/y\n"),
    one("--extra-index-url https://example.invalid/x\n-i https://example.invalid/s\n"), one("-i https://example.invalid/s\n--extra-index-url https://example.invalid/x\n"), one("-i https://example.invalid/s --extra-index-url https://example.invalid/x\nnumpy\n"),
    one("--extra-index-url https://example.invalid/x\n--extra-index-url https://example.invalid/x\n"), one("-i\n"), one("-i ''\n"), one("-i 'https://example.invalid/s'\n"), one("-i https://user:pass@example.invalid/s\n"), one("-i https://example.invalid/a%20b\n"),
    one("numpy -i https://example.invalid/s\n"), one("-i https://example.invalid/s numpy\n"), one("--no-index\n"), one("--no-index\n-i https://example.invalid/s\n"), one("-i https://example.invalid/s\n--no-index\n"), one("--no-index -f links\n"),
    one("--no-index=1\n"), one("--no-index\n--extra-index-url https://example.invalid/x\n"), one("--extra-index-url https://example.invalid/x\n--no-index\nnumpy\n"), one("-I https://example.invalid/s\n"), one("--INDEX-URL https://example.invalid/s\n"),
    one("-f https://example.invalid/links\n"), one("-f links\n", links__x="x"), one("-f links\n"), one("--find-links=links\n"), one("--find-links links -f other\n"), one("-f a\n-f b\n"), one("-f ~/links\n"), one("-r sub/a.txt\n", sub__a="-f links\n", sub__links__x="x"),
    one("--trusted-host example.invalid\n"), one("--trusted-host=example.invalid:8080\n"), one("--trusted-host a.invalid --trusted-host b.invalid\n"), one("--trusted-host a.invalid\n--trusted-host a.invalid\n"), one("--trusted-host https://example.invalid/x\n"),
    one("--trusted-host *.example.invalid\n"), one("--trusted-host\n"),
    # further options
    one("--pre\nnumpy\n"), one("numpy --pre\n"), one("--pre numpy\n"), one("--pre=1\n"), one("--pr\n"), one("--p\n"), one("--prefer-binary\n"), one("--require-hashes\nnumpy\n"), one("numpy --require-hashes\n"), one("--require-hash\n"),
    one("--use-feature=fast-deps\n"), one("--use-feature fast-deps\n"), one("--use-feature=nonsense\n"), one("--use-feature=2020-resolver\n"), one("--no-binary :all:\n"), one("--no-binary=:all:\nnumpy\n"), one("--no-binary numpy,Foo_Bar\n"), one("--no-binary\n"), one("--no-binary -x\n"),
    one("--only-binary=:all:\n"), one("--only-binary numpy\n"), one("--only-binary :all:\n--no-binary numpy\n"), one("--no-binary numpy\n--only-binary :all:\n"), one("--no-binary numpy\n--no-binary :none:\n"), one("numpy --no-binary numpy\n"), one("numpy --only-binary :all:\n"),
    one("--pre --prefer-binary --no-index\n"), one("--unknown\n"), one("-x\n"), one("numpy --unknown\n"), one("numpy -x\n"), one("numpy - x\n"), one("- numpy\n"), one("-\n"), one("--\n"), one("-- numpy\n"), one("--- numpy\n"), one("--upgrade\n"), one("-U numpy\n"), one("--no-deps\n"),
    one("--user\n"), one("--help\n"), one("-h\n"), one("--version\n"), one("-v\n"), one("-q\n"), one("--target=x\n"), one("--platform=any\n"), one("--process-dependency-links\n"), one("--always-unzip\n"), one("-Z\n"), one("--allow-external numpy\n"), one("--no-use-wheel\n"),
    one("--config-settings a=b\n"), one("numpy --config-settings a=b\n"), one("numpy --config-settings=a=b --config-settings=a=c\n"), one("numpy --config-settings=a\n"), one("numpy -C a=b\n"), one("numpy --config-setting=a=b\n"), one("numpy --config-settings=\"a=b c\"\n"),
    one("-e . --config-settings a=b\n"), one("numpy --global-option=\"--no-user-cfg\"\n"), one("numpy --install-option=x\n"), one("numpy --build-option=x\n"), one("numpy --no-build-isolation\n"), one("--no-build-isolation\n"), one("numpy --config-settings='a=b\n"),
    # editables and paths
    one("-e .\n"), one("-e.\n"), one("-e ./x\n"), one("-e ./x[a,b]\n"), one("-e ./x [a]\n"), one("-e \"./a b\"\n"), one("-e './a b[c]'\n"), one("--editable .\n"), one("--editable=./x\n"), one("--edit ./x\n"), one("-e\n"), one("-e ''\n"), one("-e ./a -e ./b\n"), one("-e ./a ./b\n"),
    one("./b -e ./a\n"), one("numpy -e .\n"), one("-e . --pre\n"), one("--pre -e .\n"), one("-e . -r a.txt\n", a="numpy\n"), one("-e git+https://example.invalid/r.git@main#egg=x\n"), one("-e git+https://example.invalid/r.git@main #egg=x\n"), one("-e git+ssh://git@example.invalid/r.git@v1#egg=x[a]&subdirectory=y # c\n"),
    one("-e x @ git+https://example.invalid/r.git\n"), one("-e \"x @ git+https://example.invalid/r.git ; os_name == 'posix'\"\n"), one("-e . ; os_name == 'posix'\n"), one("-e .; os_name=='posix'\n"), one("-e numpy\n"), one("-e https://example.invalid/x.zip\n"), one("-e file:///x#egg=y\n"), one("-e C:\\x\\y\n"),
    one(".\n"), one("..\n"), one("./local\n"), one("./local[a]\n"), one("./local ; os_name=='posix'\n"), one("../x.whl\n"), one("x.whl\n"), one("x-1.0-py3-none-any.whl\n"), one("/abs/x-1.0.tar.gz\n"), one("~/x\n"), one("C:\\x\\y.whl\n"), one("./a b/c\n"), one("./a\\ b/c\n"), one("\"./a b/c\"\n"), one("./a -b.whl\n"), one("./a--b.whl\n"),
    one("file:///x\n"), one("file:x.whl\n"), one("file:///x/a%20b-1.0.tar.gz\n"), one("name @ https://example.invalid/x.whl\n"), one("name@https://example.invalid/x.whl\n"), one("name @ https://example.invalid/x.whl ; os_name=='posix'\n"), one("name @ https://example.invalid/x.whl; os_name=='posix'\n"),
    one("name @ https://example.invalid/x.whl#sha256=00\n"), one("name @ ./x\n"), one("name[a] @ git+https://example.invalid/r.git@main#subdirectory=y\n"), one("https://example.invalid/x-1.0-py3-none-any.whl\n"), one("https://example.invalid/x-1.0-py3-none-any.whl#sha256=00 # c\n"),
    one("https://example.invalid/x-1.0-py3-none-any.whl ; os_name=='posix'\n"), one("https://example.invalid/x-1.0-py3-none-any.whl;os_name=='posix'\n"), one("https://example.invalid/a%20b.zip\n"), one("git+https://example.invalid/r.git\n"), one("git+https://example.invalid/r.git@a b\n"), one("svn+svn://example.invalid/r#egg=x\n"), one("git+git@example.invalid:o/r.git\n"), one("x @ file:///a;b\n"),
    # markers and quotes
    one("numpy; python_version<'3.10'\n"), one("numpy;python_version<\"3.10\"\n"), one("numpy ; python_version < \"3.10\" and os_name == 'posix'\n"), one("numpy ;\n"), one("numpy ; os_name == '-x'\n"), one("numpy ; os_name == ' -x'\n"), one("numpy ; os_name == ' --pre'\n"), one("numpy ; os_name == 'a b'  \n"),
    one("numpy ; os_name == 'posix\n"), one("--pre 'x\n"), one("-i \"https://example.invalid/s\n"), one("-r 'other.txt\n", other="x\n"), one("numpy --hash='sha256:00\n"), one("numpy 'x' --pre\n"), one("numpy \"-x\"\n"), one("-e 'a'\"b\"c\n"), one("numpy ; python_version < '3' --pre\n"), one("numpy>=1 -- --pre\n"), one("numpy  --pre\n"), one("--pre  \t --no-index\n"), one("--pre\t--no-index\n"),
    # encodings
    one("# -*- coding: utf-8 -*-\né\n"), one("# -*- coding: latin-1 -*-\né\n"), one("# coding=latin-1\né\n"), one("#coding:latin-1\né\n"), one("\n# coding: latin-1\né\n"), one("\n\n# coding: latin-1\né\n"), one("numpy\n# coding: latin-1\né\n"), one(" # coding: latin-1\né\n"), one("numpy # coding: latin-1\né\n"),
    one("# coding: nonsense\nnumpy\n"), one("# coding: ascii\né\n"), one("# encoding: utf-16\nnumpy\n"), one("# this is about encoding: rot13\nahzcl\n"), one("# vim: set fileencoding=latin-1 :\né\n"), one("# coding: utf-8-sig\nnumpy\n"), one("# coding : latin-1\né\n"),
    # what a freeze, a compile or a person writes
    one("-i https://example.invalid/simple\ncertifi==2024.2.2 ; python_version >= '3.6'\nidna==3.6; python_version >= '3.5'\n"), one("## The following requirements were added by pip freeze:\nnumpy==1.26.4\n-e git+https://example.invalid/r.git@0123abc#egg=x\n# Editable install with no version control (y==0.1)\n-e /srv/y\n"),
    one("#\n# This file is autogenerated\n#    pip-compile requirements.in\n#\n--index-url https://example.invalid/simple\n--trusted-host example.invalid\n\nnumpy==1.26.4\n    # via pandas\npandas==2.2.0\n    # via -r requirements.in\n"),
    one("numpy==1.26.4 @ file:///croot/x/work\n"), one("numpy=1.26.4=py312\n"), one("name: x\ndependencies:\n  - numpy\n"), one("<<<<<<< HEAD\nnumpy\n=======\npandas\n>>>>>>> x\n"), one("pip install numpy\n"), one("import numpy\n"), one("numpy>=1.0 # min\npandas # any\n\n# tools\n-r other.txt\n", other="tox\n"),
]] + [
    # environment variables
    (one(text, other="numpy\n"), {"TOKEN": "x", "EMPTY": "", "FILE": "other.txt", "A_1": "1", "lower": "no", "HASH": "numpy # not a comment", "LINE": "a\nb",
                                   "NEST": "${TOKEN}", "REQ": "-r other.txt", "SPACE": "a b", "BACK": "x \\", "1": "one", "QUOTE": "it's", "OPT": "--pre"})
    for text in [
        "-i https://${TOKEN}@example.invalid/s\n", "-i https://$TOKEN@example.invalid/s\n", "numpy${TOKEN}\n", "numpy${lower}\n", "numpy${Token}\n", "numpy${EMPTY}\n", "numpy${UNDEFINED}\n", "numpy${}\n", "numpy${ TOKEN }\n", "numpy%TOKEN%\n", "numpy\\${TOKEN}\n",
        "numpy$${TOKEN}\n", "numpy==${A_1}.${A_1}\n", "numpy==${1}\n", "-r ${FILE}\n", "${REQ}\n", "${HASH}\n", "${LINE}\n", "${NEST}\n", "${NEST}${TOKEN}\n", "${TOKEN}${NEST}\n", "# ${TOKEN}\n", "numpy #${TOKEN}\n", "numpy '${TOKEN}'\n", "-e ${SPACE}\n", "-e '${SPACE}'\n", "${SPACE}\n",
        "${BACK}\n==1\n", "${TO\\\nKEN}\n", "-i ${QUOTE}\n", "numpy ${OPT}\n", "${OPT}\n", "x @ https://${TOKEN}:${UNDEFINED}@example.invalid/a.whl\n", "${TOKEN:-y}\n", "${TOKEN}#${TOKEN}\n", "${EMPTY}\n", "-r ${EMPTY}other.txt\n", "numpy ; os_name == '${TOKEN}'\n", "${TOKEN\n", "{TOKEN}\n", "~\n",
    ]
]


# --- whole files: answers ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def place(files: Case, variables: dict[str, str]) -> Iterator[str]:
    """A new folder with the files as the current one, and no other environment variables."""
    before, folder_before = dict(os.environ), os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        try:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variables)
            with contextlib.redirect_stderr(io.StringIO()):  # usage of optparse
                yield folder
        finally:
            os.environ.clear()
            os.environ.update(before)
            os.chdir(folder_before)


def file_answer(files: Case, variables: dict[str, str]) -> dict[str, Any]:
    with place(files, variables) as folder:
        session = PipSession(retries=0)
        scope = SearchScope.create(find_links=[], index_urls=[DEFAULT_INDEX], no_index=False)
        finder = PackageFinder.create(LinkCollector(session, scope), SelectionPreferences(allow_yanked=False))
        options = Values({"require_hashes": False, "features_enabled": []})
        try:
            parsed = list(parse_requirements("requirements.txt", session=session, finder=finder, options=options))
        except (Exception, SystemExit):
            return {"refused": True}
        index_url, *extra_index_urls = finder.index_urls or [DEFAULT_INDEX]
        control = finder.format_control
        return {
            "requirements": [
                {
                    "requirement": one.requirement,
                    "editable": one.is_editable,
                    "constraint": one.constraint,
                    "hashes": dict(sorted((one.options or {}).get("hashes", {}).items())),
                }
                for one in parsed
            ],
            "index_url": None if index_url == DEFAULT_INDEX else index_url,
            "extra_index_urls": extra_index_urls,
            "no_index": finder.search_scope.no_index,
            "find_links": [link.replace(folder, "$FOLDER") for link in finder.find_links],
            "trusted_hosts": list(finder.trusted_hosts),
            "pre": finder.allow_all_prereleases,
            "prefer_binary": finder.prefer_binary,
            "require_hashes": options.require_hashes,
            "no_binary": sorted(control.no_binary),
            "only_binary": sorted(control.only_binary),
        }


# --- the whole ---------------------------------------------------------------------------------------------------


def write(name: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    (HERE / name).write_text(text, encoding="utf-8")
    refused = sum(bool(row.get("refused") or row.get("answer", {}).get("refused")) for row in rows)
    print(f"{name}: {len(rows)} cases, {refused} refused, {len(text)} bytes")


def main(arguments: list[str]) -> None:
    versions = {"pip": pip.__version__, "packaging": packaging.__version__}
    if versions != PINNED:
        sys.exit(f"answers are recorded with {PINNED}, this is {versions}")
    if arguments[:1] == ["collect"]:
        (HERE / "wheels.txt").write_text("".join(f"{text}\n" for text in collect(arguments[1])), encoding="utf-8")
        return
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    places = environments()
    rows = ",\n".join(json.dumps(place) for place in places)
    (HERE / "environments.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    texts = dict.fromkeys([*generated(), *wheels()])
    write("requirements.jsonl", [requirement_answer(text, places) for text in texts])
    write("files.jsonl", [{"files": files, "env": env, "answer": file_answer(files, env)} for files, env in FILES])


if __name__ == "__main__":
    main(sys.argv[1:])
