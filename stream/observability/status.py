"""The worker's status page: one HTML page about one worker for people, without scripts or external resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

from stream.inference.bundle import Bundle

NOT_KNOWN: Final = "not known"
STYLE: Final = """
:root { color-scheme: light dark;
  --line: #d4d7dc; --soft: #5c6470; --good: #12733b; --bad: #b3261e; --back: #fff; --ink: #1a1d21 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3f47; --soft: #a0a8b4; --good: #6cd193; --bad: #ff8a80; --back: #16181c; --ink: #e8eaed }
}
body { margin: 2rem auto; max-width: 58rem; padding: 0 1rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1rem; margin: 2rem 0 .4rem }
.state { font-weight: 600 } .good { color: var(--good) } .bad { color: var(--bad) } p { color: var(--soft); margin: .3rem 0 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 400; color: var(--soft); width: 15rem } thead th { width: auto }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums } code { font-size: .92em }
"""


@dataclass(frozen=True)
class Live:
    """The values on the page that change while a worker runs.

    Attributes:
        missing: Conditions for ready that are not met.
        live: Number of live items.
        known: Number of known items.
        offset: Offset reached in the items topic; -1: none yet.
    """

    missing: Sequence[str]
    live: int
    known: int
    offset: int


def page(bundle: Bundle, version: str, provider: str, live: Live) -> bytes:
    """Return the page as UTF-8. Everything from a bundle is escaped."""
    state = (
        f'<span class="state bad">not ready: {escape(", ".join(live.missing))}</span>'
        if live.missing
        else '<span class="state good">ready</span>'
    )
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>freshet worker</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1>freshet worker</h1>
<p>{state} &middot; version {escape(version)} &middot; models run on {escape(provider)} &middot; {now}</p>
<p>Figures over time are on <code>/metrics</code>, checks for machines on <code>/readyz</code> and <code>/healthz</code>.</p>
<h2>Catalogue</h2>{_table(_catalogue(live))}
<h2>Bundle</h2>{_table(_bundle(bundle))}
<h2>Figures of the model</h2>{_figures(bundle)}
</body></html>
""".encode()


def _catalogue(live: Live) -> Iterable[tuple[str, str]]:
    yield "can be recommended", f"{live.live:,} items"
    yield "known as input", f"{live.known:,} items"
    yield "offset of the items topic", str(live.offset) if live.offset >= 0 else "none yet"


def _bundle(bundle: Bundle) -> Iterable[tuple[str, str]]:
    card, blend, data = bundle.card, bundle.blend, bundle.data
    yield "id", bundle.id
    yield "stamp of its states", bundle.state_model.hex()
    yield "trained on", f"{data.get('name', NOT_KNOWN)}: {data.get('events', NOT_KNOWN)} events"
    yield "sha256 of these events", str(data.get("sha256", NOT_KNOWN))
    yield "items in training", f"{len(bundle.item_ids):,}"
    yield "parameters", f"{card.parameters:,} without the text network"
    yield "size", f"{card.bytes / 1e6:.1f} MB"
    yield "training time, seeds", f"{_seconds(card.seconds)}; {', '.join(map(str, card.seeds)) or NOT_KNOWN}"
    yield (
        "neighbours in the score",
        f"weight {blend.neighbour:g}: {blend.neighbours} of each of the last {blend.last} choices, faded by {blend.fade:g}"
        if blend.neighbours
        else "none",
    )
    if (term := bundle.text_term) is not None:
        yield (
            "texts in the score",
            f"weight {term.weight:g}, {term.new:g} for new items: {term.width} components of each of the last {blend.last} "
            f"choices, faded by {term.fade:g}",
        )
    yield (
        "popularity in the score",
        f"weight {blend.prior:g}, half of it after {blend.evidence:g} events" if blend.prior else "none",
    )
    for part, terms in card.licences.items():
        yield f"licence: {part}", terms


def _figures(bundle: Bundle) -> str:
    card = bundle.card
    if not bundle.metrics:
        return "<p>No figures were measured.</p>"
    lines = []
    for name, value in bundle.metrics.items():
        low_high = card.intervals.get(name)
        interval = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else NOT_KNOWN
        lines.append(f"<tr><th>{escape(name)}</th><td>{value:.4f}</td><td>{interval}</td></tr>")
    return (
        f"<p>Protocol: {escape(card.protocol or NOT_KNOWN)}</p><table><thead><tr><th>metric</th><th>value</th>"
        f"<th>95 % interval</th></tr></thead>{''.join(lines)}</table>"
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return (
        f"<table>{''.join(f'<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in rows)}</table>"
    )


def _seconds(seconds: float) -> str:
    if not seconds:
        return NOT_KNOWN
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
