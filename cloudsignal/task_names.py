"""The names of Celery tasks, shared by outbox rows, the schedule and the workers. Pure Python.

They stand in rows and messages that outlive a release, so a name does not change with the module of its task.
"""

from __future__ import annotations

from typing import Final

SWEEP_OUTBOX: Final = "cloudsignal.tasks.sweep_outbox"
RECONCILE: Final = "cloudsignal.tasks.reconcile"

PUSH_BUNDLE: Final = "acl.tasks.push_bundle"
NOTE_MISSING_NODES: Final = "acl.tasks.note_missing_nodes"

ENSURE_PARTITIONS: Final = "audit.tasks.ensure_partitions"
GROW_LOG: Final = "audit.tasks.grow_log"
WITNESS_LOG: Final = "audit.tasks.witness_log"

PUSH_CREDENTIAL: Final = "orgs.tasks.push_credential"
PUSH_BATCH: Final = "orgs.tasks.push_batch"
ABANDON_BATCH: Final = "orgs.tasks.abandon_batch"
EXPIRE_CREDENTIALS: Final = "orgs.tasks.expire_credentials"
CLOSE_SESSION: Final = "orgs.tasks.close_session"
DISCARD_SESSIONS: Final = "orgs.tasks.discard_sessions"
RELEASE_SESSION: Final = "orgs.tasks.release_session"
CLEAR_RETAINED: Final = "orgs.tasks.clear_retained"
CLEAR_SESSIONS: Final = "orgs.tasks.clear_sessions"
SEND_INVITATION: Final = "orgs.tasks.send_invitation"
SEND_LINKED: Final = "orgs.tasks.send_linked"
FORGET_ORGANIZATION: Final = "orgs.tasks.forget_organization"
PURGE_ORGANIZATIONS: Final = "orgs.tasks.purge_organizations"
