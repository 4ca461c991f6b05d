"""The contact sheet in a real browser: it sorts, it filters, and it asks for nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from samcls.audit.finding import Finding, Findings
from samcls.audit.sheet import contact_sheet

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ACT = """
<script>
const said = [];
const ids = () => [...document.querySelectorAll("tbody tr")].filter(r => !r.hidden).map(r => r.cells[3].textContent);
const press = name => [...document.querySelectorAll("th button")].find(b => b.textContent === name).click();
said.push(ids().join());
press("similarity"); said.push(ids().join());
press("similarity"); said.push(ids().join());
document.querySelector("input[value=blank]").click(); said.push(ids().join());
said.push(performance.getEntriesByType("resource").length);
said.push(document.title);
document.body.innerHTML = "<pre>" + said.join("\\n").replaceAll("<", "&lt;") + "</pre>";
</script></body>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt install chromium")
def test_the_contact_sheet_sorts_and_filters_in_a_browser(tmp_path: Path) -> None:
    """By numbers as numbers, both ways; unchecked codes are hidden; names are text, whatever they are."""
    found = Findings(
        "<b>mine</b>",
        4,
        (
            Finding("near", ("a",), ("train",), ("",), 0.95, "first"),
            Finding("near", ("b",), ("test",), ("",), 1.0, "second"),
            Finding("blank", ("<i>c</i>",), ("val",), ("",), 0.5, "third"),
        ),
    )
    page = tmp_path / "audit.html"
    page.write_text(contact_sheet(found).replace("</body>", ACT))
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'p'}",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert said is not None, done.stdout[:500]
    lines = said[1].split("\n")
    assert lines == [
        "a,b,&lt;i&gt;c&lt;/i&gt;",
        "&lt;i&gt;c&lt;/i&gt;,a,b",
        "b,a,&lt;i&gt;c&lt;/i&gt;",
        "b,a",
        "0",
        "Audit of &lt;b&gt;mine&lt;/b&gt;",
    ]
