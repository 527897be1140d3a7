"""The README's Python lines run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_readmes_python_runs(tmp_path: Path, minilm_folder: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    assert code.count("\n") >= 20
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert "3 documents: 3 added" in result.stdout
    assert re.search(r"^\d\.\d\d a1 Zinc lozenges", result.stdout, re.MULTILINE)
    assert "b2 A spoon of honey" not in result.stdout  # of 2012: the condition leaves it out
    assert result.stdout.split()[-1] in ("0.75", "0.76")  # int8 where the native engine was compiled
