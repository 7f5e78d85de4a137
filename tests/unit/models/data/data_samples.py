"""Made-up files in the exact form of each published data set, with the events that they hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, NamedTuple

from models.data.dataset import NAN, Event
from stream.core.messages import CLICK, COMMENT, RATING, Item


class Sample(NamedTuple):
    """name: for people; form: that it is; files: name -> content; events: in any order; items: the catalogue (None: not
    compared); alone: the file that is named, else the folder is."""

    name: str
    form: str
    files: dict[str, bytes]
    events: list[Event]
    items: list[Item] | None = None
    alone: str = ""

    def write(self, folder: Path) -> Path:
        """Into the folder -> what is to be read."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / self.alone


def lines(*rows: str, end: str = "\n") -> bytes:
    return "".join(row + end for row in rows).encode()


def objects(*rows: dict[str, Any]) -> bytes:
    return lines(*(json.dumps(row) for row in rows))


def rated(*rows: tuple[str, str, float, int]) -> list[Event]:
    return [Event(user, item, RATING, time, value) for user, item, value, time in rows]


def shown(events: list[Event]) -> list[tuple[Any, ...]]:
    """In an order of their own, without NaN, which is equal to nothing."""
    return sorted(
        tuple("" if isinstance(cell, float) and math.isnan(cell) else cell for cell in event) for event in events
    )


T: Final = 978_300_760
FILMS_100K: Final = (
    "1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0",
    "2|Sant\u00e9 (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?S|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0|0",
    "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0",
)
REVIEW_2014: Final = {
    "reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. McDonald", "helpful": [2, 3],
    "reviewText": "I bought this for my husband who plays the piano.", "overall": 5.0, "summary": "Heavenly Highway Hymns",
    "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009",
}  # fmt: skip
REVIEW_2018: Final = {
    "overall": 4.0, "vote": "2", "verified": True, "reviewTime": "01 1, 2018", "reviewerID": "A3SGXH7AUHU8GW",
    "asin": "B00006L9LC",
    "style": {"Size:": " 1 oz"}, "reviewText": "Smells good", "summary": "Fine", "unixReviewTime": 1514764800,
}  # fmt: skip
REVIEW_2023: Final = {
    "rating": 5.0, "title": "Such a lovely scent", "text": "Not overpowering.", "images": [], "asin": "B00YQ6X8EO",
    "parent_asin": "B00YQ6X8E1", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0,
    "verified_purchase": True,
}  # fmt: skip
META_2023: Final = {
    "main_category": "All Beauty", "title": "Howard Spray", "average_rating": 4.8, "rating_number": 10, "features": [],
    "description": ["Cleans", "and shines."], "price": None, "images": [], "videos": [], "store": "Howard",
    "categories": ["Hair", "Sprays"], "details": {"Package": "7 x 2"}, "parent_asin": "B00YQ6X8E1", "bought_together": None,
}  # fmt: skip
FLAT: Final = {
    "user_id": "AFAI", "item_id": "B000IMXUGG", "rating": 4.0, "timestamp_ms": 1165338257000, "category": "Software",
    "title": "Panda", "main_category": "Programs", "review_title": "Good", "review_text": "It ran.",
}  # fmt: skip

