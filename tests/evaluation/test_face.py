import subprocess
import sys

import andon.evaluation


def test_the_face_has_what_it_names():
    names = andon.evaluation.__all__
    assert sorted(names) == sorted(set(names))
    for name in names:
        assert getattr(andon.evaluation, name) is not None, name
    namespace = {}
    exec("from andon.evaluation import *", namespace)
    assert set(names) <= set(namespace)


def test_a_first_auroc_loads_nothing_heavy():
    """Half of a second and more each; what needs them imports them then."""
    code = (
        "import sys, andon.evaluation; andon.evaluation.auroc([1, 2], [0, 1]);"
        "print(*({'scipy.stats', 'scipy.ndimage', 'torch', 'cv2', 'PIL', 'sklearn'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


def test_the_statistics_do_without_scipy_stats():
    code = "import sys, andon.benchmark.statistics; print('scipy.stats' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
