# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does the way through the relay cost, beside ssh straight to the same sshd?

The machines of the lab are real OpenSSH servers on loopback ports, so `direct` is the same ssh, the same sshd and the
same options without our ProxyCommand. Client, helper, the lab's relay and sshd share the machine's cores; the relay is
a Python program too, so throughput through it is a lower bound. The helper's own CPU is what the kernel counts for its
process (wait4), without what a connection that carries nothing takes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import math
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Broken, Line, Sample, Section, Settings, alternating, measure, median

from arclab.client import Lab
from on_lab import environment, module

HELPER = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "_relay" / "_start.py"
MB, GB = 10**6, 10**9
FORKS, PERSIST = 10, 60
AT_ONCE = 6
# Seconds after which a program is taken to be stalled; the longest spike of the profile takes 7.
PATIENCE = 12.0
# The median of the lab's profile `live` (0.4-0.75 s for 94 of 100), without any client.
PROFILE = 0.4 + 0.35 * 50 / 94

Machine = dict[str, Any]

# Runs a command and leaves its CPU seconds and peak memory (KiB) in a file; ssh ends it with SIGHUP.
_RECORD = """
import json, os, signal, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
def pass_on(number, _frame):
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, pass_on)
_pid, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss]) + "\\n")
raise SystemExit(os.waitstatus_to_exitcode(status) and 255)
"""

# The relay's protocol without anything that cuts the tail: one dial, and all the patience in the world.
_PLAIN = """
import base64, json, os, socket, ssl, sys, time, uuid
relay = json.load(open(sys.argv[1]))["relay"]
name = f"{relay['namespaceName']}.{relay['namespaceNameSuffix']}"
host, _colon, port = name.partition(":")
context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
begin = time.monotonic()
stream = context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)
key = base64.b64encode(os.urandom(16)).decode()
path = f"/$hc/{relay['hybridConnectionName']}?sb-hc-action=connect&sb-hc-id={uuid.uuid4()}"
stream.sendall((
    f"GET {path} HTTP/1.1\\r\\nHost: {name}\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    f"Sec-WebSocket-Key: {key}\\r\\nSec-WebSocket-Version: 13\\r\\n"
    f"ServiceBusAuthorization: {relay['accessKey']}\\r\\n"
    f"Service-Configuration-Token: {relay['serviceConfigurationToken']}\\r\\n"
    f"Microsoft-Guestgateway-Target: localhost:22\\r\\n\\r\\n").encode())
data = b""
while b"SSH-2.0" not in data:
    more = stream.recv(65536)
    if not more or not (data + more).startswith(b"HTTP/1.1 101"[:len(data + more)]):
        raise SystemExit(f"refused: {data + more}")
    if not data:
        print(f"connected in {time.monotonic() - begin:.3f} s.", file=sys.stderr)
    data += more
os.write(1, b"SSH-2.0")
"""


def sections(settings: Settings) -> Iterator[Section]:
    """Connect, bulk data, many hosts, memory; then a thousand connects to a relay with the live one's timing."""
    hosts = 4 if settings.quick else 100
    with Lab.up(settings.scratch / "plain", machines=hosts, check_specs=False) as lab:
        bench = _Bench(lab, settings)
        bench.warm_up()
        yield bench.connects()
        yield bench.bulk()
        yield bench.pings()
        yield bench.memory()
        lab.down(purge=True)
    with Lab.up(settings.scratch / "live", machines=1, check_specs=False, relay_profile="live") as lab:
        bench = _Bench(lab, settings)
        bench.warm_up()
        yield bench.tail(30 if settings.quick else 1000)
        lab.down(purge=True)


