"""Main names of `wsss_lab.methods.asdt`, imported when they are first used."""

import subprocess
import sys

import pytest

from wsss_lab.methods import asdt


def test_every_promised_name_is_there():
    assert set(asdt._HOMES) == set(asdt.__all__)
    for name in asdt.__all__:
        assert getattr(asdt, name) is not None
    assert asdt.ASDT.__module__ == "wsss_lab.methods.asdt.method"
    assert asdt.PRESETS["voc-released"].quirks == asdt.RELEASED
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = asdt.nothing


def test_importing_the_package_imports_no_method():
    script = (
        "import sys, wsss_lab.methods.asdt\n"
        "assert not [m for m in sys.modules if m.startswith('wsss_lab.methods.asdt.')]"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
