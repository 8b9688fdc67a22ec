import subprocess
import sys


def test_weighting_and_losses_import_no_detectron2():
    code = "import sys, wpl_d2.losses, wpl_d2.weighting; sys.exit('detectron2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
