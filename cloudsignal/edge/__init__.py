"""The edge: terminates TLS, signs clients in, moves each into its organization's slice, judges every packet, audits.

Read in this order: ``mount`` (the mapping), ``codec`` (bytes and packets), ``judge`` (verdicts and their memo),
``session`` with ``uplink`` and ``downlink`` (the state machine, no I/O), ``signin`` (who is it), ``snapshot`` and
``follow`` (what Redis says), ``journal``, ``budget`` and ``ship`` (the audit trail), ``listen`` and ``upstream``
(sockets), ``node`` (all of it together). Imports only the pure layers ``acl.policy``, ``audit.kinds``,
``audit.bounds`` and ``cloudsignal.wire``.
"""
