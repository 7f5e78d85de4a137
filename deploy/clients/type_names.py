"""The types of JSON Schemas in words, for error messages and for the generated pages."""

from __future__ import annotations

from typing import Any


def type_name(schema: dict[str, Any]) -> str:
    """Return a JSON Schema's type in a few words: `string, 1 to 256 characters`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1].lower()
    if "anyOf" in schema:
        return " or ".join(type_name(one) for one in schema["anyOf"] if one != {"type": "null"})
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind: str = schema.get("type", "any")
    if kind == "array":
        if "prefixItems" in schema:
            return "[" + ", ".join(type_name(one) for one in schema["prefixItems"]) + "]"
        return f"list of {type_name(schema['items'])}" + _range(schema, "minItems", "maxItems", " of them")
    if kind == "object" and "additionalProperties" in schema:
        return f"object of {type_name(schema['additionalProperties'])}"
    if kind == "string":
        form = {"password": "secret"}.get(schema.get("format", ""), str(schema.get("format", "string")))
        return form + (_range(schema, "minLength", "maxLength", " characters") if form == "string" else "")
    return kind + _range(schema, "minimum", "maximum", "")


def _range(schema: dict[str, Any], low: str, high: str, unit: str) -> str:
    least = schema.get(low, schema.get("exclusiveMinimum"))
    most = schema.get(high)
    above = "above " if "exclusiveMinimum" in schema else ""
    if least is not None and most is not None:
        return f", {above}{_number(least)} to {_number(most)}{unit}"
    if most is not None:
        return f", at most {_number(most)}{unit}"
    return f", {above or 'at least '}{_number(least)}{unit}" if least is not None else ""


def _number(number: float) -> str:
    return f"{int(number)}" if float(number).is_integer() else f"{number:g}"
