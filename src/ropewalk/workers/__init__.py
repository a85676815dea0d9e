"""A search's scoring on the workers of a Ray cluster, each of which holds the model once.

`worker.py` is what a worker does and knows no cluster; `pool.py` hands out the work and deals with what goes wrong;
`crew.py` has the workers themselves, `cluster.py` the cluster. Needs the extra `ray`; nothing outside imports it unless
workers are asked for.
"""

from ropewalk.workers.worker import ModelSource, Worker

__all__ = ["ModelSource", "Worker"]
