import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from raptorgraph.pl._figure import BeforeDrawing, axes_or_new, check_save, finish, ink, panels, write_figure


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("a/figure.png", FileNotFoundError, r"save='.*figure.png': the folder '.*a' does not exist"),
        ("figure.docx", ValueError, r"'.docx' is no picture format; use one of \[.*'pdf'"),
    ],
)
def test_files_that_cannot_be_written_are_refused(tmp_path, name, error, match):
    with pytest.raises(error, match=match):
        check_save(tmp_path / name)


def test_files_that_can_be_written_are_not_made_yet(tmp_path):
    for name in ("figure.PDF", "figure", "figure.svg"):
        check_save(str(tmp_path / name))
    check_save(None)
    assert list(tmp_path.iterdir()) == []


def test_new_axes_have_the_size_and_given_ones_are_kept():
    ax = axes_or_new(None, (3.0, 2.0))
    assert tuple(ax.figure.get_size_inches()) == (3.0, 2.0)
    assert plt.get_fignums() == [ax.figure.number]
    assert axes_or_new(ax, (9.0, 9.0)) is ax


def test_panels_fill_rows():
    axes = panels(None, (6.0, 4.0), 5, n_columns=3)
    places = [ax.get_subplotspec() for ax in axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert len(axes[0].figure.axes) == 5
    axes[0].set_xlim(0, 7)
    assert axes[1].get_xlim() == (0, 1)


def test_panels_share_limits_in_one_row():
    axes = panels(None, (6.0, 2.0), 3, share=True)
    axes[0].set(xlim=(0, 7), ylim=(-2, 2))
    assert [ax.get_xlim() for ax in axes] == [(0, 7)] * 3
    assert [ax.get_ylim() for ax in axes] == [(-2, 2)] * 3


def test_panels_divide_the_place_of_axes():
    figure = Figure()
    ax = figure.add_axes((0.2, 0.4, 0.6, 0.5))
    axes = panels(ax, (1.0, 1.0), 2)
    assert ax not in figure.axes
    boxes = [panel.get_position() for panel in axes]
    assert (boxes[0].x0, boxes[1].x1) == pytest.approx((0.2, 0.8))
    assert (boxes[0].y0, boxes[0].y1) == pytest.approx((0.4, 0.9))


def test_finish_gives_back_what_was_drawn_or_the_whole_figure(tmp_path):
    figure = Figure()
    ax = figure.subfigures(1, 2)[1].subplots()
    assert finish(ax, show=None, save=None) is ax
    assert finish(ax, show=None, save=tmp_path / "a.png", return_fig=True) is figure
    assert plt.imread(tmp_path / "a.png").ndim == 3
    axes = np.array([ax], dtype=object)
    assert finish(axes, show=False, save=None) is axes


@pytest.mark.parametrize(
    ("color", "letters"),
    [("white", "black"), ("#FFFF00", "black"), ("#00FF00", "black"), ("#0000FF", "white"), ("#FF0000", "white")],
)
def test_letters_are_black_on_light_colors(color, letters):
    assert ink(color) == letters  # luma of ITU-R BT.601: 0.886, 0.587, 0.114, 0.299


class Counter:
    def __init__(self):
        self.n = 0

    def __call__(self, renderer):
        self.n += 1


def test_functions_are_called_before_each_drawing_and_pickled_with_the_figure():
    figure = Figure()
    ax = figure.subplots()
    before = BeforeDrawing(Counter())
    ax.add_artist(before)
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    assert before._function.n == 2
    assert before.get_zorder() < min(line.get_zorder() for line in ax.plot([0, 1]))
    copy = pickle.loads(pickle.dumps(figure))
    copy.draw_without_rendering()
    (again,) = [artist for artist in copy.axes[0].artists if isinstance(artist, BeforeDrawing)]
    assert again._function.n == 3


def test_a_figure_that_cannot_be_drawn_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"whole")

    def half(self, file, **options):
        file.write_bytes(b"half")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(RuntimeError, match="out of memory"):
        write_figure(Figure(), path)
    assert [each.name for each in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"whole"


def test_a_name_without_ending_gets_that_of_matplotlib(tmp_path):
    write_figure(Figure(figsize=(1, 1)), tmp_path / "figure")
    write_figure(Figure(figsize=(1, 1)), str(tmp_path / "other.pdf"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "other.pdf"]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "other.pdf").read_bytes().startswith(b"%PDF")
