"""Pictures in a notebook: a matplotlib figure with a sentence that says what it shows."""

from __future__ import annotations

import base64
import io

from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def show(figure: Figure, sentence: str, dpi: int = 90) -> None:
    """Display a figure, and print the sentence: its alternative text, and what a test of the notebook compares.

    Args:
        figure: made with `matplotlib.figure.Figure`, so that no pyplot state is left behind.
        sentence: what the figure shows, with its numbers rounded so that every machine prints the same.
        dpi: pixels for an inch.
    """
    FigureCanvasAgg(figure)
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    png = base64.b64encode(buffer.getvalue()).decode()
    display({"image/png": png, "text/plain": sentence}, metadata={"image/png": {"alt": sentence}}, raw=True)
    print(sentence)
