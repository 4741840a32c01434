"""The WSGI application: Django."""

import os

from django.core.wsgi import get_wsgi_application

from cloudsignal.startup import require

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudsignal.settings")
require("CLOUDSIGNAL_SECRET_KEY", "CLOUDSIGNAL_PEPPER", "DATABASE_URL", "REDIS_URL")

application = get_wsgi_application()
