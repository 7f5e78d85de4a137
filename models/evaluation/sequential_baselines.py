"""SASRec and GRU4Rec in the same harness: same loss, same data, same early stopping, and ids only, as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.training.sequential.network_model import NetworkModel

IDS_ONLY = {"item_text": False, "features": ()}


def sasrec(preset: str = "auto", fit: Mapping[str, Any] | None = None) -> NetworkModel:
    """Make SASRec with full cross-entropy: two blocks of causal attention over the last 50 events.

    W.-C. Kang and J. McAuley, ICDM 2018; A. Klenitskiy and A. Vasilev, RecSys 2023. `fit` holds fields of FitSettings
    that override the preset's.
    """
    network = {"kind": "attention", "blocks": 2, "window": 50, **IDS_ONLY}
    return NetworkModel("sasrec", preset, network, {"length": 50, **(fit or {})})


def gru4rec(preset: str = "auto", fit: Mapping[str, Any] | None = None) -> NetworkModel:
    """Make GRU4Rec with full cross-entropy: one GRU, no residual path, no feed-forward.

    B. Hidasi, A. Karatzoglou, CIKM 2018.
    """
    network = {"kind": "gru", "blocks": 1, "residual": False, "feed": False, **IDS_ONLY}
    return NetworkModel("gru4rec", preset, network, fit)
