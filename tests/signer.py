#!/usr/bin/env python3
"""A signer for tests: it speaks the protocol of docs/trust.md, with a key in its arguments that both sides know."""

import hashlib
import hmac
import io
import json
import sys
import tarfile

KEY = sys.argv[2].encode()
KIND = "application/vnd.ipybox.test.signature+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def code_of(digest):
    return hmac.new(KEY, digest.encode(), "sha256").hexdigest()


def sign(subject):
    blobs = {}

    def descriptor(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    bundle = json.dumps({"digest": subject["digest"], "code": code_of(subject["digest"])}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": KIND,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor(KIND, bundle)],
        "subject": subject,
    }
    index = {"schemaVersion": 2, "manifests": [descriptor(MANIFEST, json.dumps(manifest).encode())]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def verify(layout):
    def blob(descriptor):
        return json.load(layout.extractfile("blobs/" + descriptor["digest"].replace(":", "/")))

    manifest = blob(json.load(layout.extractfile("index.json"))["manifests"][0])
    bundle = blob(manifest["layers"][0])
    if bundle["digest"] != manifest["subject"]["digest"] or bundle["code"] != code_of(bundle["digest"]):
        sys.exit("nobody who is known has signed this")


if sys.argv[1] == "sign-oci-artifact":
    sign(json.load(sys.stdin))
elif sys.argv[1] == "verify-oci-artifact":
    verify(tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())))
else:
    sys.exit(f"nobody knows what `{sys.argv[1]}` is")
