"""The page of a comparison: what it says, and that nothing in it can do harm."""

import base64
import dataclasses
import importlib
import io
import math
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("PIL")

from comparisons import different, faithful, picture
from PIL import Image

from unet_compare.page.figures import Scale, number
from unet_compare.page.page import render
from unet_compare.page.panels import panels_of, top_of

COMMAND = "unet compare model.pt --data cells --out report"
SMALL = {"features": (2, 3), "steps": 12, "pictures": 1, "passes": ("eval", "update")}
HOSTILE = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>'&{{7*7}}$\\frac{$\n\x1b[31m\u202egpj.exe\udc80"
VOID = {"meta", "img", "br", "hr", "link", "input"}
LOADING = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background", "formaction", "style"}


class Parsed(HTMLParser):
    """A page's elements, with what is not well formed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words, self.wrong = [], [], [], []
        self.feed(text)
        self.close()
        self.wrong += [f"{name} is not closed" for name in self.open]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} closes nothing")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def complaints(page):
    """All that is wrong with a page's structure, or that it would load."""
    found = Parsed(page)
    wrong = list(found.wrong)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    wrong += [f"id {name} twice" for name in set(ids) if ids.count(name) > 1]
    for tag in ("h1", "title", "main", "header", "footer"):
        wrong += [f"{len(found.all(tag))} {tag}"] * (len(found.all(tag)) != 1)
    for image in found.all("img"):
        wrong += ["image without words"] * (len(image.get("alt") or "") < 10)
        wrong += [f"image from {image['src'][:30]}"] * (not image["src"].startswith("data:image/"))
    for tag, attributes in found.elements:
        wrong += [f"{tag} {name}" for name in attributes if name.startswith("on")]
        wrong += [f"a {tag}"] * (tag in {"script", "iframe", "object", "embed", "link", "base", "form"})
        for name in LOADING & attributes.keys():
            value = attributes[name]
            wrong += [f"{tag} {name}={value[:30]}"] * bool(re.search(r"(?i)https?:|//|url\(|javascript:", value[:30]))
            wrong += [f"{value} leads nowhere"] * (value.startswith("#") and value[1:] not in ids)
    wrong += ["a table without a caption"] * (len(found.all("caption")) != len(found.all("table")))
    wrong += ["th without scope" for cell in found.all("th") if cell.get("scope") not in ("row", "col")]
    return wrong


