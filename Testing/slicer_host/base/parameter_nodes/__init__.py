"""``slicer.parameterNodeWrapper``: our own, with the types, validators and widgets of Slicer's."""

from .codecs import FloatRange
from .connectors import Decimals, GuiConnector, SingleStep, createGuiConnector, parameterNodeGuiConnector
from .defaults import Default
from .packs import isParameterPack, nestedParameterNames, parameterPack
from .validators import Choice, Exclude, IsInstance, Maximum, Minimum, NotNone, RangeBounds, Validator, WithinRange
from .wrapper import (
    SlicerParameterNamePropertyName,
    findChildWidgetForParameter,
    isParameterNodeWrapper,
    parameterNodeWrapper,
)

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "FloatRange",
    "GuiConnector",
    "IsInstance",
    "Maximum",
    "Minimum",
    "NotNone",
    "RangeBounds",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "isParameterPack",
    "nestedParameterNames",
    "parameterNodeGuiConnector",
    "parameterNodeWrapper",
    "parameterPack",
]
