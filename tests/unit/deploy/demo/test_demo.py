"""The demo's bookkeeping on cases worked by hand."""

from __future__ import annotations

import io
import itertools
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from deploy.demo.closed_loop import ClosedLoop, Held
from deploy.demo.folders import KAFKA, LOCK, run_folder
from deploy.demo.hit_rate import HitCounter, HitRate, Seen, by_count
from deploy.demo.holdout import held_events, spot_user
from deploy.demo.progress import Board, Figures, Spot
from deploy.demo.source import NAME, download, find
from deploy.demo.terminal import View, picture
from models.data import Message, generate, split_last
from stream.core.errors import DataError, DownloadError
from stream.core.state import MAX_SEEN


def held(user: str, number: int, topic: str = "ratings") -> Held:
    return Held(user, f"i{number}", True, Message(topic, user.encode(), b"{}"), f"event {number}")


class TestClosedLoop:
    def test_next_event_waits_for_the_slate_that_covers_the_previous_one(self) -> None:
        loop = ClosedLoop([held("a", 1), held("a", 2)])
        assert [event.item for event in loop.take(10)] == ["i1"]
        assert loop.take(10) == []
        loop.landed("a", "ratings", 3, 7)
        assert loop.shown("a", {"ratings/3": 6}) is None  # an older state
        assert loop.shown("a", {"clicks/3": 9, "ratings/2": 9}) is None  # other places
        assert loop.take(10) == []
        found = loop.shown("a", {"ratings/3": 7})
        assert found is not None
        assert found.item == "i1"
        assert [event.item for event in loop.take(10)] == ["i2"]

    def test_one_slate_finishes_an_event_once(self) -> None:
        loop = ClosedLoop([held("a", 1)])
        loop.take(1)
        loop.landed("a", "ratings", 0, 0)
        assert loop.shown("a", {"ratings/0": 0}) is not None
        assert loop.shown("a", {"ratings/0": 0}) is None
        assert loop.finished

    def test_slate_before_the_place_is_known_does_not_count(self) -> None:
        loop = ClosedLoop([held("a", 1)])
        loop.take(1)
        assert loop.shown("a", {"ratings/0": 5}) is None
        assert loop.under_way == 1

    def test_width_users_at_a_time_the_next_begins_when_one_ends(self) -> None:
        loop = ClosedLoop([held("a", 1), held("b", 2), held("a", 3), held("c", 4)], width=2)
        assert [event.user for event in loop.take(10)] == ["a", "b"]
        loop.landed("b", "ratings", 0, 0)
        loop.shown("b", {"ratings/0": 0})
        assert [event.user for event in loop.take(10)] == ["c"]

    def test_no_more_than_asked_for(self) -> None:
        loop = ClosedLoop([held(user, 0) for user in "abc"])
        assert [len(loop.take(2)), len(loop.take(2)), len(loop.take(2))] == [2, 1, 0]

    def test_slow_user_is_spread_over_the_whole_replay_and_ends_with_it(self) -> None:
        events = [held("slow", number) for number in range(4)] + [held(f"u{n}", n) for n in range(40)]
        loop = ClosedLoop(events, width=3, slow="slow")
        order = []
        while not loop.finished:
            for number, event in enumerate(loop.take(1)):
                order.append(event.user)
                loop.landed(event.user, "ratings", 0, number)
                assert loop.shown(event.user, {"ratings/0": number}) is event
        at = [index for index, user in enumerate(order) if user == "slow"]
        assert len(order) == 44
        assert at[0] == 0
        assert all(8 <= later - earlier <= 14 for earlier, later in itertools.pairwise(at))

    def test_slow_user_alone_is_not_held_up(self) -> None:
        loop = ClosedLoop([held("slow", 1), held("slow", 2)], slow="slow")
        for offset in range(2):
            assert len(loop.take(5)) == 1
            loop.landed("slow", "ratings", 0, offset)
            loop.shown("slow", {"ratings/0": offset})
        assert loop.finished


