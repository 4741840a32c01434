"""The wire format: records that the control plane and the edge exchange through Redis.

Plain dataclasses with one codec. No Django and no I/O: the edge and the web application import the same
module, so the two cannot drift. ``docs/wire.md`` describes every record; each carries a version ``v``.
"""
