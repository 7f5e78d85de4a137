"""Send an event to the HTTP API and ask for a slate that contains it: python api_client.py USER ITEM

FRESHET_API is the address (http://127.0.0.1:8080), FRESHET_TOKEN a token, if the server requires one.
"""

from __future__ import annotations

import json
import os
import sys
import time
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


def main(user: str, item: str) -> None:
    event = {"type": "click", "user": user, "item": item, "time": int(time.time() * 1000)}
    written = ask("POST", "/v1/events", event)["events"][0]
    query = urllib.parse.urlencode({"n": 3, "min_offset": written["min_offset"]})
    slate = ask("GET", f"/v1/users/{urllib.parse.quote(user, safe='')}/recommendations?{query}")
    print(f"{slate['strategy']} after {slate['seq']} event{'' if slate['seq'] == 1 else 's'}:")
    for scored in slate["items"]:
        print(f"{scored['score']:8.4f} {scored['item']}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print("usage: api_client.py USER ITEM", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))
