"""Options of `freshet deadletters`: which dead letters to choose, and how to correct them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import bounds

Topic = Annotated[str | None, typer.Option(help="Only dead letters that came from this topic.")]
Partition = Annotated[
    int | None, typer.Option(min=0, max=bounds.PARTITION, help="Only dead letters that came from this partition.")
]
Offset = Annotated[
    int | None, typer.Option(min=0, max=bounds.OFFSET, help="Only dead letters that came from this offset.")
]
Stage = Annotated[str | None, typer.Option(help="Only dead letters with this stage.")]
Reason = Annotated[str | None, typer.Option(help="Only dead letters with this reason.")]
Since = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters set aside at or after this time: `2h` for 2 hours ago (s, m, h, d, w), or ISO 8601."
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters set aside before this time: `2h` for 2 hours ago (s, m, h, d, w), or ISO 8601."
    ),
]
All = Annotated[bool, typer.Option("--all", help="Choose all letters. Required if no other option narrows the choice.")]
Assign = Annotated[
    list[str] | None, typer.Option("--set", help="Set a field in every letter: field=value. May be repeated.")
]
Rename = Annotated[
    list[str] | None, typer.Option("--rename", help="Rename a field in every letter: old=new. May be repeated.")
]
Remove = Annotated[
    list[str] | None, typer.Option("--remove", help="Drop this field from every letter. May be repeated.")
]
KeyFromUser = Annotated[
    bool,
    typer.Option("--key-from-user", help="Use the body's `user` as the key: for null_key, bad_key, key_mismatch."),
]
Key = Annotated[
    str | None, typer.Option(help="Send the key of this user instead. Requires a choice of exactly one letter.")
]
Value = Annotated[str | None, typer.Option(help="Send this value instead. Requires a choice of exactly one letter.")]
Corrected = Annotated[
    Path | None,
    typer.Option(
        help="Send only the letters of this JSONL file from `fix`: {topic, partition, offset, key?, value?} per line."
    ),
]
Rate = Annotated[
    float,
    typer.Option(
        min=0, max=bounds.RATE, callback=bounds.number, help="Maximum number of records per second; 0: no limit."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
