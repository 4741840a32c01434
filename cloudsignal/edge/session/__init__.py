"""One MQTT session as a state machine without I/O."""
