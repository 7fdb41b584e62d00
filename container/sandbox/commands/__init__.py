# SPDX-License-Identifier: Apache-2.0
"""Commands that steer Hermes or look at it, run beside PID 1."""
