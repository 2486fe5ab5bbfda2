"""Read YAML from standard input as Compose 1.29 and Kubernetes do.

    python manifests.py json               prints its documents as JSON
    python manifests.py validate VERSION   holds them against the schemas of a Kubernetes
"""

import json
import sys

import kubernetes_validate
import yaml

documents = list(yaml.safe_load_all(sys.stdin.read()))
if sys.argv[1] == "json":
    print(json.dumps(documents))
else:
    for document in documents:
        kubernetes_validate.validate(document, sys.argv[2], strict=True)
    print(*(document["kind"] for document in documents))
