"""Form of a CSV file of clients: a file to upload or a text to paste; it parses, the services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from cloudsignal.web.forms import Form, mono

FILE_MAX = 2 * 1024 * 1024
"""Bytes of a file."""
EXAMPLE = "username,ttl,claim.room,note\nsensor-1,3600,lobby,by the door\nsensor-2,3600,kitchen,"


class BulkForm(Form):
    """The clients to issue credentials for. A refused file comes back as text, to be corrected in place."""

    file = forms.FileField(
        label="CSV file",
        required=False,
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,text/csv"}),
        help_text="UTF-8, up to 10,000 lines below the header. Commas, semicolons or tabs between cells.",
    )
    text = forms.CharField(
        label="CSV text",
        required=False,
        widget=forms.Textarea(attrs=mono(rows="10", placeholder=EXAMPLE)),
    )

    def clean_file(self) -> str:
        """The text of the file; empty when none was sent."""
        sent = self.cleaned_data["file"]
        if not isinstance(sent, UploadedFile):
            return ""
        if (sent.size or 0) > FILE_MAX:
            raise forms.ValidationError(f"The file is larger than {FILE_MAX // 1024**2} MB; split it.")
        try:
            return str(sent.read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise forms.ValidationError('The file is not UTF-8 text; save it as "CSV UTF-8".') from None

    def clean(self) -> dict[str, Any]:
        """One of the two."""
        data = super().clean() or self.cleaned_data
        if not self.errors and not data.get("file") and not data.get("text"):
            self.add_error("file", "Choose a file, or paste its text.")
        return data

    @property
    def roster(self) -> str:
        """The CSV text, from wherever it came."""
        return self.value("file") or self.value("text")

    def keep(self, text: str) -> None:
        """Put the text of an uploaded file where it can be corrected: a browser never keeps a chosen file."""
        self.data = {"text": text}
