"""The ASGI application that the HTTP server runs: Django behind :mod:`cloudsignal.front`."""

from django.conf import settings

from cloudsignal.front.app import Front
from cloudsignal.web.refused import page
from cloudsignal.wsgi import application as django

application = Front(django, refuse=page, trusted=settings.TRUSTED_PROXIES)
