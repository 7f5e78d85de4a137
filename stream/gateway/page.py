"""The documentation page of the API: one HTML page from the OpenAPI document, without scripts or external resources."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

STYLE: Final = """
:root { color-scheme: light dark; --line: #d4d7dc; --soft: #5c6470; --mark: #0b6b63; --back: #fff; --ink: #1a1d21 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3f47; --soft: #a0a8b4; --mark: #5fd0c5; --back: #16181c; --ink: #e8eaed } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 2.2rem 0 .2rem; overflow-wrap: anywhere }
h2 b { color: var(--mark) } h3 { font-size: .95rem; margin: 1rem 0 .2rem } p { margin: .3rem 0 } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100% } a { color: var(--mark) }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; width: 11rem; overflow-wrap: anywhere } td { overflow-wrap: anywhere } code { font-size: .92em }
"""


def page(document: Mapping[str, Any]) -> bytes:
    """Return the page as UTF-8."""
    info = document["info"]
    operations = [(method, path, one) for path, methods in document["paths"].items() for method, one in methods.items()]
    links = "".join(
        f'<li><a href="#{escape(one["operationId"])}"><code>{method.upper()} {escape(path)}</code></a></li>'
        for method, path, one in operations
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1>{escape(info["title"])} API {escape(info["version"])}</h1><p>{escape(info["description"])}</p>
<p>For programs: <a href="openapi.json">openapi.json</a>.</p><ul>{links}</ul>
{"".join(_operation(method, path, one) for method, path, one in operations)}
<h2>Schemas</h2>{"".join(_schema(name, one) for name, one in document["components"]["schemas"].items())}
</body></html>
""".encode()


def _operation(method: str, path: str, one: Mapping[str, Any]) -> str:
    html = f'<h2 id="{escape(one["operationId"])}"><b>{method.upper()}</b> <code>{escape(path)}</code></h2>'
    html += f"<p>{escape(one['summary'])}</p>"
    if description := one.get("description"):
        html += f'<p class="soft">{escape(description)}</p>'
    if one["parameters"]:
        rows = ((each["name"], _kind(_parameter(each)), each.get("description", "")) for each in one["parameters"])
        html += f"<h3>Parameters</h3>{_table(rows)}"
    if body := one.get("requestBody"):
        rows = ((media, _kind(_parameter(each)), "") for media, each in body["content"].items())
        html += f"<h3>Body</h3>{_table(rows)}"
    answers = (
        (status, _kind(next(iter(each["content"].values()))["schema"]), each["description"])
        for status, each in one["responses"].items()
    )
    return html + f"<h3>Answers</h3>{_table(answers)}"


def _schema(name: str, one: Mapping[str, Any]) -> str:
    html = f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>'
    if description := one.get("description"):
        html += f'<p class="soft">{escape(description)}</p>'
    if "properties" not in one:
        return html + f"<p>{_kind(one)}</p>"
    required = one.get("required", ())
    return html + _table(
        (field, _kind(each) + ("" if field in required else " (optional)"), _description(each))
        for field, each in one["properties"].items()
    )


def _description(schema: Mapping[str, Any]) -> str:
    inner = next((one["description"] for one in schema.get("anyOf", ()) if "description" in one), "")
    return str(schema.get("description", inner))


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a schema's type as HTML."""
    if reference := schema.get("$ref"):
        name = escape(str(reference).rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(_kind(one) for one in schema[word] if one != {"type": "null"})
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(one))}</code>" for one in schema["enum"])
    kind = str(schema.get("type", "any"))
    if "prefixItems" in schema:
        return f"[{', '.join(_kind(one) for one in schema['prefixItems'])}]"
    if kind == "array" and "items" in schema:
        return f"list of {_kind(schema['items'])}{_range(schema, 'minItems', 'maxItems')}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return escape(kind) + _range(schema, "minimum", "maximum") + _range(schema, "minLength", "maxLength")


def _range(schema: Mapping[str, Any], low: str, high: str) -> str:
    least, most = schema.get(low), schema.get(high)
    if least is None and most is None:
        return ""
    return f", {least} to {most}" if least is not None and most is not None else (
        f", at most {most}" if least is None else f", at least {least}"
    )  # fmt: skip


def _parameter(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a parameter. One in JSON has it under its media type."""
    found: Mapping[str, Any] = one.get("schema") or next(iter(one["content"].values()))["schema"]
    return found


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Return a table. The second cell is HTML already."""
    lines = (
        f"<tr><th><code>{escape(name)}</code></th><td>{kind}</td><td>{escape(text)}</td></tr>"
        for name, kind, text in rows
    )
    return f"<table>{''.join(lines)}</table>"
