"""Django settings. Every value that differs between installations comes from :mod:`cloudsignal.config`.

Missing secrets do not stop tools that need none (type checking, collecting static files); the processes that serve
call :func:`cloudsignal.startup.require` and refuse to start with the name of what is missing.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from csp.constants import NONE, SELF

from cloudsignal.config import Environment
from cloudsignal.startup import database, mail_server, role_of

ENV = Environment()
BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = ENV.path("CLOUDSIGNAL_DATA", str(BASE_DIR / ".data"))

# --- what this installation is ------------------------------------------------------------------------------------
PUBLIC_URL = ENV.origin("CLOUDSIGNAL_PUBLIC_URL", "http://localhost:8000")
MQTT_HOST = ENV.text("CLOUDSIGNAL_MQTT_HOST", "localhost")
TOPIC_LEVELS = ENV.number("EDGE_TOPIC_LEVELS", 128, low=1, high=128)
MQTT_PORT = ENV.number("CLOUDSIGNAL_MQTT_PORT", 8883, low=1, high=65535)
WSS_PORT = ENV.number("CLOUDSIGNAL_WSS_PORT", 443, low=1, high=65535)
DEMO = ENV.flag("CLOUDSIGNAL_DEMO")
DEBUG = ENV.flag("CLOUDSIGNAL_DEBUG")
SECRET_KEY = ENV.text("CLOUDSIGNAL_SECRET_KEY", "")
REDIS_URL = ENV.text("REDIS_URL", "")
EMAIL_URL = ENV.text("CLOUDSIGNAL_EMAIL_URL", "")
TRUSTED_PROXIES = ENV.text("CLOUDSIGNAL_TRUSTED_PROXIES", "")

_public = urlsplit(PUBLIC_URL)
HTTPS = _public.scheme == "https"
_public_host = _public.hostname or ""
ALLOWED_HOSTS = [f"[{_public_host}]" if ":" in _public_host else _public_host, "localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

# --- databases ----------------------------------------------------------------------------------------------------
# `default` signs in as the application role, under row-level security. `owner` owns the tables and only migrates.
DATABASE_POOL = 24
DATABASES: dict[str, Any] = {}
if _url := ENV.text("DATABASE_URL", ""):
    DATABASES["default"] = database(_url, pool_size=DATABASE_POOL)
if _owner_url := ENV.text("DATABASE_OWNER_URL", ""):
    DATABASES["owner"] = database(_owner_url)
DATABASE_APP_ROLE = role_of(_url) if _url else "cloudsignal_app"
# The one role that deletes organizations for good, and does nothing else. Not one of DATABASES: no model is read by it.
DATABASE_DELETE_URL = ENV.text("DATABASE_DELETE_URL", "")
DATABASE_DELETE_ROLE = role_of(DATABASE_DELETE_URL) if DATABASE_DELETE_URL else "cloudsignal_delete"
# The role that appends to the audit, past row-level security, and does nothing else.
DATABASE_INGEST_URL = ENV.text("DATABASE_INGEST_URL", "")
DATABASE_INGEST_ROLE = role_of(DATABASE_INGEST_URL) if DATABASE_INGEST_URL else "cloudsignal_ingest"
DATABASE_ROUTERS: list[str] = []
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "cloudsignal.cache.TolerantRedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cs1:cache",
        "OPTIONS": {
            "serializer": "cloudsignal.cache.JsonSerializer",
            "socket_connect_timeout": 0.5,
            "socket_timeout": 0.5,
        },
    },
}

# --- applications -------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "cloudsignal",
    "orgs",
    "acl",
    "audit",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "template_partials",
    "csp",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "orgs.sso.web.sessions.SignOnSessions",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
]

ROOT_URLCONF = "cloudsignal.urls"
WSGI_APPLICATION = "cloudsignal.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "cloudsignal.console.shell.context",
            ],
        },
    },
]

# --- people -------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "orgs.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_UNIQUE_EMAIL = True
# Without a mail server the confirmation lands in a file: then it is asked for, but nobody is kept out by it.
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if EMAIL_URL or ENV.text("CLOUDSIGNAL_EMAIL_BACKEND", "") else "optional"
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = "CloudSignal: "
ACCOUNT_ADAPTER = "orgs.sso.web.sessions.Adapter"
USERSESSIONS_ADAPTER = "orgs.accounts.adapters.SessionsAdapter"
ACCOUNT_FORMS = {
    "login": "orgs.accounts.forms.LoginForm",
    "signup": "orgs.accounts.forms.SignupForm",
    "add_email": "orgs.accounts.forms.AddEmailForm",
    "reset_password": "orgs.accounts.forms.ResetPasswordForm",
    "reset_password_from_key": "orgs.accounts.forms.ResetPasswordKeyForm",
    "change_password": "orgs.accounts.forms.ChangePasswordForm",
    "set_password": "orgs.accounts.forms.SetPasswordForm",
}
MFA_FORMS = {"add_webauthn": "orgs.accounts.forms.AddWebAuthnForm"}
ACCOUNT_REAUTHENTICATION_REQUIRED = True
# Never a code by email: dangerous acts ask for the password or second factor, and a mailbox is neither.
ACCOUNT_REAUTHENTICATION_METHODS = ("password", "mfa")
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300
# allauth's own counts by account are for second factors alone: who gets as far has shown the password. Failed passwords
# are counted by ``orgs.accounts.adapters``, because a count by account would let anybody lock anybody out.
ACCOUNT_RATE_LIMITS = {"login_failed": "5/300s/ip,10/3600s/key"}
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_DEFAULT_HTTP_PROTOCOL = _public.scheme
MFA_ADAPTER = "orgs.accounts.adapters.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes", "webauthn"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "CloudSignal"
# Browsers offer passkeys on https and on localhost; fido2 must be told of the second.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not HTTPS
EMAIL_BACKEND = ENV.text("CLOUDSIGNAL_EMAIL_BACKEND", "") or (
    "django.core.mail.backends.smtp.EmailBackend" if EMAIL_URL else "cloudsignal.mail.KeepingBackend"
)
EMAIL_FILE_PATH = DATA_DIR / "mail"
if EMAIL_URL:
    _mail = mail_server(EMAIL_URL)
    EMAIL_HOST, EMAIL_PORT, EMAIL_TIMEOUT = _mail.host, _mail.port, 10
    EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail.user, _mail.password
    EMAIL_USE_SSL, EMAIL_USE_TLS = _mail.tls, not _mail.tls and not _mail.plain
DEFAULT_FROM_EMAIL = f"CloudSignal <cloudsignal@{_public_host if HTTPS else 'localhost'}>"

# --- what browsers are told ---------------------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    },
}
# Cookies of one host name are shared by all its ports, and much that is developed on localhost calls its own "session".
SESSION_COOKIE_NAME = "__Host-session" if HTTPS else "cloudsignal-session"
SESSION_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 24 * 3600
CSRF_FAILURE_VIEW = "cloudsignal.console.pages.csrf_failed"
CSRF_COOKIE_NAME = "__Host-csrf" if HTTPS else "cloudsignal-csrf"
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- files --------------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Straight from the source folder, so that nothing has to be collected.
WHITENOISE_USE_FINDERS = True
warnings.filterwarnings("ignore", message="No directory at")
WHITENOISE_AUTOREFRESH = DEBUG

# --- words, time --------------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# --- API ----------------------------------------------------------------------------------------------------------
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "cloudsignal.api.problems.handle",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "CloudSignal",
    "DESCRIPTION": "Multi-tenant control plane for MQTT.",
    "VERSION": "2",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/v2",
    "SCHEMA_PATH_PREFIX_TRIM": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "ApiKeyKindEnum": "orgs.models.ApiKey.Kind",
        "ProviderKindEnum": "orgs.models.IdentityProvider.Kind",
    },
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "cloudsignal.api.schema.document_refusals",
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
}

PROVIDER_NETWORKS = ENV.text("CLOUDSIGNAL_PROVIDER_NETWORKS", "")
API_BODY_MAX = 4 * 1024 * 1024
"""Bytes of a request body."""
# Calls / seconds: a caller may burst up to the first number and is let through evenly after that.
RATE_LIMITS = {
    "api": "600/60",
    "public": "120/60",
    "wrong_keys": "20/60",
    "tokens_of_key": "3000/60",
    "tokens_of_address": "120/60",
    "organizations": "20/3600",
    "invitations": "100/3600",
    "invitation_codes": "10/3600",
    "command_lines": "60/3600",
    "sign_ons": "60/300",
    "failed_sign_ins": "30/300",
    "failed_sign_ins_to_account": "5/300",
}

# --- logs: one JSON object a line, on standard error ----------------------------------------------------------------
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "cloudsignal.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django.server": {"handlers": ["stderr"], "propagate": False},
        "django.request": {"level": "ERROR"},
        # A line for each scheduled task, every two seconds, would bury what matters.
        "celery.beat": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
