"""Make the README's picture from the demo's trace: `make picture` (needs Chromium on the path)."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cmllm_tools as cm

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(trace_path: str, picture_path: str) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"A picture needs one of {', '.join(BROWSERS)} on the path.")
    figure = cm.figures.before_after(cm.Trace.load(trace_path))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        figure.write_html(page, config={"displayModeBar": False})
        subprocess.run(  # noqa: S603
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-background-networking",
                f"--user-data-dir={folder}/profile",
                f"--window-size={figure.layout.width + 20},{figure.layout.height + 20}",
                "--virtual-time-budget=8000",
                f"--screenshot={Path(picture_path).resolve()}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
