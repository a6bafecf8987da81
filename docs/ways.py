"""Write the table of ways into the README from docs/ways.json, which `make ways` measures first."""

import json
import re
from pathlib import Path

from cmllm_tools.bench.tables import control_rows, ways_rows
from cmllm_tools.files import write_whole
from cmllm_tools.notation import markdown_table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs/ways.json"


def readme(text: str) -> str:
    """The README's text with its tables of ways and their controls made anew."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    tables = "\n\n".join(map(markdown_table, (ways_rows(result), control_rows(result))))
    said = (
        f"{tables}\n\n{result['n']} scenes; damage in nats per token, to the names of the scene's objects as answers; s in "
        "seconds per answer, on a core shared with other runs: only their ratios say something."
    )
    return re.sub(r"(<!-- ways -->\n).*?(\n<!-- end -->)", lambda match: match[1] + said + match[2], text, flags=re.S)


def main() -> None:
    path = ROOT / "README.md"
    text = readme(path.read_text(encoding="utf-8"))
    write_whole(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
