# SPDX-License-Identifier: Apache-2.0
"""The declared agent: what the inventory says of Hermes itself, laid into its home, and what became of it there."""
