# SPDX-License-Identifier: Apache-2.0
"""The inside of a Hermes sandbox: PID 1, and the commands that move its state in and out.

Standard library only, so that it runs on the interpreter that Hermes has. Every module is
imported when it is needed: PID 1 stays in memory for as long as Hermes does.
"""
