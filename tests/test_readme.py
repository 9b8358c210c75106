"""README is run: every block of Python and shell in it, in order, in one folder, as a newcomer would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import results

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_examples_run(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = ""
    for language, code in BLOCKS:
        if "pytest" in code:
            continue
        code = code.replace("pip install -e . && ", "").replace("8501", "8591")
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    accuracy = float(re.search(r"test at epoch \d+: accuracy (\S+)", printed)[1])
    assert accuracy >= 0.97, "the first command promises LeNet-5 with 97 % on the digits"
    assert '"predictions"' in printed, "curl got no answer"


def test_table_is_that_of_the_manifests(monkeypatch):
    monkeypatch.chdir(ROOT)
    written = README.partition(results.BEGIN)[2].partition(results.END)[0].strip()
    assert written == results.table(), "run: zoo results --write README.md"


def test_published_index_is_that_of_the_manifests(monkeypatch, tmp_path):
    import shutil

    from zoo import artifacts

    shutil.copytree(ROOT / "saved_models", tmp_path / "copy")
    committed = (tmp_path / "copy" / artifacts.INDEX).read_text()
    artifacts.write_index(tmp_path / "copy")
    assert (tmp_path / "copy" / artifacts.INDEX).read_text() == committed


def test_pictures_that_readme_shows_are_there():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture
