"""The models that freshet's is compared with. Each is a models.interfaces.Model with a `family`; the library's where
there is one.

Every one is given the same number of tries (tuning.TRIES) on the validation part; the setting chosen is its ranker's `chosen`.
"""
