"""Made-up lines in the exact form of published data sets: SAMPLES has a function for each that writes its files into a folder."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final


def write(folder: Path, name: str, *lines: str) -> None:
    """Lines into a file; packed where the name ends with .gz."""
    text = "".join(line + "\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(text, mtime=0) if name.endswith(".gz") else text)


def yelp(folder: Path) -> None:
    write(
        folder,
        "yelp_academic_dataset_review.json",
        '{"review_id":"KU_O5udG6zpxOg","user_id":"mh_-eMZ6K5RLWh","business_id":"XQfwVwDr-v0ZS3","stars":3.0,"useful":0,'
        '"funny":0,"cool":0,"text":"If you decide to eat here, wait.\\n\\nLong.","date":"2018-07-07 22:09:11"}',
        '{"review_id":"BiTunyQ73aT9WB","user_id":"OyoGAe7OKpv6Sy","business_id":"7ATYjTIgM3jUlt","stars":5.0,"useful":1,'
        '"funny":0,"cool":1,"text":"Spin class \\ud83d\\udeb4","date":"2012-01-03 15:28:18"}',
    )
    write(
        folder,
        "yelp_academic_dataset_business.json",
        '{"business_id":"XQfwVwDr-v0ZS3","name":"Turning Point","address":"1 A St","city":"North Wales","state":"PA",'
        '"postal_code":"19454","latitude":40.2,"longitude":-75.2,"stars":3.0,"review_count":169,"is_open":1,'
        '"attributes":{"NoiseLevel":"u\'average\'"},"categories":"Restaurants, Breakfast & Brunch","hours":null}',
        '{"business_id":"7ATYjTIgM3jUlt","name":"Body Cycle","stars":5.0,"attributes":null,"categories":null,"hours":null}',
    )
    write(
        folder,
        "yelp_academic_dataset_tip.json",
        '{"user_id":"OyoGAe7OKpv6Sy","business_id":"XQfwVwDr-v0ZS3","text":"Avengers time.","date":"2012-05-18 02:17:21",'
        '"compliment_count":0}',
    )


def steam_reviews(folder: Path) -> None:
    write(
        folder,
        "steam_reviews.json.gz",
        "{u'username': u'Chaos S', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, "
        "u'date': u'2017-12-17', u'text': u'Not \"new\" \\u2665 \\ud83d\\ude00', u'early_access': False, u'page': 1}",
        "{u'username': u\"Ha'rat\", u'user_id': u'765611980', u'hours': 51.1, u'products': 769, u'product_id': u'328100', "
        "u'page_order': 0, u'date': u'2018-01-05', u'text': u'looks like facebook', u'early_access': True, u'page': 1, "
        "u'compensation': u'Product received for free'}",
        "{u'username': u'*', u'products': 3, u'product_id': u'328100', u'page_order': 1, u'date': u'2018-01-06', "
        "u'text': u'', u'early_access': False, u'page': 1}",
    )
    steam_games(folder)


def steam_games(folder: Path) -> None:
    write(
        folder,
        "steam_games.json.gz",
        "{u'publisher': u'K', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost Kitty', u'title': u'Lost Summoner Kitty', "
        "u'url': u'http://store.steampowered.com/app/725280/Lost/', u'release_date': u'2018-01-04', "
        "u'tags': [u'Strategy', u'Action'], u'specs': [u'Single-player'], u'price': 4.99, u'early_access': False, "
        "u'id': u'725280', u'developer': u'K'}",
        "{u'app_name': u'Arkham City', u'url': u'http://store.steampowered.com/app/200260', u'price': u'Free To Play'}",
        "{u'url': u'http://store.steampowered.com/', u'price': 19.99, u'early_access': False}",
    )


def steam_users(folder: Path) -> None:
    write(
        folder,
        "australian_user_reviews.json.gz",
        "{'user_id': '76561197970982479', 'user_url': 'http://steamcommunity.com/profiles/76561197970982479', 'reviews': ["
        "{'funny': '', 'posted': 'Posted November 5, 2011.', 'last_edited': '', 'item_id': '1250', 'helpful': 'No ratings yet', "
        "'recommend': True, 'review': \"Simple yet 'great'\"}, {'funny': '', 'posted': 'Posted June 24.', 'last_edited': '', "
        "'item_id': '22200', 'helpful': 'No ratings yet', 'recommend': False, 'review': 'no'}]}",
        "{'user_id': 'js41637', 'user_url': 'http://steamcommunity.com/id/js41637', 'reviews': []}",
    )
    steam_owned(folder)


def steam_owned(folder: Path) -> None:
    write(
        folder,
        "australian_users_items.json.gz",
        "{'user_id': '76561197970982479', 'items_count': 2, 'steam_id': '76561197970982479', 'user_url': "
        "'http://steamcommunity.com/profiles/76561197970982479', 'items': [{'item_id': '10', 'item_name': 'Counter-Strike', "
        "'playtime_forever': 6, 'playtime_2weeks': 0}, {'item_id': '1250', 'item_name': 'Killing Floor', "
        "'playtime_forever': 0, 'playtime_2weeks': 0}]}",
        "{'user_id': 'js41637', 'items_count': 0, 'steam_id': '76561198035864385', 'user_url': 'u', 'items': []}",
    )


def goodreads(folder: Path) -> None:
    write(
        folder,
        "goodreads_interactions_poetry.json.gz",
        '{"user_id": "8842281e", "book_id": "402128", "review_id": "r1", "is_read": true, "rating": 4, '
        '"review_text_incomplete": "", "date_added": "Fri Apr 19 08:15:15 -0700 2013", '
        '"date_updated": "Fri Apr 19 08:15:15 -0700 2013", "read_at": "", "started_at": ""}',
        '{"user_id": "8842281e", "book_id": "92270", "review_id": "r2", "is_read": false, "rating": 0, '
        '"review_text_incomplete": "", "date_added": "Mon Oct 17 00:00:00 +0530 2016", "date_updated": "", "read_at": "", '
        '"started_at": ""}',
        '{"user_id": "3ca7375d", "book_id": "402128", "review_id": "r3", "is_read": true, "rating": 5, '
        '"review_text_incomplete": "I have three", "date_added": "Thu Jan 01 00:00:01 +0000 2015", "date_updated": "", '
        '"read_at": "", "started_at": ""}',
    )
    write(
        folder,
        "goodreads_reviews_poetry.json.gz",
        '{"user_id": "3ca7375d", "book_id": "402128", "review_id": "r3", "rating": 5, "review_text": "I have three siblings.", '
        '"date_added": "Thu Jan 01 00:00:01 +0000 2015", "date_updated": "", "read_at": "", "started_at": "", "n_votes": 1, '
        '"n_comments": 0}',
    )
    goodreads_books(folder)


def goodreads_books(folder: Path) -> None:
    write(
        folder,
        "goodreads_books_poetry.json.gz",
        '{"isbn": "", "text_reviews_count": "2", "series": [], "country_code": "US", "popular_shelves": '
        '[{"count": "9", "name": "to-read"}, {"count": "3", "name": "poetry"}, {"count": "2", "name": "cats"}], '
        '"description": "Practical cats.", "book_id": "402128", "ratings_count": "3", "work_id": "372536", '
        '"title": "Old Possum\'s Book", "title_without_series": "Old Possum\'s Book"}',
    )


def goodreads_table(folder: Path) -> None:
    write(folder, "goodreads_interactions.csv", "user_id,book_id,is_read,rating,is_reviewed", "0,948,1,5,0", "0,947,0,0,0",
          "1,948,1,3,1")  # fmt: skip
    write(folder, "book_id_map.csv", "book_id_csv,book_id", "947,92270", "948,402128")
    goodreads_books(folder)


def mind(folder: Path) -> None:
    write(
        folder,
        "behaviors.tsv",
        "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0",
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-1 N58114-1",
        "3\tU13740\t11/10/2019 12:00:00 AM\tN55189 N42782\tN20678-0",
    )
    write(
        folder,
        "news.tsv",
        'N55689\tsports\tfootball_nfl\tCharles "Chuck" Rogers\tA fired fan.\thttps://assets.msn.com/labs/mind/A.html\t[]\t'
        '[{"Label": "NFL", "Type": "O"}]',
        "N55189\tnews\tnewsus\tThe Cost\t\thttps://assets.msn.com/labs/mind/B.html\t[]\t[]",
    )


def retailrocket(folder: Path) -> None:
    write(
        folder,
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid",
        "1433221332117,257597,view,355908,",
        "1433224214164,257597,addtocart,355908,",
        "1433222276276,599528,transaction,356475,4000",
    )
    properties = "timestamp,itemid,property,value"
    write(folder, "item_properties_part1.csv", properties, "1435460400000,355908,categoryid,1338",
          "1441508400000,355908,888,1116713 960601 n277.200")  # fmt: skip
    write(
        folder,
        "item_properties_part2.csv",
        properties,
        "1436065200000,355908,categoryid,1016",
        "1433041200000,7,790,n1.0",
    )
    write(folder, "category_tree.csv", "categoryid,parentid", "1016,213", "809,169", "213,")


def yoochoose(folder: Path) -> None:
    write(
        folder,
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0",
        "1,2014-04-07T10:54:09.868Z,214536500,S",
        "2,2014-04-07T13:56:37.614Z,214536502,11",
    )
    write(folder, "yoochoose-buys.dat", "2,2014-04-07T14:00:00.000Z,214536502,12462,1")


def diginetica(folder: Path) -> None:
    write(
        folder,
        "train-item-views.csv",
        "sessionId;userId;itemId;timeframe;eventdate",
        "1;NA;81766;526309;2016-05-09",
        "1;NA;31331;1031018;2016-05-09",
        "7;2053;32118;244541;2016-05-10",
    )
    write(folder, "train-purchases.csv", "sessionId;userId;timeframe;eventdate;ordernumber;itemId",
          "7;2053;300000;2016-05-10;16421;32118")  # fmt: skip
    write(folder, "product-categories.csv", "itemId;categoryId", "81766;1096", "32118;330")


def lastfm(folder: Path) -> None:
    write(
        folder,
        "userid-timestamp-artid-artname-traid-traname.tsv",
        "user_000001\t2009-05-04T23:08:57Z\tf1b1cf71-bd35-4e99-8624-24a6e15f133a\tDeep Dish\t\tMe Im Famous (Pacha)",
        'user_000001\t2009-05-04T13:54:10Z\t\t坂本 "龍一"\t\tComposition 0919 (Live_2009_4_15)',
        "user_000002\t2006-09-13T15:32:05Z\tf1b1cf71-bd35-4e99-8624-24a6e15f133a\tDeep Dish\t2c32ff2a\tFlashdance",
    )


def kuairec(folder: Path) -> None:
    header = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio"
    write(
        folder,
        "big_matrix.csv",
        header,
        "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273396521579093",
        "0,9598,13665,10984,2020-07-05 00:13:41.297,20200705.0,1593879221.297,3.5",
    )
    write(folder, "small_matrix.csv", header, "14,148,4381,6067,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.722",
          "14,183,11635,6100,,,,1.907")  # fmt: skip
    write(folder, "item_categories.csv", "video_id,feat", "0,[8]", '148,"[27, 9]"', "3649,[11]")
    write(
        folder,
        "kuairec_caption_category.csv",
        "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
        "second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name",
        '148,UNKNOWN,"精神小伙路难走 , 程哥你狗粮慢点撒",[],8,颜值,673,颜值随拍,-124,UNKNOWN',
        "3649,封面,,[],27,高新数码,-124,UNKNOWN,-124,UNKNOWN",
        "0,UNKNOWN,first line",
        "second line,[],9,喜剧,727,搞笑互动,-124,UNKNOWN",
    )


def recbole(folder: Path) -> None:
    write(
        folder,
        "ml-100k.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "196\t242\t3\t881250949",
        "186\t302\t4.5\t891717742.0",
        "196\t302\t1\t881250950",
    )
    write(
        folder,
        "ml-100k.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        "242\tKolya\t1996\tComedy",
        "302\tL.A. Confidential\t1997\tCrime Film-Noir",
    )


def recbole_sessions(folder: Path) -> None:
    write(folder, "diginetica.inter", "session_id:token\titem_id:token\ttimestamp:float\tnumber_of_times:float",
          "1\t9654\t1462752000000\t1", "1\t33043\t1462752001500\t1")  # fmt: skip


SAMPLES: Final[dict[str, Callable[[Path], None]]] = {
    "yelp": yelp,
    "steam reviews": steam_reviews,
    "steam users": steam_users,
    "steam owned": steam_owned,
    "goodreads": goodreads,
    "goodreads table": goodreads_table,
    "mind": mind,
    "retailrocket": retailrocket,
    "yoochoose": yoochoose,
    "diginetica": diginetica,
    "lastfm": lastfm,
    "kuairec": kuairec,
    "recbole": recbole,
    "recbole sessions": recbole_sessions,
}
