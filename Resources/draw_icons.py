"""Draw the icons of the extension and of its modules: ``python Resources/draw_icons.py`` (needs PySide6).

One family: a rounded dark tile with an axial brain on it. The home module's brain carries a small network, the
segmentation's is coloured with the usual colours of the structures, the super-resolution's is cut into thick slices on
one side and whole on the other, the harmonization's has a foreign style on one side and that of the house on the other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui

ROOT = Path(__file__).resolve().parent.parent
SIZE, OVERSAMPLING = 128, 4
CENTRE = QtCore.QPointF(64, 64)


def folded_outline(radius_x: float, radius_y: float, depth: float, folds: int) -> QtGui.QPainterPath:
    """Return a closed outline around the centre with ``folds`` gyri; lengths in icon pixels."""
    path = QtGui.QPainterPath()
    for step in range(361):
        angle = math.radians(step)
        fold = 1 - depth * (0.5 - 0.5 * math.cos(folds * angle)) ** 2
        x, y = 64 + radius_x * fold * math.sin(angle), 64 - radius_y * fold * math.cos(angle)
        if step:
            path.lineTo(x, y)
        else:
            path.moveTo(x, y)
    return path


def ellipse(x: float, y: float, width: float, height: float, turn: float = 0.0) -> QtGui.QPainterPath:
    """Return an ellipse around (x, y), turned by degrees."""
    path = QtGui.QPainterPath()
    path.addEllipse(QtCore.QPointF(0, 0), width / 2, height / 2)
    move = QtGui.QTransform()
    move.translate(x, y)
    move.rotate(turn)
    return move.map(path)


def both_sides(x: float, y: float, width: float, height: float, turn: float = 0.0) -> QtGui.QPainterPath:
    """Return an ellipse ``x`` pixels to the right of the midline and its mirror image."""
    path = ellipse(64 + x, y, width, height, turn)
    path.addPath(ellipse(64 - x, y, width, height, -turn))
    return path


def tile(painter: QtGui.QPainter) -> None:
    """Paint the background that the family shares."""
    gradient = QtGui.QLinearGradient(0, 0, 0, SIZE)
    gradient.setColorAt(0, QtGui.QColor("#2b4a68"))
    gradient.setColorAt(1, QtGui.QColor("#12202f"))
    painter.setPen(QtCore.Qt.PenStyle.NoPen)
    painter.setBrush(gradient)
    painter.drawRoundedRect(QtCore.QRectF(2, 2, 124, 124), 24, 24)


def fill(painter: QtGui.QPainter, path: QtGui.QPainterPath, colour: str, outline: str = "", width: float = 1.5) -> None:
    """Fill a path, with an outline where one is named."""
    painter.setPen(QtGui.QPen(QtGui.QColor(outline), width) if outline else QtCore.Qt.PenStyle.NoPen)
    painter.setBrush(QtGui.QColor(colour))
    painter.drawPath(path)


def midline(painter: QtGui.QPainter, colour: str) -> None:
    """Paint the fissure between the hemispheres, in front and behind."""
    pen = QtGui.QPen(QtGui.QColor(colour), 3)
    pen.setCapStyle(QtCore.Qt.PenCapStyle.RoundCap)
    painter.setPen(pen)
    painter.drawLine(QtCore.QPointF(64, 14), QtCore.QPointF(64, 38))
    painter.drawLine(QtCore.QPointF(64, 90), QtCore.QPointF(64, 114))


def home(painter: QtGui.QPainter) -> None:
    """Paint a grey brain with a small network on it."""
    tile(painter)
    fill(painter, folded_outline(43, 53, 0.11, 18), "#e4eaef", "#93a5b5")
    fill(painter, folded_outline(34, 44, 0.22, 18), "#aebdca")
    midline(painter, "#4d6378")
    columns = {40: (49, 79), 64: (39, 64, 89), 88: (49, 79)}
    points = [[QtCore.QPointF(x, y) for y in column] for x, column in columns.items()]
    painter.setPen(QtGui.QPen(QtGui.QColor("#0b6f78"), 2.6))
    for left, right in pairwise(points):
        for a in left:
            for b in right:
                painter.drawLine(a, b)
    for column in points:
        for point in column:
            fill(painter, ellipse(point.x(), point.y(), 14, 14), "#16bcc4", "#ffffff", 2.6)


def segmentation(painter: QtGui.QPainter) -> None:
    """Paint a brain in the usual colours of its structures."""
    tile(painter)
    fill(painter, folded_outline(43, 53, 0.11, 18), "#cd4a5c", "#ef8c98", 1.2)
    fill(painter, folded_outline(34, 44, 0.22, 18), "#f3f1ea")
    midline(painter, "#2c3e50")
    fill(painter, both_sides(7.5, 52, 8, 22, 16), "#7a1f8a")  # lateral ventricles, front
    fill(painter, both_sides(9, 82, 8, 20, -18), "#7a1f8a")  # and back
    fill(painter, both_sides(15, 48, 8, 17, 12), "#5fb7ea")  # caudate
    fill(painter, both_sides(21.5, 62, 9, 25, 8), "#e667c6")  # putamen
    fill(painter, both_sides(14.5, 63, 6, 15, 10), "#2748b8")  # pallidum
    fill(painter, both_sides(9, 69, 11, 19, -14), "#1f9a52")  # thalamus


def super_resolution(painter: QtGui.QPainter) -> None:
    """Paint a brain of a few thick slices on the left that becomes a smooth one on the right."""
    tile(painter)
    outline, inner = folded_outline(43, 53, 0.11, 18), folded_outline(34, 44, 0.22, 18)
    ventricles = both_sides(8, 58, 9, 34, 10)
    painter.save()
    painter.setClipRect(QtCore.QRectF(64, 0, 64, SIZE))
    fill(painter, outline, "#e4eaef", "#93a5b5")
    fill(painter, inner, "#7d93a8")
    fill(painter, ventricles, "#ffffff")
    painter.restore()
    step = 16
    for top in range(8, 120, step):
        middle = top + step / 2 - 1
        for path, colour in ((outline, "#e4eaef"), (inner, "#7d93a8"), (ventricles, "#ffffff")):
            line = QtGui.QPainterPath()
            line.addRect(QtCore.QRectF(0, middle - 0.5, 64, 1))
            reach = path.intersected(line).boundingRect()
            if not reach.isEmpty():
                fill(painter, rectangle(reach.left(), top, reach.width(), step - 2), colour)
    painter.setPen(QtGui.QPen(QtGui.QColor("#16bcc4"), 3))
    painter.drawLine(QtCore.QPointF(64, 6), QtCore.QPointF(64, 122))


def harmonization(painter: QtGui.QPainter) -> None:
    """Paint a brain of uneven brightness and foreign tint on the left that has the style of the house on the right."""
    tile(painter)
    outline, inner, ventricles = (
        folded_outline(43, 53, 0.11, 18),
        folded_outline(34, 44, 0.22, 18),
        both_sides(8, 58, 9, 34, 10),
    )
    drift = QtGui.QLinearGradient(0, 16, 0, 112)
    drift.setColorAt(0, QtGui.QColor("#f7c877"))
    drift.setColorAt(1, QtGui.QColor("#6b4423"))
    for side, colours in ((0, (drift, "#8a5a2b", "#3a2412")), (64, ("#e4eaef", "#8fa3b5", "#35495e"))):
        painter.save()
        painter.setClipRect(QtCore.QRectF(side, 0, 64, SIZE))
        painter.setPen(QtCore.Qt.PenStyle.NoPen)
        for path, colour in zip((outline, inner, ventricles), colours, strict=True):
            painter.setBrush(QtGui.QColor(colour) if isinstance(colour, str) else colour)
            painter.drawPath(path)
        painter.restore()
    painter.setPen(QtGui.QPen(QtGui.QColor("#16bcc4"), 3))
    painter.drawLine(QtCore.QPointF(64, 6), QtCore.QPointF(64, 122))


def rectangle(x: float, y: float, width: float, height: float) -> QtGui.QPainterPath:
    """Return a rectangle by its corner and size."""
    path = QtGui.QPainterPath()
    path.addRect(QtCore.QRectF(x, y, width, height))
    return path


def more_directions(painter: QtGui.QPainter) -> None:
    """Paint a brain with few measured directions through its middle, and many predicted ones between them."""
    tile(painter)
    fill(painter, folded_outline(43, 53, 0.11, 18), "#5d7388", "#93a5b5")
    for count, colour, reach, width, dot in ((24, "#f08014", 40, 1.8, 7), (6, "#9fd0ff", 47, 3.2, 12)):
        for step in range(count):
            angle = 2 * math.pi * (step + (0.5 if count == 24 else 0.0)) / count
            x, y = 64 + reach * math.sin(angle), 64 - 1.12 * reach * math.cos(angle)
            painter.setPen(QtGui.QPen(QtGui.QColor(colour), width))
            painter.drawLine(CENTRE, QtCore.QPointF(x, y))
            fill(painter, ellipse(x, y, dot, dot), colour, "#ffffff" if dot > 10 else "", 1.6)
    fill(painter, ellipse(64, 64, 12, 12), "#ffffff")


def draw(paint: Callable[[QtGui.QPainter], None], *targets: str) -> None:
    """Paint at four times the size, scale down and save at each target below the repository."""
    image = QtGui.QImage(SIZE * OVERSAMPLING, SIZE * OVERSAMPLING, QtGui.QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(QtCore.Qt.GlobalColor.transparent)
    painter = QtGui.QPainter(image)
    painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
    painter.scale(OVERSAMPLING, OVERSAMPLING)
    paint(painter)
    painter.end()
    small = image.scaled(
        SIZE, SIZE, QtCore.Qt.AspectRatioMode.IgnoreAspectRatio, QtCore.Qt.TransformationMode.SmoothTransformation
    )
    for target in targets:
        if not small.save(str(ROOT / target)):
            raise OSError(f"{target} could not be written")


if __name__ == "__main__":
    application = QtGui.QGuiApplication([])
    draw(home, "Resources/MRIDeepTools.png", "MRIDeepTools/Resources/Icons/MRIDeepTools.png")
    draw(segmentation, "SynthSegment/Resources/Icons/SynthSegment.png")
    draw(super_resolution, "SuperResolve/Resources/Icons/SuperResolve.png")
    draw(harmonization, "Harmonize/Resources/Icons/Harmonize.png")
    draw(more_directions, "DMRIUpsample/Resources/Icons/DMRIUpsample.png")
    os._exit(0)  # PySide6 on Python 3.11 may fault while the interpreter is taken down; everything is written
