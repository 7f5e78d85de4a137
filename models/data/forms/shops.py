"""Read logs of shops: RetailRocket, Yoochoose (RecSys Challenge 2015) and Diginetica (CIKM Cup 2016).

A view, a cart and a purchase are clicks that differ in their action. Yoochoose and Diginetica have sessions but hardly
any users, so the session is the user.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import collected, item
from models.data.columns import check, shaped, with_dates, with_ids, with_times
from models.data.dataset import DataSet
from models.data.form import Form, named
from models.data.forms.lines import CART, PURCHASE, VIEW, chosen, first_lines, head
from models.data.source import Source
from models.data.table import fields
from stream.core.messages import CLICK, MAX_TIME, Item

ACTIONS: Final = {"view": VIEW, "addtocart": CART, "transaction": PURCHASE}
"""RetailRocket's words for what a visitor did."""

RETAIL: Final = ("timestamp", "visitorid", "event", "itemid", "transactionid")
CLICKS: Final = "yoochoose-clicks.dat"
BUYS: Final = "yoochoose-buys.dat"
CLICK_COLUMNS: Final = ("session", "time", "item", "category")
BUY_COLUMNS: Final = ("session", "time", "item", "price", "quantity")
YOOCHOOSE: Final = re.compile(r"\d+,\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z,\d+,[0-9A-Z]+(,\d+)?", re.ASCII)
NO_BRAND: Final = ("0", "S")  # none, and a special offer, which is a place in the shop and not a category
VIEWS: Final = "train-item-views.csv"
PURCHASES: Final = "train-purchases.csv"
VIEW_COLUMNS: Final = ("sessionid", "itemid", "timeframe", "eventdate")
VIEW_HEADERS: Final = (
    "sessionid;userid;itemid;timeframe;eventdate",
    "sessionid;userid;timeframe;eventdate;ordernumber;itemid",
)


def read_retailrocket(source: Source) -> DataSet:
    """Read RetailRocket. Times are milliseconds.

    Names and texts of the items are hashed in the files, so items have only categories: the latest one in
    item_properties_part1.csv and item_properties_part2.csv, and those above it in category_tree.csv.
    """
    path = chosen(source, "events.csv") or source.need("events.csv")
    tables = []
    for table in fields(path, RETAIL):
        check(path, table, "event", pl.col("event").is_in(list(ACTIONS)), "view, addtocart or transaction")
        table = with_times(path, with_ids(path, table, "visitorid", "itemid"), "timestamp")
        table = table.rename({"visitorid": "user", "itemid": "item"})
        tables.append(shaped(table, CLICK, action=pl.col("event").replace(ACTIONS)))
    return collected(source, pl.concat(tables), _retail_items(source))


def fits_retailrocket(source: Source) -> bool:
    return first_lines(source, "events.csv")[:1] == [",".join(RETAIL)]


def _retail_items(source: Source) -> list[Item]:
    found = []
    for name in ("item_properties_part1.csv", "item_properties_part2.csv"):
        if path := source.find(name):
            for table in fields(path, ("timestamp", "itemid", "property", "value")):
                kinds = table.filter(pl.col("property") == "categoryid")
                found.append(
                    with_times(path, with_ids(path, kinds, "itemid"), "timestamp").select("time", "itemid", "value")
                )
    if not found:
        return []
    latest = pl.concat(found).sort("time", "value").unique("itemid", keep="last").sort("itemid")
    tree = source.find("category_tree.csv")
    above = {} if tree is None else _tree(tree)
    return [
        item(name, categories=_upwards(value, above)) for name, value in latest.select("itemid", "value").iter_rows()
    ]


def _tree(path: Path) -> dict[str, str]:
    """Return category -> the one above it, "" at the top."""
    return dict(
        row
        for table in fields(path, ("categoryid", "parentid"))
        for row in table.select("categoryid", "parentid").rows()
    )


def _upwards(category: str, above: dict[str, str]) -> list[str]:
    seen: list[str] = []
    while category and category not in seen:  # stops at a cycle in the tree, too
        seen.append(category)
        category = above.get(category, "")
    return seen


def read_yoochoose(source: Source) -> DataSet:
    """Read Yoochoose. Its clicks are views, and the rows of yoochoose-buys.dat are purchases.

    An item's categories are those that its clicks name, except 0 and S. The file yoochoose-test.dat is not read with
    the clicks, because it is the test set of the challenge.
    """
    path = chosen(source, CLICKS, BUYS) or source.need(CLICKS)
    # A single file, of any name if it was given alone, is one of the two: a purchase has a price and a quantity.
    lone_buys = "".join(head(source, path, 1)).count(",") == len(BUY_COLUMNS) - 1
    buys = path if lone_buys else source.find(BUYS)
    tables, kinds = ([], []) if lone_buys else _clicks(path)
    if buys is not None:
        for table in fields(buys, BUY_COLUMNS, header=False):
            tables.append(shaped(_sessions(buys, table), CLICK, action=pl.lit(PURCHASE)))
    items: list[Item] = []
    if kinds:
        whole = pl.concat(kinds).unique().sort("item", "category").group_by("item", maintain_order=True).agg("category")
        items = [item(name, categories=found) for name, found in whole.iter_rows()]
    return collected(source, pl.concat(tables) if tables else [], items)


