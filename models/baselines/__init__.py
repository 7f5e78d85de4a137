"""The models that freshet's is compared with. Each is a models.interfaces.Model with a `family`.

Where a library has the model, it is the library's. Every model gets the same number of tries (tuning.TRIES) on the
validation part. The setting chosen is its ranker's `chosen`.
"""
