"""How often equal kernels are called different: A against A, over six kernels, and what other tools' rules say of it.

    python benchmarks/false_alarms.py [--trials 300] [--seconds 5] [--threads 1] [--journal FILE]

The bar: at most 1 % say faster or slower, at least 70 % say `same` at a margin of 2 %. The other rules judge the very same
samples: pytest-benchmark's `--benchmark-compare-fail=median:5%`, pyperf's t-test, and torch.utils.benchmark's `Compare`,
which marks as best what lies within 1 % of the fastest.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter, defaultdict

from contests import CONTESTS, Journal, arena, parser

from ridgeline.results.comparison import Comparison, used_quads, verdict_of

MARGIN = 0.02
MOST_ALARMS = 0.01
LEAST_SAME = 0.70
TORCH_BEST = 1.01


def samples(record: Comparison) -> tuple[list[float], list[float]]:
    """Seconds per launch of A and of B, leg by leg, of the quads that count."""
    used = used_quads(record)
    return [s for i in used for s in record.a_s[i]], [s for i in used for s in record.b_s[i]]


def other_rules(record: Comparison) -> dict[str, bool]:
    """Whether each other tool's rule calls the two sides different."""
    from pyperf._utils import is_significant
    from pytest_benchmark.utils import parse_compare_fail

    a, b = samples(record)
    middle_a, middle_b = statistics.median(a), statistics.median(b)
    fails = parse_compare_fail("median:5%").fails({"median": middle_b}, {"median": middle_a})
    return {
        "pytest-benchmark median:5% (regressions only)": bool(fails),
        "pyperf compare (t-test)": bool(is_significant(a, b)[0]),
        "torch.utils.benchmark Compare (1 % of best)": max(middle_a, middle_b) > TORCH_BEST * min(middle_a, middle_b),
    }


def main() -> int:
    """Print the table; 0 where both bars are met."""
    asked = parser("A against A", 300, 5.0).parse_args()
    journal = Journal(asked.journal)
    with arena(asked.threads, asked.seconds) as made:
        for number in range(asked.trials):
            contest = CONTESTS[number % len(CONTESTS)]
            key = f"{number} {contest.name} {asked.threads} {asked.seconds:g}"
            if key not in journal.records:
                # x1 is the registered kernel itself, under a second name; both names run the same code.
                journal.add(key, made.compare(contest, contest.base, f"{contest.base}_x1", asked.seconds, MARGIN))
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, list[float]] = defaultdict(list)
    rules: Counter[str] = Counter()
    for key, record in journal.records.items():
        name = key.split()[1]
        said = verdict_of(record) or record.status
        verdicts[name][said] += 1
        if record.status == "ok":
            seconds[name].append(record.measured_s or 0.0)
            rules.update(rule for rule, different in other_rules(record).items() if different)
    total: Counter[str] = sum(verdicts.values(), Counter())
    count = total.total()
    print(f"{'kernel':36} {'trials':>6} {'same':>6} {'unclear':>8} {'faster':>7} {'slower':>7} {'failed':>7}  median s")
    for name, counts in sorted(verdicts.items()):
        failed = counts.total() - sum(counts[v] for v in ("same", "unclear", "faster", "slower"))
        took = f"{statistics.median(seconds[name]):.2f}" if seconds[name] else "-"
        print(
            f"{name:36} {counts.total():6} {counts['same']:6} {counts['unclear']:8} {counts['faster']:7} "
            f"{counts['slower']:7} {failed:7}  {took}"
        )
    alarms = (total["faster"] + total["slower"]) / count
    print(
        f"ridgeline compare: {alarms:.1%} false alarms (bar {MOST_ALARMS:.0%}), {total['same'] / count:.0%} same (bar 70 %)"
    )
    for rule in other_rules(next(r for r in journal.records.values() if r.status == "ok")):
        print(f"{rule}: {rules[rule] / count:.1%} called different, on the same samples")
    passed = alarms <= MOST_ALARMS and total["same"] / count >= LEAST_SAME
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
