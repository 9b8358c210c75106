"""The documentation: no broken link, code that runs, pages that match the commands and the public names."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page):
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "code", FENCED.sub("", page.read_text(encoding="utf-8")))


def anchors(page):
    """The anchors of a page's headings, as GitHub and the documentation site make them."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize(
    "script",
    [
        "averaging",
        "few_labels",
        "fine_tuning",
        "generation",
        "jax_scaling",
        "readers",
        "search",
        "speed_table",
        "streaming",
    ],
)
def test_tables_are_those_of_the_results(script, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    written = []
    module = importlib.import_module(script)
    monkeypatch.setattr(module, "write_between", lambda page, mark, text: written.append((page, mark, text)))
    module.draw()
    assert written
    for page, mark, text in written:
        assert f"<!-- {mark} -->\n\n{text}\n\n<!-- end of {mark} -->" in page.read_text(encoding="utf-8")


def test_pages_of_the_site_link_to_pages_of_the_site():
    """A link out of docs/ works on GitHub and not on the site."""
    assert not [page.name for page in ROOT.glob("docs/*.md") if "](../" in prose(page)]


def test_each_page_is_in_the_navigation():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = [one if isinstance(one, str) else next(iter(one.values())) for one in nav]
    assert sorted(listed) == sorted(page.name for page in ROOT.glob("docs/*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["add-a-model.md", "add-a-task.md", "add-a-data-format.md", "artifacts.md"])
def test_examples_of_a_page_run(page, tmp_path):
    """All Python of a page, in order, in a fresh process."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S)
    code = "\n".join(blocks)
    if page == "artifacts.md":
        assert "import zoo" not in code
        code = f"import sys\nsys.modules['zoo'] = None\n{code}"
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    if "saved_models/lenet5" in code:
        shutil.copytree(ROOT / "saved_models" / "lenet5.mnist_paper", tmp_path / "saved_models" / "lenet5.mnist_paper")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_command_line_page_is_that_of_the_commands():
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "docs" / "command_line.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = generator.PAGE.read_text(encoding="utf-8")
    assert written == generator.page(), "run python docs/command_line.py"


def test_api_page_has_every_public_name():
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert {f"zoo.{name}" for name in zoo.__all__} <= set(listed)


def test_every_public_name_is_documented():
    assert not [name for name in zoo.__all__ if not getattr(zoo, name).__doc__]


def test_versions_agree():
    assert f"\nversion: {zoo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {zoo.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_site_builds(tmp_path):
    """Strictly: a page, an anchor or a name of the API that does not exist is an error."""
    pytest.importorskip("zensical")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="zoo.{name}"' in reference for name in zoo.__all__)
