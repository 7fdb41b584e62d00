# SPDX-License-Identifier: Apache-2.0
"""PID 1: starts Hermes and its dashboard, restarts them, reaps, and ends with Hermes."""
