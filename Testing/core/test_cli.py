"""The command line as a person and a calling program meet it: one sentence, the right status, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from mri_deep_tools import __version__
from mri_deep_tools.cli import COMMANDS, main
from mri_deep_tools.progress import EVENT_TOKEN


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program as a child process."""
    return subprocess.run(
        [sys.executable, "-m", "mri_deep_tools", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def last_line(text: str) -> str:
    return text.rstrip("\n").rsplit("\n", 1)[-1]


def test_version_names_the_program_and_the_disclaimer():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"mri-deep-tools {__version__}\n")
    assert "Not a medical device" in done.stdout


def test_version_after_a_command(capsys):
    assert main(["segment", "--version"]) == 0
    assert capsys.readouterr().out.startswith(f"mri-deep-tools {__version__}\n")


def test_installed_program_is_the_same():
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="mri-deep-tools")
    assert entry.load() is main


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert f"  {name} " in text
        assert line in text


LEAVES = [
    ("segment",),
    ("info",),
    ("models", "list"),
    ("models", "download"),
    ("models", "import"),
    ("models", "verify"),
]
COMMON = ("device", "threads", "precision", "progress", "overwrite", "quiet", "compatible", "version")


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_the_common_options(words, capsys):
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    for option in COMMON:
        assert f"--{option}" in text, option


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_the_disclaimer(name, capsys):
    assert main([name, "--help"]) == 0
    assert "Not a medical device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no command was given"),
        (("sgement",), "there is no command 'sgement'"),
        (("--quiet", "segment"), "the option '--quiet' stands before the command"),
        (("segment",), "INPUT"),
        (("segment", "a.nii.gz", "b.nii.gz", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("segment", "a.nii.gz", "b.nii.gz", "--device", "gpu"), "'gpu' is not auto, cpu, cuda, cuda:N or mps"),
        (("segment", "a.nii.gz", "b.nii.gz", "--threads", "0"), "'0' is not a whole number from 1"),
        (("segment", "a.nii.gz", "b.nii.gz", "--threads", "two"), "'two' is not a whole number from 1"),
        (("segment", "a.nii.gz", "b.nii.gz", "--precision", "fp8"), "fp8"),
        (("segment", "a.nii.gz", "b.nii.gz", "--prog", "json"), "unrecognized arguments: --prog"),
        (("models",), "ACTION"),
        (("models", "list", "--js"), "unrecognized arguments: --js"),
        (("models", "fetch"), "fetch"),
    ],
)
def test_wrong_requests_get_one_sentence_and_status_2(words, sentence, capsys):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mri-deep-tools: error: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert err.endswith(".\n")


def test_child_process_ends_with_the_same_sentence():
    done = run("sgement")
    assert done.returncode == 2
    assert last_line(done.stderr).startswith("mri-deep-tools: error: there is no command 'sgement'; ")
    assert "Traceback" not in done.stderr


def events(text: str) -> list[dict]:
    return [json.loads(line[len(EVENT_TOKEN) :]) for line in text.splitlines() if line.startswith(EVENT_TOKEN)]


@pytest.mark.parametrize("words", [("--progress", "json", "--nonsense"), ("--nonsense", "--progress=json")])
def test_json_progress_tells_a_wrong_request_as_an_event(words, capsys):
    assert main(["segment", "a.nii.gz", "b.nii.gz", *words]) == 2
    (event,) = events(capsys.readouterr().out)
    assert event["event"] == "error"
    assert event["code"] == "request"
    assert event["message"] == "unrecognized arguments: --nonsense"
    assert "--help" in event["hint"]


CHILD = """
import sys, time
from mri_deep_tools import cli
from mri_deep_tools.commands import models

def run(args, progress):
    {body}

models.run = run
sys.exit(cli.main(["models", "list", *sys.argv[1:]]))
"""


def hear_hangups() -> None:
    """Undo what nohup did to this process, lest the tests depend on how they were started."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def child(body: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program with another body in place of `models list`, to see how any ending is told."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(body=body), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=None if sys.platform == "win32" else hear_hangups,
    )


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ("raise KeyError('voxel')", 1, "an unexpected fault, KeyError: 'voxel'; run again with MRI_DEEP_TOOLS_DEBUG=1"),
        ("raise MemoryError", 1, "the memory ran out; "),
        ("open('/nowhere/at/all.nii.gz')", 2, "No such file or directory: all.nii.gz; check the name."),
        ("raise OSError(28, 'No space left on device', '/x/y.csv')", 1, "No space left on device: y.csv; free some"),
        ("raise PermissionError(13, 'Permission denied', '/x/y.csv')", 1, "Permission denied: y.csv; check the perm"),
        ("raise KeyboardInterrupt", 1, "Cancelled; nothing was written."),
        ("import no_such_package", 2, "the Python package no_such_package is missing; install"),
        ("raise ValueError('two\\nlines')", 1, "ValueError: two lines; run again"),
    ],
)
def test_any_failure_is_one_sentence(body, status, sentence):
    process = child(body)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert last_line(err).startswith("mri-deep-tools: error: ")
    assert sentence in last_line(err)
    assert "Traceback" not in err


def test_traceback_on_request_only():
    process = child("raise KeyError('voxel')", MRI_DEEP_TOOLS_DEBUG="1")
    _, err = process.communicate(timeout=60)
    assert "Traceback" in err
    assert last_line(err).startswith("mri-deep-tools: error: ")


def test_unexpected_fault_as_event():
    process = child("raise KeyError('voxel')", "--progress", "json")
    out, _ = process.communicate(timeout=60)
    assert events(out)[-1]["event"] == "error"
    assert "KeyError" in events(out)[-1]["message"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_cancel_with_a_sentence(number):
    process = child("print('ready', flush=True); time.sleep(120)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, number))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "mri-deep-tools: error: Cancelled; nothing was written.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_hangup_is_ignored_under_nohup():
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", CHILD.format(body="print('ready', flush=True); time.sleep(1)")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_reader_that_leaves_early_is_no_fault():
    process = child("[print('x' * 100, flush=True) for _ in range(100_000)]")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert err == ""


def test_works_in_a_locale_without_unicode():
    done = run("segment", "größe.nii.gz", "x.nii.gz", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert last_line(done.stderr).startswith("mri-deep-tools: error: ")
