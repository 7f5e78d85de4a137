"""Every form that is known, in one explicit list.

A form that goes by the look of its lines alone (GENERAL) gives way to any other that fits: file names and fields say more. Where
two others fit, the data are refused and both are named.
"""

from __future__ import annotations

from typing import Final

from models.data.form import Form
from models.data.forms import (
    amazon_ratings,
    goodreads,
    kuairec,
    lastfm,
    messages,
    mind,
    movielens,
    movielens_text,
    recbole,
    reviews,
    sequences,
    shops,
    steam,
    yelp,
)

FORMS: Final[tuple[Form, ...]] = (
    *movielens.FORMS,
    *movielens_text.FORMS,
    *reviews.FORMS,
    *amazon_ratings.FORMS,
    *messages.FORMS,
    *goodreads.FORMS,
    *kuairec.FORMS,
    *lastfm.FORMS,
    *mind.FORMS,
    *recbole.FORMS,
    *shops.FORMS,
    *steam.FORMS,
    *yelp.FORMS,
    *sequences.FORMS,
)
GENERAL: Final = frozenset(form.name for form in sequences.FORMS)
