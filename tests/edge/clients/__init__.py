"""Published MQTT client libraries against a real edge: what each of them shows of what the edge does."""