class _Bench:
    def __init__(self, lab: Lab, settings: Settings) -> None:
        self.lab = lab
        self.settings = settings
        self.scratch = settings.scratch
        self.machines: list[Machine] = []
        # Loopback is nothing that a proxy of this machine should see.
        self.env = environment(lab, NO_PROXY="*", ANSIBLE_HOST_KEY_CHECKING="True")
        self._record = self.scratch / "record.py"
        self._record.write_text(_RECORD)
        self._plain = self.scratch / "plain.py"
        self._plain.write_text(_PLAIN)
        self._numbers = itertools.count()

    def warm_up(self) -> None:
        """SSH is enabled, each sshd runs, credentials are in the cache."""
        found = self.lab.machines()
        enabled = module(self.lab, "arc_ssh_service_config", machines=[machine["id"] for machine in found])
        if enabled.get("failed"):
            raise Broken(f"the machines could not be enabled: {enabled.get('msg')}")
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            helpers = ([*self._helper(machine), "--verbose"] for machine in found)
            if any(one.failed for one in pool.map(self._connect, helpers)):
                raise Broken("a machine cannot be reached")
        self.machines = self.lab.machines()

    # --- commands -----------------------------------------------------------------------------------------------------

    def _helper(self, machine: Machine) -> list[str]:
        return [sys.executable, str(HELPER), "--resource-id", machine["id"], "--port", "22"]

    def _ssh(self, machine: Machine, *command: str, proxy: Sequence[str] | None = None) -> list[str]:
        """ssh through `proxy`, or straight."""
        options = {
            "HostKeyAlias": machine["id"].lower(),
            "UserKnownHostsFile": self.lab.env["ARCLAB_KNOWN_HOSTS"],
            "StrictHostKeyChecking": "yes",
            "IdentityFile": self.lab.env["ARCLAB_KEY"],
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "Compression": "no",
            **({"ProxyCommand": " ".join(proxy)} if proxy else {"Port": str(machine["real_port"])}),
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        host = machine["name"] if proxy else "127.0.0.1"
        return ["ssh", "-F", "none", *words, "-l", self.lab.env["ARCLAB_USER"], host, *command]

    def _recorded(self, machine: Machine) -> tuple[list[str], Path]:
        """The helper's command, and the file that will hold what it used."""
        file = self.scratch / f"usage-{next(self._numbers)}"
        return [sys.executable, "-I", "-S", str(self._record), str(file), *self._helper(machine)], file

    # --- connect ------------------------------------------------------------------------------------------------------

    def connects(self) -> Section:
        machine = self.machines[0]
        runs = 2 if self.settings.quick else 7 * self.settings.runs

        def direct() -> Sample:
            return measure(self._ssh(machine, "true"), env=self.env)

        def warm() -> Sample:
            return measure(self._ssh(machine, "true", proxy=self._helper(machine)), env=self.env)

        def cold() -> Sample:
            shutil.rmtree(Path(self.env["XDG_CACHE_HOME"]) / "arcfleet")
            return warm()

        straight, through = alternating(runs, direct, warm)
        beside, first = alternating(max(2, runs // 3), direct, cold)
        ratio = median(through, "wall") / median(straight, "wall")
        return Section(
            "Connect: `ssh HOST true`, through the relay beside direct",
            [
                Line(
                    "credentials in the cache",
                    f"{median(through, 'wall'):.3f} s",
                    f"{median(straight, 'wall'):.3f} s",
                    ratio,
                    "≤ 1.15",
                    ratio <= 1.15,
                ),
                Line(
                    "cold: login and credentials first",
                    f"{median(first, 'wall'):.3f} s",
                    f"{median(beside, 'wall'):.3f} s",
                    median(first, "wall") / median(beside, "wall"),
                ),
                Line(
                    "CPU of client and helper, credentials in the cache",
                    f"{median(through, 'cpu') * 1000:.0f} ms",
                    f"{median(straight, 'cpu') * 1000:.0f} ms",
                    median(through, "cpu") / median(straight, "cpu"),
                ),
            ],
            [f"Medians of {runs} connects a side ({max(2, runs // 3)} cold). The lab's Azure adds no latency."],
        )

    # --- bulk ---------------------------------------------------------------------------------------------------------

    def bulk(self) -> Section:
        machine = self.machines[0]
        size = (20 if self.settings.quick else 200) * MB
        runs = self.settings.runs if self.settings.quick else max(5, self.settings.runs)
        idle = statistics.median(self._usage(machine, self._nothing, 0)[1] for _dummy in range(5))
        lines: list[Line] = []
        burden: list[Line] = []
        peak = 0.0
        for name, transfer in (("down", self._down), ("up", self._up)):
            straight, through, costs = [], [], []
            for _dummy in range(runs):
                straight.append(transfer(self._ssh(machine, _REMOTE[name].format(size)), size))
                speed, cpu, memory = self._usage(machine, transfer, size, _REMOTE[name].format(size))
                through.append(speed)
                costs.append((cpu - idle) / (size / GB))
                peak = max(peak, memory)
            ours, theirs = statistics.median(through), statistics.median(straight)
            ratio = ours / theirs
            lines.append(
                Line(f"{name}: throughput", f"{ours:.0f} MB/s", f"{theirs:.0f} MB/s", ratio, "≥ 0.6", ratio >= 0.6)
            )
            cost = statistics.median(costs)
            burden.append(
                Line(
                    f"{name}: CPU of the helper",
                    f"{cost:.2f} s/GB ({min(costs):.2f} to {max(costs):.2f})",
                    target="≤ 1.5 s/GB",
                    met=cost <= 1.5,
                )
            )
        memory_line = Line("peak memory of the helper", f"{peak:.1f} MB", target="≤ 25 MB", met=peak <= 25)
        return Section(
            f"{size // MB} MB through one connection, through the relay beside direct",
            [*lines, *burden, memory_line],
            [
                f"Medians of {runs} runs a side, ssh's default cipher without compression, from the first byte to the last.",
                f"A helper that carries nothing takes {idle * 1000:.0f} ms of CPU; that is taken off. GB are 10^9 bytes.",
                "Through the relay, four programs share the cores instead of two, and the lab's relay is the busiest.",
            ],
        )

    def _usage(
        self, machine: Machine, transfer: Callable[[list[str], int], float], size: int, command: str = "true"
    ) -> tuple[float, float, float]:
        """MB/s of a transfer through the helper, and the helper's CPU seconds and peak MB."""
        proxy, file = self._recorded(machine)
        speed = transfer(self._ssh(machine, command, proxy=proxy), size)
        deadline = time.monotonic() + 10
        while not (file.exists() and file.read_text().endswith("\n")):
            if time.monotonic() > deadline:
                raise Broken("the helper does not end")
            time.sleep(0.01)
        cpu, peak = json.loads(file.read_text())
        return speed, cpu, peak * 1024 / MB

    def _nothing(self, command: list[str], _size: int) -> float:
        with _started(command, self.env) as process:
            _close(process.stdin)
        _check(process, True, "there is no connection")
        return 0.0

    def _down(self, command: list[str], size: int) -> float:
        """MB/s from the first byte to the last."""
        buffer = memoryview(bytearray(1 << 20))
        with _started(command, self.env) as process:
            source = _pipe(process.stdout)
            total = os.readv(source, [buffer])
            begin = time.perf_counter()
            while count := os.readv(source, [buffer]):
                total += count
            taken = time.perf_counter() - begin
        _check(process, total == size, "the data did not arrive")
        return size / MB / taken

    def _up(self, command: list[str], size: int) -> float:
        """MB/s from the far side's first word to its count of what arrived."""
        with _started(command, self.env) as process:
            source, sink = _pipe(process.stdout), _pipe(process.stdin)
            ready = os.read(source, 6)
            begin = time.perf_counter()
            left, chunk = size, memoryview(bytes(1 << 18))
            while left:
                left -= os.write(sink, chunk[: min(left, len(chunk))])
            _close(process.stdin)
            counted = os.read(source, 100)
            taken = time.perf_counter() - begin
        _check(process, ready == b"ready\n" and int(counted or 0) == size, "the data did not arrive")
        return size / MB / taken

    # --- Ansible ------------------------------------------------------------------------------------------------------

    def pings(self) -> Section:
        common = f"-o UserKnownHostsFile={self.lab.env['ARCLAB_KNOWN_HOSTS']} -o IdentitiesOnly=yes"
        hosts: dict[str, dict[str, Any]] = {"direct": {}, "relay": {}}
        for machine in self.machines:
            alias = f"{common} -o HostKeyAlias={machine['id'].lower()}"
            proxy = f"-o 'ProxyCommand={' '.join(self._helper(machine)[:-1])} %p'"
            hosts["direct"][machine["name"]] = {
                "ansible_host": "127.0.0.1",
                "ansible_port": machine["real_port"],
                "ansible_ssh_common_args": alias,
            }
            hosts["relay"][machine["name"]] = {"ansible_port": 22, "ansible_ssh_common_args": f"{proxy} {alias}"}
        shared = {
            "ansible_user": self.lab.env["ARCLAB_USER"],
            "ansible_ssh_private_key_file": self.lab.env["ARCLAB_KEY"],
            "ansible_python_interpreter": sys.executable,
            "ansible_ssh_timeout": 60,
        }
        for name, some in hosts.items():
            content = {"all": {"hosts": some, "vars": shared}}
            (self.scratch / f"{name}.json").write_text(json.dumps(content))
        # What only the first run pays (byte code, ~/.ansible) is paid before.
        self._ping("direct")
        self._ping("relay")
        straight, through = alternating(
            1 if self.settings.quick else self.settings.runs, lambda: self._ping("direct"), lambda: self._ping("relay")
        )
        ratio = median(through, "wall") / median(straight, "wall")
        return Section(
            f"`ansible -m ping` on {len(self.machines)} hosts, through the relay beside direct",
            [
                Line(
                    "wall clock",
                    f"{median(through, 'wall'):.1f} s",
                    f"{median(straight, 'wall'):.1f} s",
                    ratio,
                    "≤ 1.25",
                    ratio <= 1.25,
                ),
                Line(
                    "CPU of Ansible, ssh and the helpers",
                    f"{median(through, 'cpu'):.1f} s",
                    f"{median(straight, 'cpu'):.1f} s",
                    median(through, "cpu") / median(straight, "cpu"),
                ),
            ],
            [
                (
                    f"Both sides: a static inventory, {FORKS} forks, ControlPersist={PERSIST}s, no connection open at the "
                    "start, each sshd started and credentials in the cache before; Ansible's defaults otherwise."
                )
            ],
        )

    def _ping(self, side: str) -> Sample:
        # A short path: the name of a socket may have a hundred characters.
        with tempfile.TemporaryDirectory(prefix="arc") as sockets:
            env = {
                **self.env,
                "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
                "ANSIBLE_SSH_ARGS": f"-C -o ControlMaster=auto -o ControlPersist={PERSIST}s",
                "ANSIBLE_REMOTE_TMP": str(self.scratch / "remote"),
            }
            command = ["ansible", "all", "-i", str(self.scratch / f"{side}.json"), "-m", "ping", "-o", "-f", str(FORKS)]
            try:
                sample = measure(command, env=env, cwd=self.scratch, keep_stdout=True, timeout=600)
            finally:
                for socket in Path(sockets).iterdir():
                    leave = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "x"]
                    subprocess.run(leave, env=env, check=False, capture_output=True, timeout=30)
        if sample.stdout.count("| SUCCESS =>") != len(self.machines):
            raise Broken(f"not every host answered: {sample.stdout[-2000:]}")
        return sample

    # --- memory -------------------------------------------------------------------------------------------------------

    def memory(self) -> Section:
        with contextlib.ExitStack() as stack:
            running = []
            for machine in self.machines:
                process = stack.enter_context(_started(self._helper(machine), self.env))
                stack.callback(_close, process.stdin)
                if not os.read(_pipe(process.stdout), 7) == b"SSH-2.0":
                    raise Broken("a helper does not connect")
                running.append(process.pid)
            found = [_memory(pid) for pid in running]
        resident, share = [rss for rss, _pss in found], [pss for _rss, pss in found]
        one = statistics.median(resident)
        return Section(
            "Memory of helpers with a connection open",
            [
                Line("one helper, resident", f"{one:.1f} MB", target="≤ 25 MB", met=one <= 25),
                Line(
                    f"{len(found)} helpers at once, shared pages counted once (PSS)",
                    f"{sum(share):.0f} MB",
                    f"{sum(resident):.0f} MB (sum of RSS)",
                    sum(share) / sum(resident),
                ),
            ],
        )

    # --- the live relay's tail ----------------------------------------------------------------------------------------

    def tail(self, count: int) -> Section:
        machine = self.machines[0]
        cache = Path(self.env["XDG_CACHE_HOME"]) / "arcfleet" / "relay"
        (credentials,) = [
            file
            for file in cache.glob("*.json")
            if json.loads(file.read_text()).get("subject", [""])[0].startswith("/")
        ]
        plain = [sys.executable, str(self._plain), str(credentials)]
        helper = [*self._helper(machine), "--verbose"]
        ours: list[_Connect] = []
        theirs: list[_Connect] = []
        blocks = 1 if self.settings.quick else 5
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for _dummy in range(blocks):
                for connects, command, share in ((ours, helper, 1), (theirs, plain, 2)):
                    connects += pool.map(self._connect, itertools.repeat(command, count // blocks // share))
        late = _percentile([one.whole for one in ours], 99)
        failed = sum(one.failed for one in ours)
        lines = []
        for name, figure in (("from the start of the process to sshd's banner", "whole"), ("the dial alone", "dial")):
            our, their = [statistics.median(getattr(one, figure) for one in side) for side in (ours, theirs)]
            ratio = our / their
            lines.append(
                Line(f"median, {name}", f"{our:.3f} s", f"{their:.3f} s", ratio, "≤ 1.05", ratio <= 1.05),
            )
        return Section(
            f"{len(ours)} connects to a relay that takes the live one's time",
            [
                *lines,
                Line(
                    "99th percentile, from the start to the banner",
                    _seconds(late),
                    _seconds(_percentile([one.whole for one in theirs], 99)),
                    target="≤ 3.5 s",
                    met=late <= 3.5,
                ),
                Line(
                    "longest",
                    _seconds(max(one.whole for one in ours)),
                    _seconds(max(one.whole for one in theirs)),
                ),
                Line(
                    "failures",
                    f"{failed} of {len(ours)}",
                    f"{sum(one.failed for one in theirs)} of {len(theirs)}",
                    target="none",
                    met=not failed,
                ),
            ],
            [
                (
                    "Beside: a client of the same Python that dials once and waits; after "
                    f"{PATIENCE:g} s it counts as failed. A dial is TCP, TLS and upgrade."
                ),
                (
                    "The lab's profile `live`: 0.4-0.75 s, 1 in 20 connects 3-7 s, 1 in 100 never; without any client its "
                    f"median is {PROFILE:.3f} s. {AT_ONCE} connects at once."
                ),
            ],
        )

    def _connect(self, command: list[str]) -> _Connect:
        """Run a program until sshd's banner comes out of it, and let it end."""
        with tempfile.TemporaryFile(dir=self.scratch) as said:
            begin = time.perf_counter()
            process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
            source = _pipe(process.stdout)
            banner = os.read(source, 7) if select.select([source], [], [], PATIENCE)[0] else b""
            taken = time.perf_counter() - begin
            if not banner:
                process.kill()
            _close(process.stdin)
            try:
                status = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            _close(process.stdout)
            said.seek(0)
            dial = re.search(rb"connected .*in ([0-9.]+) s", said.read())
        if banner != b"SSH-2.0" or status or dial is None:
            return _Connect(math.inf, math.inf)
        return _Connect(taken, float(dial[1]))


@dataclass(frozen=True)
class _Connect:
    """Seconds for all of it, and for the dial as the program itself saw it; infinite for a failure."""

    whole: float
    dial: float

    @property
    def failed(self) -> bool:
        return math.isinf(self.whole)


# What runs on the machine, for each direction.
_REMOTE = {"down": "head -c {} /dev/zero", "up": "echo ready; wc -c"}


def _started(command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _check(process: subprocess.Popen[bytes], arrived: bool, what: str) -> None:
    if process.wait(30) or not arrived:
        raise Broken(f"{what} (ssh ended with {process.returncode})")


def _pipe(file: Any) -> int:
    """The descriptor of a pipe that Popen made."""
    return int(file.fileno())


def _close(file: Any) -> None:
    with contextlib.suppress(OSError):
        file.close()


def _memory(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process, in MB."""
    figures = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split()[:2]
        figures[name] = int(amount) * 1024 / MB
    return figures["Rss:"], figures["Pss:"]


def _percentile(times: Sequence[float], percent: int) -> float:
    """The smallest time within which `percent` of 100 have ended."""
    return sorted(times)[math.ceil(len(times) * percent / 100) - 1]


def _seconds(taken: float) -> str:
    return "never" if math.isinf(taken) else f"{taken:.2f} s"
