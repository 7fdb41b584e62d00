# SPDX-License-Identifier: Apache-2.0
"""Hermes' state: written as an archive, read from one, and put in the home's place."""
