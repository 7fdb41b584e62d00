# SPDX-License-Identifier: Apache-2.0
"""A package, so that what lies in it has its full name: one folder here is called as an SDK that is tested against."""