class TestJudge:
    def test_popularity_leaves_out_what_the_user_had(self) -> None:
        hits = HitCounter([f"p{n}" for n in range(20)])
        for item in ("p0", "p3", "other"):
            hits.had("a", item)
        assert hits.popular_slate("a") == ["p1", "p2", *(f"p{n}" for n in range(4, 12))]
        assert hits.popular_slate("b") == [f"p{n}" for n in range(10)]

    def test_rates_count_the_first_ten_places(self) -> None:
        hits = HitCounter([f"p{n}" for n in range(20)])
        slate = [f"s{n}" for n in range(11)]
        assert hits.count("a", "s9", slate)
        assert not hits.count("a", "s10", slate)
        assert not hits.count("b", "p9", slate)  # popularity's hit
        assert not hits.count("b", "p10", ())
        found = hits.rate()
        assert (found.counted, found.freshet, found.popularity) == (4, 0.25, 0.25)

    def test_interval_is_paired_and_by_user(self) -> None:
        hits = HitCounter([f"p{n}" for n in range(10)])
        for user in range(50):
            for _ in range(4):
                hits.count(f"u{user}", "s", ["s"])  # always a hit, popularity never
        assert hits.rate() == HitRate(200, 1.0, 0.0, 1.0, 1.0)

    def test_interval_of_half_the_users(self) -> None:
        """The mean of 100 users' 0/1 differences, half of them 1: standard error 0.05, so 0.402 to 0.598 by the book."""
        hits = HitCounter([])
        for user in range(100):
            for _ in range(3):  # a user's events are alike: more of them say nothing more
                hits.count(f"u{user}", "s", ["s"] if user % 2 else [])
        found = hits.rate()
        assert found.low == pytest.approx(0.402, abs=0.015)
        assert found.high == pytest.approx(0.598, abs=0.015)
        assert hits.rate() == found  # seeded

    def test_nothing_judged_yet(self) -> None:
        assert HitCounter(["a"]).rate().counted == 0

    def test_seen_as_a_state_record_remembers(self) -> None:
        seen = Seen()
        for number in range(MAX_SEEN + 100):
            seen.add(f"i{number}")
        assert "i0" in seen
        assert f"i{MAX_SEEN - 1}" in seen
        assert f"i{MAX_SEEN}" not in seen  # came when the set was full, and is not among the last 64
        assert f"i{MAX_SEEN + 99}" in seen

    def test_by_count_keeps_the_order_of_equals(self) -> None:
        assert by_count(["a", "b", "c", "d"], [1, 3, 1, 3]) == ["b", "d", "a", "c"]


class TestHeld:
    def test_held_events_are_the_split_s_in_order_and_name_titles(self) -> None:
        data = generate(users=30, items=80, events=60)
        split = split_last(data)
        events = held_events(data, split)
        assert [event.user for event in events] == split.held["user"].to_list()
        assert sum(event.counted for event in events) == 8 * split.held["user"].n_unique()
        title = {item.item: item.title for item in data.items}
        assert all(title[event.item] in event.words for event in events)
        assert spot_user(split) in {event.user for event in events}


class TestSource:
    def test_named_folder_must_be_of_a_known_form(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no known form"):
            find(str(tmp_path), tmp_path, print)

    def test_generated(self, tmp_path: Path) -> None:
        assert find("generated", tmp_path, print).name == "generated"

    def test_download_unpacks_what_is_needed(self, tmp_path: Path, server: str) -> None:
        folder = download(tmp_path, f"{server}/good.zip")
        assert folder == tmp_path / NAME
        assert {path.name for path in folder.iterdir()} == {"ratings.csv", "movies.csv"}
        assert find(str(folder), tmp_path, print).name == NAME
        (folder / "thesis.txt").write_text("my thesis")
        (folder / "ratings.csv").unlink()
        download(tmp_path, f"{server}/good.zip")
        assert {path.name for path in folder.iterdir()} == {"ratings.csv", "movies.csv", "thesis.txt"}
        assert [path.name for path in tmp_path.iterdir()] == [NAME]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("none.zip", "404|Not Found"), ("text.zip", "not a zip"), ("bare.zip", "has no ratings.csv")],
    )
    def test_what_cannot_be_had_is_one_clear_error(self, tmp_path: Path, server: str, name: str, reason: str) -> None:
        with pytest.raises(DownloadError, match=reason):
            download(tmp_path, f"{server}/{name}")
        assert not (tmp_path / NAME).exists()

    def test_nobody_answers(self, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match="cannot be downloaded"):
            download(tmp_path, "http://127.0.0.1:1/good.zip")

    def test_without_data_and_network_a_generated_world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("deploy.demo.source.candidates", lambda kept: iter(()))
        monkeypatch.setattr("deploy.demo.source.download", _unreachable)
        printed: list[str] = []
        assert find(None, tmp_path, printed.append).name == "generated"
        assert "generated data set" in printed[-1]


