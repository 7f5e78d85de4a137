"""Other stream processors in freshet's place, and a verdict on what they hold after kills. Their settings are the documented
ones; docs/benchmarks.md names them.

    setup   what an agent is given, plain enough for an environment of its own
    stock   a Faust agent with a table
    quix    a Quix Streams application with state (.rivals, `make rivals`)
    verdict states and outputs against what was sent
"""
