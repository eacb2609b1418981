"""A comparison's rows as CSV or Parquet: one a contender and grader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auditor.records.comparison import Comparison


def rows_of(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Flat: intervals as two columns, what was left out as a number a reason."""
    for each in comparison.standings:
        row = each.model_dump(mode="json")
        for name in ("ci95", "share_ge_2_ci95", "share_ge_4_ci95"):
            low, high = row.pop(name) or (None, None)
            row |= {f"{name}_low": low, f"{name}_high": high}
        for name, prefix in (("spread", "sd_"), ("costs", "mean_")):
            row |= {f"{prefix}{key}": value for key, value in (row.pop(name) or {}).items()}
        row["left_out"] = "; ".join(f"{count} {reason}" for reason, count in each.left_out.items())
        yield row


def write(comparison: Comparison, path: Path) -> None:
    """Raises BadFile; UsageError without pyarrow for Parquet."""
    from auditor.audits.tables import write_csv, write_parquet

    rows = list(rows_of(comparison))
    columns = dict.fromkeys(key for row in rows for key in row)
    whole = [{key: row.get(key) for key in columns} for row in rows]
    (write_parquet if path.suffix == ".parquet" else write_csv)(path, whole)
