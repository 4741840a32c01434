"""Forms about policy: the draft, the simulator, a deployment. They parse; the policy core and the services decide."""

from __future__ import annotations

from typing import Any

from django import forms

from acl.services.deployments import NOTE_MAX
from cloudsignal.web.forms import Form, mono, read_claims

ACTIONS: tuple[tuple[str, str], ...] = (("pub", "Publish"), ("sub", "Subscribe"), ("receive", "Receive"))
QOS: tuple[tuple[int, str], ...] = ((0, "0"), (1, "1"), (2, "2"))


class DraftForm(Form):
    """The text of the draft as it stands in the editor, and the ETag it started from."""

    text = forms.CharField(
        label="Policy",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs=mono(rows="28", wrap="off")),
        error_messages={"null_characters_not_allowed": "The document contains NUL."},
    )
    etag = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean_text(self) -> str:
        """The text with the line ends it had in the editor: forms send CRLF (HTML, "textarea")."""
        return str(self.cleaned_data["text"]).replace("\r\n", "\n").replace("\r", "\n")


class SimulateForm(Form):
    """One request to put to the draft."""

    username = forms.CharField(
        label="Username",
        required=False,
        max_length=80,
        widget=forms.TextInput(attrs=mono(placeholder="agent-7", list="known-usernames")),
    )
    client_id = forms.CharField(
        label="Client ID", required=False, max_length=256, widget=forms.TextInput(attrs=mono(placeholder="c1"))
    )
    action = forms.ChoiceField(
        label="Action",
        choices=ACTIONS,
        initial="pub",
        required=False,
        widget=forms.RadioSelect,
        error_messages={"invalid_choice": "The action is publish, subscribe or receive."},
    )
    topic = forms.CharField(
        label="Topic",
        required=False,
        strip=False,
        widget=forms.TextInput(attrs=mono(placeholder="agents/agent-7/card")),
        error_messages={"null_characters_not_allowed": "A topic contains no NUL."},
    )
    qos = forms.TypedChoiceField(
        label="QoS", choices=QOS, coerce=int, initial=0, required=False, widget=forms.RadioSelect
    )
    retain = forms.BooleanField(label="Retained", required=False)
    claims = forms.CharField(
        label="Claims",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs=mono(rows="2", placeholder="email = a@example.com")),
        help_text='One "name = value" per line. Empty: the stored claims of the username are used.',
    )

    def clean_action(self) -> str:
        """The action; publishing unless another one was chosen."""
        return str(self.cleaned_data["action"] or "pub")

    def clean_qos(self) -> int:
        """The QoS; 0 when nothing was chosen."""
        return int(self.cleaned_data["qos"] or 0)

    def clean_claims(self) -> dict[str, Any]:
        """The claims, read as on the credential form."""
        return read_claims(str(self.cleaned_data["claims"]))


class DeployForm(Form):
    """Deployment form: a note, the ETag of the reviewed draft, and the deployment it was compared with."""

    note = forms.CharField(
        label="Note",
        required=False,
        max_length=NOTE_MAX,
        help_text="Why, for the next person who reads the history.",
        error_messages={"max_length": f"A note has at most {NOTE_MAX} characters."},
    )
    etag = forms.CharField(required=False, widget=forms.HiddenInput)
    deployment = forms.CharField(required=False, widget=forms.HiddenInput)


class RollbackForm(Form):
    """Rollback form: a note, and the deployment that was active when the page was shown."""

    note = forms.CharField(label="Note", required=False, max_length=NOTE_MAX)
    deployment = forms.CharField(required=False, widget=forms.HiddenInput)


class PresetForm(Form):
    """Preset form: the ETag of the draft that the preset replaces."""

    etag = forms.CharField(required=False, widget=forms.HiddenInput)
