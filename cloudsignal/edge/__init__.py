"""The edge: terminates TLS, signs clients in, maps each into its organization, authorizes every packet, audits.

Read in this order: ``session.mountpoint`` (the mapping), ``codec`` (bytes and packets), ``session.authorizer``
(verdicts and their memo), ``session.machine`` with ``uplink`` and ``downlink`` (the state machine, no I/O), ``signin``
(sign-in), ``control`` (what Redis says), ``audit`` (the journal and the shipper), ``transport`` (sockets),
``node`` (all of it together). Imports only the pure layers ``acl.policy``, ``audit.kinds``, ``audit.bounds`` and
``cloudsignal.wire``.
"""
