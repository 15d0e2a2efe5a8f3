#!/usr/bin/env python3
"""Django's command line for Djinn."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command. What nobody expected is told in a sentence; its traceback is in the log, or here in debug."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djinn.settings")
    from djinn.core.installation.mishap import told

    with told():
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
