"""Rules, file types and a search over everything an image holds, hidden files and configuration included.

python examples/find_secrets.py [ARCHIVE]
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import forensics_lib as fl

FIXTURE = Path(__file__).parent.parent / "fixtures" / "web.tar"
RULES = """
rule private_key { strings: $begin = "PRIVATE KEY" condition: $begin }
rule shell_script { strings: $bang = "#!/bin/" condition: $bang at 0 }
"""


def main(archive: Path) -> None:
    """Print matches, file types and hits."""
    with fl.open(archive) as ev:
        for match in ev.scan(RULES):
            print(f"{match.rule:14} {match.path!r}  layer {match.owner[:19]}")
        for mime, count in Counter(row.mime for row in ev.identify()).most_common(5):
            print(f"{count:5} {mime}")
        for hit in ev.search(re.compile(rb"(?i)secret|token|passw")):
            place = "" if hit.offset is None else f" @{hit.offset}"  # a name has none
            print(f"{hit.where:8} {hit.path[:60]!r}{place}: {hit.match!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE)
