import pytest

from raptorgraph import benchmark


@pytest.fixture(scope="session")
def gmt(tmp_path_factory):
    """Gene sets of the small simulated screen, as a file."""
    rows = [f"SET_{k}\tna\t" + "\t".join(f"G{i:04d}" for i in range(k, 56, 5)) for k in range(1, 13)]
    path = tmp_path_factory.mktemp("sets") / "sets.gmt"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def quick(tmp_path_factory, with_few_steps):
    """Run a quick experiment on a simulated screen; those that share fits find them in the same folder."""
    out = tmp_path_factory.mktemp("benchmark")

    def run(name, seeds=2, **options):
        options = {"screen": "simulated", **options}
        with with_few_steps():
            return benchmark.run(name, out=out, seeds=seeds, quick=True, n_jobs=0, progress=False, **options), out

    return run
