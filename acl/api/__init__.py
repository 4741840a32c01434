"""``/v2/policy/...`` and, for operators, ``/v2/clusters`` and ``/v2/nodes``."""
