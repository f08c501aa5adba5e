"""Let the fork server run a command in place of this process; see `workflow/functions.sh`.

    python -IS client.py SOCKET scripts/train.py ...

The command's process gets the arguments, the environment, the folder, and the open files of this
one. This process passes on the signals that ask it to end, and ends with the command's exit status.
If the server cannot be reached, the command is run as if there were none.

It imports little, as it starts once for each training: see docs/performance.md.
"""

import array
import json
import os
import signal
import socket
import sys
from contextlib import suppress

READY = b"\n"  # ends what the server says of the process, and of its end


def main() -> None:
    """Run the command line."""
    path, *command = sys.argv[1:]
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
        send(server, command)
        answers = server.makefile("r")
        pid = json.loads(answers.readline())["pid"]
    except (OSError, ValueError):
        os.execvp("python", ["python", *command])  # noqa: S606 - it takes this one's place

    def pass_on(number: int, _) -> None:
        with suppress(ProcessLookupError):  # it has ended at this moment
            os.kill(pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    end = answers.readline()
    if not end:
        print("error: the process that starts the trainings of this job has ended", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    status = json.loads(end)["status"]
    sys.exit(status if status >= 0 else 128 - status)  # as a shell says it


def send(server: socket.socket, command: list[str]) -> None:
    """Send the command, the environment and the folder, with the standard files."""
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes as long to import as all else here
    request = {"command": command, "folder": folder, "environment": dict(os.environ)}
    files = array.array("i", (0, 1, 2))
    server.sendmsg([READY], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(json.dumps(request).encode() + READY)


if __name__ == "__main__":
    main()
