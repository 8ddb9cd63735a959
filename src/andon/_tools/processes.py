"""Processes that this one starts."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

__all__ = ["end_with_parent"]


def end_with_parent(*, group: bool = False) -> None:
    """Has this child process end at once when the process that started it is gone, however that ended: it may wait for
    it for ever otherwise. A thread of its own watches; nothing happens in a process that is no child.

    Args:
        group: kill this process's group with it, which must not be the parent's.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        if group and hasattr(os, "killpg"):
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="andon-parent", daemon=True).start()
