"""The benchmark of bulk annotation, with a few thousand rows: kills, and no row lost or doubled."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.mark.slow
def test_kills_lose_and_double_nothing(benchmark, capsys):
    flags = ["--rows", "12000", "--kills", "2", "--rows_per_part", "250", "--buffer_rows", "128", "--compare", "--json"]
    found = benchmark.main(flags)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"annotate": found}
    assert [process["killed"] for process in found["processes"]] == [True, True, False]
    assert sum(process["rows"] for process in found["processes"]) == 12_000
    assert (found["lost"], found["doubled"], found["same"]) == (0, 0, True)
    assert (found["annotated"], found["bad"]) == (11_988, 12)
    assert found["entities"] > 12_000
    assert found["processes"][2]["peak_megabytes"] > 100
    assert found["processes"][2]["processor_seconds"] > 0.1


def test_lost_and_doubled_rows_are_counted(benchmark, tmp_path):
    (tmp_path / "entities").mkdir()
    (tmp_path / "bad_rows").mkdir()
    pq.write_table(pa.table({"row": [0, 1, 1], "entities": [[1], [], [2]]}), tmp_path / "entities" / "part.parquet")
    (tmp_path / "bad_rows" / "part.jsonl").write_text('{"row": 3}\n{"row": 0}\n')
    assert benchmark.check_rows(tmp_path, 5) == {"lost": 2, "doubled": 2, "annotated": 3, "bad": 2, "entities": 2}
