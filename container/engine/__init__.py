# SPDX-License-Identifier: Apache-2.0
"""The process engine: one sandbox as local processes, with the semantics of a container.

It serves HTTP on a unix socket. The disk is fresh at every start, nothing is kept unless a
snapshot is asked for, and `destroy` is immediate.
"""
