"""What the control plane wants, as far as it could be verified: bundles of organizations and credential records.

Redis is a mailbox, not an authority. A bundle counts when its signature verifies, it names the organization it was
looked up for and its revision is not older than one seen before; verified bundles are kept on disk, still signed, so
that an edge that starts without Redis enforces what it enforced before.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from acl.policy import CompiledPolicy, compile_policy, from_canonical
from audit.kinds import POLICY_APPLIED, POLICY_REFUSED
from cloudsignal.edge.floors import Floors
from cloudsignal.edge.mount import Mount
from cloudsignal.edge.organization import Force, Organization
from cloudsignal.edge.signin import ORGANIZATION
from cloudsignal.edge.store import Store, UnavailableError
from cloudsignal.edge.trail import Trail, make_event
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Bundle, open_bundle
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.credential import Credential, open_credential
from cloudsignal.wire.report import BundleReport

logger = logging.getLogger("cloudsignal.edge.snapshot")

CREDENTIALS_MAX = 20_000
"""Verified credential records kept in memory; the change stream keeps them fresh."""

POLICIES_MAX = 64
"""Compiled policies kept by digest, so that a change that leaves the policy alone compiles nothing."""


class Snapshot:
    """Everything believed, by organization."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        node: str,
        folder: Path,
        verify_key: Ed25519PublicKey,
        pepper: bytes,
        changed: Callable[[Organization], None],
        report: Callable[[BundleReport], None],
    ) -> None:
        self.organizations: dict[str, Organization] = {}
        self._store = store
        self._trail = trail
        self._node = node
        self._folder = folder / "bundles"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.floors = Floors(folder / "revisions")
        self._verify_key = verify_key
        self._pepper = pepper
        self._changed = changed
        self._tell = report
        self._credentials: OrderedDict[tuple[str, str], Credential] = OrderedDict()
        self._policies: OrderedDict[str, CompiledPolicy] = OrderedDict()
        self._refused: dict[str, bytes] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    # --- bundles -------------------------------------------------------------------------------------------------

    async def load_disk(self) -> None:
        """Enforce what was enforced before the last stop."""
        for path in sorted(self._folder.glob("org_*")):
            if ORGANIZATION.fullmatch(path.name):
                await self.apply(path.name, path.read_bytes(), from_disk=True)

    async def fetch_bundles(self, orgs: Iterable[str]) -> None:
        """Read these bundles from Redis and take over what is newer. Raises :class:`UnavailableError`."""
        names = [org for org in orgs if ORGANIZATION.fullmatch(org)]
        if not names:
            return
        blobs = await self._store.call(*(("HGET", keys.bundle(org), keys.FIELD) for org in names))
        for org, blob in zip(names, blobs, strict=True):
            if isinstance(blob, bytes):
                await self.apply(org, blob)

    async def apply(self, org: str, blob: bytes, *, from_disk: bool = False) -> None:
        """Verify, compile, swap, report. Whatever is wrong leaves the bundle in force untouched."""
        await asyncio.sleep(0)  # bundles come by the thousand, and clients must not wait for all to be verified
        async with self._locks.setdefault(org, asyncio.Lock()):
            try:
                bundle = open_bundle(blob, self._verify_key, org=org)
                known = self.organizations.get(org)
                floor = max(self.floors.get(org), known.force.revision if known else 0)
                if bundle.revision < floor:
                    self._refuse(org, blob, f"revision {bundle.revision} is older than {floor}", bundle)
                    return
                if known is not None and bundle.revision == known.force.revision:
                    return
                policy = await self._compile(bundle)
            except WireError as error:
                self._refuse(org, blob, str(error), None)
                return
            if not from_disk:
                self._write(org, blob)
            self._swap(bundle, policy)

    async def _compile(self, bundle: Bundle) -> CompiledPolicy:
        policy = self._policies.get(bundle.digest)
        if policy is None:
            policy = await asyncio.get_running_loop().run_in_executor(None, read_policy, bundle)
            self._policies[bundle.digest] = policy
            if len(self._policies) > POLICIES_MAX:
                self._policies.popitem(last=False)
        return policy

    def _swap(self, bundle: Bundle, policy: CompiledPolicy) -> None:
        force = Force(
            revision=bundle.revision,
            digest=bundle.digest,
            policy=policy,
            quotas=bundle.quotas,
            suspended=bundle.status == "suspended",
            issued_at=bundle.issued_at,
        )
        org = self.organizations.get(bundle.org)
        if org is None:
            org = self.organizations[bundle.org] = Organization(bundle.org, Mount.of(bundle.org), force)
        else:
            org.force = force
        self.floors.note(bundle.org, bundle.revision)
        self._refused.pop(bundle.org, None)
        at = time.time()
        self._trail.record(
            make_event(
                POLICY_APPLIED,
                org=bundle.org,
                node=self._node,
                policy_digest=bundle.digest,
                details={"revision": bundle.revision, "seconds_since_commit": round(at - bundle.issued_at, 3)},
            )
        )
        self._report(bundle.org, bundle, at, "")
        self._changed(org)

    def _refuse(self, org: str, blob: bytes, reason: str, bundle: Bundle | None) -> None:
        """Report a record that was not believed, once per content."""
        seen = hashlib.sha256(blob).digest()
        if self._refused.get(org) == seen:
            return
        self._refused[org] = seen
        logger.warning("bundle of %s refused: %s", org, reason)
        owner = org if bundle is not None or org in self.organizations else ""
        self._trail.record(make_event(POLICY_REFUSED, org=owner, node=self._node, reason=reason))
        self._report(org, bundle, time.time(), reason)

    def _report(self, org: str, bundle: Bundle | None, at: float, reason: str) -> None:
        self._tell(
            BundleReport(
                node=self._node,
                org=org,
                revision=bundle.revision if bundle else 0,
                digest=bundle.digest if bundle else "",
                deployment=bundle.deployment if bundle else "",
                status="refused" if reason else "enforcing",
                reason=reason,
                at=at,
            )
        )

    def _write(self, org: str, blob: bytes) -> None:
        temporary = self._folder / f".{org}.new"
        try:
            temporary.write_bytes(blob)
            os.replace(temporary, self._folder / org)
        except OSError:
            logger.exception("a verified bundle could not be kept on disk")

    # --- credentials ---------------------------------------------------------------------------------------------

    def known_credential(self, org: str, username: str) -> Credential | None:
        """A record verified earlier, if it is still in memory and the organization's bundle is here."""
        if org not in self.organizations:
            return None
        found = self._credentials.get((org, username))
        if found is not None:
            self._credentials.move_to_end((org, username))
        return found

    async def credential(self, org: str, username: str) -> Credential | None:
        """The record of one name from Redis, in one round trip with the bundle, should that be missing here.

        Raises :class:`UnavailableError` when Redis is away.
        """
        blob, bundle = await self._store.call(
            ("HGET", keys.credential(org, username), keys.FIELD), ("HGET", keys.bundle(org), keys.FIELD)
        )
        if org not in self.organizations and isinstance(bundle, bytes):
            await self.apply(org, bundle)
        return self._take(org, username, blob)

    async def fetch_credentials(self, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Credential]:
        """Read these records anew; returns those that verify."""
        wanted = list(names)
        if not wanted:
            return {}
        blobs = await self._store.call(*(("HGET", keys.credential(org, name), keys.FIELD) for org, name in wanted))
        found: dict[tuple[str, str], Credential] = {}
        for (org, name), blob in zip(wanted, blobs, strict=True):
            record = self._take(org, name, blob)
            if record is not None:
                found[org, name] = record
        return found

    def forget_credentials(self) -> None:
        """Drop every record from memory: changes may have been missed."""
        self._credentials.clear()

    def _take(self, org: str, username: str, blob: object) -> Credential | None:
        name = f"{org}/{username}"
        self._credentials.pop((org, username), None)
        if not isinstance(blob, bytes):
            return None
        try:
            record = open_credential(blob, self._pepper, org=org, username=username)
        except WireError as error:
            self._refuse_credential(org, username, str(error))
            return None
        if record.revision < self.floors.get(name):
            self._refuse_credential(org, username, f"revision {record.revision} is older than one seen before")
            return None
        self.floors.note(name, record.revision)
        self._credentials[org, username] = record
        if len(self._credentials) > CREDENTIALS_MAX:
            self._credentials.popitem(last=False)
        return record

    def _refuse_credential(self, org: str, username: str, reason: str) -> None:
        owner = org if org in self.organizations else ""
        event = make_event(POLICY_REFUSED, org=owner, node=self._node, username=username, reason=reason)
        self._trail.fold(("credential", org, username, reason), event)


def read_policy(bundle: Bundle) -> CompiledPolicy:
    """Compile a bundle's policy; raises :class:`WireError` when it is not canonical or not what its digest says.

    The control plane has parsed what it signed: reading its own canonical form is several times faster. Whatever that
    form cannot express, or the compiler cannot take, is refused like any other fault of a record.
    """
    if f"sha256:{hashlib.sha256(bundle.policy).hexdigest()}" != bundle.digest:
        raise WireError("the policy of the bundle is not what its digest says")
    try:
        return compile_policy(from_canonical(bundle.policy))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WireError("the policy of the bundle cannot be read") from error


__all__ = ["Snapshot", "UnavailableError"]
