"""Validate a bill of materials from standard input: `python bills.py cyclonedx|spdx`."""

import json
import sys
import tempfile
from pathlib import Path


def cyclonedx(text: str) -> list[str]:
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    # What the library reads, it has understood.
    Bom.from_json(json.loads(text)).validate()
    return [str(wrong)] if wrong else []


def spdx(text: str) -> list[str]:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bill.spdx.json")
        file.write_text(text)
        messages = validate_full_spdx_document(parse_file(str(file)))
    return [message.validation_message for message in messages]


if __name__ == "__main__":
    mistakes = {"cyclonedx": cyclonedx, "spdx": spdx}[sys.argv[1]](sys.stdin.read())
    print("\n".join(mistakes[:10]) or "valid")
    sys.exit(bool(mistakes))
