"""Data sets, the interest network, its training and its evaluation (torch).

Importing this package sets OMP_WAIT_POLICY=PASSIVE unless it is already set. That must happen before torch is loaded.
Threads that spin while they wait make an epoch three times slower as soon as anything else needs a core
(ml-latest-small on 2 busy cores: 24 to 28 s per epoch against 80). On idle cores spinning gains nothing.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
