"""Verified desired state of the control plane: bundles of organizations, and credential records.

Redis is a mailbox, not an authority. A bundle counts when its signature verifies, it names the organization it was
looked up for and its revision is neither older than one seen before nor than the signed list of heads says; verified
bundles are kept on disk, still signed, so
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
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from acl.policy import CompiledPolicy, compile_policy, from_canonical
from audit.kinds import POLICY_APPLIED, POLICY_REFUSED
from cloudsignal.edge.audit.events import AuditSink, make_event
from cloudsignal.edge.control.heads import KnownHeads
from cloudsignal.edge.control.revisions import RevisionWatermarks
from cloudsignal.edge.redis import Command, Store, UnavailableError
from cloudsignal.edge.session.mountpoint import ORGANIZATION, Mount
from cloudsignal.edge.session.organization import ActivePolicy, Organization
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Bundle, open_bundle
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.credential import Credential, open_credential
from cloudsignal.wire.heads import EVERY
from cloudsignal.wire.report import BundleReport

logger = logging.getLogger("cloudsignal.edge.control.desired_state")

CREDENTIALS_MAX = 20_000
"""Verified credential records kept in memory; the change stream keeps them fresh."""

HEADS_CHUNK = 200
"""Bundles fetched together because the list of heads names newer ones."""

POLICIES_MAX = 64
"""Compiled policies kept by digest, so that a change that leaves the policy alone compiles nothing."""


class DesiredState:
    """The verified desired state, by organization."""

    def __init__(
        self,
        *,
        store: Store,
        sink: AuditSink,
        node: str,
        folder: Path,
        verify_key: Ed25519PublicKey,
        pepper: bytes,
        levels: int,
        changed: Callable[[Organization], None],
        report: Callable[[BundleReport], None],
    ) -> None:
        self.organizations: dict[str, Organization] = {}
        self._store = store
        self._sink = sink
        self._node = node
        self._folder = folder / "bundles"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.watermarks = RevisionWatermarks(folder / "revisions")
        self.heads = KnownHeads(self.watermarks, verify_key)
        self._verify_key = verify_key
        self._pepper = pepper
        self._levels = levels
        """Levels of a client's topics, at most."""
        self._changed = changed
        self._tell = report
        self._credentials: OrderedDict[tuple[str, str], Credential] = OrderedDict()
        self._policies: OrderedDict[str, CompiledPolicy] = OrderedDict()
        self._refused: dict[str, bytes] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    # --- bundles -------------------------------------------------------------------------------------------------

    async def load_disk(self) -> None:
        """Load and enforce the bundles kept on disk."""
        for path in sorted(self._folder.glob("org_*")):
            if ORGANIZATION.fullmatch(path.name):
                await self.apply(path.name, path.read_bytes(), from_disk=True)

    async def fetch_bundles(self, orgs: Iterable[str]) -> None:
        """Read these bundles from Redis and take over what is newer. Raises :class:`UnavailableError`."""
        names = [org for org in orgs if ORGANIZATION.fullmatch(org)]
        if not names:
            return
        if not self.heads.vouches:
            await self.fetch_heads()
        blobs = await self._read(*(("HGET", keys.bundle(org), keys.FIELD) for org in names))
        for org, blob in zip(names, blobs, strict=True):
            if isinstance(blob, bytes):
                await self.apply(org, blob)

    async def fetch_heads(self) -> list[str]:
        """Read the list of heads; returns the organizations with a newer bundle than the active one.

        Raises :class:`UnavailableError`.
        """
        blob = (await self._read(("GET", keys.HEADS)))[0]
        if not isinstance(blob, bytes):
            return []
        try:
            heads = self.heads.take(blob)
        except WireError as error:
            self._refuse_heads(blob, str(error))
            return []
        self._refused.pop(keys.HEADS, None)
        return [org for org, (revision, _) in heads.orgs.items() if self._revision(org) < revision]

    async def watch_heads(self) -> None:
        """Follow the list of heads until canceled; what it names and was missed is fetched."""
        while True:
            await asyncio.sleep(EVERY if self.heads.vouches else 1.0)
            try:
                behind = await self.fetch_heads()
                for start in range(0, len(behind), HEADS_CHUNK):
                    await self.fetch_bundles(behind[start : start + HEADS_CHUNK])
            except UnavailableError:
                continue

    def _revision(self, org: str) -> int:
        known = self.organizations.get(org)
        return known.active.revision if known is not None else 0

    async def _read(self, *commands: Command) -> list[object]:
        """Replies; None for a key that somebody has made something else of, so that it hides no other."""
        asked = [self._store.ask(command) for command in commands]
        await asyncio.wait(asked)
        return [_reply(future) for future in asked]

    async def apply(self, org: str, blob: bytes, *, from_disk: bool = False) -> None:
        """Verify and compile a bundle, make it active and report it. A bad bundle leaves the active one untouched."""
        await asyncio.sleep(0)  # bundles come by the thousand, and clients must not wait for all to be verified
        async with self._locks.setdefault(org, asyncio.Lock()):
            try:
                bundle = open_bundle(blob, self._verify_key, org=org)
                known = self.organizations.get(org)
                floor = max(self.watermarks.get(org), known.active.revision if known else 0)
                if bundle.revision < floor:
                    self._refuse(org, blob, f"revision {bundle.revision} is older than {floor}", bundle)
                    return
                if known is not None and bundle.revision == known.active.revision:
                    return
                if bundle.status == "deleted":
                    self._forget(bundle, known)
                    return
                objection = "" if from_disk else self.heads.objection(bundle, seen=floor > 0)
                if objection:
                    self._refuse(org, blob, objection, bundle)
                    return
                policy = await self._compile(bundle)
            except WireError as error:
                self._refuse(org, blob, str(error), None)
                return
            if not from_disk:
                self._write(org, blob)
            self._swap(bundle, policy)

    def _forget(self, bundle: Bundle, known: Organization | None) -> None:
        """Handle the deletion of an organization: end its sessions, drop everything but its revision."""
        if known is None and self.watermarks.get(bundle.org) == bundle.revision:
            return
        self.organizations.pop(bundle.org, None)
        for name in [name for name in self._credentials if name[0] == bundle.org]:
            del self._credentials[name]
        self._refused.pop(bundle.org, None)
        (self._folder / bundle.org).unlink(missing_ok=True)
        self.watermarks.forget(bundle.org)
        self.watermarks.note(bundle.org, bundle.revision)
        if known is not None:
            self._policies.pop(known.active.digest, None)
            known.active = replace(known.active, revision=bundle.revision, suspended=True)
            self._changed(known)

    async def _compile(self, bundle: Bundle) -> CompiledPolicy:
        policy = self._policies.get(bundle.digest)
        if policy is None:
            policy = await asyncio.get_running_loop().run_in_executor(None, read_policy, bundle)
            self._policies[bundle.digest] = policy
            if len(self._policies) > POLICIES_MAX:
                self._policies.popitem(last=False)
        return policy

    def _swap(self, bundle: Bundle, policy: CompiledPolicy) -> None:
        active = ActivePolicy(
            revision=bundle.revision,
            digest=bundle.digest,
            policy=policy,
            quotas=bundle.quotas,
            suspended=bundle.status == "suspended",
            issued_at=bundle.issued_at,
            refuse_while_split=bundle.publish_while_split == "refuse",
        )
        org = self.organizations.get(bundle.org)
        if org is None:
            org = self.organizations[bundle.org] = Organization(bundle.org, Mount.of(bundle.org, self._levels), active)
        else:
            org.active = active
        self.watermarks.note(bundle.org, bundle.revision)
        self._refused.pop(bundle.org, None)
        at = time.time()
        self._sink.record(
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
        """Report a record that could not be verified, once per content."""
        seen = hashlib.sha256(blob).digest()
        if self._refused.get(org) == seen:
            return
        self._refused[org] = seen
        logger.warning("bundle of %s refused: %s", org, reason)
        owner = org if bundle is not None or org in self.organizations else ""
        self._sink.record(make_event(POLICY_REFUSED, org=owner, node=self._node, reason=reason))
        self._report(org, bundle, time.time(), reason)

    def _refuse_heads(self, blob: bytes, reason: str) -> None:
        seen = hashlib.sha256(blob).digest()
        if self._refused.get(keys.HEADS) != seen:
            self._refused[keys.HEADS] = seen
            logger.warning("list of heads refused: %s", reason)
            self._sink.record(make_event(POLICY_REFUSED, node=self._node, reason=reason))

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

        Raises :class:`UnavailableError` when Redis is unavailable.
        """
        blob, bundle = await self._read(
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
        blobs = await self._read(*(("HGET", keys.credential(org, name), keys.FIELD) for org, name in wanted))
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
        if record.revision < self.watermarks.get(name):
            self._refuse_credential(org, username, f"revision {record.revision} is older than one seen before")
            return None
        self.watermarks.note(name, record.revision)
        self._credentials[org, username] = record
        if len(self._credentials) > CREDENTIALS_MAX:
            self._credentials.popitem(last=False)
        return record

    def _refuse_credential(self, org: str, username: str, reason: str) -> None:
        owner = org if org in self.organizations else ""
        event = make_event(POLICY_REFUSED, org=owner, node=self._node, username=username, reason=reason)
        self._sink.fold(("credential", org, username, reason), event)


def _reply(future: asyncio.Future[Any]) -> object:
    error = future.exception()
    if error is None:
        return future.result()
    if "WRONGTYPE" in str(error):
        return None
    raise error


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


__all__ = ["DesiredState", "UnavailableError"]
