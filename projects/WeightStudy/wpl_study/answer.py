"""Which weight is good: the best of those that were tried, and what can be said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from wpl_d2.engine import Spread, paired_differences

from .study import Row
from .table import Table

_LEVEL = 0.05
"""Of the two-sided test, divided by the number of rows that were tried (Bonferroni)."""
_NEW_DRAWS = 5


def answer(table: Table) -> str:
    """The answer, in Markdown; chosen by the mean on `dev` among the rows that are finished on all draws."""
    draws = table.study.draws
    tried = [
        row for row in table.study.rows.values() if len(table.pairs(row, "dev")) == len(draws) and table.candidate(row)
    ]
    lines = [_best(table, tried) if tried else "No weight, and what it is compared with, is finished on all draws."]
    for row in table.study.rows.values():
        if row.oracle and table.pairs(row, "dev"):
            lines.append(f"The room that there is: `{row.name}`, which is told the truth, {paired_text(table, row)}.")
    return "\n\n".join(lines)


def _best(table: Table, tried: Sequence[Row]) -> str:
    means = [Spread.of(table.scores(row, "dev").values()) for row in tried]
    best = max(range(len(tried)), key=lambda index: means[index].mean)
    row, pairs, dev = tried[best], Spread.of(table.pairs(tried[best], "dev").values()), table.study.lists.dev
    said = (
        f"Rows that change weights or labels and are finished: {len(tried)}. `{row.name}` has the highest mean on "
        f"`{dev}`, {means[best]}; {paired_text(table, row)}."
    )
    if pairs.mean <= 0:
        return f"{said} **It is not above what it is compared with.**"
    if pairs.count < 2:
        return f"{said} One draw says nothing about the next: run more."
    needed = float(stats.t.isf(_LEVEL / 2 / len(tried), pairs.count - 1))
    because = f"the best of {len(tried)} on {pairs.count} draws needs t above {needed:.1f} (two-sided, 5 %)"
    if pairs.t > needed:
        return f"{said} **That is more than chance gives**: {because}."
    alone = float(stats.t.isf(_LEVEL / 2, _NEW_DRAWS - 1))
    return (
        f"{said} **Chance could give that**: {because}. Run it and `{row.plain}` alone on new draws, and look at a "
        f"list that chose nothing: one row on {_NEW_DRAWS} draws needs {alone:.1f}."
    )


def paired_text(table: Table, row: Row) -> str:
    """A row's difference on `dev` to the row it is compared with, in words."""
    return f"{_with_t(Spread.of(table.pairs(row, 'dev').values()))} to `{row.plain}`"


def compared_text(table: Table, names: Sequence[str]) -> str:
    """Means on `dev` of some rows, and the paired differences of the first to the others, in words."""
    scores = {name: table.scores(table.study.rows[name], "dev") for name in names}
    first, *others = names
    means = ", ".join(
        f"`{name}` {Spread.of(by_draw.values())}" if by_draw else f"`{name}` not run"
        for name, by_draw in scores.items()
    )
    pairs = {name: Spread.of(paired_differences(scores[first], scores[name]).values()) for name in others}
    told = [f"`{first}` {_with_t(pair)} to `{name}`" for name, pair in pairs.items() if pair.count]
    return f"On `{table.study.lists.dev}`: {means}. " + (
        f"Draw by draw: {'; '.join(told)}." if told else "No pair is finished."
    )


def _with_t(pairs: Spread) -> str:
    return signed(pairs) + ("" if math.isnan(pairs.t) else f" (t = {pairs.t:.1f})")


def signed(spread: Spread) -> str:
    """A spread with its sign; "" of nothing."""
    return f"+{spread}" if spread.mean >= 0 else str(spread)