def svgs(page):
    """The charts, parsed."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [ElementTree.fromstring(base64.b64decode(one)) for one in found]


@pytest.fixture(scope="module")
def same_page():
    return render(faithful(**SMALL), COMMAND)


@pytest.fixture(scope="module")
def different_page():
    return render(different(layer="interpolate", **SMALL), COMMAND)


def bare(comparison, **more):
    """A comparison without its parts."""
    return dataclasses.replace(
        comparison, divergence=None, trajectories=None, ladder=None, cost=None, pictures=(), notes=(), **more
    )


def with_rows(comparison, change):
    """Its first table alone, with every row changed."""
    first = comparison.divergence.tables[0]
    rows = tuple(change(row) for row in first.rows)
    tables = (dataclasses.replace(first, rows=rows),)
    return dataclasses.replace(bare(comparison), divergence=dataclasses.replace(comparison.divergence, tables=tables))


def test_a_page_is_well_formed_and_loads_nothing(same_page, different_page):
    assert complaints(same_page) == []
    assert complaints(different_page) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("</main>", '<script src="https://example.org/x.js"></script></main>'),
        ("</main>", '<img src="https://example.org/x.png" alt="a picture of cells"></main>'),
        ("</main>", '<p id="verdict"></p></main>'),
        ("</section>", ""),
        (' alt="', ' title="'),
        ('href="#layers"', 'href="#nowhere"'),
        ('scope="row"', ""),
    ],
)
def test_what_is_wrong_is_found(same_page, old, new):
    assert complaints(same_page.replace(old, new, 1))


def test_policy_forbids_everything_external(same_page):
    (policy,) = [one["content"] for one in Parsed(same_page).all("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_charts_are_xml_and_refer_to_themselves_alone(same_page):
    charts = svgs(same_page)
    assert len(charts) == 2 + 1 + 5
    for chart in charts:
        for element in chart.iter():
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"<\?xml|<!DOCTYPE|<metadata", "".join(ElementTree.tostring(one, "unicode") for one in charts))


def test_a_page_of_the_same_says_so(same_page):
    text = Parsed(same_page).text
    assert "= SAME The networks are the same: every layer is within its budget, in every pass." in text
    assert "DIFFERENT" not in text
    assert "Where they part" not in text
    errors = sum(len(table.rows) for table in faithful(**SMALL).divergence.tables)
    assert f"none of {errors} are over their budgets" in text
    assert f"Repeat it {COMMAND}" in text
    assert "Not measured: tf32 (this device has no such units)." in text
    assert "Time and memory indicative" in text
    assert "B stays within the band" in text
    assert "jax:ours takes 0.84 of torch:compile+channels_last's time for inference 1x256x256" in text
    assert "64 of 64 tensors are the same in both, in every bit." in text


def test_a_page_of_the_different_names_layer_cause_and_switches(different_page):
    text = Parsed(different_page).text
    assert "≠ DIFFERENT The networks differ: interpolate (output, float64, error 0.037) departs first" in text
    assert "SAME" not in text
    assert "Cause the upsampling uses half-pixel corners instead of align_corners" in text
    assert "half-pixel corners instead of align_corners 3.1e-16 vanishes" in text
    assert "padded with zeros instead of resized 2.1e-02 remains" in text
    assert "align_corners True False differs" in text
    assert "the first over its budget is interpolate" in different_page
    assert "> interpolate" in "".join(part for chart in svgs(different_page) for part in chart.itertext())


def test_alternative_texts_have_the_numbers(same_page):
    texts = [image["alt"] for image in Parsed(same_page).all("img")]
    row = max(faithful(**SMALL).divergence.tables[0].rows, key=lambda row: row.other)
    (found,) = [one for one in texts if one.startswith("Output, cumulative.") and number(row.other) in one]
    assert f"B's is {number(row.other)} at {row.layer}; all within their budgets." in found
    assert any(
        re.match(r"Distance of the weights from A's: B from \S+ to \S+; the band of 4 runs", one) for one in texts
    )
    assert any(re.match(r"\|A - B\|, 000.png: at most \d\.\de-07, in row \d+, column \d+$", one) for one in texts)


def test_errors_that_are_no_numbers(same_page):
    values = iter([math.nan, math.inf] * 100)
    found = with_rows(faithful(**SMALL), lambda row: dataclasses.replace(row, wide=next(values), other=math.nan))
    layer = found.divergence.tables[0].rows[0].layer
    parts = dataclasses.replace(found.divergence, layer=layer, quantity="output", precision="float64", error=math.nan)
    page = render(dataclasses.replace(found, divergence=parts), COMMAND)
    assert complaints(page) == []
    assert "output, by NaN in float64" in Parsed(page).text
    assert "over in float64" in Parsed(page).text
    drawn = " ".join(part for chart in svgs(page) for part in chart.itertext())
    assert drawn.count("NaN/inf") == 2
    assert "NaN/inf" not in " ".join(part for chart in svgs(same_page) for part in chart.itertext())


def test_a_legend_does_not_squeeze_its_panel(different_page):
    """The axes, whose background is `patch_2`, are most of every chart of a training that leaves the band."""
    charts = [chart for chart in svgs(different_page) if "step" in chart.itertext()]
    assert any("outside from step 1" in chart.itertext() for chart in charts)
    for chart in charts:
        background = chart.find(".//*[@id='patch_2']")[0].get("d")
        across = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", background)]
        assert max(across) - min(across) > 0.7 * float(chart.get("viewBox").split()[2])


def test_curves_that_stop_being_numbers():
    found = faithful(**SMALL)
    a, b, *band = found.trajectories.curves
    broken = dataclasses.replace(b, loss=(*b.loss[:6], *[math.nan] * 6), weights=(*b.weights[:6], *[math.inf] * 6))
    trajectories = dataclasses.replace(found.trajectories, curves=(a, broken, *band), left=7)
    page = render(dataclasses.replace(bare(found), trajectories=trajectories), COMMAND)
    assert complaints(page) == []
    drawn = " ".join(part for chart in svgs(page) for part in chart.itertext())
    assert "B: NaN from step 7" in drawn
    assert "B: inf from step 7" in drawn
    assert "outside from step 7" in drawn


def test_a_picture_that_is_no_number():
    found = picture(size=32)
    found.b[3, 5] = np.nan
    found = dataclasses.replace(found, truth=None, rounding=math.nan)
    page = render(dataclasses.replace(bare(faithful(**SMALL)), pictures=(found,)), COMMAND)
    assert complaints(page) == []
    assert "1 pixels are no number (white)" in page
    assert "Some of the differences are no numbers." in page
    assert "Truth" not in page


def test_names_do_no_harm():
    found = different(**SMALL)
    parts = found.divergence
    table = dataclasses.replace(
        parts.tables[0], rows=tuple(dataclasses.replace(row, layer=HOSTILE) for row in parts.tables[0].rows)
    )
    page = render(
        dataclasses.replace(
            found,
            a=dataclasses.replace(found.a, name=HOSTILE, device=HOSTILE, versions={HOSTILE: HOSTILE}),
            b=dataclasses.replace(found.b, config={HOSTILE: HOSTILE}),
            divergence=dataclasses.replace(
                parts, tables=(table,), layer=HOSTILE, cause=HOSTILE, sample=HOSTILE,
                trials=tuple(dataclasses.replace(one, switch=HOSTILE) for one in parts.trials),
            ),
            ladder=dataclasses.replace(found.ladder, absent={HOSTILE: HOSTILE}),
            pictures=tuple(dataclasses.replace(one, name=HOSTILE) for one in found.pictures),
            trajectories=dataclasses.replace(found.trajectories, verdict=HOSTILE, data=HOSTILE, perturbation=HOSTILE),
            notes=(HOSTILE,),
        ),
        HOSTILE,
    )  # fmt: skip
    assert complaints(page) == []
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "{{7*7}}" in page
    assert not {"\x1b", "\u202e", "\udc80"} & set(page)
    page.encode()
    assert r"\n\x1b[31m\u202egpj.exe\udc80" in Parsed(page).text
    drawn = " ".join(part for chart in svgs(page) for part in chart.itertext())
    assert "<script>alert(1)</script>" in drawn


def test_a_page_without_parts_says_what_it_lacks():
    page = render(bare(faithful(**SMALL)), COMMAND)
    assert complaints(page) == []
    missing = "errors of the layers, pictures, trainings side by side, precisions, time and memory"
    assert f"Left out: {missing}." in Parsed(page).text
    assert len(page) < 25_000


def test_incomparable_networks_have_a_short_page():
    page = render(bare(faithful(**SMALL), incomparable="out.weight is 1x64x1x1 and 2x64x1x1"), COMMAND)
    assert complaints(page) == []
    text = Parsed(page).text
    assert "DIFFERENT The networks differ: out.weight is 1x64x1x1 and 2x64x1x1." in text
    assert "Nothing could be run side by side. Left out: errors of the layers" in text
    assert "What the figures mean" not in text


def test_two_networks_of_one_framework_look_different():
    found = with_rows(faithful(**SMALL), lambda row: row)
    page = render(dataclasses.replace(found, b=dataclasses.replace(found.b, framework="torch")), COMMAND)
    drawn = "".join(ElementTree.tostring(one, "unicode") for one in svgs(page)).lower()
    assert "#0072b2" in drawn
    assert "#009e73" in drawn
    assert "#d55e00" not in drawn


def test_a_page_is_the_same_every_time():
    found = with_rows(faithful(**SMALL), lambda row: row)
    assert render(found, COMMAND) == render(found, COMMAND)
    other = dataclasses.replace(found, seconds=1.0)
    assert render(found, COMMAND) != render(other, COMMAND)


def test_an_axis_has_zeros_below_and_no_numbers_above():
    scale = Scale([1e-9, 0.0, 1e-3, math.nan])
    zero, low, high, nan, infinite = scale.place([0.0, 1e-9, 1e-3, math.nan, math.inf])
    assert zero < low < high < nan == infinite
    assert (low, high) == pytest.approx((-9, -3))
    assert np.isnan(scale.place([0.0, math.inf], ends=False)).all()


@pytest.mark.parametrize("values", [(), (0.0,), (math.nan,), (5e-324, 1.7e308), (1e-7, 1e-7), (1e-8, 9e-8)])
def test_an_axis_has_ticks_whatever_the_values(values):
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    Scale(values).apply(panel.xaxis, most=4)
    assert 1 <= len(panel.get_xticks()) <= 6
    assert np.isfinite(panel.get_xlim()).all()


def test_numbers_near_one_are_written_plainly():
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    Scale((0.03, 6.0)).apply(panel.yaxis, most=7)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"]


@pytest.mark.parametrize(("budget", "seen"), [(math.inf, False), (1e-3, True)])
def test_a_budget_that_judges_nothing_is_not_drawn(budget, seen):
    found = with_rows(faithful(**SMALL), lambda row: dataclasses.replace(row, budget=budget))
    page = render(found, COMMAND)
    drawn = {part for chart in svgs(page) for part in chart.itertext()}
    assert ("1e-03" in drawn) == seen
    assert (" none ok" in Parsed(page).text) != seen


def test_a_large_pictures_worst_pixel_is_seen():
    found = picture(size=32)
    a = np.zeros((700, 900), np.float32)
    b = a.copy()
    b[123, 457] = 1
    large = dataclasses.replace(found, image=np.zeros((700, 900, 3)), truth=None, a=a, b=b)
    *_, last = panels_of(large)
    content = base64.b64decode(last.source.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape == (234, 300)
    assert pixels[41, 152] == 254
    assert np.count_nonzero(pixels) == 1
    assert top_of(large) == 1


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_what_is_not_installed_is_said_in_one_line(monkeypatch, package):
    from unet_core.errors import MissingFrameworkError

    for name in [name for name in sys.modules if name.startswith(("unet_compare.", f"{package}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingFrameworkError, match=rf"^the page needs {package}\S*: pip install .*\[report\]'"
    ) as error:
        importlib.import_module("unet_compare.page.page")
    assert "\n" not in str(error.value)
