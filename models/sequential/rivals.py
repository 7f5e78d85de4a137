"""SASRec and GRU4Rec in the same harness: same loss, same data, same early stopping, ids only as published."""

from __future__ import annotations

from models.sequential.network_model import NetworkModel

IDS_ONLY = {"item_text": False, "features": ()}


def sasrec(preset: str = "auto") -> NetworkModel:
    """W.-C. Kang and J. McAuley, ICDM 2018, with full cross-entropy (A. Klenitskiy and A. Vasilev, RecSys 2023): two blocks of
    causal attention over the last 50 events."""
    return NetworkModel("sasrec", preset, {"kind": "attention", "blocks": 2, "window": 50, **IDS_ONLY}, {"length": 50})


def gru4rec(preset: str = "auto") -> NetworkModel:
    """B. Hidasi and A. Karatzoglou, CIKM 2018, with full cross-entropy: one GRU, no residual path, no feed-forward."""
    return NetworkModel("gru4rec", preset, {"kind": "gru", "blocks": 1, "residual": False, "feed": False, **IDS_ONLY})
