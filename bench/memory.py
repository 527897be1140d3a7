"""Peak memory of adding a collection's documents, in a process of its own: python bench/memory.py DATA [MODEL]."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

from twinrank import DEFAULT_MODEL, Collection


def main() -> None:
    data, model = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else DEFAULT_MODEL
    with tempfile.TemporaryDirectory() as folder, Collection(Path(folder) / "c", model=model) as collection:
        print(collection.add(data))
        print(collection.search("zinc and the common cold", k=1)[0].id)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak memory {peak / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
