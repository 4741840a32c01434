"""An edge with everything it needs: a broker, a Valkey, a control plane of a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.parts import ALLOW_ALL, Authority, Broker, Edge, Issued, Plane, Valkey
from tests.support.wire import Wire, dial_tls


@dataclass
class Rig:
    """Everything one edge needs, and the edge."""

    broker: Broker
    valkey: Valkey
    plane: Plane
    authority: Authority
    edge: Edge

    def org(self, policy: str = ALLOW_ALL, **options: object) -> str:
        """A new organization whose policy is in force."""
        org = self.plane.new_org()
        self.plane.enforced(org, self.plane.deploy(org, policy, **options))
        return org

    def dial(self) -> Wire:
        """A TLS connection to the edge."""
        return dial_tls(self.edge.port, self.authority.client_context())

    def client(self, issued: Issued, *, version: int = 5, **options: object) -> Wire:
        """A signed-in client."""
        wire = self.dial()
        answer = wire.connect(version=version, username=issued.username, password=issued.password, **options)  # type: ignore[arg-type]
        assert answer.code == 0, hex(answer.code)
        return wire


def build_rig(folder: Path, *, broker: Broker | None = None, edge: type[Edge] = Edge, **env: str) -> Rig:
    """Start a broker, a Valkey and an edge."""
    broker = broker or Broker(folder)
    broker.start()
    valkey = Valkey(folder)
    valkey.start()
    plane = Plane(valkey.redis, folder)
    authority = Authority(folder / "tls")
    made = edge(
        folder,
        redis_url=valkey.url,
        upstream=f"unix://{broker.socket}",
        verify_key=plane.verify_key,
        authority=authority,
        **env,
    )
    rig = Rig(broker, valkey, plane, authority, made)
    try:
        made.start()
    except BaseException:
        stop_rig(rig)  # nobody else knows of them yet
        raise
    return rig


def stop_rig(rig: Rig) -> None:
    """Stop what :func:`build_rig` started; how an edge drains is a test of its own."""
    rig.edge.stop(kill=True)
    rig.broker.stop()
    rig.valkey.stop(kill=True)
