"""How small a slowdown is found: kernels against themselves with exactly 5, 2 and 1 % more work.

    python benchmarks/power.py [--trials 60] [--seconds 10] [--threads 1] [--journal FILE]

The bar: 5 % more work is called slower, at the default margin of 2 %, in at least 95 % of comparisons of at most 10 s each.
2 and 1 % lie within that margin, where `same` is the right answer; they are compared at a margin of 0.5 %.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter

from contests import CONTESTS, Journal, arena, parser

from ridgeline.analytical.comparison import detectable_change
from ridgeline.results.comparison import interval_of, verdict_of

STEPS = ((20, 0.05, 0.02), (50, 0.02, 0.005), (100, 0.01, 0.005))
"""Repetitions of A (B has one more), what that adds, and the margin."""
LEAST_FOUND = 0.95


def main() -> int:
    """Print the table; 0 where the bar is met."""
    options = parser("more work", 60, 10.0)
    options.add_argument("--smaller-trials", type=int, default=24, help="of 2 % and of 1 % more work")
    asked = options.parse_args()
    journal = Journal(asked.journal)
    with arena(asked.threads, asked.seconds) as made:
        for times, more, margin in STEPS:
            for number in range(asked.trials if more == STEPS[0][1] else asked.smaller_trials):
                contest = CONTESTS[number % len(CONTESTS)]
                key = f"{number} {contest.name} {more} {asked.threads} {asked.seconds:g}"
                if key not in journal.records:
                    a, b = f"{contest.base}_x{times}", f"{contest.base}_x{times + 1}"
                    journal.add(key, made.compare(contest, a, b, asked.seconds, margin))
    print(f"{'kernel':36} {'more work':>9} {'trials':>6} {'slower':>7} {'ratio':>7} {'median s':>9} {'detectable':>10}")
    found = Counter[float]()
    trials = Counter[float]()
    for _, more, margin in STEPS:
        for contest in CONTESTS:
            records = [
                r
                for key, r in journal.records.items()
                if key.split()[1] == contest.name and float(key.split()[2]) == more
            ]
            if not records:
                continue
            slower = sum(verdict_of(r) == "slower" for r in records)
            found[more] += slower
            trials[more] += len(records)
            intervals = [(r, i) for r in records if (i := interval_of(r)) is not None]
            ratio = f"{statistics.median(i.ratio for _, i in intervals):.4f}" if intervals else "-"
            took = f"{statistics.median(r.measured_s or 0.0 for r, _ in intervals):.2f}" if intervals else "-"
            changes = [c for r, i in intervals if (c := detectable_change(i, r.looks[-1], margin)) is not None]
            smallest = f"{statistics.median(changes):.2%}" if changes else "-"
            print(f"{contest.name:36} {more:9.0%} {len(records):6} {slower:7} {ratio:>7} {took:>9} {smallest:>10}")
    for _, more, margin in STEPS:
        if trials[more]:
            print(
                f"{more:.0%} more work: slower in {found[more] / trials[more]:.0%} of {trials[more]}, margin {margin:.1%}"
            )
    passed = found[STEPS[0][1]] >= LEAST_FOUND * trials[STEPS[0][1]]
    print("detectable: the change that the whole budget would find in 95 of 100 comparisons, the margin included")
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
