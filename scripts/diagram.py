"""Draw the stages of the workflow as a Mermaid flow chart, between the fences of a Markdown file.

Snakemake draws the graph of the rules; here its numbered nodes get the names of their stages.
"""

import re
import sys
from pathlib import Path

from lib.core import command_line, subprocesses
from lib.core.errors import UserError
from lib.core.files import write_text

FENCED = re.compile(r"```mermaid\n.*?```", re.DOTALL)


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("file", type=Path, help="has a block of the language mermaid")
    args = parser.parse_args()
    text = args.file.read_text(encoding="utf-8")
    if not FENCED.search(text):
        raise UserError(f"{args.file} has no block of the language mermaid")
    snakemake = Path(sys.executable).with_name("snakemake")
    graph = subprocesses.run([snakemake, "--rulegraph", "mermaid-js"]).checked()
    write_text(args.file, FENCED.sub(f"```mermaid\n{named(graph)}```", text, count=1))


def named(graph: str) -> str:
    """Return a rule graph of Snakemake with stages instead of numbers, in the order of the work."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", graph))
    edges = [(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", graph)]
    order = list(reversed(names.values()))  # Snakemake begins with the target
    edges = sorted(edges, key=lambda edge: [order.index(stage) for stage in edge])
    return "flowchart LR\n" + "".join(f"    {a} --> {b}\n" for a, b in edges if b != "all")


if __name__ == "__main__":
    command_line.run(main)
