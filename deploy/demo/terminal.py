"""Draw the board on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.demo.hit_rate import HitRate
from deploy.demo.progress import Board, Figures, Spot, Step

TALL: Final = 34  # lines; on a smaller terminal, completed steps make room for the slate
FONTS: Final = re.compile(r"@font-face\s*\{[^}]*\}\s*")  # rich would load fonts from another site
LEAST: Final = 3  # items of the slate that are shown on the smallest terminal
WIDTH: Final = 110  # columns of the picture
BAR: Final = 24
FRAME: Final = 4  # lines of the slate's panel in addition to its items


class View:
    """Draws `board` as it is now. rich calls it several times per second."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        board = self._board
        roomy = console.size.height >= TALL or board.spot is None
        steps = board.steps if roomy else board.steps[-1:]
        parts: list[RenderableType] = [_steps(steps)]
        if board.figures is not None:
            parts.append(_figures(board.figures))
        title = Text.assemble((" freshet demo ", "bold reverse"), f"  {board.title} ")
        upper = Panel(Group(*parts), title=title, title_align="left", border_style="cyan")
        hint = Text(board.hint, style="dim")
        yield upper
        if board.spot is not None:
            taken = len(console.render_lines(upper, options)) + FRAME + 1
            taken += len(console.render_lines(hint, options)) if board.hint else 0
            yield _slate(board.spot, max(LEAST, console.size.height - taken))
        if board.hint:
            yield hint


def picture(board: Board, path: Path) -> None:
    """Write the view to an SVG file."""
    console = Console(record=True, width=WIDTH, height=100, file=io.StringIO(), force_terminal=True)
    console.print(View(board))
    drawn = console.export_svg(title="make demo", unique_id="demo")
    path.write_text(FONTS.sub("", drawn), "utf-8")


def _steps(steps: list[Step]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1, no_wrap=True)
    table.add_column(style="bold", width=8, no_wrap=True)
    table.add_column(width=8, justify="right", style="dim", no_wrap=True)
    table.add_column(ratio=1)
    for step in steps:
        going = step.seconds is None
        mark = Text("›", "yellow") if going else Text("✓", "green")
        table.add_row(mark, step.name, "" if step.seconds is None else f"{step.seconds:.1f} s", _line(step.text))
    return table


def _figures(figures: Figures) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", width=14, no_wrap=True)
    table.add_column(width=BAR, no_wrap=True)
    table.add_column(ratio=1)
    bar = ProgressBar(figures.total, figures.done, width=BAR)
    table.add_row("events", bar, _line(f"{figures.done:,} of {figures.total:,}, {figures.rate:,.0f}/s"))
    latency = f"p50 {figures.p50_ms:.0f} ms   p99 {figures.p99_ms:.0f} ms"
    seen = f"send to read: p50 {figures.round_ms[0]:.0f} ms   p99 {figures.round_ms[1]:.0f} ms"
    table.add_row("event to slate", latency, _line(seen, "dim"))
    if figures.hits is not None:
        _hits(table, figures.hits)
    return Group(Text(), table)


def _hits(table: Table, hits: HitRate) -> None:
    most = max(hits.freshet, hits.popularity, 1e-9)
    for name, value, colour in (("hit rate @10", hits.freshet, "green"), ("popularity", hits.popularity, "yellow")):
        bar = Text("█" * max(1, round(BAR * value / most)) if value else "", colour)
        table.add_row(name, bar, _line(f"{value:.4f} of {hits.counted:,} next items"))
    over = hits.freshet - hits.popularity
    sure = "green" if hits.low > 0 else "yellow"
    range_ = f"95 %: {hits.low:+.4f} to {hits.high:+.4f}, paired, over users"
    table.add_row("difference", Text(f"{over:+.4f}", sure), _line(range_, "dim"))


def _slate(spot: Spot, count: int) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=2, justify="right", style="dim", no_wrap=True)
    table.add_column(width=5, justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for rank, title in enumerate(spot.now[:count]):
        table.add_row(str(rank + 1), _move(spot.before, title, rank), _line(title))
    line = Text(f"event {spot.number} of {spot.of}: ", style="dim", no_wrap=True, overflow="ellipsis")
    line.append(spot.words, "not dim bold")
    if spot.rank >= 0:
        line.append(f"  was at rank {spot.rank + 1}", "not dim green")
    else:
        line.append("  was not in the slate")
    heading = Text.assemble(" the slate of user ", (spot.user, "bold"), " changes with each event ")
    return Panel(Group(line, Text(), table), title=heading, title_align="left", border_style="magenta")


def _move(before: tuple[str, ...], title: str, now: int) -> Text:
    if title not in before:
        return Text("new", "green")
    up = before.index(title) - now
    if up > 0:
        return Text(f"↑{up}", "green")
    return Text(f"↓{-up}", "red") if up else Text("=", "dim")


def _line(text: str, style: str = "") -> Text:
    """Return one line, cut if there is not enough room. Its column may shrink; the columns next to it may not."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")
