"""A widget in a page without Jupyter: its module in the browser, its Python here, changes passed on as ipywidgets does."""

from base64 import b64encode
from pathlib import Path

from anywidget import AnyWidget

from .conftest import HANGS, SITE

PAGE = Path(__file__).with_name("widget.html")


class Cell:
    """A widget in a page, its model's two ends joined.

    Args:
        page: of its own browser context.
        widget: any anywidget.
    """

    def __init__(self, page, widget):
        self.page, self.widget = page, widget
        common = {*AnyWidget.class_trait_names(sync=True), "_esm", "_css", "_anywidget_id"}
        self.names = [name for name in widget.trait_names(sync=True) if name not in common]
        self.problems, self.requests = [], []
        page.on("console", lambda message: self.problems.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.route("**/*", self._answer)
        page.expose_function("toPython", self._receive)
        page.set_default_timeout(HANGS)
        page.goto(f"{SITE}/")
        page.wait_for_selector("body[data-loaded]", state="attached")
        page.evaluate("state => show(state)", plain(self._state()))

    def _answer(self, route):
        path, state = route.request.url.removeprefix(SITE), self.widget.get_state(["_esm", "_css"])
        if path == "/":
            return route.fulfill(path=PAGE)
        if path == "/widget.js":
            return route.fulfill(body=state["_esm"], content_type="text/javascript")
        if path == "/widget.css":
            return route.fulfill(body=state["_css"], content_type="text/css")
        self.requests.append(route.request.url)
        return route.abort()

    def _state(self):
        return self.widget.get_state(self.names)

    def _receive(self, changed):
        """As ipywidgets: take what the browser sent, answer with what differs from it."""
        before = self._state() | changed
        self.widget.set_state(changed)
        return plain({name: value for name, value in self._state().items() if value != before[name]})

    def push(self):
        """Send the state after Python has set something."""
        self.page.evaluate("state => receive(state)", plain(self._state()))

    def settled(self):
        self.page.wait_for_function("pending === 0")
        self.page.wait_for_timeout(40)  # one frame is drawn

    def keys(self, *names):
        for name in names:
            self.page.keyboard.press(name)
        return self.settled()

    def text(self, part):
        return self.page.locator(f".cmllm-{part}").inner_text()


def plain(value):
    """Bytes as the page takes them."""
    if isinstance(value, bytes | memoryview):
        return {"base64": b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value
