"""Streaming servers from Debian, each on free ports of 127.0.0.1, and senders to them."""

from __future__ import annotations

import os
import socket
import urllib.request
from contextlib import closing
from pathlib import Path

from audio_servers import Process, Server, need


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with closing(socket.socket(socket.AF_INET, kind)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Icecast(Server):
    """`url(mount)` takes a source, `listen(mount)` is for listeners."""

    PASSWORD = "s3cret"

    def __init__(self, directory: Path) -> None:
        need("icecast2")
        self.port = free_port()
        self._directory = directory
        self.start()

    def start(self) -> None:
        # As root it insists on becoming somebody else, who may not read our directory: it logs to
        # stderr.  Listeners begin with little: the tests are about the relay, not this.
        owner = "<changeowner><user>nobody</user><group>nogroup</group></changeowner>"
        config = self._directory / "icecast.xml"
        config.write_text(f"""<icecast>
<limits><clients>20</clients><sources>5</sources><source-timeout>20</source-timeout>
<burst-size>4096</burst-size></limits>
<authentication><source-password>{self.PASSWORD}</source-password></authentication>
<hostname>localhost</hostname>
<listen-socket><port>{self.port}</port><bind-address>127.0.0.1</bind-address></listen-socket>
<paths><basedir>/usr/share/icecast2</basedir><webroot>/usr/share/icecast2/web</webroot>
<adminroot>/usr/share/icecast2/admin</adminroot></paths>
<logging><accesslog>-</accesslog><errorlog>-</errorlog><loglevel>3</loglevel></logging>
<security><chroot>0</chroot>{owner if os.geteuid() == 0 else ""}</security>
</icecast>""")
        self.process = Process(["icecast2", "-c", str(config)], self._directory / "icecast.log")
        self._await(lambda: answers(self.port), self.process)

    def url(self, mount: str, password: str = PASSWORD) -> str:
        return f"icecast://source:{password}@127.0.0.1:{self.port}/{mount}"

    def listen(self, mount: str) -> str:
        return f"http://127.0.0.1:{self.port}/{mount}"

    def has(self, mount: str) -> bool:
        """Whether somebody sends there."""
        try:
            with urllib.request.urlopen(self.listen(mount), timeout=2):
                return True
        except OSError:
            return False


class Rtmp(Server):
    """nginx with its RTMP module; subscribers stay when the publisher goes."""

    def __init__(self, directory: Path) -> None:
        need("nginx")
        module = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
        if not module.exists():
            need("libnginx-mod-rtmp")
        self.port = free_port()
        self._directory = directory / "nginx"
        self._directory.mkdir()
        home = self._directory
        (home / "nginx.conf").write_text(f"""
load_module {module};
daemon off; master_process off; worker_processes 1;
pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
rtmp {{ server {{
    listen 127.0.0.1:{self.port};
    application live {{ live on; idle_streams on; wait_key on; sync 10ms; }}
}} }}
""")
        self.start()

    def start(self) -> None:
        home = self._directory
        self.process = Process(
            ["nginx", "-p", str(home), "-e", str(home / "error.log"), "-c", f"{home}/nginx.conf"],
            home / "output.log",
        )
        self._await(lambda: answers(self.port), self.process)

    def url(self, stream: str) -> str:
        return f"rtmp://127.0.0.1:{self.port}/live/{stream}"


def send(film: Path, url: str, log: Path, *options: str) -> Process:
    """FFmpeg plays a film to a server, by the clock, copying what is in it."""
    need("ffmpeg")
    form = "flv" if url.startswith("rtmp") else "mpegts"
    source = ["ffmpeg", "-nostdin", "-loglevel", "warning", "-re", "-i", str(film)]
    return Process([*source, "-c", "copy", *options, "-f", form, url], log)
