"""`python3 -m djinn_runtime EXECUTION_DIRECTORY`."""

from __future__ import annotations

import contextlib
import os
import sys

from .supervisor import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    with contextlib.suppress(OSError):  # as where it is written
        sys.stderr.flush()
    os._exit(code)  # not sys.exit: the work's thread may be stuck, and nothing may delay the end any more
