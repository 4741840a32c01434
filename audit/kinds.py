"""The registry of audit event kinds and reason codes: one row per thing that can happen. Pure Python.

A kind that is declared twice fails at import. Every event, from the edge or from an administrative change, has one
of these kinds; the pages, the filters and the exports read their words from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where events of a kind come from."""

    EDGE = "edge"
    NODE = "node"
    """Events that an edge notices about the platform, such as a lost broker; also in the platform's own log."""
    CHANGE = "change"
    PLATFORM = "platform"
    """What the control plane notices about itself. Stands in the platform's own log, never in a tenant's."""


class Tone(StrEnum):
    """How a kind is shown: color is always accompanied by the word."""

    NEUTRAL = "neutral"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of audit event."""

    name: str
    title: str
    source: Source
    tone: Tone
    description: str


KINDS: dict[str, Kind] = {}


def _kind(name: str, title: str, source: Source, tone: Tone, description: str) -> str:
    if name in KINDS:
        raise ValueError(f"audit kind {name!r} is declared twice")
    KINDS[name] = Kind(name, title, source, tone, description)
    return name


# --- from the edge -------------------------------------------------------------------------------------------------
CONNECT = _kind("connect", "Connected", Source.EDGE, Tone.GOOD, "A client signed in.")
AUTH_FAILED = _kind("auth_failed", "Sign-in refused", Source.EDGE, Tone.BAD, "A client was refused at CONNECT.")
TLS_FAILED = _kind("tls_failed", "TLS handshake failed", Source.EDGE, Tone.BAD, "The TLS handshake did not complete.")
ACL_DENIED = _kind("acl_denied", "Denied", Source.EDGE, Tone.BAD, "The policy denied a publish, subscribe or delivery.")
SUBSCRIBE = _kind("subscribe", "Subscribed", Source.EDGE, Tone.NEUTRAL, "A subscription was granted.")
UNSUBSCRIBE = _kind("unsubscribe", "Unsubscribed", Source.EDGE, Tone.NEUTRAL, "A subscription was ended by the client.")
DISCONNECT = _kind("disconnect", "Disconnected", Source.EDGE, Tone.NEUTRAL, "The client left, cleanly or not.")
SESSION_CLOSED = _kind("session_closed", "Session closed", Source.EDGE, Tone.WARNING, "CloudSignal ended the session.")
POLICY_APPLIED = _kind("policy_applied", "Policy enforced", Source.EDGE, Tone.GOOD, "A node enforces a new policy.")
POLICY_REFUSED = _kind(
    "policy_refused", "Policy refused", Source.EDGE, Tone.BAD, "A node refused a record that it could not verify."
)
LIMIT_REACHED = _kind(
    "limit_reached", "Limit reached", Source.EDGE, Tone.WARNING, "A quota or a limit refused something."
)
WILL_PUBLISHED = _kind(
    "will_published",
    "Will published",
    Source.EDGE,
    Tone.NEUTRAL,
    "A broker node was lost; the edge published a will of it.",
)
WILL_LOST = _kind(
    "will_lost",
    "Will lost",
    Source.EDGE,
    Tone.BAD,
    "A broker node was lost, and the edge could not publish a will of it.",
)
CRITICAL = _kind("critical", "Critical", Source.EDGE, Tone.BAD, "An invariant of the edge did not hold.")
BROKER_REFUSED = _kind(
    "broker_refused",
    "Refused by the broker",
    Source.EDGE,
    Tone.BAD,
    "Critical: the broker refused what the policy allows.",
)

# --- from the edge, about the platform -----------------------------------------------------------------------------
BROKER_LOST = _kind("broker_lost", "Broker lost", Source.NODE, Tone.BAD, "An edge node cannot reach a broker node.")
BROKER_BACK = _kind("broker_back", "Broker back", Source.NODE, Tone.GOOD, "An edge node reaches a broker node again.")
BROKERS_DISAGREE = _kind(
    "brokers_disagree",
    "Broker members disagree",
    Source.NODE,
    Tone.BAD,
    "The nodes of a broker cluster no longer see the same members, all of them running.",
)
BROKERS_AGREE = _kind(
    "brokers_agree",
    "Broker members agree",
    Source.NODE,
    Tone.GOOD,
    "The nodes of a broker cluster see the same members again.",
)

# --- administrative changes ----------------------------------------------------------------------------------------
ORG_CREATED = _kind("org.created", "Organization created", Source.CHANGE, Tone.NEUTRAL, "An organization was created.")
ORG_UPDATED = _kind(
    "org.updated", "Organization changed", Source.CHANGE, Tone.NEUTRAL, "Name or settings were changed."
)
ORG_SUSPENDED = _kind(
    "org.suspended", "Organization suspended", Source.CHANGE, Tone.BAD, "All of its clients were disconnected."
)
ORG_RESUMED = _kind("org.resumed", "Organization resumed", Source.CHANGE, Tone.GOOD, "Its clients can connect again.")
ORG_DELETED = _kind(
    "org.deleted", "Organization deleted", Source.CHANGE, Tone.BAD, "It was marked for deletion or deleted."
)
ORG_EXPORTED = _kind("org.exported", "Data exported", Source.CHANGE, Tone.NEUTRAL, "Its data was exported.")
MEMBER_ADDED = _kind("member.added", "Member added", Source.CHANGE, Tone.NEUTRAL, "A person joined.")
MEMBER_CHANGED = _kind(
    "member.changed", "Member changed", Source.CHANGE, Tone.NEUTRAL, "A role or an expiry was changed."
)
MEMBER_REMOVED = _kind("member.removed", "Member removed", Source.CHANGE, Tone.WARNING, "A person left or was removed.")
INVITATION_SENT = _kind("invitation.sent", "Invitation sent", Source.CHANGE, Tone.NEUTRAL, "A person was invited.")
INVITATION_REVOKED = _kind(
    "invitation.revoked", "Invitation revoked", Source.CHANGE, Tone.NEUTRAL, "An invitation was revoked."
)
ACCOUNT_CHANGED = _kind(
    "account.changed",
    "Account sign-in changed",
    Source.CHANGE,
    Tone.WARNING,
    "A member changed their own password, second factor, passkeys or address.",
)
API_KEY_CREATED = _kind("api_key.created", "API key created", Source.CHANGE, Tone.NEUTRAL, "A key was created.")
API_KEY_ROTATED = _kind(
    "api_key.rotated",
    "API key rotated",
    Source.CHANGE,
    Tone.NEUTRAL,
    "A newer key was created; both are active for a while.",
)
API_KEY_REVOKED = _kind("api_key.revoked", "API key revoked", Source.CHANGE, Tone.WARNING, "A key was revoked.")
CREDENTIAL_ISSUED = _kind(
    "credential.issued", "Credential issued", Source.CHANGE, Tone.NEUTRAL, "A credential was issued for a username."
)
CREDENTIAL_REFRESHED = _kind(
    "credential.refreshed",
    "Credential refreshed",
    Source.CHANGE,
    Tone.NEUTRAL,
    "A further credential was issued for a username.",
)
CREDENTIAL_REVOKED = _kind(
    "credential.revoked",
    "Credential revoked",
    Source.CHANGE,
    Tone.WARNING,
    "Live sessions using it were closed.",
)
CLAIMS_CHANGED = _kind(
    "claims.changed", "Claims changed", Source.CHANGE, Tone.NEUTRAL, "The claims of an identity were changed."
)
PROVIDER_CHANGED = _kind(
    "provider.changed",
    "Identity provider changed",
    Source.CHANGE,
    Tone.NEUTRAL,
    "An identity provider was added, changed or removed.",
)
SIGN_ON_CHANGED = _kind(
    "sign_on.changed",
    "Single sign-on changed",
    Source.CHANGE,
    Tone.NEUTRAL,
    "An SSO connection was added, changed or removed, or its email domains were approved.",
)
SIGN_ON_LINKED = _kind(
    "sign_on.linked",
    "Single sign-on linked",
    Source.CHANGE,
    Tone.NEUTRAL,
    "An account was linked to an SSO connection.",
)
SIGN_ON_USED = _kind(
    "sign_on.used", "Signed in through SSO", Source.CHANGE, Tone.GOOD, "A person signed in through SSO."
)
SIGN_ON_REFUSED = _kind(
    "sign_on.refused",
    "Sign-in refused (SSO)",
    Source.CHANGE,
    Tone.BAD,
    "A sign-in through SSO was refused.",
)
DRAFT_SAVED = _kind(
    "draft.saved",
    "Draft saved",
    Source.CHANGE,
    Tone.NEUTRAL,
    "The policy draft was changed; nothing is enforced yet.",
)
POLICY_DEPLOYED = _kind(
    "policy.deployed", "Policy deployed", Source.CHANGE, Tone.NEUTRAL, "A version was sent to every node."
)
POLICY_ROLLED_BACK = _kind(
    "policy.rolled_back",
    "Policy rolled back",
    Source.CHANGE,
    Tone.WARNING,
    "An earlier version was sent to every node.",
)
SESSION_KICKED = _kind(
    "session.kicked",
    "Session closed by administrator",
    Source.CHANGE,
    Tone.WARNING,
    "A member or API key closed a session.",
)
SESSION_RELEASED = _kind(
    "session.released",
    "Stored session released",
    Source.CHANGE,
    Tone.WARNING,
    "A stored session was discarded and its client ID released.",
)
RETAINED_CLEARED = _kind(
    "retained.cleared",
    "Retained messages cleared",
    Source.CHANGE,
    Tone.WARNING,
    "Retained messages were cleared.",
)
CLUSTER_CREATED = _kind(
    "cluster.created", "Cluster created", Source.CHANGE, Tone.NEUTRAL, "A broker cluster was added."
)
NODE_REGISTERED = _kind(
    "node.registered", "Node registered", Source.CHANGE, Tone.NEUTRAL, "An edge node joined a cluster."
)
NODE_RETIRED = _kind(
    "node.retired", "Node retired", Source.CHANGE, Tone.WARNING, "An edge node was removed from a cluster."
)

# --- of the platform itself ----------------------------------------------------------------------------------------
AUDIT_UNREADABLE = _kind(
    "audit.unreadable",
    "Audit entry quarantined",
    Source.PLATFORM,
    Tone.BAD,
    "Ingest could not read or store an entry; it is kept for inspection.",
)
AUDIT_GAP = _kind("audit.gap", "Audit gap", Source.PLATFORM, Tone.BAD, "A node recorded more events than have arrived.")

LOG_CONFLICT = _kind(
    "log.conflict",
    "Audit log conflict",
    Source.PLATFORM,
    Tone.BAD,
    "A transparency log does not agree with a checkpoint that was signed: it was changed, forked or rolled back.",
)
LOG_KEY_CHANGED = _kind(
    "log.key_changed", "Audit log key changed", Source.PLATFORM, Tone.WARNING, "Another key signs checkpoints now."
)

LOG_WITNESS_FAILED = _kind(
    "log.witness_failed",
    "Witness of the audit log failed",
    Source.PLATFORM,
    Tone.WARNING,
    "A witness did not answer as it should. Checkpoints are signed without its cosignature.",
)


class AuthReason(StrEnum):
    """Why a CONNECT was refused (``auth_failed.reason``)."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    BAD_SECRET = "bad_secret"  # noqa: S105 - a reason code, not a secret
    EXPIRED = "expired"
    RETIRED = "retired"
    """The secret made room for newer ones of its username; a refresh with it gives another one."""
    REVOKED = "revoked"
    WRONG_ORG = "wrong_org"
    ORG_SUSPENDED = "org_suspended"
    NO_POLICY = "no_policy"
    QUOTA = "quota"
    RATE_LIMITED = "rate_limited"
    WILL_DENIED = "will_denied"
    CLIENT_ID_TAKEN = "client_id_taken"
    UNAVAILABLE = "unavailable"
    PROTOCOL = "protocol"