SAMPLES: Final[tuple[Sample, ...]] = (
    Sample(
        "movielens csv",
        "MovieLens CSV",
        {
            "ratings.csv": lines(
                "userId,movieId,rating,timestamp", f"1,10,4.0,{T}", f"1,20,3.5,{T + 1}", f"2,10,0.5,{T}", end="\r\n"
            ),
            "movies.csv": lines(
                "movieId,title,genres",
                '10,"Heat, The (1995)",Action|Crime',
                "20,Mute (1990),(no genres listed)",
                end="\r\n",
            ),
            "tags.csv": lines("userId,movieId,tag,timestamp", f'1,20,"a ""slow"" burn, too",{T + 2}', end="\r\n"),
            "links.csv": lines("movieId,imdbId,tmdbId", "10,0114709,862"),
        },
        [
            *rated(("1", "10", 4.0, T * 1000), ("1", "20", 3.5, (T + 1) * 1000), ("2", "10", 0.5, T * 1000)),
            Event("1", "20", COMMENT, (T + 2) * 1000, NAN, 'a "slow" burn, too'),
        ],
        [Item("10", "Heat, The (1995)", categories=("Action", "Crime")), Item("20", "Mute (1990)", categories=())],
    ),
    Sample(
        "movielens ratings",
        "MovieLens ratings.csv alone",
        {
            "mine.csv": lines(
                "userId,movieId,rating,timestamp", f"1,10,4.0,{T}", f"2,20,3.5,{T + 1}.0", "3,10,5,2000-12-31 22:12:42"
            )
        },
        rated(("1", "10", 4.0, T * 1000), ("2", "20", 3.5, (T + 1) * 1000), ("3", "10", 5.0, (T + 2) * 1000)),
        [Item("10", ""), Item("20", "")],
        "mine.csv",
    ),
    Sample(
        "movielens 100k",
        "MovieLens 100K",
        {
            "u.data": lines("196\t242\t3\t881250949", "186\t302\t3\t891717742", "196\t1\t5\t881251577"),
            "u.item": "".join(line + "\n" for line in FILMS_100K).encode("latin-1"),
            "u.user": lines("1|24|M|technician|85711"),
            "README": lines("SUMMARY"),
        },
        rated(("196", "242", 3.0, 881250949000), ("186", "302", 3.0, 891717742000), ("196", "1", 5.0, 881251577000)),
        [
            Item("1", "Toy Story (1995)", categories=("Animation", "Children's", "Comedy")),
            Item("2", "Santé (1995)", categories=("Action", "Adventure", "Thriller")),
            Item("267", "unknown", categories=()),
        ],
    ),
    Sample(
        "movielens 1m",
        "MovieLens 1M",
        {
            "ratings.dat": lines("1::1193::5::978300760", "1::661::3::978302109", "6040::1193::4::978298413"),
            "movies.dat": lines("661::J'ai été (1996)::Animation|Children's", '1193::One: "Flew" (1975)::Drama')
            .decode()
            .encode("latin-1"),
            "users.dat": lines("1::F::1::10::48067"),
        },
        rated(("1", "1193", 5.0, 978300760000), ("1", "661", 3.0, 978302109000), ("6040", "1193", 4.0, 978298413000)),
        [
            Item("661", "J'ai été (1996)", categories=("Animation", "Children's")),
            Item("1193", 'One: "Flew" (1975)', categories=("Drama",)),
        ],
    ),
    Sample(
        "movielens 10m",
        "MovieLens 10M",
        {
            "ratings.dat": lines("1::122::5::838985046", "1::185::0.5::838983525", "2::122::3.5::868245777"),
            "movies.dat": lines(
                "122::Boomerang, L\u2019 (1992)::Comedy|Romance", "185::Net, The (1995)::(no genres listed)"
            ),
            "tags.dat": lines('2::185::excellent! "2nd"::1215184630'),
        },
        [
            *rated(("1", "122", 5.0, 838985046000), ("1", "185", 0.5, 838983525000), ("2", "122", 3.5, 868245777000)),
            Event("2", "185", COMMENT, 1215184630000, NAN, 'excellent! "2nd"'),
        ],
        [
            Item("122", "Boomerang, L\u2019 (1992)", categories=("Comedy", "Romance")),
            Item("185", "Net, The (1995)", categories=()),
        ],
    ),
    Sample(
        "amazon 2014",
        "Amazon reviews 2014 and 2018",
        {
            "reviews_Music_5.json": objects(
                REVIEW_2014, {**REVIEW_2014, "reviewerID": "A14VAT5EAX3D9S", "overall": 2.0}
            ),
            "meta_Music.json": lines(
                "{'asin': '0000013714', 'title': \"Hymns' Book\", 'price': 1.5, 'categories': [['Music', 'Piano'], ['Music']]}",
                "{'asin': '0000099999', 'related': {'also_bought': ['0000013714']}, 'categories': [['Music']]}",
            ),
        },
        [
            Event(
                user,
                "0000013714",
                COMMENT,
                1252800000000,
                value,
                "Heavenly Highway Hymns. I bought this for my husband who plays the piano.",
            )
            for user, value in (("A2SUAM1J3GNN3B", 5.0), ("A14VAT5EAX3D9S", 2.0))
        ],
        [
            Item("0000013714", "Hymns' Book", categories=("Music", "Piano")),
            Item("0000099999", "", categories=("Music",)),
        ],
    ),
    Sample(
        "amazon 2014 as python",
        "Amazon reviews 2014 and 2018",
        {"reviews_Music.json": lines(repr(REVIEW_2014))},
        [
            Event(
                "A2SUAM1J3GNN3B",
                "0000013714",
                COMMENT,
                1252800000000,
                5.0,
                "Heavenly Highway Hymns. I bought this for my husband who plays the piano.",
            )
        ],
        [Item("0000013714", "")],
        "reviews_Music.json",
    ),
    Sample(
        "amazon 2018",
        "Amazon reviews 2014 and 2018",
        {
            "All_Beauty.json": objects(REVIEW_2018, {**REVIEW_2018, "overall": 1.0, "unixReviewTime": 1514764801}),
            "meta_All_Beauty.json": objects(
                {"asin": "B00006L9LC", "title": "Soap", "category": ["Skin", "Soap"], "description": []}
            ),
        },
        [
            Event("A3SGXH7AUHU8GW", "B00006L9LC", COMMENT, 1514764800000, 4.0, "Fine. Smells good"),
            Event("A3SGXH7AUHU8GW", "B00006L9LC", COMMENT, 1514764801000, 1.0, "Fine. Smells good"),
        ],
        [Item("B00006L9LC", "Soap", categories=("Skin", "Soap"))],
    ),
    Sample(
        "amazon 2023",
        "Amazon reviews 2023",
        {
            "All_Beauty.jsonl": objects(REVIEW_2023, {**REVIEW_2023, "rating": 3.0, "timestamp": 1588687728924}),
            "meta_All_Beauty.jsonl": objects(META_2023),
        },
        [
            Event(
                "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
                "B00YQ6X8E1",
                COMMENT,
                time,
                value,
                "Such a lovely scent. Not overpowering.",
            )
            for time, value in ((1588687728923, 5.0), (1588687728924, 3.0))
        ],
        [Item("B00YQ6X8E1", "Howard Spray", "Cleans and shines.", ("All Beauty", "Hair", "Sprays"))],
    ),
    Sample(
        "reviews.jsonl",
        "reviews.jsonl",
        {"reviews.jsonl": objects(FLAT, {**FLAT, "user_id": "AGQF", "rating": 2.0})},
        [
            Event("AFAI", "B000IMXUGG", COMMENT, 1165338257000, 4.0, "Good. It ran.", "Software"),
            Event("AGQF", "B000IMXUGG", COMMENT, 1165338257000, 2.0, "Good. It ran.", "Software"),
        ],
        [Item("B000IMXUGG", "Panda", categories=("Software", "Programs"))],
    ),
    Sample(
        "amazon ratings 2014",
        "Amazon ratings 2014",
        {
            "ratings_Beauty.csv": lines(
                "A39HTATAQ9V7YF,0205616461,5.0,1369699200", "A3JM6GV9MNOF9X,B00004TMFE,3.0,1355443200"
            )
        },
        rated(
            ("A39HTATAQ9V7YF", "0205616461", 5.0, 1369699200000), ("A3JM6GV9MNOF9X", "B00004TMFE", 3.0, 1355443200000)
        ),
    ),
    Sample(
        "amazon ratings 2018",
        "Amazon ratings 2018",
        {
            "All_Beauty.csv": lines(
                "0143026860,A1V6B6TNIC10QE,1.0,1424304000", "B00004TMFE,A2F5GHSXFQ0W6J,4.0,1418860800"
            )
        },
        rated(
            ("A1V6B6TNIC10QE", "0143026860", 1.0, 1424304000000), ("A2F5GHSXFQ0W6J", "B00004TMFE", 4.0, 1418860800000)
        ),
        None,
        "All_Beauty.csv",
    ),
    Sample(
        "amazon ratings 2023",
        "Amazon ratings 2023",
        {
            "All_Beauty.csv": lines(
                "user_id,parent_asin,rating,timestamp",
                "AGKHLEW2SOWHNMFQIJGBECAF7INQ,B00YQ6X8EO,5.0,1588687728923",
                "AGKASBHYZPGTEPO6LWZPVJWB2BVA,B081TJ8YS3,4.0,1588615855070",
            )
        },
        rated(
            ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 5.0, 1588687728923),
            ("AGKASBHYZPGTEPO6LWZPVJWB2BVA", "B081TJ8YS3", 4.0, 1588615855070),
        ),
        None,
        "All_Beauty.csv",
    ),
    Sample(
        "s3-rec",
        "S3-Rec or SASRec text",
        {
            "Toys.txt": lines("7 30 10 20", "8 10 30"),
            "Toys_item2attributes.json": json.dumps({"10": [3, 5], "20": [3], "30": []}).encode(),
        },
        [
            Event(user, item, CLICK, 1_388_534_400_000 + at * 60_000)
            for user, items in (("7", ("30", "10", "20")), ("8", ("10", "30")))
            for at, item in enumerate(items)
        ],
        [Item("10", "", categories=("3", "5")), Item("20", "", categories=("3",)), Item("30", "", categories=())],
    ),
    Sample(
        "sasrec",
        "S3-Rec or SASRec text",
        {"Toys.txt": lines("7 30", "7 10", "8 10", "8 30")},
        [
            Event(user, item, CLICK, 1_388_534_400_000 + at * 60_000)
            for user, items in (("7", ("30", "10")), ("8", ("10", "30")))
            for at, item in enumerate(items)
        ],
        [Item("10", ""), Item("30", "")],
        "Toys.txt",
    ),
    Sample(
        "messages",
        "freshet's messages",
        {
            "clicks.jsonl": objects(
                {"user": "ann", "item": "a", "time": 1_600_000_000_000, "scene": "home", "rank": 2}
            ),
            "ratings.csv": lines(
                "user,item,time,value,scene", "ann,b,1600000000001,4.5,", "bob,a,1600000000002.0,1,home"
            ),
            "comments.json": objects({"user": "bob", "item": "b", "time": 1_600_000_000_003, "text": "nice"}),
            "items.csv": lines("item,title,categories,available", "a,A,One|Two,true", "b,B,,false"),
        },
        [
            Event("ann", "a", CLICK, 1_600_000_000_000, NAN, "", "home"),
            *rated(("ann", "b", 4.5, 1_600_000_000_001)),
            Event("bob", "a", RATING, 1_600_000_000_002, 1.0, "", "home"),
            Event("bob", "b", COMMENT, 1_600_000_000_003, NAN, "nice"),
        ],
        [Item("a", "A", categories=("One", "Two")), Item("b", "B", available=False)],
    ),
)
