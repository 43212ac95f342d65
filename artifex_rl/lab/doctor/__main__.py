"""`python -m artifex_rl.lab.doctor`: see the package."""

import argparse
import json
import sys

from artifex_rl.lab.doctor import CHECKS, as_json, as_text, examine, write_page


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; 0 only if none failed."""
    parser = argparse.ArgumentParser(
        "python -m artifex_rl.lab.doctor",
        description="Can this machine, this kernel and this browser run the course? And if not, what is to be done?",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"some of: {', '.join(CHECKS)}")
    parser.add_argument(
        "--page", metavar="FILE", help="check nothing; write a page that tries the browser in which it is opened"
    )
    options = parser.parse_args(arguments)
    if options.page:
        try:
            print(f"Open {write_page(options.page).resolve()} in the browser that is to be tried.")
        except OSError as error:
            print(f"--page: {error}", file=sys.stderr)
            return 1
        return 0

    examinations = []
    for one in examine(options.only or CHECKS):
        examinations.append(one)
        if not options.json:
            print(as_text(one), flush=True)
    report = as_json(examinations)
    if options.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        failed = [one.name for one in examinations if one.finding.status == "failed"]
        end = f"{', '.join(failed)} failed" if failed else "The course runs here: python -m artifex_rl.lab"
        print(f"{end}  ({report['seconds']:.0f} s)")
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
