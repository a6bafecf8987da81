"""A Jupyter server of our own on a temporary folder, and a notebook in its page, driven as a person drives it."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import TimeoutError as NotInTime

from .conftest import HANGS

ROOT = Path(__file__).parents[2]
TOKEN = "of-the-tests"
READY_WITHIN = HANGS / 1000  # seconds
# What the fronts fetch from the net on their own.
OFFLINE = [
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
]
# What a front knows of its kernel, which nothing on its page tells reliably.
OPEN = ["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"]
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


@contextmanager
def server(app, folder, home, settings=SETTINGS):
    """Run `jupyterlab` or `notebook` on a folder, with nothing of the user's configuration; gives the server's address."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    folders = {name: home / name.lower() for name in (*names, "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")}
    for name, value in settings.items():
        file = folders["JUPYTERLAB_SETTINGS_DIR"] / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    environment = os.environ | {name: str(value) for name, value in folders.items()}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-m", app, *options, f"--ServerApp.root_dir={folder}", *OFFLINE, *OPEN]
    log = home / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
        try:
            yield _address(process, folders["JUPYTER_RUNTIME_DIR"], log)
        finally:
            process.terminate()
            process.wait(READY_WITHIN)


def _address(process, runtime, log):
    """Where the server listens, once it does; the system chose its port."""
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            # It may be there and not written yet.
            with suppress(ValueError):
                return json.loads(file.read_text())["url"]
        time.sleep(0.1)
    raise RuntimeError(f"The Jupyter server did not start:\n{log.read_text()}")


# How a run of all cells ended: "done", "asks" for a kernel, "quiet" where none is running and some never ran, or "late".
RAN = """async (hangs) => {
    const prompts = () => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputArea-prompt")]
        .map((prompt) => prompt.textContent);
    const late = performance.now() + hangs;
    for (let moved = performance.now(); performance.now() < late; await new Promise((go) => setTimeout(go, 100))) {
        if (document.querySelector(".jp-Dialog")) return "asks";
        const now = prompts();
        if (now.every((text) => /\\d/.test(text))) return "done";
        if (now.some((text) => text.includes("*"))) moved = performance.now();
        if (performance.now() - moved > 15_000) return "quiet";
    }
    return "late";
}"""


# Whether some pixel of the picker's tokens is blue, as it should be.
TINTED = """([canvas, wanted]) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, at) => at % 4 === 2 && data[at + 1] > 10 && value - data[at - 2] > 80) === wanted;
}"""


# Text is read with `textContent`, as `innerText` is empty where the front leaves out what is scrolled away.
class Notebook:
    """A notebook open in JupyterLab or Notebook 7.

    Attributes:
        problems: errors on the browser's console, and exceptions in the page.
        abroad: addresses asked for that are not the server's.
    """

    def __init__(self, page, address):
        self.page, self.problems, self.abroad = page, [], []
        self._host = urlsplit(address).netloc
        page.on("console", self._noted)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._count(request.url))
        page.on("websocket", lambda socket: self._count(socket.url))
        page.set_default_timeout(HANGS)
        self._start_kernel(address)
        page.goto(f"{address}?token={TOKEN}")
        self.wait_for_kernel()

    def _start_kernel(self, address):
        """Begin the notebook's session, which the front finds.

        On a busy machine a front that begins one itself may begin one after the other, each of which ends the one before.
        """
        parts = urlsplit(address)
        made = self.page.request.post(
            f"{parts.scheme}://{parts.netloc}/api/sessions",
            headers={"Authorization": f"token {TOKEN}"},
            data={"path": Path(parts.path).name, "name": "", "type": "notebook", "kernel": {"name": "python3"}},
        )
        assert made.ok, made.text()

    def _count(self, url):
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._host:
            self.abroad.append(url)

    def wait_for_kernel(self):
        """Until the page has its kernel: for each cell that is run before, a front begins another one."""
        self.page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for()
        self.page.wait_for_function(
            """() => {
                const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
                const kernel = context?.isReady && context.session?.kernel;
                return kernel && kernel.connectionStatus === "connected" && kernel.status === "idle";
            }""",
            polling=200,
        )

    def _noted(self, message):
        # What a front says of a debugger that it asked for while its kernel was starting.
        if message.type == "error" and "debugger state" not in message.text:
            self.problems.append(message.text)

    def menu(self, *names):
        for name in names:
            labels = self.page.locator(".lm-MenuBar-itemLabel:visible, .lm-Menu-itemLabel:visible")
            labels.filter(has_text=re.compile(f"^{name}$")).last.click()

    def run_all(self):
        """Run all cells, and wait until each has its number; cells that were left out are run again, with all others."""
        for _ in range(3):
            self.menu("Run", "Run All Cells")
            if (ended := self.page.evaluate(RAN, HANGS)) != "quiet":
                break
        if ended == "done":
            return
        raise AssertionError(f"The cells did not run: {ended}; {self.page.locator('.jp-OutputArea').all_text_contents()}")

    def run_cell(self, start):
        """Run the cell with this text; returns the text of its output."""
        cell = self.page.locator(".jp-CodeCell", has_text=start).last
        before = self._prompt(cell).text_content()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        self._numbered(cell, before)
        return cell.locator(".jp-OutputArea-output").text_content()

    def _numbered(self, cell, before):
        """Wait until a cell has run: its number is there, and another one."""
        self.page.wait_for_function(
            "([prompt, before]) => /\\d/.test(prompt.textContent) && prompt.textContent !== before",
            arg=[self._prompt(cell).element_handle(), before],
        )

    def _prompt(self, cell):
        return cell.locator(".jp-InputArea-prompt").first

    def save(self, file):
        """Save with the keyboard's shortcut, and wait until the file is another, and whole."""
        before = file.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        for _ in range(HANGS // 50):
            self.page.wait_for_timeout(50)
            with suppress(ValueError):
                if file.stat().st_mtime_ns != before and json.loads(file.read_text(encoding="utf-8")):
                    return
        raise AssertionError("The notebook was not saved.")

    def reload(self):
        self.page.reload()
        self.wait_for_kernel()

    def theme(self, name):
        self.menu("Settings", "Theme", f"JupyterLab {name}")
        self.page.locator(f"body[data-jp-theme-light={'true' if name == 'Light' else 'false'}]").wait_for(state="attached")


def write_notebook(file, cells):
    """A notebook of texts, which are cells of code, and of cells, with the kernel that JupyterLab would ask for."""
    cells = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), file)


