"""`python -m artifex_rl.lab` opens the course in JupyterLab."""

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from artifex_rl.lab.course import COPY, START, copy_course, find_course, find_notebook, trust

# Settings for this server alone. Without its extension for news JupyterLab does not ask about them, in a pop-up that
# would cover the first slider; the user's own JupyterLab elsewhere is left as it is.
SETTINGS = Path(__file__).parent / "jupyter"


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's own options, and the rest, which is JupyterLab's."""
    parser = argparse.ArgumentParser(
        "python -m artifex_rl.lab",
        description="Open the course in JupyterLab, its notebooks trusted, so that their sliders are alive at once.",
        epilog="Any other option goes to JupyterLab; write it in one piece, as --ip=0.0.0.0.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "notebook", nargs="?", default=START, help=f"01, 01_returns_and_advantages, … (default: {START})"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    parser.add_argument("--port", type=int, help="JupyterLab's port")
    parser.add_argument(
        "--dir",
        type=Path,
        help=f"open a copy of the course in this folder (default: in place in a checkout, else ./{COPY})",
    )
    return parser.parse_known_args(arguments)


def main() -> None:
    options, others = parse()
    if find_spec("jupyterlab") is None:
        sys.exit("The course opens in JupyterLab, which is not installed: pip install 'artifex_rl[lab]'")
    try:
        course, checkout = find_course()
        find_notebook(course, options.notebook)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))

    files = course.glob("*.ipynb")
    if options.dir or not checkout:
        source, course = course, (options.dir or Path(COPY)).resolve()
        files, kept = copy_course(source, course)
        print(f"The course is in {course}")
        for file in kept:
            print(f"  kept as you changed it: {file.name}  (rename it, and the original comes back)")
    trust(files)

    command = [
        *(sys.executable, "-m", "jupyterlab"),
        f"--ServerApp.root_dir={course}",
        # Not as a file to run: then the address that --no-browser prints would open an empty launcher.
        f"--LabApp.default_url=/lab/tree/{find_notebook(course, options.notebook).name}",
    ]
    if options.no_browser:
        command.append("--no-browser")
    if options.port is not None:
        command.append(f"--port={options.port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # In a container everybody is root, whom JupyterLab refuses; the server listens to this machine only.
        command.append("--allow-root")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        filter(None, [str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
    sys.stdout.flush()
    if os.name == "nt":
        sys.exit(subprocess.run([*command, *others]).returncode)
    # JupyterLab takes this process over, and Ctrl-C with it; Windows cannot do that.
    os.execv(command[0], [*command, *others])


if __name__ == "__main__":
    main()
