"""What the conformance, fuzz and load tests stand on: an exact client, the two servers, and the stage of a case.

Nothing here uses the edge's own codec: a fault in it must not be able to hide itself.
"""
