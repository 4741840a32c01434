"""Tests of the whole running system, from the outside: browser, MQTT clients, killed processes."""