def _unreachable(kept: Path) -> Path:
    raise DownloadError("no way out")


class TestFolders:
    def test_fresh_folder_old_ones_removed_locked_ones_kept(self, tmp_path: Path) -> None:
        left_over = tmp_path / "runs" / "20200101-000000-1"
        left_over.mkdir(parents=True)
        (left_over / LOCK).touch()
        (tmp_path / "runs" / "bare").mkdir()
        with run_folder(tmp_path) as first:
            assert not left_over.exists()
            (first / KAFKA).mkdir()
            with run_folder(tmp_path) as second:
                assert first.is_dir()
                assert second != first
        kept = [
            tmp_path / "runs" / "own" / "thesis.txt",
            tmp_path / "runs" / "locked" / LOCK,
            tmp_path / "runs" / "file",
        ]
        for file in kept:
            file.parent.mkdir(exist_ok=True)
            file.write_text("my thesis")
        with run_folder(tmp_path):
            assert all(file.read_text() == "my thesis" for file in kept)
        for file in kept:
            file.unlink()
        with run_folder(tmp_path) as third:
            assert [path.name for path in (tmp_path / "runs").iterdir()] == [third.name]


class TestView:
    def board(self) -> Board:
        board = Board(title="data")
        board.begin("replay")
        board.figures = Figures(5, 10, 100.0, 4.0, 9.0, (5.5, 11.0), HitRate(5, 0.2, 0.1, -0.05, 0.3))
        board.spot = Spot("[7]", 2, 8, "rating 5★ Heat", 1, ("Alien", "Heat"), ("Alien", "Ran [1985]"))
        board.done("ready")
        return board

    @pytest.mark.parametrize(("width", "height"), [(110, 50), (80, 24), (40, 10)])
    def test_shows_figures_and_moves_at_any_size(self, width: int, height: int) -> None:
        out = io.StringIO()
        Console(width=width, height=height, file=out, force_terminal=False).print(View(self.board()))
        text = out.getvalue()
        assert "Alien" in text
        assert "Ran [1985]" in text  # titles are no markup
        assert "[7]" in text
        assert "new" in text

    def test_hint_is_seen_on_a_small_terminal(self) -> None:
        board = self.board()
        board.spot = Spot("7", 2, 8, "rating 5★ Heat", 1, ("Alien",), tuple(f"title {n}" for n in range(10)))
        board.hint = "q leaves\n" + "long " * 25
        out = io.StringIO()
        Console(width=80, height=24, file=out, force_terminal=False).print(View(board))
        text = out.getvalue()
        assert text.count("\n") <= 24
        assert "q leaves" in text
        assert "title 2" in text

    def test_picture(self, tmp_path: Path) -> None:
        picture(self.board(), tmp_path / "view.svg")
        drawn = (tmp_path / "view.svg").read_text()
        assert drawn.startswith("<svg")
        assert "Alien" in drawn
        assert "url(http" not in drawn.replace('"', "")  # nothing is fetched from elsewhere

    def test_lines_for_who_cannot_watch(self) -> None:
        printed: list[str] = []
        board = Board(print_line=printed.append)
        board.begin("train")
        board.note("epoch 1")  # too soon after the last line
        board.line("HR@10 0.1")
        board.done("14 epochs")
        assert printed == ["train ...", "train: HR@10 0.1", "train: 14 epochs (0.0 s)"]


@pytest.fixture
def server() -> Iterator[str]:
    """A real HTTP server on loopback with a good archive and bad ones."""
    files = {
        "/good.zip": _zip(
            {
                f"{NAME}/ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,1000\n",
                f"{NAME}/movies.csv": "movieId,title,genres\n10,Heat (1995),Crime\n",
                f"{NAME}/../../evil.txt": "out of the folder",
            }
        ),
        "/bare.zip": _zip({"movies.csv": "movieId,title,genres\n"}),
        "/text.zip": b"hello",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def _zip(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()
