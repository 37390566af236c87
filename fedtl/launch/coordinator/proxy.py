"""The proxy that sites see: nginx, which ends TLS and passes on only what sites need.

SuperLink has one port for sites, operators and its own processes, and asks operators for nothing.
So it listens on loopback, and here every request is refused that is not one of a site's.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
import shutil
from pathlib import Path

from fedtl.errors import ConfigError
from fedtl.home import write_atomic
from fedtl.launch.coordinator.config import PRIVATE_FILE, PRIVATE_FOLDER, Coordinator

PROXY_FILE, PROXY_FOLDER = "nginx.conf", "nginx"
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/bin")
_MOST_FILES = 16384
_BURST = 10


def proxy_command() -> tuple[str, ...]:
    """Return the command that runs nginx, in a coordinator's folder, with the written file.

    Raises
    ------
    ConfigError
        With code ``server.nginx``: it is not installed.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES))
    found = shutil.which("nginx", path=path)
    if found is None:
        raise ConfigError(
            "nginx is not installed; it keeps everybody but the sites away from SuperLink.",
            next_step="Install it: apt-get install nginx-light (Debian, Ubuntu), dnf install "
            "nginx (Fedora, RHEL), brew install nginx (macOS).",
            code="server.nginx",
        )
    return (found, "-p", ".", "-c", PROXY_FILE, "-e", "stderr")


def write_proxy(coordinator: Coordinator) -> None:
    """Write nginx's configuration and make its folder."""
    folder, limits = coordinator.folder, coordinator.config.limits
    (folder / PROXY_FOLDER).mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    n_files = min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1] % (1 << 63))
    text = _CONFIG.format(
        user=_user_line(),
        files=n_files,
        connections=n_files // 2,
        listen="\n    ".join(f"listen {where} ssl;" for where in coordinator.config.listen),
        certificate=_quoted(coordinator.certificate),
        key=_quoted(coordinator.key),
        own_ca=_quoted(coordinator.own_ca),
        port=coordinator.config.superlink_port,
        body=limits.body_megabytes,
        rate=limits.requests_per_second,
        burst=limits.requests_per_second * _BURST,
        per_address=limits.connections,
    )
    path = folder / PROXY_FILE
    write_atomic(path, lambda file: file.write(text.encode()), mode=PRIVATE_FILE)


def _user_line() -> str:
    """Let root's nginx work as nobody, who needs no file of the folder."""
    if os.geteuid() != 0:
        return ""
    nobody = pwd.getpwnam("nobody")
    return f"user nobody {grp.getgrgid(nobody.pw_gid).gr_name};\n"


def _quoted(path: Path) -> str:
    text = str(path)
    if "$" in text:
        raise ConfigError(
            f"The path '{text}' holds a '$', which nginx would read as a variable.",
            next_step="Move the folder or file to another path.",
            code="server.path",
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_CONFIG = """\
# Written by fedtl at each start; changes are lost. What may be set is in server.toml.
{user}daemon off;
pid nginx/nginx.pid;
worker_processes 2;
worker_rlimit_nofile {files};
error_log stderr warn;

events {{
  worker_connections {connections};
}}

http {{
  client_body_temp_path nginx/body;
  proxy_temp_path nginx/proxy;
  fastcgi_temp_path nginx/fastcgi;
  uwsgi_temp_path nginx/uwsgi;
  scgi_temp_path nginx/scgi;

  # what was refused, and by whom; what sites do is in SuperLink's log
  map $status $refused {{
    ~^[45] 1;
    default 0;
  }}
  log_format refused '$time_iso8601 $remote_addr $status "$request" $request_length bytes';
  access_log /dev/stdout refused if=$refused;
  server_tokens off;

  limit_req_zone $binary_remote_addr zone=requests:10m rate={rate}r/s;
  limit_conn_zone $binary_remote_addr zone=connections:10m;

  upstream superlink {{
    server 127.0.0.1:{port} max_fails=0;
    keepalive 64;
    keepalive_timeout 3s; # SuperLink closes after 5
  }}

  server {{
    {listen}
    server_name _;

    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m;
    ssl_session_tickets off;

    # a site that is refused for a moment (503) tries again; Flower gives up at 429
    limit_req zone=requests burst={burst} nodelay;
    limit_conn connections {per_address};
    client_max_body_size {body}m;
    client_header_timeout 10s;
    client_body_timeout 30s;
    send_timeout 60s;
    keepalive_timeout 75s;
    large_client_header_buffers 4 8k;

    # nothing is kept on disk: the workers may have no right to write here
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_buffers 16 64k;
    proxy_buffer_size 64k;
    proxy_busy_buffers_size 128k;
    proxy_http_version 1.1;
    proxy_connect_timeout 5s;
    proxy_read_timeout 300s;
    proxy_send_timeout 60s;
    proxy_set_header Host localhost;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header Forwarded "";
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_ssl_trusted_certificate {own_ca};
    proxy_next_upstream off;

    location ~ ^/v1/fleet/([a-z-]+)$ {{
      if ($request_method != POST) {{
        return 404;
      }}
      # only what was matched goes on: no other spelling of the path, no query
      proxy_pass https://superlink/v1/fleet/$1;
    }}
    location = /health {{
      if ($request_method != GET) {{
        return 404;
      }}
      proxy_pass https://superlink/health;
    }}
    location / {{
      return 404;
    }}
  }}
}}
"""