class CloseCause(StrEnum):
    """Why CloudSignal ended a live session (``session_closed.reason``)."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    ORG_SUSPENDED = "org_suspended"
    KICKED = "kicked"
    TAKEN_OVER = "taken_over"
    WILL_DENIED = "will_denied"
    QUOTA = "quota"
    DRAINING = "draining"
    UPSTREAM_LOST = "upstream_lost"
    SPLIT_OVER = "split_over"
    """MQTT 3.1.1: publishes of a split were not acknowledged; the client connects and sends them again."""
    PROTOCOL = "protocol"
    INVARIANT = "invariant"
    NODE_LOST = "node_lost"
    """The edge process was killed: its successor or the control plane says so, no client was told."""


class BrokerReason(StrEnum):
    """Reasons of ``broker_refused``: why the broker refused a packet that the policy allows, after its reason code."""

    UNSPECIFIED = "unspecified"
    IMPLEMENTATION = "implementation_specific"
    """Also of VerneMQ while its cluster is split."""
    NOT_AUTHORIZED = "not_authorized"
    FILTER_INVALID = "filter_invalid"
    TOPIC_INVALID = "topic_invalid"
    QUOTA = "quota"
    SHARED_UNSUPPORTED = "shared_subscriptions_unsupported"
    IDENTIFIERS_UNSUPPORTED = "subscription_identifiers_unsupported"
    WILDCARDS_UNSUPPORTED = "wildcard_subscriptions_unsupported"


class SignOnReason(StrEnum):
    """Why a person was refused at single sign-on (``sign_on.refused.reason``)."""

    PROVIDER_UNREACHABLE = "provider_unreachable"
    PROVIDER_REFUSED = "provider_refused"
    BAD_ASSERTION = "bad_assertion"
    NOT_RECENT = "not_recent"
    EMAIL_MISSING = "email_missing"
    EMAIL_UNVERIFIED = "email_unverified"
    NOT_INVITED = "not_invited"
    NOT_MEMBER = "not_member"
    ACCOUNT_EXISTS = "account_exists"
    LINKED_TO_ANOTHER = "linked_to_another"
    NOT_ALLOWED = "not_allowed"


NO_RULE = "none"
"""What stands for "no rule decided" in ``rule``: a verdict of its own."""
