"""Run Snakemake in processes that are forked from one that has imported it.

Importing takes most of a short run of Snakemake, and the suite starts hundreds. A forked process
has imported nothing of the project. It gets the arguments, the folder, the environment and the user
of a call as a new process would, and ends like one.
"""

import atexit
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
# What Python, its libraries and the loader read when a process starts.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "OMP_", "OPENBLAS_")
OPTIONS = {"cwd", "timeout", "env", "user", "group", "extra_groups"}
MOST_BYTES = 1 << 17  # of a request


def folder_until_exit(prefix: str) -> Path:
    """Make a temporary folder that this process removes when it ends.

    A `TemporaryDirectory` would also be removed by a process that `multiprocessing` forks: since
    Python 3.13 that drops the functions that are called at the exit, and with them the object.
    """
    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def can_run(command: list[str], **options) -> bool:
    """Return whether a forked process does a command as one that `subprocess.run` starts."""

    def read_at_start(variables) -> dict[str, str]:
        return {name: variables[name] for name in variables if name.startswith(AT_START)}

    environment = options.get("env") or os.environ
    known = command[0] == SNAKEMAKE and options.keys() <= OPTIONS
    return known and read_at_start(environment) == read_at_start(os.environ)


def run(command: list[str], *, cwd, timeout, env=None, **user) -> subprocess.CompletedProcess:
    """Run a command of Snakemake's as `subprocess.run` would; both outputs are `stdout`."""
    request = {"command": command, "cwd": str(cwd), "env": dict(env or os.environ), "user": user}
    request["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server, _output() as output:
        server.connect(str(_server()))
        socket.send_fds(server, [json.dumps(request).encode()], [output.fileno()])
        server.settimeout(timeout)
        try:
            status = server.recv(16)
        except TimeoutError as error:
            raise subprocess.TimeoutExpired(command, timeout) from error
        output.seek(0)
        return subprocess.CompletedProcess(command, int(status), output.read())


def _output():
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")


@functools.cache
def _server() -> Path:
    """Start the server of this process, which ends with it, and return its socket."""
    path = folder_until_exit("snakemakes-") / "socket"
    command = [sys.executable, __file__, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.stdin.close)
    process.stdout.readline()
    return path


def serve(path: str) -> None:
    """Fork a process for each request. Return only in such a process, as what is requested."""
    import snakemake.cli

    snakemake.cli.get_argument_parser()  # imports the plugins
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that supervise
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        caller, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            text, (output,), *_ = socket.recv_fds(caller, MOST_BYTES, 1)
            child = os.fork()
            if not child:
                caller.close()
                become(json.loads(text), output)
                return
            supervise(child, caller)
        caller.close()
    os._exit(0)


def supervise(child: int, caller: socket.socket) -> None:
    """Tell a caller how its process has ended; end that if the caller has gone."""
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if select.select([caller], [], [], 0.02)[0]:
            os.killpg(child, signal.SIGKILL)
    caller.send(str(os.waitstatus_to_exitcode(ended[1])).encode())
    os._exit(0)


def become(request: dict, output: int) -> None:
    """Give this process what a request asks for."""
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for standard, file in enumerate((nothing, output, output)):
        os.dup2(file, standard)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", 1)  # noqa: SIM115
    user = request["user"]
    if "user" in user:
        os.setgroups(user["extra_groups"])
        os.setgid(user["group"])
        os.setuid(user["user"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["command"]
    tempfile.tempdir = None  # it has been looked up in another environment
    sys.path[0] = str(Path(SNAKEMAKE).parent)


if __name__ == "__main__":
    serve(sys.argv[1])
    from snakemake.cli import main

    main()
