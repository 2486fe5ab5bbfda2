"""Make an authority, and what it signs: a server's certificate and a client's.

    certificates.py FOLDER NAME...

FOLDER gets `ca.pem`, `server.pem` and `server.key` for the names (`DNS:localhost`, `IP:127.0.0.1`), and `cert.pem` and `key.pem` of
a client, as Docker's own client calls them.
"""

import subprocess
import sys
from pathlib import Path


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path, *names: str) -> None:
    new = "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"
    openssl(folder, *new, "/CN=authority", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    for name, certificate, key, use in [
        ("server", "server.pem", "server.key", f"subjectAltName={','.join(names)}"),
        ("client", "cert.pem", "key.pem", "extendedKeyUsage=clientAuth"),
    ]:
        (folder / "use").write_text(use + "\n")
        openssl(folder, *new, f"/CN={name}", "-keyout", key, "-out", "request")
        signed = "x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"
        openssl(folder, *signed, "-days", "2", "-extfile", "use", "-out", certificate)


if __name__ == "__main__":
    make_certificates(Path(sys.argv[1]), *sys.argv[2:])
