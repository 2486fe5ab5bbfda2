"""Python source texts for the tools of an MCP server.

    python -I -m ipybox.mcp.generate FD < DESCRIPTION

The description is JSON, `{"server_params": {...}, "tools": [{"name", "description", "inputSchema"}...]}`;
`{"sources": {STEM: TEXT}}`, `__init__` first and then the tools in order, or `{"error": TEXT}` is written
as JSON to the file descriptor FD.

Whatever a server says is data: it appears in the sources as literals and docstrings only. A model made
from its schemas is used when nothing but declarations is in it and it can be instantiated; else a looser
one takes its place.
"""

import ast
import inspect
import json
import keyword
import os
import re
import sys
import textwrap
import types
import warnings
from typing import Any
from unittest.mock import patch

Schema = dict[str, Any]

FUNCTION = """
from ipybox.mcp.run import run_sync
from . import SERVER_PARAMS


def {function}(params: Params) -> str:
{docstring}    arguments = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    return run_sync({tool}, arguments, SERVER_PARAMS)
"""

OPEN_MODEL = """from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    model_config = ConfigDict(extra="allow")
"""

STRICT = {
    "type", "required", "enum", "const", "default", "description", "nullable", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems",
}  # fmt: skip
"""Plain keywords that shape a model. `format` does not: values must reach the tool as they were given."""

LOOSE = {"type", "required", "enum"}
ONE = {"items", "additionalProperties"}
MANY = {"anyOf", "oneOf", "allOf", "prefixItems"}
NAMED = {"properties", "$defs", "definitions"}
REFERENCE_TO_PARAMS = re.compile(r"^(#/(?:\$defs|definitions)/params)(?=$|/)", re.IGNORECASE)

MODULES = {"__future__", "typing", "typing_extensions", "pydantic", "enum"}
BUILTINS = {"str", "int", "float", "bool", "bytes", "list", "dict", "set", "tuple", "object"}
DECLARATIONS = (
    ast.Module, ast.ImportFrom, ast.alias, ast.ClassDef, ast.AnnAssign, ast.Assign, ast.Expr, ast.Pass,
    ast.Constant, ast.Name, ast.Load, ast.Store, ast.Subscript, ast.Tuple, ast.List, ast.Dict, ast.BinOp,
    ast.BitOr, ast.UnaryOp, ast.USub, ast.Call, ast.keyword, ast.Attribute,
)  # fmt: skip


def sources(server_params: dict[str, Any], tools: list[dict[str, Any]]) -> dict[str, str]:
    """The modules of a server's package by their stems."""
    result = {"__init__": f"SERVER_PARAMS = {server_params!r}\n"}
    for tool in tools:
        stem = unique(module_name(tool["name"]), result)
        result[stem] = tool_source(stem, tool["name"], tool["description"], tool["inputSchema"])
    return result