@contextmanager
def opened(browser, home, file, app, alone=False):
    """A front with the notebook run from top to bottom; afterwards, no errors and nothing asked of the net.

    `alone` is without JupyterLab's sidebar, as one has it on a narrow screen.
    """
    with server(app, file.parent, home) as address:
        # So high that the whole panel is in a picture of it.
        context = browser.new_context(viewport={"width": 1440, "height": 1700})
        where = "doc/tree" if alone else {"jupyterlab": "lab/tree", "notebook": "notebooks"}[app]
        notebook = Notebook(context.new_page(), f"{address}{where}/{file.name}")
        notebook.run_all()
        yield notebook
        context.close()
    assert notebook.problems == []
    assert notebook.abroad == []


# What a run of the workbench shows, for `Panel.timed`.
FIRST = "panel.querySelector('.cmllm-player:not([data-old]) .label')?.textContent"
FINISHED = f"{FIRST} && /^finished/.test(panel.querySelector('.cmllm-run').textContent)"


class Panel:
    """The workbench in a notebook, under a real mouse."""

    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.root = self.page.locator(".cmllm-workbench").first
        self.canvas = self.root.locator(".cmllm-drawing")
        # On a busy machine a front may have its kernel before its widgets' manager, and what it is sent meanwhile is lost.
        with suppress(NotInTime):
            self.canvas.wait_for(timeout=HANGS / 5)
        if not self.canvas.is_visible():
            notebook.problems = [problem for problem in notebook.problems if "opening new comm" not in problem]
            notebook.run_all()
        self.canvas.wait_for()

    def rest(self):
        """Stop a run that goes on."""
        stop = self.root.get_by_role("button", name="Stop", exact=True)
        if stop.is_enabled():
            stop.click()
            self.wait_for("^(stopped|finished)")

    def press(self, name):
        self.root.get_by_role("button", name=name, exact=True).click()

    def field(self, number, value):
        """Type into one of the fields of numbers, counted from 0."""
        field = self.root.locator("input[type=number]").nth(number)
        field.click(click_count=3)
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Tab")

    def draw(self, kind, *points):
        """Draw through these points of the image, and wait until the kernel has the region.

        JupyterLab has widgets' messages handled by a thread of the kernel (a subshell), for which a cell that is run next
        does not wait: the picker's own words come too early. The tokens' tint is Python's answer.
        """
        clear = self.root.get_by_role("button", name="Clear", exact=True)
        if clear.is_enabled():
            clear.click()
        self._tinted(False)
        self.press(kind)
        self.canvas.scroll_into_view_if_needed()
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=6)
        mouse.up()
        self.root.locator(".cmllm-status", has_text=re.compile("^1 region")).wait_for()
        self._tinted(True)

    def _tinted(self, wanted):
        """Wait until the visual tokens show weights, or none."""
        tokens = self.root.locator(".cmllm-tokens").element_handle()
        self.page.wait_for_function(TINTED, arg=[tokens, wanted], polling=50)

    def at(self, x, y):
        """Where a pixel of the image is on the page."""
        frame = self.canvas.bounding_box()
        width, height = self.image_size()
        return frame["x"] + x * frame["width"] / width, frame["y"] + y * frame["height"] / height

    def image_size(self):
        return tuple(map(int, re.findall(r"\d+", self.canvas.get_attribute("aria-label"))[:2]))

    def timed(self, name, *conditions):
        """Press a button; seconds from the click until each condition holds, given as JavaScript on `panel`."""
        self.root.evaluate(
            """(panel, [conditions, hangs]) => {
                panel.querySelector(".cmllm-player")?.setAttribute("data-old", "");
                const holds = conditions.map((text) => new Function("panel", "return " + text));
                const late = performance.now() + hangs;
                const clicked = new Promise((done) => addEventListener("click", done, { capture: true, once: true }));
                const next = () => new Promise(requestAnimationFrame);
                window.timed = Promise.all(holds.map(async (condition) => {
                    const { timeStamp } = await clicked;
                    while (!condition(panel)) {
                        if (performance.now() > late) throw new Error("It did not happen: " + condition);
                        await next();
                    }
                    return (performance.now() - timeStamp) / 1000;
                }));
            }""",
            [conditions, HANGS],
        )
        self.press(name)
        return self.page.evaluate("window.timed")

    def status(self):
        return self.root.locator(".cmllm-run").text_content()

    def wait_for(self, status):
        self.root.locator(".cmllm-run", has_text=re.compile(status)).wait_for()

    def answers(self):
        return self.root.locator(".cmllm-answers td td").all_text_contents()
