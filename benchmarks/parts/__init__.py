# SPDX-License-Identifier: Apache-2.0
"""The parts of the benchmark; each has `measure() -> list[Figure]`."""
