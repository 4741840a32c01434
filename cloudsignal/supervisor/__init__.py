"""``cloudsignal up``: every part of CloudSignal on one machine, as direct children of one process.

Why not a maintained process manager: ``docs/operations.md`` ("Why a supervisor of our own").

- :mod:`~cloudsignal.supervisor.layout`: the data folder and what lies where in it
- :mod:`~cloudsignal.supervisor.assembly`: which parts there are, their commands and environments
- :mod:`~cloudsignal.supervisor.part`: one part: start, health check, restart with back-off, stop
- :mod:`~cloudsignal.supervisor.run`: all of them together, in order
"""
