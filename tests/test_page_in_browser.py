"""The page of a comparison in a browser: nothing is loaded or complained of, and all of it is seen, on a phone too."""

import base64
import dataclasses
import json

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("selenium")

from comparisons import different

from unet_compare.page.page import render

NAME = "<b>" + "a_very_long_name_without_a_space_" * 8 + "$x$.pt"


@pytest.fixture(scope="module")
def text():
    found = different(layer="interpolate", features=(2, 3), steps=12, pictures=1, passes=("eval",))
    return render(dataclasses.replace(found, a=dataclasses.replace(found.a, name=NAME)), f"unet compare {NAME}")


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page, and tells what the browser said and asked for meanwhile."""

    def visit(text, width=1280):
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(path.as_uri())
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        ours = [one["request"]["url"] for one in requests if one["documentURL"] == path.as_uri()]
        assert ours[0] == path.as_uri()
        said = [entry["message"] for entry in browser.get_log("browser")]
        return said, [url for url in ours[1:] if not url.startswith("data:")]

    return visit


def test_nothing_is_loaded_or_complained_of(visit, text):
    assert visit(text) == ([], [])


def test_what_is_asked_for_is_found_and_refused(visit, text):
    picture = '<img src="http://localhost:9/x.png"><script>document.title = "run"</script></main>'
    said, asked = visit(text.replace("</main>", picture))
    assert len(said) == 2
    assert all("Content Security Policy" in one for one in said)
    assert asked == ["http://localhost:9/x.png"]


@pytest.mark.parametrize("width", [1280, 360])
def test_all_is_seen(visit, browser, text, width):
    visit(text, width)
    sizes = browser.execute_script(
        "return [...document.images].map(one => [one.naturalWidth, one.getBoundingClientRect().width,"
        " one.getBoundingClientRect().height])"
    )
    assert len(sizes) == 2 + 5 + 5
    assert all(min(size) > 20 for size in sizes)
    assert browser.title == f"DIFFERENT: {NAME} and model_jax"
    assert browser.find_element("tag name", "h1").is_displayed()
    verdict = browser.find_element("id", "verdict")
    assert verdict.is_displayed()
    assert verdict.text.split("\n")[:2] == ["≠", "DIFFERENT"]
    assert verdict.rect["y"] < 400


@pytest.mark.parametrize("opened", [False, True])
def test_a_phone_scrolls_down_alone(visit, browser, text, opened):
    visit(text.replace("<details>", "<details open>") if opened else text, 360)
    measure = "return [document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert browser.execute_script(measure) == [360, 360]
    browser.execute_script("document.querySelector('main').style.minWidth = '400px'")
    assert max(browser.execute_script(measure)) > 360


def test_it_prints_with_its_tables(visit, browser, text):
    visit(text)
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF-")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    height = "return [...document.querySelectorAll('details table')].map(one => one.getBoundingClientRect().height)"
    in_print = browser.execute_script(height)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert min(in_print) > 50
    assert not all(
        browser.execute_script(
            "return [...document.querySelectorAll('details table')].map(one => one.checkVisibility())"
        )
    )
