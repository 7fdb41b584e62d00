# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what the tests cannot reach. Each is small and as strict as the real thing."""
