# SPDX-License-Identifier: Apache-2.0
"""What runs on Hermes' own interpreter, with its packages: `start-hermes.sh` starts it by its path."""
