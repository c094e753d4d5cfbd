"""The dashboard in a real browser, served as users get it: Chromium against the server process."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import further_kinds
import psutil
import pytest
import showcase
from playwright.sync_api import Page, expect, sync_playwright
from ridgeline_process import COMMAND, interruptible

from ridgeline.dashboard.figures.conditions import QUANTITIES

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW_MS = 30_000


def start(store: Path, port: int) -> subprocess.Popen[str]:
    """The command's server over ``store``."""
    return subprocess.Popen(
        [*COMMAND, "dashboard", "--store", str(store), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(server: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert server.poll() is None, f"the server ended: {server.stderr.read() if server.stderr else ''}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not answer within 60 s")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Address and process of a server over the showcase."""
    store = showcase.make_showcase(Path(tmp_path_factory.mktemp("served")))
    port = free_port()
    server = start(store.path, port)
    try:
        wait_until_healthy(server, port)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("no Chromium: apt-get install chromium (or set CHROMIUM to its path)", pytrace=False)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    yield context.new_page()
    context.close()


def visit(page: Page, address: str, title: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=SLOW_MS)
    # Streamlit marks a script that still runs: what follows looks at the finished page.
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=SLOW_MS)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def chart(page: Page, script: str) -> Any:
    """Evaluate ``script`` with ``gd``, the first Plotly chart of the page."""
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace", state="attached", timeout=SLOW_MS)
    return page.evaluate(f"(() => {{ const gd = document.querySelector('.js-plotly-plot'); return {script}; }})()")


@pytest.mark.parametrize(
    ("path", "title", "charts"), [("", "Overview", 0), ("roofline", "Roofline", 2), ("kernel", "Kernel detail", 2)]
)
def test_pages_draw(served: tuple[str, subprocess.Popen[str]], page: Page, path: str, title: str, charts: int) -> None:
    visit(page, f"{served[0]}/{path}", title)
    expect(page.locator(".js-plotly-plot")).to_have_count(charts, timeout=SLOW_MS)
    expect(page.get_by_text("suite quick")).to_be_visible()
    if not charts:
        expect(page.get_by_test_id("stDataFrame").first).to_be_visible(timeout=SLOW_MS)


def test_nothing_is_fetched_from_elsewhere(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    elsewhere: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((served[0], "data:", "blob:")) else elsewhere.append(r.url))
    for path, title in (("", "Overview"), ("roofline", "Roofline")):
        visit(page, f"{served[0]}/{path}", title)
    chart(page, "1")
    assert elsewhere == []


def test_runs_page(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, f"{served[0]}/runs", "Runs")
    expect(page.get_by_text("Needs attention")).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_text(showcase.OLD_RUN).first).to_be_visible()


def test_every_page_is_reached_from_the_menu(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, served[0], "Overview")
    for title in ("Roofline", "Kernel detail", "Comparisons", "Compiled code", "Models", "Hardware", "Papers", "Runs"):
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=SLOW_MS)
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible(timeout=SLOW_MS)


def test_roofline_axes_points_and_hover(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, f"{served[0]}/roofline", "Roofline")
    axes = chart(page, "[gd._fullLayout.xaxis.type, gd._fullLayout.yaxis.type]")
    assert axes == ["log", "log"]
    titles = page.locator(".js-plotly-plot").first.locator(".infolayer .xtitle, .infolayer .ytitle")
    expect(titles).to_have_text(["arithmetic intensity (FLOP/byte, compulsory bytes)", "performance (FLOP/s)"])
    drawn = chart(page, "gd._fullData.filter(t => t.meta === 'case').reduce((n, t) => n + t.x.length, 0)")
    assert drawn == 12
    first = page.locator(".js-plotly-plot").first
    # Lines, bands, ridge points and cases all are paths of the SVG: as many traces as the figure has.
    assert first.locator(".scatterlayer .trace").count() == chart(page, "gd._fullData.length")
    # The browser keeps the ratio of the decades, so that the names lie along the slopes.
    decades = chart(page, "[gd._fullLayout.xaxis, gd._fullLayout.yaxis].map(a => a._length / (a.range[1]-a.range[0]))")
    assert decades[1] / decades[0] == pytest.approx(chart(page, "gd._fullLayout.yaxis.scaleratio"), rel=1e-3)
    x, y = chart(
        page,
        "(() => { const t = gd._fullData.find(t => t.meta === 'case'), l = gd._fullLayout,"
        " r = gd.getBoundingClientRect();"
        " return [r.left + l.xaxis._offset + l.xaxis.d2p(t.x[0]), r.top + l.yaxis._offset + l.yaxis.d2p(t.y[0])]; })()",
    )
    page.mouse.move(x - 30, y)
    page.mouse.move(x, y, steps=5)
    hover = first.locator(".hoverlayer .hovertext")
    expect(hover).to_contain_text("native_flash", timeout=SLOW_MS)
    for part in ("attention", "T1 S4096", "µs", "GFLOP/s", "GB/s", "roof fraction", "bound by DRAM", "cold cache"):
        expect(hover).to_contain_text(part)


def test_deep_link_filters_and_a_change_is_written_back(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, f"{served[0]}/roofline?operator=gemm&run={showcase.RUN}", "Roofline")
    operators = "[...new Set(gd._fullData.filter(t => t.meta === 'case').map(t => t.legendgroup))].join()"
    assert chart(page, operators) == "gemm"
    expect(page.get_by_test_id("stMultiSelect").first).to_contain_text("gemm")
    page.get_by_role("combobox", name="Precision").click()
    page.get_by_role("option", name="int8").click()
    expect(page).to_have_url(re.compile(r"(?=.*precision=int8)(?=.*operator=gemm)"), timeout=SLOW_MS)
    page.wait_for_function(
        "document.querySelector('.js-plotly-plot')._fullData.filter(t => t.meta === 'case').length === 1",
        timeout=SLOW_MS,
    )


def test_a_step_of_a_model_is_drawn_and_its_device_is_a_link_away(
    served: tuple[str, subprocess.Popen[str]], page: Page
) -> None:
    devices = "devices=nvidia-h100-sxm5-80gb&devices=nvidia-l40s"
    visit(page, f"{served[0]}/models?model=qwen3-8b&phase=decode&{devices}", "Models")
    page.wait_for_selector(".js-plotly-plot .barlayer .trace", state="attached", timeout=SLOW_MS)
    totals = page.evaluate(
        "(() => { const t = document.querySelector('.js-plotly-plot')._fullData;"
        " return [0, 1].map(i => t.reduce((sum, bar) => sum + bar.x[i], 0)); })()"
    )
    # A decode step of one sequence reads the weights: the ratio is that of the bandwidths, 3352 over 864 GB/s.
    assert totals[1] / totals[0] == pytest.approx(3352 / 864, rel=0.02)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Data (CSV)").click()
    rows = list(csv.DictReader(caught.value.path().open()))
    assert {row["device"] for row in rows} == {"NVIDIA H100 SXM5 80 GB", "NVIDIA L40S 48 GB"}
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(sum(totals))
    visit(page, f"{served[0]}/hardware?device=nvidia-l40s", "Hardware")
    assert chart(page, "[gd._fullLayout.xaxis.type, gd._fullLayout.yaxis.type]") == ["log", "log"]
    expect(page.get_by_text("96 MB of L2").first).to_be_visible(timeout=SLOW_MS)


def test_preset_leads_to_the_kernel(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, served[0], "Overview")
    page.get_by_role("link", name="gemm: native_avx512", exact=False).click()
    expect(page.get_by_role("heading", name="Kernel detail", exact=True)).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_text("118 %").first).to_be_visible(timeout=SLOW_MS)
    expect(page).to_have_url(re.compile("record=20261121-003"))


def test_downloads(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, f"{served[0]}/roofline?operator=attention", "Roofline")
    chart(page, "1")
    with page.expect_download(timeout=SLOW_MS) as waiting:
        page.get_by_role("button", name="Data (CSV)").click()
    assert waiting.value.suggested_filename == f"roofline-{showcase.RUN}.csv"
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
    assert {row["operator"] for row in rows} == {"attention"}
    assert len(rows) == 4
    assert sum(row["median_s"] == "" for row in rows) == 1
    with page.expect_download(timeout=SLOW_MS) as waiting:
        page.get_by_role("button", name="Chart (HTML)").click()
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert "native_flash" in text
    assert "Showcase CPU" in text
    assert "cdn.plot.ly" not in text[:200_000], "it must open without a network"
    page.set_content(text)
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace", state="attached", timeout=SLOW_MS)


def test_the_camera_gives_a_png(served: tuple[str, subprocess.Popen[str]], page: Page) -> None:
    visit(page, f"{served[0]}/roofline", "Roofline")
    chart(page, "1")
    page.locator(".js-plotly-plot").first.hover()
    with page.expect_download(timeout=SLOW_MS) as waiting:
        page.locator(".js-plotly-plot").first.locator("[data-title^='Download plot']").click()
    image = Path(waiting.value.path()).read_bytes()
    assert image.startswith(b"\x89PNG")
    width = int.from_bytes(image[16:20])
    assert width == pytest.approx(2 * chart(page, "gd._fullLayout.width"), abs=2)


def test_the_server_listens_on_this_machine_only(served: tuple[str, subprocess.Popen[str]]) -> None:
    address, server = served
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    listening = {
        (c.laddr.ip, c.laddr.port) for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", int(address.rsplit(":", 1)[1]))}


def test_a_taken_port_is_one_line_and_exit_2(served: tuple[str, subprocess.Popen[str]], tmp_path: Path) -> None:
    port = int(served[0].rsplit(":", 1)[1])
    second = start(tmp_path, port)
    out, err = second.communicate(timeout=30)
    assert second.returncode == 2
    assert out == ""
    assert err.splitlines() == [f"port {port} is taken: choose another with --port, or end what uses it"]


def test_a_deep_link_as_the_first_visit_of_a_fresh_server(tmp_path: Path, page: Page) -> None:
    port = free_port()
    server = start(showcase.make_showcase(tmp_path).path, port)
    try:
        wait_until_healthy(server, port)
        visit(page, f"http://127.0.0.1:{port}/kernel?record=20261121-003", "Kernel detail")
        navigation = page.get_by_test_id("stSidebarNav")
        expect(navigation.get_by_role("link", name="Kernel detail")).to_be_visible(timeout=SLOW_MS)
        expect(navigation.get_by_role("link")).to_have_count(10)
        expect(page.get_by_text("118 %").first).to_be_visible(timeout=SLOW_MS)
    finally:
        server.terminate()
        server.communicate(timeout=20)


def test_a_comparison_is_linked_drawn_and_its_left_out_quads_say_why(tmp_path: Path, page: Page) -> None:
    port = free_port()
    server = start(further_kinds.add_further(showcase.make_showcase(tmp_path)).path, port)
    try:
        wait_until_healthy(server, port)
        visit(page, f"http://127.0.0.1:{port}/comparisons?comparison=c-left-out", "Comparisons")
        expect(page.locator(".js-plotly-plot")).to_have_count(2, timeout=SLOW_MS)
        ratios = "gd._fullData.filter(t => t.meta === 'ratio').reduce((n, t) => n + t.x.length, 0)"
        assert chart(page, ratios) == 6
        quads = page.locator(".js-plotly-plot").nth(1)
        quads.scroll_into_view_if_needed()
        x, y = quads.evaluate(
            "gd => { const t = gd._fullData.find(t => t.meta === 'left out'), l = gd._fullLayout,"
            " r = gd.getBoundingClientRect();"
            " return [r.left + l.xaxis._offset + l.xaxis.d2p(t.x[1]), r.top + l.yaxis._offset + l.yaxis.d2p(t.y[1])]; }"
        )
        page.mouse.move(x - 30, y)
        page.mouse.move(x, y, steps=5)
        expect(quads.locator(".hoverlayer .hovertext")).to_contain_text("left out: power limit", timeout=SLOW_MS)
        expect(page).to_have_url(re.compile("comparison=c-left-out"))
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_its_child(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    server = start(tmp_path, port)
    wait_until_healthy(server, port)
    children = psutil.Process(server.pid).children(recursive=True)
    assert children
    server.send_signal(number)
    out, _err = server.communicate(timeout=30)
    assert server.returncode == 0
    assert f"http://127.0.0.1:{port}" in out
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


REAL_SUITE = """
name = "real"
description = "a small real run"
roofs = true
[settings]
budget_s = 0.5
target_relative = 0.3
roofs_s = 10
[[case]]
operator = "gemm"
implementations = ["torch", "triton"]
problems = [{ m = 64, n = 512, k = 512, precision = "float32" }]
[[case]]
operator = "attention"
implementations = ["torch_sdpa"]
problems = [{ batch = 1, q_heads = 4, kv_heads = 2, q_length = 1, kv_length = 2048, head_dim = 64 }]
"""


def on_one_processor() -> None:
    """Before a command starts: it sees one processor, which has half of the roofs that two or more have."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def recorded_of(record: dict[str, Any]) -> list[str]:
    """What some block of a record has a number for, of all that the chart of conditions can show, in its order.

    None of it makes that chart go away. On Linux the load of others is always there; what else is depends on the
    machine.
    """
    return [name for name, _ in QUANTITIES if any(block[name] is not None for block in record["conditions"])]


def test_every_page_over_a_real_run(tmp_path: Path, page: Page) -> None:
    """Measured on this machine by the command, roofs first, and looked at as a user would."""
    suite, store = tmp_path / "real.toml", tmp_path / "store"
    suite.write_text(REAL_SUITE)
    command = [*COMMAND, "run", str(suite), "--store", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, preexec_fn=on_one_processor)
    assert done.returncode == 0, done.stderr
    cases = [r for r in json.loads(done.stdout) if r["role"] == "case"]
    timed = [r for r in cases if r["median_s"] is not None]
    assert {(r["implementation"], r["status"]) for r in cases if r not in timed} == {("triton", "unsupported")}
    assert {r["implementation"] for r in timed} == {"torch", "torch_sdpa"}
    port = free_port()
    server = start(store, port)
    try:
        wait_until_healthy(server, port)
        address = f"http://127.0.0.1:{port}"
        visit(page, address, "Overview")
        expect(page.get_by_text("runs on cuda only").first).to_be_attached(timeout=SLOW_MS)
        visit(page, f"{address}/runs", "Runs")
        expect(page.get_by_text(timed[0]["run_id"]).first).to_be_attached(timeout=SLOW_MS)
        visit(page, f"{address}/roofline", "Roofline")
        names = chart(page, "gd._fullData.filter(t => t.meta === 'case').map(t => t.legendgroup).sort()")
        assert names == ["attention", "gemm"]
        drawn = chart(page, "gd._fullData.filter(t => t.meta === 'case').flatMap(t => Array.from(t.y))")
        assert sorted(drawn) == pytest.approx(sorted(r["flop_per_s"] for r in timed))
        visit(page, f"{address}/roofline?operator=gemm", "Roofline")
        assert chart(page, "gd._fullData.filter(t => t.meta === 'case').map(t => t.legendgroup)") == ["gemm"]
        with page.expect_download(timeout=SLOW_MS) as waiting:
            page.get_by_role("button", name="Data (CSV)").click()
        rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
        assert {row["implementation"] for row in rows} == {"torch", "triton"}
        for record in timed:
            seen = recorded_of(record)
            visit(page, f"{address}/kernel?record={record['record_id']}", "Kernel detail")
            # Charts come one after the other: the last one, against the roof, is waited for before they are counted.
            expect(page.get_by_text("From the ideal to the measured")).to_be_visible(timeout=SLOW_MS)
            charts = page.locator(".js-plotly-plot")
            expect(charts).to_have_count(3 if seen else 2, timeout=SLOW_MS)
            assert not seen or charts.nth(1).evaluate("gd => gd._fullData.map(t => t.meta)") == seen
    finally:
        server.terminate()
        server.communicate(timeout=20)
