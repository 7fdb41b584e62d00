# SPDX-License-Identifier: Apache-2.0
"""Entry point of `python -m sandbox` and of `python -I -S <image>/sandbox`."""

import os
import sys

if not __package__:  # run as a folder: make the folder that holds the package importable
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from sandbox.cli import main

sys.exit(main(sys.argv[1:]))
