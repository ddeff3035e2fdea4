import base64
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dfn_jax import report
from dfn_jax.visualize import to_png

PNG = to_png(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.path, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.path.append(tag)

    def handle_endtag(self, tag):
        assert self.path.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.path[-1], data.strip()))

    def all(self, tag):
        return [text for name, text in self.texts if name == tag]


def write(folder, **changes):
    arguments = {
        "title": "Stereo",
        "introduction": "It works: 5.5.\n\nMore of it.",
        "sections": [
            report.Picture("examples", "Examples", PNG, "near is bright"),
            report.Table("Scores", ["this network", "copy"], [report.Row("error", [5.5, 9.25])], "on 16 scenes"),
            report.Picture("curve", "Learning", PNG),
        ],
        "details": {"Configuration": {"seed": 0, "optim.learning_rate": 1e-3}, "Hardware": {"cpu": "2 cores"}},
    }
    path = report.write_report(folder, **{**arguments, **changes})
    return Page(path.read_text(encoding="utf-8"))


def test_page_holds_everything_in_order(tmp_path):
    page = write(tmp_path / "new" / "report")
    assert page.path == []
    assert page.all("title") == page.all("h1") == ["Stereo"]
    assert page.all("p") == ["It works: 5.5.", "More of it.", "on 16 scenes"]
    assert page.all("h2") == ["Examples", "Scores", "Learning"]
    assert page.all("figcaption") == ["near is bright"]
    assert page.all("summary") == ["Configuration", "Hardware"]
    assert page.all("th") == ["this network", "copy", "error", "seed", "optim.learning_rate", "cpu"]
    assert page.all("td") == ["9.250", "0", "0.001", "2 cores"]
    assert page.all("strong") == ["5.500"]


def test_page_needs_no_other_file_and_no_network(tmp_path):
    page = write(tmp_path)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["near is bright", "Learning"]
    for image in images:
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True) == PNG
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in page.tags}
    text = re.sub(r'src="data:[^"]*"', "", (tmp_path / "index.html").read_text())
    assert not re.search(r"https?:|url\(|@import|src=", text)
    assert "default-src 'none'" in text


def test_pictures_lie_beside_the_page(tmp_path):
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "examples.png", "index.html"]
    assert (tmp_path / "curve.png").read_bytes() == PNG


def test_movies_are_shown_as_what_they_are(tmp_path):
    movie = report.Picture("movie", "It moves", b"GIF89a...")
    page = write(tmp_path, sections=[movie])
    (source,) = (attributes["src"] for tag, attributes in page.tags if tag == "img")
    assert base64.b64decode(source.removeprefix("data:image/gif;base64,"), validate=True) == movie.content
    assert (tmp_path / "movie.gif").read_bytes() == movie.content


def test_what_comes_from_outside_is_escaped(tmp_path):
    evil = "<script>x</script> & \"q\" 'a' ${title} $body"
    page = write(
        tmp_path,
        title=evil,
        introduction=evil,
        sections=[
            report.Picture("p", evil, PNG, evil),
            report.Table(evil, [evil, evil], [report.Row(evil, [1.0, 1.0])], evil),
        ],
        details={evil: {evil: evil}},
    )
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, count in {"title": 1, "h1": 1, "p": 2, "h2": 2, "figcaption": 1, "summary": 1, "th": 4, "td": 1}.items():
        assert page.all(tag) == [evil] * count, tag
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [evil]


@pytest.mark.parametrize(
    ("values", "better", "texts"),
    [
        ([5.5, 13.25, 9.0], "lower", ["*5.50", "13.25", "9.00"]),
        ([28.123, 18.2], "higher", ["*28.12", "18.20"]),
        ([0.15321, 0.2], "lower", ["*0.1532", "0.2000"]),
        ([0.5, None, float("nan")], "lower", ["0.5000", "–", "–"]),
        ([0.0, 0.0], "lower", ["*0", "*0"]),
        ([123456.7, 3.0], "higher", ["*123457", "3"]),
        ([None, None], "lower", ["–", "–"]),
        ([float("inf"), 30.0], "lower", ["inf", "*30.00"]),
    ],
)
def test_cells(values, better, texts):
    cells = [re.sub("<strong>(.*)</strong>", r"*\1", cell) for cell in report._cells(report.Row("", values, better))]
    assert cells == texts


def test_comparison_table():
    results = {"psnr": 24.0, "baseline_copy_psnr": 18.0, "baseline_shift_psnr": 22.0, "ssim": 0.9, "seed": 1}
    table = report.comparison_table(
        results,
        {"psnr": ("PSNR, dB", "higher"), "disparity_epe": ("EPE, px", "lower"), "ssim": ("SSIM", "higher")},
        {"copy": "baseline_copy_", "best shift": "baseline_shift_"},
        title="Scores",
    )
    assert table.columns == ["this network", "copy", "best shift"]
    assert table.rows == [
        report.Row("PSNR, dB", [24.0, 18.0, 22.0], "higher"),
        report.Row("SSIM", [0.9, None, None], "higher"),
    ]


def test_a_failed_write_leaves_the_old_page_whole(tmp_path, monkeypatch):
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_full(descriptor):
        os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, title="Another")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reader_keeps_the_page_it_opened(tmp_path):
    write(tmp_path)
    with (tmp_path / "index.html").open() as opened:
        write(tmp_path, title="Another")
        assert Page(opened.read()).all("h1") == ["Stereo"]


def test_names_that_are_no_file_names_are_refused(tmp_path):
    for name in ("", "../x", "a b", ".x"):
        with pytest.raises(ValueError, match="letters"):
            write(tmp_path, sections=[report.Picture(name, "", PNG)])
    with pytest.raises(ValueError, match="different names"):
        write(tmp_path, sections=[report.Picture("a", "", PNG), report.Picture("a", "", PNG)])
    with pytest.raises(ValueError, match="2 values for 1 columns"):
        write(tmp_path, sections=[report.Table("", ["one"], [report.Row("error", [1, 2])])])
    assert list(tmp_path.iterdir()) == []