def module_name(tool: str) -> str:
    """A tool's name as that of a module and a function."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", tool).lower()[:100]
    if not name or name[0].isdigit():
        name = f"_{name}"
    reserved = keyword.iskeyword(name) or name == "run_sync" or re.fullmatch("__.*__", name)
    return f"{name}_" if reserved else name


def unique(name: str, taken: dict[str, str]) -> str:
    number, result = 1, name
    while result in taken:
        number += 1
        result = f"{name}_{number}"
    return result


def tool_source(function: str, tool: str, description: str, schema: Schema) -> str:
    text = escaped(inspect.cleandoc(description))
    docstring = textwrap.indent(f'"""{text}\n"""\n', "    ") if text else ""
    literal = json.dumps(tool, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    definition = FUNCTION.format(function=function, tool=literal, docstring=docstring)
    return f"{params_model(schema)}\n{definition}"


def escaped(text: str) -> str:
    """Text that stands for itself between triple quotes, with a line end before the closing ones."""
    # Python 3.13 and later compile no docstring with half of a surrogate pair.
    text = text.encode("utf-8", "replace").decode()
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)


def params_model(schema: Schema) -> str:
    for keywords in (STRICT, LOOSE):
        try:
            reduced = reduce(schema, keywords)
            if not reduced.keys() & {"$ref", *MANY}:
                reduced = {**reduced, "type": "object", "properties": reduced.get("properties", {})}
                reduced.pop("additionalProperties", None)
            code = generate(reduced)
            if usable(code, reduced):
                return code
        except Exception as error:  # of a generator that meets what its authors did not think of
            print(f"schema not usable: {type(error).__name__}: {error}", file=sys.stderr)
    return OPEN_MODEL


def reduce(schema: Any, keywords: set[str]) -> Any:
    """A schema with known keywords only, local references and escaped descriptions."""
    if not isinstance(schema, dict):
        return schema if isinstance(schema, bool) else {}
    result: Schema = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#/"):
            result[key] = REFERENCE_TO_PARAMS.sub(r"\1Type", value)
        elif key == "description" and key in keywords and isinstance(value, str):
            result[key] = escaped(inspect.cleandoc(value))
        elif key in keywords and key != "description":
            result[key] = value
        elif key in ONE:
            result[key] = reduce(value, keywords)
        elif key in MANY and isinstance(value, list):
            result[key] = [reduce(item, keywords) for item in value]
        elif key in NAMED and isinstance(value, dict):
            result[key] = {renamed(key, name): reduce(item, keywords) for name, item in value.items()}
    return result


def renamed(key: str, name: str) -> str:
    """A definition must not take the name of the root."""
    return f"{name}Type" if key != "properties" and name.lower() == "params" else name


def generate(schema: Schema) -> str:
    code = generated(schema)
    # Names that Python does not allow get an alias; either name is then fine for the caller.
    return generated(schema, allow_population_by_field_name=True) if "alias=" in code else code


def generated(schema: Schema, **options: Any) -> str:
    # Costs about a second.
    from datamodel_code_generator import DataModelType, LiteralType, PythonVersion
    from datamodel_code_generator.model import get_data_model_types
    from datamodel_code_generator.parser.jsonschema import JsonSchemaParser

    model = get_data_model_types(
        data_model_type=DataModelType.PydanticV2BaseModel,
        target_python_version=PythonVersion.PY_310,
    )
    parser = JsonSchemaParser(
        source=yaml_of(schema),
        class_name="Params",
        data_model_type=model.data_model,
        data_model_root_type=model.root_model,
        data_model_field_type=model.field_model,
        data_type_manager_type=model.data_type_manager,
        dump_resolve_reference_action=model.dump_resolve_reference_action,
        target_python_version=PythonVersion.PY_310,
        enum_field_as_literal=LiteralType.All,
        use_field_description=True,
        use_double_quotes=True,
        **options,
    )
    code = parser.parse()
    if not isinstance(code, str):
        raise ValueError("schema of several modules")
    return code


def yaml_of(schema: Schema) -> str:
    """JSON that is YAML as well, which the generator takes it for: without surrogate pairs."""
    text = json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace").decode()
    return re.sub(r"[^\n -~]", lambda match: f"\\U{ord(match[0]):08x}", text)


def usable(code: str, schema: Schema) -> bool:
    """Whether the code only declares models, and `Params` has every property of the schema."""
    tree = ast.parse(code)
    nodes = list(ast.walk(tree))
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    if not all(harmless(node) for node in nodes) or not loaded <= known(nodes):
        return False
    module = types.ModuleType("ipybox_params")
    with warnings.catch_warnings(), patch.dict(sys.modules, {module.__name__: module}):
        warnings.simplefilter("ignore")
        exec(compile(tree, "params.py", "exec"), module.__dict__)
        fields = module.__dict__["Params"].model_fields
        module.__dict__["Params"].model_json_schema()  # fails where a type is not complete
    if "root" in fields and "properties" not in schema:
        return True
    return set(schema.get("properties", {})) <= {field.alias or name for name, field in fields.items()}


def harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module in MODULES and node.level == 0
    if isinstance(node, ast.Call):
        function = node.func
        return isinstance(function, ast.Name) or (
            isinstance(function, ast.Attribute) and function.attr == "model_rebuild"
        )
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and not node.attr.startswith("_")
    return isinstance(node, DECLARATIONS)


def known(nodes: list[ast.AST]) -> set[str]:
    names = set(BUILTINS)
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names.update(alias.name for alias in node.names if alias.asname is None)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
    return names


def main(arguments: list[str]) -> None:
    descriptor = int(arguments[0])
    os.set_inheritable(descriptor, False)
    try:
        request = json.load(sys.stdin)
        result: dict[str, Any] = {"sources": sources(request["server_params"], request["tools"])}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(sys.argv[1:])
