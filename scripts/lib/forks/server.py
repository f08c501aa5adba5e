"""A fork server: it imports torch once, and forks a process for each training and evaluation.

    python server.py FOLDER torch scripts/train.py scripts/evaluate.py

A plain `python scripts/train.py` spends seconds on its imports before it trains. Here, one process
imports torch, and forks one more for each of the scripts, which imports what that script imports.
These wait for commands (`client.py`) and fork a process for each: it runs the script from its first
line, with the arguments, the environment, the folder and the open files of whoever has asked. So
the script cannot tell the difference: its record names the same files of code, and its results are
the same bytes. Nobody edits that code meanwhile: it is a copy, see `lib.core.snapshot`.

A process must be forked before torch starts a thread or uses a GPU. So nothing is computed here.
https://docs.pytorch.org/docs/stable/notes/multiprocessing.html
"""

import array
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SCRIPTS = Path(__file__).absolute().parents[2]
MOST_BYTES = 1 << 24  # of a request


def serve(folder: Path, modules: list[str], scripts: list[Path]) -> NoReturn:
    """Serve until nobody holds the other end of standard input; say so when it is ready.

    This process stays small: a site may count the memory that processes share once for each.

    Args:
        folder: for the sockets, of this user alone: of train.py it is `train.socket`.
        modules: what all scripts import.
        scripts: those that are run.
    """
    alive, held = os.pipe()  # which is closed when all of them have ended
    loader = os.fork()
    if not loader:
        os.close(alive)
        start_workers(folder, modules, scripts)
    os.close(held)
    _, status = os.waitpid(loader, 0)
    if status:
        sys.exit(1)
    print("ready", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # the commands get them too, and end in order
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    os.read(alive, 1)
    sys.exit()


def start_workers(folder: Path, modules: list[str], scripts: list[Path]) -> NoReturn:
    """Import the modules, start a worker for each script, and end once they are ready."""
    for module in modules:
        importlib.import_module(module)
    # Some libraries start threads when they are imported. What is forked does not use those.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    waiting = []
    for script in scripts:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / f"{script.stem}.socket"))
        listener.listen(128)
        ready, tell = os.pipe()
        if not os.fork():
            os.close(ready)
            ForkWorker(script, listener).run(tell)
        listener.close()
        os.close(tell)
        waiting.append(ready)
    os._exit(not all(os.read(ready, 1) for ready in waiting))


@dataclass
class Child:
    """A process that runs a command, and who waits for it."""

    pid: int
    client: socket.socket


class ForkWorker:
    """The process that forks those of one script."""

    def __init__(self, script: Path, listener: socket.socket):
        self.script, self.listener = script, listener
        self.children: dict[int, Child] = {}
        self.selector = selectors.DefaultSelector()

    def run(self, tell: int) -> NoReturn:
        """Import what the script imports, say that it is done, and serve."""
        for name, module in list(sys.modules.items()):  # the record of a run lists its own code
            if name != "__main__" and _is_ours(module):
                del sys.modules[name]
        sys.path[0] = str(self.script.parent)  # as for the script itself
        runpy.run_path(str(self.script), run_name="imported")
        if self.script.parent == SCRIPTS:
            read_code()
        gc.freeze()  # a collection in a child would copy all memory
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        wake, woken = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(wake, selectors.EVENT_READ, lambda: self.reap(wake))
        self.selector.register(0, selectors.EVENT_READ, self.end)  # its other end is closed
        os.write(tell, b"1")
        os.close(tell)
        while True:
            for key, _ in self.selector.select():
                key.data()

    def accept(self) -> None:
        """Fork a process for a new client."""
        client, _ = self.listener.accept()
        try:
            request, files = receive(client)
        except (OSError, ValueError):
            client.close()  # which then runs its command itself
            return
        try:
            pid = os.fork()
        except OSError:  # too many processes: the client tries it itself, and says why
            pid = None
        if pid == 0:
            self.run_in_child(request, files, client)
        for file in files:
            os.close(file)
        if pid is None:
            client.close()
            return
        self.children[pid] = Child(pid, client)
        self.selector.register(client, selectors.EVENT_READ, lambda: self.client_gone(pid))
        say(client, pid=pid)

    def run_in_child(self, request: dict, files: list[int], client: socket.socket) -> NoReturn:
        """Be the process of a command, in the child of a fork."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.selector.close()
        for each in (self.listener, client, *(child.client for child in self.children.values())):
            each.close()
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        open_standard_files()
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = request["command"]
        os._exit(run_script(self.script))

    def client_gone(self, pid: int) -> None:
        """Kill a process whose client has gone, and what it has started."""
        child = self.children.get(pid)
        if child is None:  # it has ended at the same moment, which was noticed first
            return
        for kill in (os.killpg, os.kill):  # its group, or itself before it has one
            with suppress(OSError):
                kill(pid, signal.SIGKILL)
        self.selector.unregister(child.client)

    def reap(self, wake: socket.socket) -> None:
        """Tell the clients of the processes that have ended."""
        with suppress(BlockingIOError):
            wake.recv(4096)
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            client = self.children.pop(pid).client
            with suppress(KeyError, ValueError):  # it has gone
                self.selector.unregister(client)
            say(client, status=os.waitstatus_to_exitcode(status))
            client.close()

    def end(self) -> NoReturn:
        """Kill what runs, since the server has ended, and end."""
        for child in self.children.values():
            with suppress(OSError):
                os.kill(child.pid, signal.SIGTERM)
        os._exit(0)


def receive(client: socket.socket) -> tuple[dict, list[int]]:
    """Return a request, and the files that came with it.

    Raises:
        ValueError: it is none.
    """
    client.settimeout(10)
    files = array.array("i")
    _, ancillary, *_ = client.recvmsg(1, socket.CMSG_SPACE(3 * files.itemsize))
    for _, _, content in ancillary:
        files.frombytes(content[: len(content) - len(content) % files.itemsize])
    text = b""
    while not text.endswith(b"\n"):
        part = client.recv(1 << 16)
        if not part or len(text) > MOST_BYTES:
            raise ValueError("it is cut off")
        text += part
    client.settimeout(None)
    if len(files) != 3:
        raise ValueError("it has no files")
    return json.loads(text), list(files)


def read_code() -> None:
    """Find out what the code means: here, once for all processes that are forked."""
    from lib.core import code_digests
    from lib.core.errors import UserError

    files = set(code_digests.imported_files())
    for model in (SCRIPTS / "models").glob("*.py"):
        with suppress(UserError):  # of those who train it
            files.update(code_digests.files_of(model))
    code_digests.file_digests(files)


def say(client: socket.socket, **words: int) -> None:
    """Send a line to a client, unless it has gone."""
    with suppress(OSError):
        client.sendall(json.dumps(words).encode() + b"\n")


def open_standard_files() -> None:
    """Open Python's standard files again, as at its start: the old ones know other files."""
    sys.stdin = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115 - it stays open
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        buffering = 1 if number == 2 or os.isatty(number) else -1
        how = {"encoding": old.encoding, "errors": old.errors, "closefd": False}
        setattr(sys, name, open(number, "w", buffering, **how))  # noqa: SIM115, PTH123


def run_script(script: Path) -> int:
    """Run a script as if Python had started with it; return its exit status."""
    status = 0
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        status = end.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return status or 0


def _is_ours(module) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(file).absolute().is_relative_to(SCRIPTS)


if __name__ == "__main__":
    folder, modules, *scripts = sys.argv[1:]
    serve(Path(folder), modules.split(","), list(map(Path, scripts)))
