"""An identity is revoked through the API: what it had stored at the broker is gone, and only that."""

from __future__ import annotations

import ssl

import httpx
import pytest

from tests.support.system import Stack
from tests.support.tenants import make_tenant
from tests.support.wire import Wire, dial_tls

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

POLICY = 'version: "3"\nrules:\n  - {id: open, topic: "open/#"}\n'
KEY = """
from orgs.api_keys.keys import create_api_key
print(json.dumps({"key": create_api_key(owner(), kind="sk", name="backend").secret}))
"""
OTHERS = 0x85
"""Client identifier not valid: it belongs to another username."""


def test_revoking_an_identity_discards_its_stored_sessions_and_frees_their_client_ids(stack: Stack) -> None:
    tenant = make_tenant(stack, "Stored", policy=POLICY)
    old, new, bystander = (tenant.issue(name) for name in ("old", "new", "bystander"))
    context = ssl.create_default_context(cafile=str(stack.ca))

    def sign_in(issued: dict[str, str], client_id: str) -> tuple[int, bool, Wire]:
        wire = dial_tls(stack.mqtts_port, context)
        answer = wire.connect(
            version=5, client_id=client_id, username=issued["username"], password=issued["password"],
            clean=False, properties=[(17, 3_600)],
        )  # fmt: skip
        return answer.code, answer.session_present, wire

    def keep(issued: dict[str, str], client_id: str) -> Wire:
        code, present, wire = sign_in(issued, client_id)
        assert (code, present) == (0, False)
        wire.subscribe("open/q", qos=1)
        return wire

    keep(old, "away").disconnect()
    keep(bystander, "beside").disconnect()
    live = keep(old, "live")
    sender = sign_in(new, "sender")[2]
    assert sender.publish("open/q", b"waiting", qos=1) == 0
    assert sign_in(new, "away")[0] == sign_in(new, "live")[0] == OTHERS

    key = tenant.run(KEY)["key"]
    with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        answer = http.delete("/v2/users/old")
        assert answer.status_code == 200, answer.text

    first, body = live.closed()[-1]
    assert (first, body[0]) == (0xE0, 0x87), "ended as revoked"
    assert sign_in(old, "away")[0] == 0x87
    for client_id in ("away", "live"):
        found = stack.eventually(
            lambda name=client_id: (got := sign_in(new, name))[0] == 0 and got, what=f"{client_id} free for another"
        )
        assert not found[1], "nothing of the old session is left"
        found[2].nothing()
    code, present, wire = sign_in(bystander, "beside")
    assert (code, present) == (0, True)
    assert wire.delivery().payload == b"waiting"
    assert sign_in(new, "beside")[0] == OTHERS
