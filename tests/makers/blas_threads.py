"""What a worker process says of its libraries; alone, so that asking loads no library that the work itself does not."""

from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_info


def most_threads(_: object = None) -> int:
    """Threads of the library of linear algebra that has most."""
    return max(int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas")


def threads_beside(_work: Callable[..., Any], job: object = None) -> int:
    """The same where the libraries of some work are loaded."""
    return most_threads(job)
