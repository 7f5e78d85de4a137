"""Writes the model card: a bundle's training data, its measured quality, its size and its licences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.training.run import Run
from stream.inference.bundle import Card

LICENCES: Final = {
    "text.onnx": "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)",
    "all other weights": "trained on the data named above; its terms apply",
}


def make_card(run: Run, files: Mapping[str, bytes]) -> Card:
    """Make the card of a bundle. `files` is the whole bundle except card.md and the manifest."""
    return Card(
        protocol=run.protocol,
        intervals=run.intervals,
        parameters=sum(parameter.numel() for parameter in run.network.parameters()),
        bytes=sum(map(len, files.values())),
        seconds=round(run.seconds, 1),
        seeds=run.seeds,
        licences=dict(LICENCES),
        lineage=dict(run.lineage),
    )


def card_text(run: Run, card: Card) -> bytes:
    """Return card.md. A figure that the run does not have is shown as unknown, never left out."""
    blend, data = run.blend, run.data
    width = run.neighbours.index.shape[1] if blend.neighbour else 0
    near = (
        f"{blend.neighbour:g}, {width} of each of the last {blend.last} choices, faded by {blend.fade:g}"
        if width
        else "none"
    )
    texts = (
        f"{blend.text:g}, {blend.text_new:g} for new items, {run.text_width} components, of the last {blend.last} choices, "
        f"faded by {blend.text_fade:g}"
    )
    rows = [
        ("Training data", f"{data.name}: {data.events} events, sha256 `{data.sha256}`"),
        ("Protocol", card.protocol or "unknown"),
        ("Items", str(len(run.item_ids))),
        ("Parameters", f"{card.parameters} (without the text network)"),
        ("Size", f"{card.bytes} bytes"),
        ("Training time", f"{card.seconds:g} s" if card.seconds else "unknown"),
        ("Seeds", ", ".join(map(str, card.seeds)) or "unknown"),
        ("Neighbours in the score", near),
        *((("Texts in the score", texts),) if run.text_width else ()),
        (
            "Popularity in the score",
            f"{blend.prior:g}, halved after {blend.evidence:g} events" if blend.prior else "none",
        ),
        *((("Actions read", ", ".join(run.spec.actions)),) if run.spec.actions else ()),
        *_lineage(card.lineage),
        *((f"Licence of {part}", terms) for part, terms in card.licences.items()),
    ]
    lines = [
        "# Model card",
        "",
        "| what | |",
        "|---|---|",
        *(f"| {_cell(name)} | {_cell(text)} |" for name, text in rows),
    ]
    lines += ["", "| metric | value | 95 % interval |", "|---|---|---|"]
    for name, value in run.metrics.items():
        interval = card.intervals.get(name)
        lines.append(
            f"| {_cell(name)} | {value:g} | {f'{interval[0]:g} to {interval[1]:g}' if interval else 'unknown'} |"
        )
    if not run.metrics:
        lines.append("| none measured | | |")
    return ("\n".join(lines) + "\n").encode()


def _lineage(lineage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows about where the bundle comes from; none for one that was made by hand."""
    if not lineage:
        return []
    gate = lineage.get("gate", {})
    rows = [
        ("Parent bundle", lineage.get("parent") or "none"),
        ("Update", str(lineage.get("update", "unknown"))),
        ("Days of the data", " to ".join(lineage.get("days", ())) or "unknown"),
    ]
    if gate.get("choices"):
        low, high = gate["interval"]
        rows.append(
            (
                "Gate, newest days",
                f"NDCG@10 {gate['new']:g}, the parent {gate['served']:g}, ratio {low:g} to {high:g} (95 %), {gate['choices']} "
                f"choices of {gate['users']} users since {gate['judged_from']}",
            )
        )
        rows.append(
            (
                "Gate, older choices",
                f"NDCG@10 {gate['older_new']:g}, the parent {gate['older_served']:g}, {gate['older_choices']} choices",
            )
        )
    return rows


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
