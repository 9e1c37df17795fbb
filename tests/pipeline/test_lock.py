import os
import signal
import subprocess
import sys

import pytest

from kun.errors import BusyError
from kun.pipeline.lock import check_free, hold

HOLDER = """
import sys, time
from pathlib import Path
from kun.pipeline.lock import hold
with hold(Path(sys.argv[1]), "kun run stage3"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_with_the_name_of_the_first_and_a_kill_frees_the_lock(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(BusyError, match=rf"'kun run stage3' \(process {holder.pid} "), hold(path, "kun run stage4"):
        pass
    with pytest.raises(BusyError, match=rf"'kun run stage3' \(process {holder.pid} "):
        check_free(path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with hold(path, "kun run stage4"):
        assert "kun run stage4" in path.read_text()
    check_free(path)
    check_free(tmp_path / "of-a-folder-that-was-received-without-one")
