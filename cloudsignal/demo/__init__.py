"""``cloudsignal up --demo``: two sample organizations and a simulated fleet.

- :mod:`~cloudsignal.demo.cast`: who there is and what each device does
- :mod:`~cloudsignal.demo.seed`: makes the people and organizations, deploys their policies, writes the guide
- :mod:`~cloudsignal.demo.fleet`: the devices, as real MQTT clients over TLS
"""
