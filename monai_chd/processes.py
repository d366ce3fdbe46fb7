"""What every process that works beside the one that started it has to do.

Which work is shared out among processes, and how many there are, is decided by those who start them.
"""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process when the one that started it is gone, even killed, which leaves it no chance to say so.

    Otherwise it would keep its memory for ever, and the work in hand would go on beside that of the same command run again.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
