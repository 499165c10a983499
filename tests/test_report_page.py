"""`report.html`: one file that shows the report anywhere, runs nothing and asks nobody, whatever the names are."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import test_report
from PIL import Image
from test_plot_pages import BROWSERS, Page
from test_report import METRICS, _in_a_project, make_inputs, table_rows  # noqa: F401

from stages.common import paths
from stages.common.artifacts import UNTRAINED
from stages.report import page as page_module
from stages.report import render
from stages.report.about import MEANINGS
from stages.report.changes import SIDE
from stages.report.table import DEMO_NOTE, UNTRAINED_NOTE
from stages.report.write import write_report

RUNS = "document.title = 'it ran'"
HARMLESS = ["red kite", "blue tavo", "snow goose"]


def hostile(url: str) -> list[str]:
    """Names of three classes that want to run a script, to load something from `url`, or to spoil the page."""
    return [
        f"</title></style><script>{RUNS}</script><img src='{url}/1' onerror=\"{RUNS}\"> & &lt;kite",
        f'" onload="{RUNS}" style=\'background: url({url}/2)\' \u202eesoog\u2066 😀 שלום \x01',
        f"{{{{ 7 * 7 }}}} <!-- `{'x' * 300}",
    ]


def written(names: list[str], monkeypatch: pytest.MonkeyPatch, **inputs: Any) -> str:
    """The page of a report whose classes, and with them its folders of images, have these names."""
    monkeypatch.setattr(test_report, "NAMES", names)
    make_inputs(**inputs)
    write_report("birds", "vit", 2, "photos")
    return read()


def read() -> str:
    return (paths.report("birds", "vit") / "report.html").read_text(encoding="utf-8")


class Parsed(Page):
    """The page's tags, the names of their attributes, the addresses, and the text."""

    def __init__(self, text: str) -> None:
        self.attributes: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.alternatives: list[str] = []
        self.texts: list[str] = []
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.attributes.append(tuple(name for name, _ in attrs))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.alternatives += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        self.texts.append(data.strip())


def test_a_name_is_shown_and_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    names = hostile("http://localhost")
    harmless, page = Parsed(written(HARMLESS, monkeypatch)), Parsed(written(names, monkeypatch))
    assert (page.tags, page.attributes) == (harmless.tags, harmless.attributes)
    assert "script" not in page.tags
    for name in names:
        assert name.replace("\x01", "\N{REPLACEMENT CHARACTER}") in page.texts
    assert all(address.startswith(("data:", "#s")) for address in page.addresses)


def test_no_value_of_any_kind_is_markup() -> None:
    def page(name: str) -> render.Page:
        table = render.Table(name, name, [name], [[name]], {name}, {(0, name)}, [render.Bar(0, 50)])
        shown = render.Picture(name, name, name, b"", 1, 1, [(name, name)])
        parts: list[Any] = [render.Text(name), render.Heading(name), table, shown]
        return render.Page(
            title=name,
            lead=name,
            warnings=[render.Warned(name)],
            facts=[(name, name)],
            sections=[render.Section(name, parts)],
        )

    harmless = Parsed(render.render(page("a `b` c")))
    for name in hostile("http://localhost"):
        found = Parsed(render.render(page(name.replace("`", "") + " `b` c")))
        assert (found.tags, found.attributes) == (harmless.tags, harmless.attributes)
    assert harmless.tags.count("code") == 4, "in prose: a warning, a paragraph and two captions"
    long = Parsed(render.render(page("x" * 40_000)))
    assert max(map(len, long.alternatives)) <= render.LONGEST


def test_the_page_has_every_column_of_the_table_and_what_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(HARMLESS, monkeypatch)
    page = Parsed(text)
    table = (paths.report("birds", "vit") / "table.md").read_text(encoding="utf-8")
    for row in table_rows(table).values():
        assert {cell.strip("*") for cell in row} <= set(page.texts)
    assert 2 * text.count("<strong>") == table.count("**") > 0
    for said in ("ViT-B-32, weights openai, hash of the weights 0123456789abcdef", "birds: 18 images, 3 classes"):
        assert any(said in part for part in page.texts), said
    settings = [part for part in page.texts if re.fullmatch(r"seed|(crop|refine|score)\.\w+", part)]
    assert set(settings) == {key for key in MEANINGS if not key.startswith("refine.")}, "texts are not at hand"
    assert "true class" in text and len(page.alternatives) == 4 and all(page.alternatives)
    assert 'lang="en"' in text and "@media print" in text


