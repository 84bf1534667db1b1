"""TODO."""

from ratecraft._public import set_public_module as _set_public_module

from ._describe import Description as Description
from ._describe import GroupDescription as GroupDescription
from ._describe import breakdown as breakdown
from ._describe import describe as describe
from ._describe import preview as preview
from ._doctor import doctor as doctor
from ._probe import Probe as Probe

_set_public_module(globals())
