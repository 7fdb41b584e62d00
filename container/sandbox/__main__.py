# SPDX-License-Identifier: Apache-2.0
"""Entry point of `python -m sandbox` and of `python -I -S <image>/sandbox`."""

import os
import sys

if not __package__:  # run as a folder: make the folder that holds the package importable
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # As every other Python of the environment has it, by a file that -S leaves unread.
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "sqlite"))

from sandbox.cli import main

sys.exit(main(sys.argv[1:]))