def fits_yoochoose(source: Source) -> bool:
    lines = first_lines(source, CLICKS, BUYS)
    return bool(lines) and all(YOOCHOOSE.fullmatch(line) for line in lines)


def _clicks(path: Path) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """Return events, and pairs of item and category."""
    tables, kinds = [], []
    for table in fields(path, CLICK_COLUMNS, header=False):
        table = _sessions(path, table)
        tables.append(shaped(table, CLICK, action=pl.lit(VIEW)))
        kinds.append(table.filter(~pl.col("category").is_in(NO_BRAND)).select("item", "category").unique())
    return tables, kinds


def _sessions(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    table = with_dates(
        path, with_ids(path, table, "session", "item"), "time", "%Y-%m-%dT%H:%M:%S%.fZ", "2014-04-07T10:51:09.277Z"
    )
    return table.rename({"session": "user"})


def read_diginetica(source: Source) -> DataSet:
    """Read Diginetica. The time is the day (UTC) plus the milliseconds since the session's first query.

    userId is NA in most rows and is not read.
    """
    views, purchases = source.find(VIEWS), source.find(PURCHASES)
    path = views or purchases or chosen(source) or source.need(VIEWS)
    tables = _diginetica(path, PURCHASE if path == purchases else VIEW)
    if views is not None and purchases is not None:
        tables += _diginetica(purchases, PURCHASE)
    kinds = source.find("product-categories.csv")
    return collected(source, pl.concat(tables), [] if kinds is None else _kinds(kinds))


def fits_diginetica(source: Source) -> bool:
    lines = first_lines(source, VIEWS, PURCHASES)
    return bool(lines) and _plain(lines[0]) in VIEW_HEADERS


def _diginetica(path: Path, action: str) -> list[pl.DataFrame]:
    return [
        shaped(_timed(path, table), CLICK, action=pl.lit(action))
        for table in fields(path, VIEW_COLUMNS, ";", name=_plain)
    ]


def _timed(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    table = with_ids(path, table, "sessionid", "itemid")
    table = with_times(path, table, "timeframe").rename({"time": "within"})
    table = with_dates(path, table, "eventdate", "%Y-%m-%d", "2016-05-09")
    time = pl.col("time") + pl.col("within")
    check(path, table, "timeframe", time <= MAX_TIME, "milliseconds since the session began")
    return table.with_columns(time=time).rename({"sessionid": "user", "itemid": "item"})


def _kinds(path: Path) -> list[Item]:
    tables = (with_ids(path, table, "itemid") for table in fields(path, ("itemid", "categoryid"), ";", name=_plain))
    return [
        item(name, categories=(kind,)) for table in tables for name, kind in table.select("itemid", "categoryid").rows()
    ]


def _plain(name: str) -> str:
    """Return a column name in a common form: itemId and item_id are both in use."""
    return name.strip().lower().replace("_", "")


FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="RetailRocket",
        expected="events.csv (timestamp,visitorid,event,itemid,transactionid), optionally with "
        "item_properties_part1.csv, item_properties_part2.csv and category_tree.csv in the same folder",
        terms="CC BY-NC-SA 4.0 (https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset)",
        origin="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
        fits=fits_retailrocket,
        read=read_retailrocket,
        columns=RETAIL,
        files=named("events.csv", "item_properties_part1.csv", "item_properties_part2.csv", "category_tree.csv"),
    ),
    Form(
        name="Yoochoose",
        expected="yoochoose-clicks.dat (session,time,item,category; no header), yoochoose-buys.dat "
        "(session,time,item,price,quantity; no header) or both",
        terms="CC BY-NC-ND 4.0 (https://recsys.acm.org/recsys15/challenge/)",
        origin="D. Ben-Shimon et al., RecSys Challenge 2015 and the YOOCHOOSE Dataset, RecSys 2015",
        fits=fits_yoochoose,
        read=read_yoochoose,
        files=named(CLICKS, BUYS, "yoochoose-test.dat", "dataset-readme.txt"),
    ),
    Form(
        name="Diginetica",
        expected="train-item-views.csv (sessionId;userId;itemId;timeframe;eventdate), train-purchases.csv "
        "(sessionId;userId;timeframe;eventdate;ordernumber;itemId) or both, optionally with "
        "product-categories.csv in the same folder",
        terms="rules of the CIKM Cup 2016: research use (https://competitions.codalab.org/competitions/11161)",
        origin="https://competitions.codalab.org/competitions/11161",
        fits=fits_diginetica,
        read=read_diginetica,
        columns=("sessionId", "userId", "itemId", "timeframe", "eventdate", "ordernumber"),
        files=named(
            VIEWS,
            PURCHASES,
            "product-categories.csv",
            "products.csv",
            "train-clicks.csv",
            "train-queries.csv",
        ),
    ),
)
