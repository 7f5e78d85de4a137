"""Faust with batch-native sources: whole lists of raw records go from aiokafka to one agent as micro-batches.

Faust still provides the app, agent, table, assignment, rebalance, recovery, standbys, the commit timer and the
shutdown. For the source topics only, freshet's own consumer hands over micro-batches, keeps the offsets to commit, and
guards a heartbeat lease. Apart from stream.process.supervision, this is the only package that uses private names of
Faust, mode and aiokafka (docs/decisions/0002).
"""
