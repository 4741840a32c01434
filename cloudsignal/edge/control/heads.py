"""The list of heads: the control plane's signed list of each organization's newest bundle."""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloudsignal.edge.control.revisions import RevisionWatermarks
from cloudsignal.wire.bundle import Bundle
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.heads import AGE_MAX, Heads, open_heads

FLOOR = "heads"
"""The name the newest list seen is kept under, beside the revisions of organizations and identities."""


class KnownHeads:
    """The newest list seen. One that is older than any this node has ever seen is refused, restarts included."""

    def __init__(self, watermarks: RevisionWatermarks, verify_key: Ed25519PublicKey) -> None:
        self._floors = watermarks
        self._verify_key = verify_key
        self._heads: Heads | None = None

    def take(self, blob: bytes) -> Heads:
        """Verify a list and keep it; returns it. Raises :class:`WireError` for a bad one and for an older one."""
        heads = open_heads(blob, self._verify_key)
        floor = self._floors.get(FLOOR)
        if heads.revision < floor:
            raise WireError(f"the list of heads is {(floor - heads.revision) / 1000:.0f} s older than one seen before")
        self._floors.note(FLOOR, heads.revision)
        self._heads = heads
        return heads

    def objection(self, bundle: Bundle, *, seen: bool) -> str:
        """Why ``bundle`` cannot be the newest, in one sentence; empty when it can.

        Of an organization that this node has seen before, the list only rules out. Of another it must vouch: it must
        be there, and have been signed lately.
        """
        objection = self._heads.objection(bundle) if self._heads is not None else ""
        return objection or ("" if seen else self._too_old())

    @property
    def vouches(self) -> bool:
        """Whether the list is there and was signed lately."""
        return not self._too_old()

    def _too_old(self) -> str:
        if self._heads is None:
            return "the control plane's list of newest bundles is not there to say that it is the newest"
        age = time.time() - self._heads.signed_at
        if age <= AGE_MAX:
            return ""
        return f"the control plane's list of newest bundles is {age:.0f} s old, and after {AGE_MAX} it says nothing"
