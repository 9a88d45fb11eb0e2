"""A run as it went: answers, length, keywords and KL against samples (the paper's figure 6).

    python eval.py evolve                        # out/tiny-arith-0
    python eval.py evolve out/two-rounds         # with --rounds: also what each round changed

Draws RUN/evolution.png and prints the accuracy of first answers and of revised ones, and the words
of revising aloud, before and after each phase and round: how often one of the paper's 27 keywords
(kit/tables.py) stands in an answer, on average.
"""

from dataclasses import dataclass

import kit
from kit.errors import UserError
from kit.options import option, parse_options
from kit.tables import table
from studies.runs import only_run_of, read_metrics, read_results

DEFAULT_RUN = "out/tiny-arith-0"


@dataclass
class EvolveConfig:
    run: list = option((), f"run folder [{DEFAULT_RUN}]")


def evolution_table(results: dict[str, dict]) -> str:
    """First and revised answers after each phase and round."""
    heading = ["initial acc. %", "revised acc. %", "tokens", "revised tokens", "keywords an answer"]
    rows = [["", *heading]]
    for stage, r in results.items():
        cells = [f"{100 * r[key]:.1f}" for key in ("initial_accuracy", "revised_accuracy")]
        cells += [f"{r[key]:.1f}" for key in ("initial_tokens", "revised_tokens")]
        rows.append([stage, *cells, f"{r['revision_words']:.2f}"])
    return table(rows)


def main(words: list[str]) -> int:
    """`eval.py evolve`. Raises UserError."""
    given = parse_options(words or [DEFAULT_RUN], EvolveConfig, __doc__, prog="eval.py evolve")
    folder = only_run_of(given["run"], "evolve")
    metrics, results = read_metrics(folder), read_results(folder)
    if not results:
        raise UserError(f"{folder} has no results.json yet: start its run again, and let it finish")
    kit.ownership.own(folder, "evolution.png")
    kit.figures.evolution_figure(folder / "evolution.png", results, metrics)
    print(evolution_table(results))
    return 0
