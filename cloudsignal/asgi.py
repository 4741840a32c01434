"""The web application as ASGI, for servers that want it."""

import os

from django.core.asgi import get_asgi_application

from cloudsignal.startup import require

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudsignal.settings")
require("CLOUDSIGNAL_SECRET_KEY", "CLOUDSIGNAL_PEPPER", "DATABASE_URL", "REDIS_URL")

application = get_asgi_application()
