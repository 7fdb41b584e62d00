# SPDX-License-Identifier: Apache-2.0
"""An image laid out as upstream's, for machines that reach no registry that has it."""
