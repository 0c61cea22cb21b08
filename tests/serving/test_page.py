"""The page at `/` in a real browser: by keyboard, in the dark, on a phone, behind a key, and asking nobody else."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.serving.conftest import Service
from tests.ssad.workflows.support import environment, free_port, real_server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

SECONDS = 120.0
"""How long the page may take, on a busy machine."""

KEY = "a key of ours"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=SECONDS * 1000)
        # Else it is 5 s, whatever a page's is, and the page itself looks every 3 s.
        expect.set_options(timeout=SECONDS * 1000)
        yield browser
        browser.close()


def new_page(browser: Browser, **options: Any) -> Page:
    """A page that has time, on a busy machine."""
    page = browser.new_page(**options)
    page.set_default_timeout(SECONDS * 1000)
    return page


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The page, opened; that it asked nobody else and complained of nothing is checked at the end."""
    complaints, asked = [], []
    opened = new_page(browser, viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(str(service.client.base_url))
    expect(opened.locator("#fields input")).to_have_count(5)
    yield opened
    opened.close()
    refused = "Failed to load resource: the server responded with a status of 422"
    assert not [text for text in complaints if refused not in text]
    elsewhere = [url for url in asked if not url.startswith((str(service.client.base_url), "data:"))]
    assert asked
    assert not elsewhere


def csv(service: Service) -> str:
    text: str = pd.DataFrame(service.rows).to_csv(index=False)
    return text


def test_the_page_shows_the_model_and_an_example_that_scores_as_normal(page: Page, service: Service) -> None:
    expect(page.locator("#title")).to_have_text("payments")
    expect(page.locator("#subtitle")).to_have_text("version 1")
    expect(page.locator("#card")).to_contain_text("250")
    page.get_by_role("button", name="Score the row").click()
    expect(page.locator("#answer .region")).to_have_text("normal")
    expect(page.locator("#features tbody tr")).to_have_count(5)


def test_the_card_tells_a_recalibration_apart_from_the_training(page: Page, service: Service) -> None:
    expect(page.locator("#card")).to_contain_text("regions at training")
    told = service.client.get("/v1/model").json()
    recalibrated = {"recalibrated_at": "2026-01-02T00:00:00+00:00", "recalibrated_rows": 4321}
    page.route("**/v1/model", lambda route: route.fulfill(json={**told, **recalibrated}))
    page.reload()
    for text in (
        "recalibrated at2026-01-02",
        "recalibration rows4,321",
        "training rows250",
        "regions at recalibration",
    ):
        expect(page.locator("#card")).to_contain_text(text)


def test_a_row_is_edited_and_scored_by_keyboard_alone(page: Page, service: Service) -> None:
    for _ in range(2):
        page.keyboard.press("Tab")  # past the link to the REST interface
    for value in ("9999", "4", "true", "2025-03-01", "card"):
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(value)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    row = {"amount": 9999, "count": 4, "paid": True, "day": "2025-03-01", "kind": "card"}
    answer = service.client.post("/v1/score", params={"explain": 5}, json={"records": [row]})
    (expected,) = answer.json()["predictions"]
    expect(page.locator("#answer .region")).to_have_text(expected["region"])
    expect(page.locator("#answer dd").nth(1)).to_have_text(f"{expected['confidence']:.3f}")
    names = page.locator("#features tbody tr td:first-child")
    expect(names).to_have_text([feature["column"] for feature in expected["features"]])
    expect(page.locator("#features")).to_contain_text("9999")


def test_a_pasted_table_is_ranked_and_its_rows_explained(page: Page, service: Service) -> None:
    answers = service.score({"records": service.rows}).json()["predictions"]
    page.get_by_label("Paste a CSV").fill(csv(service))
    page.get_by_role("button", name="Score the table").click()
    expect(page.locator("#rows tbody tr")).to_have_count(20)
    order = sorted(range(20), key=lambda at: -answers[at]["score"])
    for place in (0, 7, 19):
        shown = page.locator("#rows tbody tr").nth(place)
        expect(shown).to_contain_text(f"row {order[place] + 1}")
        expect(shown).to_contain_text(answers[order[place]]["region"])
    page.get_by_role("button", name=f"row {order[7] + 1}", exact=True).click()
    expect(page.locator("#answer")).to_contain_text(f"Row {order[7] + 1}")
    expect(page.locator("#answer dd").nth(1)).to_have_text(f"{answers[order[7]]['confidence']:.3f}")


def test_a_file_is_scored_and_its_words_stay_words(page: Page, service: Service, tmp_path: Path) -> None:
    table = pd.DataFrame(service.rows).assign(kind='<img src="x" onerror="document.title=1">, "quoted"')
    table.to_csv(tmp_path / "rows.csv", index=False)
    page.locator("#file").set_input_files(tmp_path / "rows.csv")
    expect(page.locator("#rows tbody tr")).to_have_count(20)
    expect(page.locator("#features tbody")).to_contain_text('onerror="document.title=1">, "quoted"')
    expect(page.locator("img")).to_have_count(0)


def test_a_file_that_is_dropped_anywhere_is_scored(page: Page, service: Service) -> None:
    expect(page.locator("#rows tbody tr")).to_have_count(0)
    dropped = page.evaluate_handle(
        "text => { const d = new DataTransfer(); d.items.add(new File([text], 'rows.csv')); return d; }", csv(service)
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    expect(page.locator("#csv")).to_have_class(re.compile("over"))
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    expect(page.locator("#rows tbody tr")).to_have_count(20)
    expect(page.locator("#csv")).not_to_have_class(re.compile("over"))


def test_a_mistake_is_told_by_the_service_s_own_sentence(page: Page, service: Service) -> None:
    page.get_by_label("Paste a CSV").fill("amount,paid\n1,true\n")
    page.get_by_role("button", name="Score the table").click()
    expect(page.get_by_role("alert")).to_contain_text("the rows lack 3 of the detector's 5 columns")
    page.evaluate("attempt(refresh, true)")  # as the page does by itself every few seconds
    expect(page.get_by_role("alert")).to_contain_text("the rows lack 3 of the detector's 5 columns")
    page.get_by_role("button", name="Score the row").click()
    expect(page.locator("#answer .region")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_row_can_be_scored_once_it_has_fields(browser: Browser, service: Service) -> None:
    page = new_page(browser)
    page.route("**/v1/model", lambda _: None)  # never answered
    page.goto(str(service.client.base_url))
    button = page.get_by_role("button", name="Score the row")
    expect(button).to_be_disabled()
    page.unroute("**/v1/model")
    page.reload()
    expect(button).to_be_enabled()
    expect(page.locator("#fields input")).to_have_count(5)
    page.close()


def test_the_card_follows_a_model_that_is_made_anew_under_the_same_number(page: Page, service: Service) -> None:
    expect(page.locator("#card")).to_contain_text("training rows250")
    told = service.client.get("/v1/model").json()
    page.route("**/v1/model", lambda route: route.fulfill(json={**told, "training_rows": 4321, "stale": True}))
    expect(page.locator("#card")).to_contain_text("training rows4,321")
    expect(page.locator("#card")).to_contain_text("the alias may have moved")


def test_a_page_opened_before_there_is_a_model_shows_it_when_there_is(browser: Browser, service: Service) -> None:
    page = new_page(browser)
    page.route("**/v1/model", lambda route: route.fulfill(status=503, json={"detail": "no model is loaded yet."}))
    page.goto(str(service.client.base_url))
    expect(page.get_by_role("alert")).to_have_text("no model is loaded yet.")
    page.unroute("**/v1/model")
    expect(page.locator("#fields input")).to_have_count(5)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.close()


def test_few_rows_are_counted_and_not_compared(page: Page, service: Service) -> None:
    drift = service.client.get("/v1/drift").json()
    page.route("**/v1/drift", lambda route: route.fulfill(json={**drift, "rows": 1}))
    expect(page.locator("#drift p")).to_have_text("1 row; from 200 on a comparison tells something.")
    expect(page.locator("#drift table")).to_have_count(1)
    page.unroute("**/v1/drift")
    page.route("**/v1/drift", lambda route: route.fulfill(json={**drift, "rows": 200}))
    expect(page.locator("#drift table")).to_have_count(2)


def test_the_histogram_shows_the_intervals_and_counts_what_comes_in(page: Page, service: Service) -> None:
    document = service.client.get("/v1/histogram").json()
    assert len(document["edges"]) == len(document["training"]) + 1 == len(document["recent"]) + 1
    assert sum(document["training"]) == 250
    thresholds = service.client.get("/v1/model").json()["thresholds"]
    finite = [end for end in thresholds.values() if isinstance(end, float)]
    expect(page.locator("#histogram rect")).to_have_count(len(document["training"]))
    expect(page.locator("#histogram .threshold")).to_have_count(len(finite))
    before = sum(document["recent"])
    page.get_by_role("button", name="Score the row").click()
    expect(page.locator("#histogram .here")).to_have_count(1)
    expect(page.locator("#histogram .recent")).to_have_count(0)
    assert sum(service.client.get("/v1/histogram").json()["recent"]) == before + 1
    expect(page.locator("#drift tbody").first).to_contain_text("abnormal")
    page.route("**/v1/histogram", lambda route: route.fulfill(json={**document, "recent": document["training"]}))
    page.get_by_role("button", name="Score the row").click()
    expect(page.locator("#histogram .recent")).to_have_count(1)
    page.unroute("**/v1/histogram")


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_is_dark_where_the_reader_wants_it_dark(
    browser: Browser, service: Service, scheme: str, dark: bool
) -> None:
    page = new_page(browser, color_scheme="dark" if scheme == "dark" else "light")
    page.goto(str(service.client.base_url))
    colors = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    paper, text = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert (paper < text) == dark
    page.close()


@pytest.mark.parametrize("width", [320, 360])
def test_nothing_is_cut_off_on_a_phone(browser: Browser, service: Service, width: int) -> None:
    page = new_page(browser, viewport={"width": width, "height": 740})
    page.goto(str(service.client.base_url))
    page.get_by_label("Paste a CSV").fill(csv(service))
    page.get_by_role("button", name="Score the table").click()
    expect(page.locator("#features tbody tr")).to_have_count(5)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#features").evaluate("e => e.scrollWidth <= e.clientWidth")
    cut = """cells => cells.filter(cell => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map(line => line.top)).size > cell.innerText.split(/ /).length;
    }).map(cell => cell.innerText)"""
    assert page.locator("th, .region").evaluate_all(cut) == []  # no word of ours has a line end in it
    page.close()


def test_a_printed_page_has_every_field_and_row(page: Page, service: Service) -> None:
    page.get_by_label("Paste a CSV").fill(csv(service))
    page.get_by_role("button", name="Score the table").click()
    expect(page.locator("#rows tbody tr")).to_have_count(20)
    whole = "e => e.scrollHeight <= e.clientHeight"
    assert not page.locator("#rows").evaluate(whole)
    page.emulate_media(media="print")
    for part in ("#fields", "#rows"):
        assert page.locator(part).evaluate(whole), part


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_in_a_region_s_colour_can_be_read(
    browser: Browser, service: Service, scheme: Literal["light", "dark"]
) -> None:
    """Contrast with the paper is 4.5 at least [WCAG 2.2, 1.4.3]."""
    page = new_page(browser, color_scheme=scheme)
    page.goto(str(service.client.base_url))
    colors = page.evaluate("""() => ["normal", "unknown", "abnormal"].map(region => {
        document.body.append(regionName(region));
        return getComputedStyle(document.body.lastChild).color;
    }).concat(getComputedStyle(document.body).backgroundColor)""")
    *words, paper = (luminance(color) for color in colors)
    for word in words:
        assert (max(word, paper) + 0.05) / (min(word, paper) + 0.05) >= 4.5, colors
    page.close()


def luminance(color: str) -> float:
    """Relative luminance [WCAG 2.2] of a colour as `rgb(...)`."""
    parts = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_behind_a_key_the_page_asks_for_it(browser: Browser, service: Service, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    env = environment(
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        SSAD_SERVE_API_KEYS=hashlib.sha256(KEY.encode()).hexdigest(),
        SSAD_SERVE_CACHE=str(tmp_path / "cache"),
    )
    model = service.bundle.path.parents[1]
    command = [sys.executable, "-m", "ssad.cli", "serve", "--model", str(model), "--port", str(port)]
    with real_server(command, f"{url}health", tmp_path, env):
        assert httpx.get(f"{url}v1/histogram").status_code == 401
        page = new_page(browser)
        page.goto(url)
        page.get_by_label("API key").fill("another key")
        page.get_by_role("button", name="Use").click()
        expect(page.get_by_role("alert")).to_contain_text("an API key is needed")
        page.get_by_label("API key").fill("a key … of ours")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The key has characters that no key can have; copy it again.")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#fields input")).to_have_count(5)
        expect(page.get_by_role("alert")).to_be_hidden()
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        page.close()


def test_the_documentation_shows_the_columns_and_its_example_runs(page: Page, service: Service) -> None:
    page.goto(str(service.client.base_url.join("/docs")))
    scoring = page.locator(".opblock", has_text="/v1/score")
    scoring.locator(".opblock-summary").click()
    for column in service.rows[0]:
        expect(scoring).to_contain_text(column)
    scoring.get_by_role("button", name="Try it out").click()
    scoring.get_by_role("button", name="Execute").click()
    expect(scoring.locator(".live-responses-table .response-col_status").last).to_contain_text("200")


def test_behind_a_prefix_of_a_proxy_page_and_documentation_ask_the_service(browser: Browser, service: Service) -> None:
    prefix = "http://proxy.example/detectors/payments/"

    def pass_on(route: Route) -> None:
        asked = route.request.url
        if asked.startswith(prefix):
            route.fulfill(response=route.fetch(url=str(service.client.base_url.join(asked.removeprefix(prefix)))))
        else:
            route.fulfill(status=404)

    page = new_page(browser)
    page.route("**/*", pass_on)
    page.goto(prefix)
    expect(page.locator("#fields input")).to_have_count(5)
    page.get_by_role("button", name="Score the row").click()
    expect(page.locator("#answer .region")).to_have_text("normal")
    page.get_by_role("link", name="REST interface").click()
    scoring = page.locator(".opblock", has_text="/v1/score")
    scoring.locator(".opblock-summary").click()
    scoring.get_by_role("button", name="Try it out").click()
    scoring.get_by_role("button", name="Execute").click()
    expect(scoring.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    page.close()
