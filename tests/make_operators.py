"""Writes tests/operators.txt: every operator of the standard domain up to opset 24.

    python tests/make_operators.py > tests/operators.txt

Needs the package `onnx` (made with 1.23.2).
"""

import onnx.defs

NEWEST = 24

schemas = {}
for schema in onnx.defs.get_all_schemas_with_history():
    if schema.domain == "" and schema.since_version <= NEWEST:
        known = schemas.get(schema.name)
        if known is None or known.since_version < schema.since_version:
            schemas[schema.name] = schema

print("# Every operator of ai.onnx up to opset 24: name, the opset of its newest form, and whether")
print("# it takes floats (`float`), does not (`-`), or is gone from the newest opsets (`gone`).")
print("# Made by tests/make_operators.py.")
for name, schema in sorted(schemas.items()):
    floats = any("float" in kind or "double" in kind for port in schema.inputs for kind in port.types)
    print(name, schema.since_version, "gone" if schema.deprecated else "float" if floats else "-")
