"""Computes states and slates again: a user's events go through the bundle's ONNX graphs in the recorded order, one at a time.

On a processor like the worker's, h and c must have the same bits as in the record. A slate's items must be the best ones, except
among scores closer than NEAR. From the hot path it uses only the sessions (stream.inference.models,
stream.inference.text_encoder) and the definition of the step's input (stream.core.features). Which items were live, and what a
user had seen, is determined here.

This is expensive, so only a sample of users is checked: those whose keys have the lowest hashes.

    events         what a step reads of one event
    items          which items were live at an offset of the items topic
    epochs         the tables of the epochs that slates name
    sample         the records of the sampled users
    context        what both checks below use
    states         states computed again
    slates         slates scored again
    recomputation  all of it, in order
"""

from deploy.verify.recompute.recomputation import Recomputation

__all__ = ["Recomputation"]
