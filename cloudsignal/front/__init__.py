"""The ASGI application between the HTTP server and Django: passes complete requests to a bounded pool of threads.

Django's views are synchronous, and a thread that waits for a client is a thread that serves nobody. So the event loop
does all waiting: it reads a body before a thread is taken (``bodies``), lets kinds of requests, addresses and callers
take turns (``turns``), and sends answers at the reader's pace (``answers``). ``app`` puts them together. No module
imports Django.
"""
