"""Draw the stages of the workflow as a Mermaid flow chart, between the fences of a Markdown file.

Snakemake draws the graph of the rules; here its numbered nodes get the names of their stages.
"""

import re
import sys
from graphlib import TopologicalSorter
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


def named(mermaid: str) -> str:
    """Return a rule graph of Snakemake with stages instead of numbers, in the order of the work."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", mermaid))
    edges = [(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", mermaid)]
    graph = TopologicalSorter()
    for before, after in edges:
        graph.add(after, before)
    order = list(graph.static_order())
    edges = sorted(edges, key=lambda edge: [order.index(stage) for stage in edge])
    return "flowchart LR\n" + "".join(f"    {a} --> {b}\n" for a, b in edges if b != "all")


if __name__ == "__main__":
    command_line.run(main)
