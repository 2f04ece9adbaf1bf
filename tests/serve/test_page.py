"""The inspector in headless Chromium, against a real server."""

import shutil

import pytest
from helpers import until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, server):
    """A page that fails the test at any error of script, policy or network, and at any request to elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on("request", lambda sent: None if sent.url.startswith((server.url, "data:")) else wrong.append(sent.url))
    opened.goto(server.url)
    opened.wait_for_selector("#recs .row")
    yield opened
    assert wrong == []
    context.close()


def true_of(page, script):
    """Wait for an expression; the policy of the page forbids Playwright's own way, which needs eval."""
    until(lambda: page.evaluate(script), 20)


def titles(page):
    return page.locator("#recs .row button").all_inner_texts()


def test_a_user_side_by_side_with_the_recommendations(page, saved):
    rec = saved[0][1]
    page.fill("#who", "u3")
    page.press("#who", "Enter")
    true_of(page, "document.querySelector('#history .row button') && document.querySelector('#who').value === 'u3'")
    want = rec.recommend("u3", 12, explain=True)
    true_of(
        page,
        f"[...document.querySelectorAll('#recs [data-item]')].map(b => b.dataset.item).join() === '{','.join(want)}'",
    )
    assert all("number" in t for t in titles(page))  # titles, not ids
    assert page.locator("#recs .bar").count() == 12
    label = page.locator("#recs .bar").first.get_attribute("aria-label")
    assert all(name in label for name in want.explanations[0]["sources"])
    assert "because of:" in page.locator("#recs .why").first.inner_text()
    assert page.locator("#history .row").count() == 12


def test_sliders_change_the_list(page):
    before = titles(page)
    page.focus("#w-item_item")
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
    true_of(
        page,
        f"[...document.querySelectorAll('#recs .row button')].map(b => b.innerText).join('|') !== {'|'.join(before)!r}",
    )
    page.click("#reset")
    true_of(
        page,
        f"[...document.querySelectorAll('#recs .row button')].map(b => b.innerText).join('|') === {'|'.join(before)!r}",
    )


def test_similar_items_by_click_and_by_keyboard(page, saved):
    first = page.locator("#recs [data-item]").first
    item = first.get_attribute("data-item")
    first.click()
    page.wait_for_selector("#similar [data-item]")
    shown = page.locator("#similar [data-item]").evaluate_all("all => all.map(b => b.dataset.item)")
    assert shown == list(saved[0][1].similar_items(item, 10))
    true_of(page, "points.length === 42 && new Set(points.map(p => `${p.x} ${p.y}`)).size > 30")
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "events" in page.inner_text("#mapsays")
    page.keyboard.press("Enter")
    true_of(page, "document.activeElement.id === 'h-similar'")


def test_typing_offers_users(page):
    page.fill("#who", "")
    page.locator("#who").press_sequentially("u1")
    page.wait_for_selector("#offers [role=option]")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#who", "aria-activedescendant") == "offer-0"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.input_value("#who") == "u10"
    assert page.get_attribute("#who", "aria-expanded") == "false"


def test_somebody_unknown_is_told_so(page):
    page.on("console", lambda said: None)
    page.fill("#who", "u59")
    page.press("#who", "Enter")
    true_of(page, "document.querySelector('#history p')?.innerText.includes('newest first')")


def test_all_is_reached_by_tab_and_labelled(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    assert {"who", "diversity", "w-item_item", "reset"} <= reached
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, button, canvas")].filter(e => e.offsetParent && !(e.labels?.length
        || e.innerText || e.getAttribute("aria-label"))).map(e => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen_and_the_text_can_be_read(browser, server, scheme, width, tmp_path):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#recs .row")
    page.locator("#recs [data-item]").first.click()
    page.wait_for_selector("#similar [data-item]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    least = page.evaluate(
        """(() => {
          const channel = (v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
          const light = (colour) => {
            const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
            return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
          };
          const under = (e) => {
            for (; e; e = e.parentElement) {
              const colour = getComputedStyle(e).backgroundColor;
              if (!colour.endsWith(", 0)")) return colour;
            }
          };
          const shown = [...document.querySelectorAll("h1, h2, p, label, button, span, li, legend")];
          return Math.min(...shown.filter((e) => e.innerText && e.offsetParent).map((e) => {
            const [a, b] = [light(getComputedStyle(e).color), light(under(e))].sort((x, y) => y - x);
            return (a + .05) / (b + .05);
          }));
        })()"""
    )
    assert least >= 4.5
    context.close()


def test_with_keys_the_page_asks_for_one(browser, serve, saved):
    server = serve(saved[0][0], env={"FASTREC_API_KEY": "read:opens"})
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("#key", state="visible")
    page.fill("#key", "opens")
    page.press("#key", "Enter")
    page.wait_for_selector("#recs .row")
    page.close()
