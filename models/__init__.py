"""Data sets, the interest network, its training and its evaluation (torch).

Importing this sets OMP_WAIT_POLICY=PASSIVE unless it is set, which must happen before torch is loaded: threads that spin
while they wait make an epoch three times slower as soon as anything else wants a core (ml-latest-small on 2 busy
cores: 24 to 28 s an epoch against 80), and gain nothing on idle ones.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
