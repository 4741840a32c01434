"""The broker's own lock behind the edge: generated configuration for Mosquitto, VerneMQ and EMQX.

The edge signs in upstream with the organization's ID as username. The broker lets a username read and write below
``username/`` only, so that even a faulty edge cannot carry a message from one organization to another. Nobody but the
edge can reach the broker: a unix socket in a folder of mode 0700, or TLS with a client certificate. For a broker on
machines of its own, ``python -m cloudsignal.edge.brokers --help`` writes the files.
"""

from cloudsignal.edge.brokers.command import main
from cloudsignal.edge.brokers.emqx import emqx_acl, emqx_config
from cloudsignal.edge.brokers.mosquitto import MOSQUITTO_ACL, mosquitto_config, mosquitto_tls_config
from cloudsignal.edge.brokers.vernemq import vernemq_config, vernemq_script

__all__ = [
    "MOSQUITTO_ACL",
    "emqx_acl",
    "emqx_config",
    "main",
    "mosquitto_config",
    "mosquitto_tls_config",
    "vernemq_config",
    "vernemq_script",
]
