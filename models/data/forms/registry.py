"""List every known form explicitly.

A form that is recognised only by what its lines look like (GENERAL) gives way to any other form that fits, because file
names and fields say more. If two other forms fit, the data are refused and the error names both.
"""

from __future__ import annotations

from typing import Final

from models.data.form import Form
from models.data.forms import (
    amazon_ratings,
    capture,
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
    *capture.FORMS,
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
