"""The filter of the audit pages, as a GET form. Times are UTC."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import forms

from audit.access import AuditQuery
from audit.kinds import ACL_DENIED, AUTH_FAILED, KINDS, AuthReason, BrokerReason, CloseCause, Source
from cloudsignal.web.forms import FilterForm, mono

WITHIN: tuple[tuple[str, str, timedelta | None], ...] = (
    ("", "Last 30 days", None),
    ("15m", "Last 15 minutes", timedelta(minutes=15)),
    ("1h", "Last hour", timedelta(hours=1)),
    ("1d", "Last day", timedelta(days=1)),
    ("7d", "Last 7 days", timedelta(days=7)),
)
REFUSALS = f"{ACL_DENIED},{AUTH_FAILED}"
"""Everything that was refused a client."""
REASONS = sorted({*(reason.value for reasons in (AuthReason, CloseCause, BrokerReason) for reason in reasons)})

ACTIONS = (
    ("", "Any"), ("publish", "Publish"), ("subscribe", "Subscribe"), ("receive", "Receive"), ("will", "Will"),
)  # fmt: skip

GROUPS = {
    Source.EDGE: "Clients",
    Source.NODE: "Brokers",
    Source.CHANGE: "Changes by members and API keys",
    Source.PLATFORM: "Audit log health",
}


def _kinds(*sources: Source) -> list[tuple[str, str | list[tuple[str, str]]]]:
    def of(source: Source) -> list[tuple[str, str]]:
        return [(kind.name, kind.title) for kind in KINDS.values() if kind.source is source]

    groups = [(GROUPS[source], of(source)) for source in sources]
    return [("", "Everything"), (REFUSALS, "All denials"), *groups]


class AuditFilter(FilterForm):
    """The filters of an organization's audit log. Every field is optional."""

    beside = frozenset({"seen", "upto"})

    kind = forms.ChoiceField(label="Event", choices=_kinds(Source.EDGE, Source.CHANGE), required=False)
    username = forms.CharField(
        label="Username", required=False, widget=forms.TextInput(attrs=mono(**{"data-search": ""}))
    )
    client_id = forms.CharField(label="Client ID", required=False, widget=forms.TextInput(attrs=mono()))
    topic_prefix = forms.CharField(
        label="Topic starts with",
        required=False,
        strip=False,
        widget=forms.TextInput(attrs=mono(placeholder="agents/")),
    )
    reason = forms.CharField(label="Reason", required=False, widget=forms.TextInput(attrs=mono(list="reasons")))
    action = forms.ChoiceField(label="Action", choices=ACTIONS, required=False)
    rule = forms.CharField(
        label="Rule", required=False, widget=forms.TextInput(attrs=mono(placeholder="a rule’s id, or none"))
    )
    within = forms.ChoiceField(label="Time", choices=[(value, word) for value, word, _ in WITHIN], required=False)
    ip = forms.CharField(label="IP address", required=False, widget=forms.TextInput(attrs=mono()))
    session = forms.CharField(label="Session", required=False, widget=forms.TextInput(attrs=mono()))
    since = forms.DateTimeField(
        label="From (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    until = forms.DateTimeField(
        label="Until (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    cursor = forms.CharField(required=False, widget=forms.HiddenInput)

    def query(self, *, now: datetime, limit: int) -> AuditQuery:
        """The search this form asks for. ``since`` and ``until`` win over the length of time chosen."""
        span = {value: length for value, _, length in WITHIN}[self.value("within")]
        since = self.cleaned_data["since"] or (now - span if span else None)
        return AuditQuery(
            kind=self.value("kind"),
            client_id=self.value("client_id"),
            username=self.value("username"),
            topic_prefix=self.value("topic_prefix"),
            reason=self.value("reason"),
            ip=self.value("ip"),
            session=self.value("session"),
            action=self.value("action"),
            rule=self.value("rule"),
            since=since,
            until=self.cleaned_data["until"],
            cursor=self.value("cursor"),
            limit=limit,
        )


class LogFilter(AuditFilter):
    """The filters of the platform's log."""

    kind = forms.ChoiceField(label="Event", choices=_kinds(*Source), required=False)