def test_warnings_stand_at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Parsed(written(HARMLESS, monkeypatch, untrained=True, reader="demo"))
    first = page.texts[: page.texts.index("Data set")]
    assert UNTRAINED_NOTE in first and DEMO_NOTE in first and UNTRAINED in " ".join(first)
    assert not any("Most often right" in text for text in page.texts)


def test_pictures_are_inside_and_those_that_do_not_fit_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = written(HARMLESS, monkeypatch)
    assert str(tmp_path) not in text
    found = re.findall(r'src="data:image/webp;base64,([^"]+)" width="(\d+)" height="(\d+)"', text)
    assert len(found) == 4
    for data, width, height in found:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == pytest.approx((int(width) * render.SCALE, int(height) * render.SCALE), abs=1)
    sizes = [len(base64.b64decode(data)) for data, _, _ in found]
    monkeypatch.setattr(page_module, "PICTURE_BYTES", sizes[-2])
    write_report("birds", "vit", 2, "photos")
    assert read().count("<img") == 3 and "The pictures of the other image are in the report" in read()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(paths.report("birds", "vit"))
    write_report("birds", "vit", 2, "photos")
    assert read() == text, "the same content has the same bytes"


def test_of_many_classes_the_page_says_which_it_shows() -> None:
    make_inputs(classes=45)
    write_report("birds", "vit", 0, "photos")
    assert f"The {SIDE} most improved and the {SIDE} most worsened of 45." in read()
    assert "the 30 most confused of 45 classes" in read()
    assert '<h2 id="s3">What made it' in read(), "no section of pictures without pictures"


def test_without_images_and_without_bifta_the_page_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    make_inputs(metrics={name: METRICS[name] for name in ("clip", "wca")})
    shutil.rmtree("photos")
    write_report("birds", "vit", 2, "photos")
    page = Parsed(read())
    assert page.tags.count("img") == 2 and "Not scored:" in " ".join(page.texts)


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """A server: its address, and then what was asked of it."""
    log: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            log.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    log.append(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield log
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
def test_a_browser_runs_nothing_asks_nobody_and_shows_it_on_a_phone(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    names = hostile(asked[0])
    page = written(names, monkeypatch)
    title = re.search("<title>(.*)</title>", page)
    assert title and titled(page) == title[1] and len(asked) == 1
    open_page = re.sub("<meta http-equiv[^>]*>", "", page)  # escaping alone, without the policy
    measure = "<script>document.title += ` ${document.documentElement.scrollWidth} ${innerWidth}`</script></body>"
    said = titled(open_page.replace("</body>", measure))
    width, window = said.removeprefix(title[1]).split()
    assert said.startswith(title[1]) and int(width) <= int(window) == 390, "the page itself does not scroll sideways"
    assert len(asked) == 1
    worse = open_page.replace("</h1>", f"</h1>{names[0]}")
    assert titled(worse) == "it ran" and "/1" in asked, "the browser runs and loads what is not escaped"
    assert titled(page.replace("</h1>", f"</h1>{names[0]}")) == title[1], "the policy forbids it as well"


def titled(page: str) -> str:
    """The title of a page after a browser has shown it in a window as wide as a phone."""
    Path("shown.html").write_text(page, encoding="utf-8")
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    profile = Path("profile").resolve()
    done = subprocess.run(
        [*command, "--window-size=390,800", f"--user-data-dir={profile}", Path("shown.html").resolve().as_uri()],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": str(profile.parent)},
    )  # fmt: skip
    return done.stdout.split("<title>", 1)[1].split("</title>", 1)[0]
