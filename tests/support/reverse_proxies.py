"""Caddy, nginx and HAProxy as reverse proxies on this machine, each with little more than its defaults."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import free_port

SYSTEM_FOLDERS = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"])

CADDY = """\
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{upstream}
}}
"""
NGINX = """\
{user}
daemon off;
pid {folder}/pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    underscores_in_headers on;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""
HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port}
    option forwardfor
    default_backend web
backend web
    server web 127.0.0.1:{upstream}
"""
PROXIES = {"caddy": CADDY, "nginx": NGINX, "haproxy": HAPROXY}
"""nginx with its own guard switched off: it would drop headers with an underscore by itself."""


@contextlib.contextmanager
def proxy(name: str, upstream: int, folder: Path) -> Iterator[str]:
    """Run one in front of ``upstream``; yields its address."""
    program = shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)
    assert program, f"{name} is not installed; run `make setup`"
    port = free_port()
    file = folder / ("Caddyfile" if name == "caddy" else f"{name}.conf")
    user = "user root;" if os.geteuid() == 0 else ""
    file.write_text(PROXIES[name].format(port=port, upstream=upstream, folder=folder, user=user))
    command = {
        "caddy": [program, "run", "--config", str(file), "--adapter", "caddyfile"],
        "nginx": [program, "-p", str(folder), "-e", "stderr", "-c", str(file)],
        "haproxy": [program, "-db", "-f", str(file)],
    }[name]
    own = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **own}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, f"{name} ended by itself"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
