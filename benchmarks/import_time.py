"""What `import artifex_rl` costs beside `import jax, flax, optax`, which a user of the library imports anyway.

Each import is timed in a process of its own; the two take turns, so that a busy moment hits both.

    python benchmarks/import_time.py [--repeats 15]
"""

import argparse
import statistics
import subprocess
import sys

BASE = "import jax, flax, optax"
OURS = "import artifex_rl"
TARGET = 1.15

TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    """How long one fresh process takes over `statement`."""
    run = subprocess.run([sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True)
    return float(run.stdout)


def measure(repeats: int) -> dict[str, list[float]]:
    """The times of both imports, taken in turns after one unrecorded round that fills the caches."""
    for statement in (BASE, OURS):
        seconds(statement)
    times = {BASE: [], OURS: []}
    for i in range(repeats):
        # The order alternates: whoever comes second finds a warmer machine.
        for statement in (BASE, OURS) if i % 2 else (OURS, BASE):
            times[statement].append(seconds(statement))
    return times


def ratio(times: dict[str, list[float]]) -> float:
    """The median over the rounds of our time to the base's in the same round."""
    return statistics.median(ours / base for ours, base in zip(times[OURS], times[BASE], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    times = measure(parser.parse_args().repeats)
    print("| import | median ms | fastest ms | slowest ms |\n|---|---|---|---|")
    for statement, values in times.items():
        low, middle, high = (1000 * f(values) for f in (min, statistics.median, max))
        print(f"| `{statement}` | {middle:.0f} | {low:.0f} | {high:.0f} |")
    print(f"\nratio {ratio(times):.3f} (target: at most {TARGET})")


if __name__ == "__main__":
    main()
