"""Pin an item for one user, and show the user's slate with and without the rule.

python rules_and_placements.py USER ITEM [PLACEMENT]

FRESHET_API is the address (http://127.0.0.1:8080), FRESHET_TOKEN a token with the scopes read and admin, if the server
requires one.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

API = os.environ.get("FRESHET_API", "http://127.0.0.1:8080")
TOKEN = os.environ.get("FRESHET_TOKEN", "")


def ask(method: str, path: str, body: object = None) -> dict[str, Any]:
    """Send one request. Raises RuntimeError with what is wrong."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(API + path, data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise RuntimeError(f"{problem['title']}: {problem.get('field', '')} {problem['detail']}") from None
    except OSError as error:
        raise RuntimeError(f"no answer: {error}: does `freshet serve` run on {API}?") from None


def show(title: str, user: str, placement: str, min_offset: str) -> None:
    """Print a slate that follows the rules up to an offset."""
    query = urllib.parse.urlencode({"placement": placement, "min_offset": min_offset})
    slate = ask("GET", f"/v1/users/{urllib.parse.quote(user, safe='')}/recommendations?{query}")
    print(f"{title}: {' '.join(scored['item'] for scored in slate['items'])}")


def main(user: str, item: str, placement: str = "default") -> None:
    rule = {"rule": "example-pin", "kind": "pin", "item": item, "place": 0, "segment": {"users": [user]}}
    written = ask("PUT", "/v1/rules/example-pin", rule)
    try:
        show("pinned", user, placement, written["min_offset"])
    finally:
        deleted = ask("DELETE", "/v1/rules/example-pin")
    show("without the rule", user, placement, deleted["min_offset"])


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        print("usage: rules_and_placements.py USER ITEM [PLACEMENT]", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))
