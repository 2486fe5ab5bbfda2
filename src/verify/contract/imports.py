# Imports what each distribution of NAMES brings, and prints as JSON why some cannot be.
import importlib
import importlib.metadata
import json
import re


def modules(name):
    found = set()
    for file in importlib.metadata.distribution(name).files or ():
        top, inside = file.parts[0], len(file.parts) > 1
        module = top if inside else top.split(".")[0]
        if file.suffix in (".py", ".so") and module.isidentifier() and not module.startswith("_"):
            found.add(module)
    found -= {"test", "tests", "docs", "examples"}
    same = {module for module in found if re.sub(r"[-_.]+", "-", module).lower() == name}
    return sorted(same or found)


def problem(name):
    try:
        candidates = modules(name)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"
    errors = []
    for module in candidates:
        try:
            importlib.import_module(module)
        except BaseException as error:
            errors.append(f"import {module}: {type(error).__name__}: {error}")
        else:
            return None
    return errors[0] if errors else None


problems = {name: problem(name) for name in NAMES}
print(json.dumps({name: why for name, why in problems.items() if why}))
