"""Identity providers of applications, and the exchange of their tokens for MQTT credentials."""
