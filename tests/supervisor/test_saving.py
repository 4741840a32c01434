"""The embedded broker's saves: paced by the size of its store, and everything is there after a kill."""

from __future__ import annotations

import signal
from pathlib import Path

from cloudsignal.supervisor.saving import LONGEST, SHORTEST, interval
from tests.support.parts import Broker, wait_for
from tests.support.wire import dial_unix

ORG = "org_aaaaaaaaaaaa"


def test_a_small_store_is_saved_every_five_seconds_and_a_large_one_for_a_hundredth_of_the_time() -> None:
    assert interval(0) == interval(10 * 2**20) == SHORTEST == 5
    assert interval(128 * 2**20) == 64
    assert interval(2**40) == LONGEST


def test_mosquitto_saves_on_a_signal_with_its_own_saves_off(tmp_path: Path) -> None:
    """What the supervisor's pacing rests on."""
    broker = Broker(tmp_path)
    broker.config.write_text(broker.config.read_text().replace("autosave_interval 60", "autosave_interval 0"))
    broker.start()
    client = dial_unix(broker.socket)
    client.connect(version=5, client_id=f"{ORG}:a", username=ORG)
    assert client.publish(f"{ORG}/t/kept", b"x", qos=1, retain=True) < 0x80
    assert broker.process is not None
    broker.process.send_signal(signal.SIGUSR1)
    wait_for((tmp_path / "db" / "mosquitto.db").exists, what="a save")
    broker.stop(kill=True)
    broker.start()
    again = dial_unix(broker.socket)
    again.connect(version=5, client_id=f"{ORG}:b", username=ORG)
    again.subscribe(f"{ORG}/t/#")
    assert again.delivery().topic == f"{ORG}/t/kept".encode()
    broker.stop()
