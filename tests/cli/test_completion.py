import subprocess

import pytest

from wpl_d2.cli import main

# What bash does at a TAB behind the words.
TAB = """
source ./script
COMP_WORDS=("$@" "") COMP_CWORD=$#
$(complete -p wpl | sed 's/.*-F //; s/ .*//')
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_bash_completes_commands_choices_and_files(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "fields.yaml").touch()

    def complete(*words):
        command = ["bash", "-c", TAB, "bash", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    assert {"train", "cache-boxes"} <= set(complete("wpl"))
    assert "fields.yaml" in complete("wpl", "check")
    assert complete("wpl", "predict", "--model") == ["teacher", "student"]
