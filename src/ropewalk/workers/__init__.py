"""A search's scoring on the workers of a Ray cluster, each of which holds the model once.

`worker.py` is what a worker does and knows no cluster; `pool.py` hands out the work and deals with what goes wrong;
`crew.py` has the workers themselves, `cluster.py` the cluster. Needs the extra `ray`; nothing outside imports it unless
workers are asked for.
"""

import os
import sys

# Ray reads this once, when it is imported: later it would start without a token, and not be able to join one with it.
NO_TOKEN = "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token"
os.environ.setdefault("RAY_AUTH_MODE", "token")  # a cluster without one is joined by saying so

from ropewalk.workers.worker import ModelSource, Worker  # noqa: E402

__all__ = ["ModelSource", "Worker"]
